"""`fastseg submit cityscapes`."""

from __future__ import annotations

import argparse

from fastseg.errors import ConfigError

SUMMARY = "label cityscapes' test images for the benchmark's server, check every result and pack them"
EXAMPLES = """\
  fastseg submit cityscapes --weights runs/cityscapes_gscnn_r50 --root /data/cityscapes --out gscnn.zip
  fastseg submit cityscapes --weights best.pt --root /data/cityscapes --scales 0.75 1 1.25 --flip
  fastseg submit cityscapes --weights best.pt --root /data/cityscapes --split val --out val.zip
  fastseg submit cityscapes --check results/ --root /data/cityscapes"""
DEFAULT_OUT = "submission.zip"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from fastseg.cli.common import add_predictor_arguments

    parser.add_argument("--root", metavar="DIR", required=True, help="folder that holds cityscapes, or its archives")
    parser.add_argument("--split", default="test", help="test (default), or val, whose labels are public")
    parser.add_argument("--out", metavar="FILE", help=f"zip archive to write (default: {DEFAULT_OUT})")
    parser.add_argument("--overwrite", action="store_true", help="replace the archive if it exists")
    parser.add_argument(
        "--check",
        metavar="PATH",
        help="predict nothing: check the results in this folder or zip archive, and list all that is wrong with them",
    )
    parser.add_argument(
        "--partial", action="store_true", help="take the images that are there, if they are not all (1,525 in test)"
    )
    add_predictor_arguments(parser)


def run(args: argparse.Namespace) -> int:
    for option, given in (("--out", args.out), ("--weights", args.weights), ("--model", args.model)):
        if args.check is not None and given is not None:
            raise ConfigError(f"--check {args.check} predicts nothing, so {option} {given} has no use; leave one out")
    if args.check is None and args.weights is None:
        raise ConfigError("name the weights to submit with --weights (--check PATH checks results that exist)")
    return _submit(args) if args.check is None else _check(args)


def _submit(args: argparse.Namespace) -> int:
    from fastseg.cli.common import build_predictor, progress_bar
    from fastseg.data.findings import number_of
    from fastseg.engine.submit import split_images, submit

    images = split_images(args.root, args.split, partial=args.partial)
    out = args.out or DEFAULT_OUT
    with progress_bar("image") as progress:
        size = submit(build_predictor(args), images, out, overwrite=args.overwrite, progress=progress)
    written = number_of(len(images), "result")
    print(f"wrote {out}: {written} of cityscapes {args.split}, all checked ({size / 1e6:.1f} MB)")
    return 0


def _check(args: argparse.Namespace) -> int:
    from fastseg.cli.common import progress_bar
    from fastseg.data.findings import number_of
    from fastseg.engine.submit import check_results, find_results, split_images

    results = find_results(args.check)
    images = split_images(args.root, args.split, partial=args.partial)
    with progress_bar("image") as progress:
        faults = check_results(results, images, progress=progress)
    counts = f"{number_of(len(results), 'result')} for {number_of(len(images), 'image')}"
    print("\n".join([*faults, f"{counts}: {number_of(len(faults), 'fault') if faults else 'no faults'}"]))
    return 1 if faults else 0
