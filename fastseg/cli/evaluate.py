"""`fastseg eval`."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from fastseg.errors import ConfigError

if TYPE_CHECKING:
    from fastseg.data import SegDataset

SUMMARY = "score weights on a labelled data set: IoU per class and category, mIoU, accuracies, iIoU, boundary F-score"
EXAMPLES = """\
  fastseg eval --model fast_scnn --weights camvid --data camvid --root /data/CamVid --split test
  fastseg eval runs/camvid_fast_scnn --root /data/CamVid --split val --scales 0.75 1 1.25 --flip
  fastseg eval espnet_p_2_q_8_camvid.pth --weights-format espnet --root /data/CamVid --protocol camvid_authors
  fastseg eval runs/quickstart --data-args height=160 width=320 --json scores.json
  fastseg eval runs/mine --data mine.yaml --split val
  fastseg eval runs/cityscapes_gscnn_r50 --root /data/cityscapes --split val --boundary"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from fastseg.cli.common import add_predictor_arguments

    parser.add_argument("path", metavar="PATH", nargs="?", help="weights file, checkpoint or run folder")
    add_predictor_arguments(parser)
    parser.add_argument(
        "--data",
        metavar="NAME|FILE",
        help="data set, or a configuration whose data it is (default: the one that the weights were trained on)",
    )
    parser.add_argument("--root", metavar="DIR", help="folder that holds the data set (default: the configuration's)")
    parser.add_argument("--split", default="test", help="train, val, test, or several joined by + (default: test)")
    parser.add_argument(
        "--data-args", metavar="KEY=VALUE", nargs="+", default=[], help="other arguments of the data set"
    )
    parser.add_argument(
        "--protocol",
        default="void_ignored",
        help="void_ignored (default; Cityscapes, PASCAL-Context): void pixels do not count; camvid_authors: "
        "predictions there are false positives; scene_parsing (ADE20K): void_ignored, and absent classes count as 0",
    )
    parser.add_argument(
        "--boundary",
        metavar="PX",
        nargs="*",
        type=_pixels,
        help="boundary F-score per class, too: contours that are right within PX pixels (default: 3 5 9 12, for "
        "1024x2048 as in Gated-SCNN's paper); void never counts; adds up to 0.7 s per image of that size",
    )
    parser.add_argument(
        "--no-instances",
        action="store_true",
        help="leave out the iIoU, which Cityscapes' scores have where the instance maps are there; saves about 0.05 s "
        "of one core per image of 1024x2048",
    )
    parser.add_argument("--limit", metavar="N", type=int, help="only the first N images")
    parser.add_argument("--json", metavar="FILE", help="write scores and settings to FILE, too")


def run(args: argparse.Namespace) -> int:
    from fastseg.cli.common import build_predictor, progress_bar

    if args.path is not None:
        if args.weights is not None:
            raise ConfigError(f"weights were given twice: {args.path} and --weights {args.weights}; give one of them")
        args.weights = args.path if os.sep in args.path else os.path.join(".", args.path)

    from fastseg.engine.boundary_score import PAPER_THRESHOLDS, check_thresholds
    from fastseg.engine.distributed import processes
    from fastseg.engine.evaluate import evaluate, write_json

    thresholds = () if args.boundary is None else check_thresholds(args.boundary or PAPER_THRESHOLDS)
    with processes(args.device or "auto") as procs:  # torchrun shares the images among its processes
        args.device = procs.device
        predictor = build_predictor(args)
        info = predictor.model.weights_info
        name, dataset = find_dataset(args, args.split, None if info is None else info.dataset.name)
        with progress_bar("image") as progress:
            scores = evaluate(
                predictor,
                dataset,
                protocol=args.protocol,
                boundary_thresholds=thresholds,
                instances=not args.no_instances,
                limit=args.limit,
                progress=progress,
            )
    if not procs.is_main:
        return 0
    images = len(dataset) if args.limit is None else min(args.limit, len(dataset))
    print(f"{dataset.info.name}, {args.split}: {images} images")
    print(scores.table())
    if args.json is not None:
        write_json(
            args.json,
            scores,
            model=info.model if info is not None else args.model,
            weights=info.file if info is not None else None,
            sha256=info.sha256 if info is not None else None,
            data=name,
            split=args.split,
            dataset=dataset.info.name,
            images=images,
            scales=args.scales,
            flip=args.flip,
            precision=args.precision,
        )
        print(f"wrote {args.json}")
    return 0


def find_dataset(args: argparse.Namespace, split: str, trained_on: str | None) -> tuple[str, SegDataset]:
    """The data set that `--data`, `--root` and `--data-args` name, or else the one that the weights were trained on,
    and what it is called."""
    from fastseg.cli.common import parse_pairs
    from fastseg.config import DataConfig, load_config
    from fastseg.data import DATASETS, build_dataset

    name = args.data or trained_on
    if name is None:
        raise ConfigError("these weights do not say which data set they are for; name it with --data")
    if args.data is None and name not in DATASETS:
        raise ConfigError(f"the weights were trained on a data set of one's own, {name!r}; name it: --data FILE.yaml")
    data = DataConfig(name)
    if name.endswith((".yaml", ".yml")):
        data = load_config(name).data
    arguments = {**data.args, **parse_pairs(args.data_args, "--data-args")}
    return name, build_dataset(data.name, split, root=args.root or data.root, args=arguments)


def _pixels(text: str) -> float:
    """A distance in pixels. PATH after --boundary would be taken for one: say what to do."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of pixels; PATH goes before --boundary") from None
