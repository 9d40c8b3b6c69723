"""`fastseg env`."""

from __future__ import annotations

import argparse

SUMMARY = "show versions, devices and threads, and packages that are not what they seem"
EXAMPLES = "  fastseg env\n  fastseg env --json > env.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from fastseg.environment import describe_environment, environment_text

    environment = describe_environment()
    print(json.dumps(environment, indent=2) if args.json else environment_text(environment))
    return 0
