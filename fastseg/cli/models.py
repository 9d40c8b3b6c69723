"""`fastseg models`."""

from __future__ import annotations

import argparse
from typing import Any

from fastseg.errors import UnknownNameError, suggest

SUMMARY = "list networks: parameters, published weights with score and licence"
EXAMPLES = "  fastseg models\n  fastseg models '*scnn*' --json\n  fastseg models fast_scnn      # with its arguments"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", metavar="NAME|PATTERN", nargs="?", default="*", help="such as '*scnn*'")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from fastseg.models import MODELS

    names = MODELS.names(args.pattern)
    if not names:
        raise UnknownNameError(f"no model matches {args.pattern!r}; {suggest(args.pattern, MODELS.names())}")
    rows = [_describe(name) for name in names]
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    print(_table(rows))
    if args.pattern in MODELS:
        print(f"\narguments of create_model({args.pattern!r}, ...):")
        for argument, default in rows[0]["arguments"].items():
            print(f"  {argument}={default!r}")
        if rows[0]["description"]:
            print(f"\n{rows[0]['description']}")
    return 0


def _describe(name: str) -> dict[str, Any]:
    """One model, at the default arguments of its builder."""
    import inspect

    import torch

    from fastseg.models import MODELS
    from fastseg.weights import published_weights

    with torch.device("meta"):  # shapes without memory or initialisation
        model = MODELS.build(name)
    return {
        "name": name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights": [
            {
                "name": info.name,
                "dataset": info.dataset.name,
                "classes": info.dataset.num_classes,
                "metric_published": info.metric_published,
                "metric_measured": info.metric_measured,
                "licence": info.licence,
            }
            for info in published_weights()
            if info.model == name
        ],
        "arguments": {
            argument: None if parameter.default is parameter.empty else parameter.default
            for argument, parameter in MODELS.arguments(name).items()
        },
        "description": inspect.getdoc(MODELS.get(name)) or "",
    }


def _table(rows: list[dict[str, Any]]) -> str:
    width = max(len("model"), *(len(row["name"]) for row in rows))
    lines = [f"{'model':<{width}}  {'parameters':>12}  weights"]
    for row in rows:
        found = [_weights_line(weights) for weights in row["weights"]] or ["none"]
        lines.append(f"{row['name']:<{width}}  {row['parameters']:>12,}  {found[0]}")
        lines += [f"{'':<{width}}  {'':>12}  {line}" for line in found[1:]]
    return "\n".join(lines)


def _weights_line(weights: dict[str, Any]) -> str:
    metric = weights["metric_measured"] or weights["metric_published"]
    return "; ".join(part for part in (f"{weights['name']}: {metric}".rstrip(": "), weights["licence"]) if part)
