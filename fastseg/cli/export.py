"""`fastseg export`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import TYPE_CHECKING

from fastseg.errors import ConfigError, printable, suggest

if TYPE_CHECKING:
    from pathlib import Path

    from fastseg.data import SegDataset
    from fastseg.engine.export import Export
    from fastseg.engine.quantize import Int8Export, Load
    from fastseg.types import SegModel

SUMMARY = "write a network as one file, uint8 image in and uint8 labels out, for ONNX Runtime, OpenVINO or PyTorch"
EXAMPLES = """\
  fastseg export --model fast_scnn --weights camvid --to onnx --out fast_scnn.onnx
  fastseg export runs/mine --to openvino                     # <network>.xml and <network>.bin
  fastseg export --model fast_scnn --to openvino --fp16
  fastseg export --model fast_scnn --weights camvid --to onnx --int8 --data camvid --root /data/CamVid
  fastseg export runs/mine --to openvino --int8 --data photos/
  fastseg predict street.jpg --model fast_scnn.onnx

The file takes any batch, height and width (ESPNet in OpenVINO: from 9 pixels). Before it appears under its name it has
been run at five sizes and compared with the network; exit code 1 says that it gave other labels, and then there is no
file. docs/export.md has more."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from fastseg.cli.common import DEFAULT_MODEL, add_weights_arguments

    parser.add_argument("path", metavar="PATH", nargs="?", help="weights file, checkpoint or run folder")
    parser.add_argument("--model", metavar="NAME", help=f"a name from `fastseg models` (default: {DEFAULT_MODEL})")
    add_weights_arguments(parser)
    parser.add_argument(
        "--to", metavar="FORMAT", help="onnx, openvino, or torch: a .pt2 of torch.export (default: as --out says)"
    )
    parser.add_argument("--out", metavar="FILE", help="default: the network's name, here; .onnx, .xml or .pt2")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    parser.add_argument("--fp16", action="store_true", help="OpenVINO: store weights in half precision")
    parser.add_argument(
        "--int8",
        action="store_true",
        help="onnx and openvino: calibrate on images of --data, and show what it costs on others of them",
    )
    parser.add_argument(
        "--data", metavar="NAME|FILE|DIR", help="for --int8: data set, configuration, or a folder of images"
    )
    parser.add_argument("--root", metavar="DIR", help="folder that holds the data set (default: the configuration's)")
    parser.add_argument("--data-args", metavar="KEY=VALUE", nargs="+", default=[], help="arguments of the data set")
    parser.add_argument("--split", help="of the data set, to score on (default: val)")
    parser.add_argument(
        "--calibration-split",
        metavar="SPLIT",
        help="of the data set, to calibrate on (default: train)",
    )
    parser.add_argument(
        "--calibration-images", metavar="N", type=int, default=100, help="at most, evenly chosen (default: 100)"
    )


