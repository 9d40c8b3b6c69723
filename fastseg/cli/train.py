"""`fastseg train`."""

from __future__ import annotations

import argparse
import signal

from fastseg.errors import ConfigError

SUMMARY = "train a network as a configuration file says"
EXAMPLES = """\
  fastseg train configs/road_scenes/fast_scnn.yaml
  fastseg train configs/camvid/fast_scnn.yaml data.root=/data/CamVid train.total_batch=16
  fastseg train configs/camvid/fast_scnn.yaml --resume auto
  fastseg train configs/camvid/fast_scnn.yaml --dry-run
  NPROC=2 tools/dist_train.sh configs/road_scenes/fast_scnn.yaml      # several processes"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="YAML file, such as configs/camvid/fast_scnn.yaml")
    parser.add_argument(
        "overrides",
        metavar="KEY=VALUE",
        nargs="*",
        default=[],  # without it argparse lists them among the required arguments
        help="changes to the file, such as optim.lr=0.02 run_dir=runs/a",
    )
    parser.add_argument(
        "--resume",
        default="no",
        metavar="auto|no|PATH",
        help="auto: go on from the run's last checkpoint, where there is one; PATH: from that one (default: no)",
    )
    parser.add_argument(
        "--resume-allow",
        metavar="KEY[,KEY...]",
        default="",
        help="with --resume: keys that may differ from the interrupted run's, and world_size, the number of processes; "
        "the run is then not the one it would have been",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="build the network and take two steps on random images; reads no data and no backbone weights",
    )
    # torch.distributed.launch of old passes the rank as an option; torchrun sets LOCAL_RANK, which counts
    parser.add_argument("--local-rank", "--local_rank", default=None, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    scripts = [text for text in [args.config, *args.overrides] if text.endswith(".sh")]
    if scripts:
        raise ConfigError(
            f"{scripts[0]} is a script, not a configuration: `bash exp/*.sh` runs the first script with the others as "
            'its arguments; to run them one after the other, type: for f in exp/*.sh; do bash "$f"; done'
        )
    from fastseg.cli.common import require_config_first

    require_config_first(args.config)

    from fastseg.config import load_config
    from fastseg.engine.train import train

    config = load_config(args.config, args.overrides)
    allow = [key.strip() for key in args.resume_allow.split(",") if key.strip()]
    result = train(config, resume=args.resume, resume_allow=allow, dry_run=args.dry_run)
    return 128 + signal.Signals[result.stopped] if result.stopped else 0
