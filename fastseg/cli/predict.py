"""`fastseg predict`."""

from __future__ import annotations

import argparse

SUMMARY = "label images, folders of images and globs; every result has its image's size"
EXAMPLES = """\
  fastseg predict street.jpg
  fastseg predict photos/ 'more/*.png' --out results --save overlay ids
  fastseg predict street.jpg --weights runs/camvid_fast_scnn --overwrite
  fastseg predict street.jpg --weights espnet_p_2_q_8.pth --weights-format espnet
  fastseg predict street.jpg --weights runs/camvid_gscnn_r50 --edges
  fastseg predict satellite.tif --max-mem 500MB --max-pixels 1000000000
  fastseg predict photos/ --precision bf16 --batch 8 --confidence
  fastseg predict street.jpg --model fast_scnn.onnx --threads 4"""

KINDS = ("overlay", "color", "ids", "edges", "confidence")
DEFAULT_OUT = "fastseg_out"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from fastseg.cli.common import add_predictor_arguments

    parser.add_argument("inputs", metavar="INPUT", nargs="+", help="image file, folder, or quoted glob")
    parser.add_argument(
        "--out", metavar="DIR", default=DEFAULT_OUT, help=f"folder for results (default: {DEFAULT_OUT})"
    )
    parser.add_argument(
        "--save",
        metavar="KIND",
        nargs="+",
        default=["overlay"],
        help="overlay: image under class colours, with legend (default); color: palette PNG; ids: class indices as "
        "PNG; edges, confidence: what these options add",
    )
    parser.add_argument(
        "--edges",
        action="store_true",
        help="save <name>_edges.png, too: grey, 255 for a certain edge; for networks that find edges, such as "
        "gscnn_r50, which then run twice per image",
    )
    parser.add_argument(
        "--confidence",
        action="store_true",
        help="save <name>_confidence.png, too: grey, 255 where the network is certain of its label",
    )
    parser.add_argument(
        "--batch",
        metavar="N",
        type=int,
        default=1,
        help="let up to N neighbours of one size go through the network together: faster for small images (default: 1)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument(
        "--resume", action="store_true", help="go on with a run that was interrupted: leave out what it has finished"
    )
    parser.add_argument("--official", action="store_true", help="with --save ids: the data set's official ids")
    parser.add_argument("--max-pixels", metavar="N", type=int, help="refuse larger images (a guard against bombs)")
    add_predictor_arguments(parser)


def run(args: argparse.Namespace) -> int:
    # `--save overlay street.jpg`: what is no kind after --save is an input
    kinds = [word for word in args.save if word in KINDS or not _is_input(word)]
    inputs = [*args.inputs, *(word for word in args.save if word not in kinds)]

    kinds += [kind for kind in ("edges", "confidence") if getattr(args, kind) and kind not in kinds]

    from fastseg.cli.common import build_predictor, progress_bar
    from fastseg.folders import predict_files
    from fastseg.output import check_kinds
    from fastseg.predict import check_batch_size

    check_kinds(kinds)
    check_batch_size(args.batch)
    limit = {} if args.max_pixels is None else {"max_pixels": args.max_pixels}
    predictor = build_predictor(args)
    with progress_bar("image") as progress:
        summary = predict_files(
            predictor,
            inputs,
            args.out,
            kinds=tuple(kinds),
            overwrite=args.overwrite,
            resume=args.resume,
            official=args.official,
            batch_size=args.batch,
            on_progress=progress,
            **limit,
        )
    print(summary.text())
    if summary.written:
        print(f"results in {args.out}")
    return summary.exit_code


def _is_input(word: str) -> bool:
    from fastseg.weights import names_a_file

    return names_a_file(word) or "." in word or "*" in word