def run(args: argparse.Namespace) -> int:
    _check(args)

    from pathlib import Path

    from fastseg.cli.common import resolve_model
    from fastseg.engine.export import ExportCheckError, export_model
    from fastseg.exported import FORMATS
    from fastseg.weights import load_model

    name, weights = resolve_model(args)
    model = load_model(name, weights=weights, weights_format=args.weights_format)
    known = model.weights_info
    path = Path(args.out or f"{known.model if known else name}{FORMATS[args.to]}")
    try:
        if args.int8:
            _report_int8(_export_int8(args, model, path))
        else:
            _report(export_model(model, path, overwrite=args.overwrite, fp16=args.fp16))
    except ExportCheckError as error:
        print(error.check.table())
        print(f"fastseg: error: {error}", file=sys.stderr)
        return 1
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises ConfigError for options that exclude each other, and fills in `to` and `weights`."""
    from fastseg.exported import FORMATS, is_exported

    for given in (args.path, args.model, args.weights):
        if given is not None and is_exported(given):
            raise ConfigError(
                f"{printable(given)} is an exported file already; give the weights file, checkpoint or run folder that "
                "it was made of"
            )
    if args.path is not None:
        if args.weights is not None:
            raise ConfigError(f"weights were given twice: {args.path} and --weights {args.weights}; give one of them")
        args.weights = args.path if os.sep in args.path else os.path.join(".", args.path)
    if args.to is None:
        if args.out is None:
            raise ConfigError(f"say what to write: --to {', '.join(FORMATS)}, or --out FILE")
        suffix = os.path.splitext(args.out)[1].lower()
        formats = [name for name, own in FORMATS.items() if own == suffix]
        if not formats:
            raise ConfigError(f"--out {args.out} has the suffix {suffix!r}; {suggest(suffix, FORMATS.values())}")
        args.to = formats[0]
    if args.to not in FORMATS:
        raise ConfigError(f"unknown format {args.to!r} for --to; {suggest(args.to, FORMATS)}")
    if args.out is not None and not args.out.lower().endswith(FORMATS[args.to]):
        raise ConfigError(f"--to {args.to} writes {FORMATS[args.to]} files; --out is {args.out}")
    if args.int8 and args.fp16:
        raise ConfigError("--int8 and --fp16 exclude each other; keep one")
    if args.int8 and args.data is None:
        raise ConfigError("--int8 needs images of yours: --data with a data set, a configuration or a folder of images")
    for option in ("data", "split", "calibration_split"):
        if getattr(args, option) is not None and not args.int8:
            raise ConfigError(f"--{option.replace('_', '-')} is for --int8; give both, or leave it out")
    args.split = args.split or "val"
    args.calibration_split = args.calibration_split or "train"
    if args.calibration_images < 1:
        raise ConfigError(f"--calibration-images is {args.calibration_images}; give 1 or more")


def _export_int8(args: argparse.Namespace, model: SegModel, path: Path) -> Int8Export:
    from fastseg.cli.common import progress_bar
    from fastseg.cli.evaluate import find_dataset
    from fastseg.engine.quantize import export_int8, image_files

    scored_on: SegDataset | None = None
    compare: list[Load] = []
    if os.path.isdir(args.data):
        files = image_files(args.data)
        calibration, compare = files[::2], files[1::2]
    else:
        _, scored_on = find_dataset(args, args.split, None)
        _, dataset = find_dataset(args, args.calibration_split, None)
        calibration, compare = _images_of(dataset), _images_of(scored_on)
    step = -(-len(calibration) // args.calibration_images)
    with progress_bar("image") as progress:
        return export_int8(
            model,
            path,
            calibration[::step],
            compare=compare,
            scored_on=scored_on,
            overwrite=args.overwrite,
            progress=progress,
        )


def _images_of(dataset: SegDataset) -> list[Load]:
    return [lambda index=index: dataset.load(index)[0] for index in range(len(dataset))]  # type: ignore[misc]


def _report(export: Export) -> None:
    print(f"{export.info.weights_info.model}, run from the file and compared with the network:")
    print(export.check.table())
    _wrote(export)


def _report_int8(found: Int8Export) -> None:
    print(f"{found.export.info.weights_info.model} in int8, calibrated on {found.calibrated_on} images:")
    if found.scores is None:
        print("   mIoU            not measured: these images have no labels")
    else:
        fp32, int8 = (100 * scores.miou for scores in found.scores)
        print(f"   mIoU            fp32 {fp32:.2f}   int8 {int8:.2f}   change {int8 - fp32:+.2f}")
    print(f"   labels equal    {100 * found.agreement:.2f} % of the pixels of {found.compared} images")
    print(f"   size            fp32 {found.fp32_megabytes:.1f} MB   int8 {found.export.megabytes:.1f} MB")
    _wrote(found.export)


def _wrote(export: Export) -> None:
    minimum = export.info.minimum_side
    sizes = "any height and width" if minimum == 1 else f"height and width from {minimum} pixels"
    print(f"wrote {export.path} ({export.megabytes:.1f} MB): uint8 images in, uint8 labels out, any batch, {sizes}")
    print(f"try it: fastseg predict IMAGE --model {shlex.quote(str(export.path))}")
