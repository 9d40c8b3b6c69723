"""`fastseg data inspect`."""

from __future__ import annotations

import argparse

SUMMARY = "look through a folder of images and labels, and write the configuration that trains on it"
EXAMPLES = """\
  fastseg data inspect /data/mine                            # writes mine.yaml here
  fastseg data inspect /data/mine --out configs/mine.yaml
  fastseg train mine.yaml                                    # then; `fastseg data check mine.yaml` reads every file"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", metavar="DIR", help="folder with images and labels, in any folders below it")
    parser.add_argument("--out", metavar="FILE", help="the configuration (default: the folder's name + .yaml, here)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE where it exists")
    parser.add_argument("--limit", metavar="N", type=int, help="read N pairs only, evenly spaced (default: all)")


def run(args: argparse.Namespace) -> int:
    from pathlib import Path

    from fastseg.atomic import write_atomically
    from fastseg.cli.common import progress_bar
    from fastseg.data.folder_yaml import configuration, report
    from fastseg.data.inspect_folder import inspect_folder
    from fastseg.errors import ConfigError, DataError, printable
    from fastseg.output import check_target

    name = Path(args.dir).expanduser().absolute().resolve().name or "data"
    target = Path(args.out) if args.out is not None else Path(f"{name}.yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--out is {printable(target)}; a configuration is a .yaml file")
    check_target(target, overwrite=args.overwrite)
    with progress_bar("pair") as progress:
        found = inspect_folder(args.dir, limit=args.limit, progress=progress)
    print(report(found))
    if found.refusal:
        raise DataError(f"{found.refusal}. No configuration was written")
    write_atomically(target, configuration(found, name).encode())
    print(f"\nwrote {printable(target)}; read the names in it, then: fastseg train {printable(target)}")
    return 1 if found.survey.problems else 0
