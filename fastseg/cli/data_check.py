"""`fastseg data check`."""

from __future__ import annotations

import argparse

from fastseg.errors import ConfigError, printable

SUMMARY = "read every file of a configuration's data and list all that is wrong with it"
EXAMPLES = """\
  fastseg data check configs/camvid/fast_scnn.yaml data.root=/data/CamVid
  fastseg data check configs/camvid/fast_scnn.yaml --splits train val test --json report.json

errors stop or spoil a training: files that are missing or cannot be read, label values that the data set does not
define, labels of another size than their image, images both trained on and held out. Exit code 1 if there are any.
where files lack their partner the pairs are read all the same if the data set can skip the rest (folder can); else the
error says that the split was not read.
warnings may: classes that never occur, copies, labels without a class, images of one colour. Exit code 0."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", metavar="CONFIG", help="YAML file of a training, such as configs/camvid/fast_scnn.yaml"
    )
    parser.add_argument(
        "overrides",
        metavar="KEY=VALUE",
        nargs="*",
        default=[],
        help="changes to the file, such as data.root=/data/CamVid",
    )
    parser.add_argument(
        "--splits",
        metavar="SPLIT",
        nargs="+",
        help="splits of the data set (default: those that the configuration trains and scores on)",
    )
    parser.add_argument("--workers", metavar="N", type=int, help="files that are read at once (default: one a core)")
    parser.add_argument("--json", metavar="FILE", help="write everything to FILE, too")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing FILE")


def run(args: argparse.Namespace) -> int:
    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers is {args.workers}; allowed: 1 or more")

    import json
    from pathlib import Path

    from fastseg.atomic import write_atomically
    from fastseg.cli.common import progress_bar, require_config_first
    from fastseg.config import load_config
    from fastseg.data.doctor import check
    from fastseg.output import check_target

    require_config_first(args.config)
    config = load_config(args.config, args.overrides)
    if args.json is not None:
        check_target(Path(args.json), overwrite=args.overwrite)
    with progress_bar("image") as progress:
        report = check(config, args.splits, workers=args.workers, progress=progress)
    if args.json is not None:
        write_atomically(Path(args.json), (json.dumps(report.to_dict(), indent=2) + "\n").encode())
        print(f"wrote {printable(args.json)}\n")
    print(report.text())
    return 1 if report.errors else 0
