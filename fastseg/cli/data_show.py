"""`fastseg data show`."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from fastseg.errors import ConfigError, FastsegError, OutputError, printable

if TYPE_CHECKING:
    from fastseg.config import Config
    from fastseg.contact_sheet import Tile
    from fastseg.data.dataset import SegDataset
    from fastseg.types import DatasetInfo

SUMMARY = "draw a contact sheet of the samples that a training sees, with their labels"
EXAMPLES = """\
  fastseg data show configs/camvid/fast_scnn.yaml data.root=/data/CamVid
  fastseg data show configs/camvid/fast_scnn.yaml data.root=/data/CamVid --raw --out raw.png
  fastseg data show configs/road_scenes/fast_scnn.yaml augment.rotate=15 --count 6 --overwrite

The samples are the first of the training, augmented as there: same seed, same pictures. --raw shows them as they are.
Left the image, right its classes over it; hatched pixels are ignored. Samples that cannot be read are left out and
named; the exit code is then 1."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", metavar="CONFIG", help="YAML file of a training, such as configs/camvid/fast_scnn.yaml"
    )
    parser.add_argument(
        "overrides", metavar="KEY=VALUE", nargs="*", default=[], help="changes to the file, such as augment.rotate=10"
    )
    parser.add_argument("--out", metavar="FILE", default="contact_sheet.png", help="default: contact_sheet.png")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing FILE")
    parser.add_argument("--count", metavar="N", type=int, default=12, help="samples on the sheet (default: 12)")
    parser.add_argument("--split", help="a split of the data set (default: all that the training reads)")
    parser.add_argument("--raw", action="store_true", help="the samples as they are stored, without augmentation")
    parser.add_argument("--seed", metavar="N", type=int, help="another draw (default: train.seed)")


def run(args: argparse.Namespace) -> int:
    if not 1 <= args.count <= 200:
        raise ConfigError(f"--count is {args.count}; allowed: 1 to 200")
    if args.seed is not None and args.seed < 0:
        raise ConfigError(f"--seed is {args.seed}; allowed: 0 or more")
    from fastseg.cli.common import require_config_first

    require_config_first(args.config)

    from pathlib import Path

    from fastseg.config import load_config
    from fastseg.contact_sheet import contact_sheet
    from fastseg.output import OVERLAY_SUFFIXES, check_target, write_picture

    out = Path(args.out)
    if out.suffix.lower() not in OVERLAY_SUFFIXES:
        raise OutputError(f"{printable(out)}: a sheet is written as {', '.join(OVERLAY_SUFFIXES)}; change the suffix")
    check_target(out, overwrite=args.overwrite)
    config = load_config(args.config, args.overrides)
    if args.seed is not None:
        config.train.seed = args.seed
    tiles, bad, info, title = _samples(config, args.count, args.split, raw=args.raw)
    write_picture(contact_sheet(tiles, info, title), out)
    print(f"wrote {printable(out)}: {title}")
    for message in bad:
        print(f"left out: {message}", file=sys.stderr)
    if bad:
        command = f"fastseg data check {shlex.quote(printable(args.config))}"
        print(f"`{command}` with the same key=value reads every file and lists all that is wrong", file=sys.stderr)
    return 1 if bad else 0


def _samples(
    config: Config, count: int, split: str | None, *, raw: bool
) -> tuple[list[Tile], list[str], DatasetInfo, str]:
    """The first `count` samples that a training of this configuration draws, what is wrong with those that cannot be
    read, the data set, and the sheet's title.

    Raises the error of the first when none can be read.
    """
    import torch

    from fastseg.contact_sheet import Tile
    from fastseg.data.loader import AugmentedDataset, StreamSampler
    from fastseg.engine.build import build_split
    from fastseg.engine.distributed import Processes
    from fastseg.engine.training_data import build_training_data, class_uniform, repeated

    seed, focused = config.train.seed, None
    dataset: SegDataset
    if split is None:
        images, sources = build_training_data(config)
        dataset = shown = repeated(images, sources)
        focused = None if raw else class_uniform(config, shown, Processes(0, 1, torch.device("cpu")), print)
        names = ", ".join(source.name for source in sources)
    else:
        dataset = build_split(config, split)
        names = f"{config.data.name} {split}"
    sampler = StreamSampler(
        len(dataset), batch_size=count, rank=0, world_size=1, seed=seed, start=0, stop=1, class_uniform=focused
    )
    (keys,) = sampler
    tiles: list[Tile] = []
    bad: dict[str, FastsegError] = {}  # by what it says, since a sample may come more than once
    if raw:
        for index in dict.fromkeys(index for _, index, *_ in keys):
            try:
                tiles.append(Tile(*dataset.load(index), dataset.sample_name(index)))
            except FastsegError as error:
                bad[str(error)] = error
        how = "as they are stored"
    else:
        augmented = AugmentedDataset(dataset, config.augment, input_scale=config.input.scale, seed=seed)
        for key in keys:
            sample = augmented[key]
            if isinstance(sample, FastsegError):
                bad[str(sample)] = sample
            else:
                tiles.append(Tile(*sample))
        height, width = config.augment.crop
        how = f"augmented to {width}x{height}"
    if not tiles:
        raise next(iter(bad.values()))
    title = f"{names}: {len(tiles)} of {len(dataset)} samples, {how}, seed {seed} ({config.source})"
    return tiles, list(bad), dataset.info, title
