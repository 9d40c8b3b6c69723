"""`fastseg bench data`."""

from __future__ import annotations

import argparse

from fastseg.errors import ConfigError, printable

SUMMARY = "time the loading of a configuration's training data and say how many cores its network needs"
EXAMPLES = """\
  fastseg bench data configs/camvid/fast_scnn.yaml data.root=/data/CamVid
  fastseg bench data configs/cityscapes/bisenet_r18.yaml --cache data.cache_dir=/scratch --json loader.json
  fastseg bench data configs/road_scenes/fast_scnn.yaml --no-network --seconds 3

one core, one thread, files and cache already in memory; a slow disk changes the numbers."""


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
        "--seconds", metavar="S", type=float, default=10.0, help="how long to load, and to train (default: 10)"
    )
    parser.add_argument(
        "--cache", action="store_true", help="build the cache on disk (data.cache=disk) if it is not there, and time it"
    )
    parser.add_argument("--no-network", action="store_true", help="do not time the network's training step")
    parser.add_argument("--json", metavar="FILE", help="write the numbers to FILE, too")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing FILE")


def run(args: argparse.Namespace) -> int:
    if not 0 < args.seconds <= 3600:
        raise ConfigError(f"--seconds is {args.seconds}; allowed: above 0, up to 3600")
    from fastseg.cli.common import require_config_first

    require_config_first(args.config)

    import json
    from pathlib import Path

    from fastseg.atomic import write_atomically
    from fastseg.config import load_config
    from fastseg.engine.bench_data import bench_data
    from fastseg.engine.distributed import processes
    from fastseg.output import check_target, check_writable

    config = load_config(args.config, args.overrides)
    if args.json is not None:
        check_target(Path(args.json), overwrite=args.overwrite)
        check_writable(Path(args.json))
    with processes(config.train.device) as procs:
        bench = bench_data(
            config, seconds=args.seconds, cache=args.cache, network=not args.no_network, procs=procs, say=_say
        )
    print(f"\n{bench.table()}")
    if args.json is not None:
        write_atomically(Path(args.json), (json.dumps(bench.to_dict(), indent=2) + "\n").encode())
        print(f"\nwrote {printable(args.json)}")
    return 0


def _say(text: str) -> None:
    print(text, flush=True)
