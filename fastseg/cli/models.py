"""`fastseg models`."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastseg.errors import ConfigError, UnknownNameError, suggest

if TYPE_CHECKING:
    from fastseg.models.facts import ModelFacts
    from fastseg.registry import Registry

SUMMARY = "list networks with parameters, multiply-adds, scores and weights, or backbones, or heads"
EXAMPLES = """\
  fastseg models
  fastseg models '*net*' --max-gmacs 50 --sort params
  fastseg models fast_scnn                 # with its arguments, auxiliary outputs and sources
  fastseg models --backbones resnet18
  fastseg models --json"""

CODE_LICENCE = "Apache-2.0"
WIDTH = 112
SORT_KEYS = {
    "name": lambda row: row["name"],
    "params": lambda row: (row["parameters"], row["name"]),
    "gmacs": lambda row: (row["gmacs"]["1024x2048"], row["name"]),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", metavar="NAME|PATTERN", nargs="?", default="*", help="such as '*scnn*'")
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--backbones", action="store_true", help="list backbones: parameters, strides, channels")
    parts.add_argument("--heads", action="store_true", help="list heads")
    parser.add_argument("--pretrained", action="store_true", help="only networks with published weights")
    parser.add_argument("--max-params", metavar="NUMBER", type=_number, help="such as 5M: at most so many parameters")
    parser.add_argument("--max-gmacs", metavar="NUMBER", type=float, help="at most so many GMACs at 1024x2048")
    parser.add_argument("--sort", choices=tuple(SORT_KEYS), default="name", help="default: name")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    import json

    from fastseg.models import BACKBONES, HEADS, MODELS
    from fastseg.models.facts import model_facts

    if args.backbones or args.heads:
        if args.pretrained or args.max_params is not None or args.max_gmacs is not None or args.sort != "name":
            raise ConfigError(
                "--pretrained, --max-params, --max-gmacs and --sort are for networks; leave them out here"
            )
        names = _matching(BACKBONES if args.backbones else HEADS, args.pattern)
        rows = [describe_backbone(name) if args.backbones else describe_head(name) for name in names]
        text = _backbone_text if args.backbones else _head_text
    else:
        names = _matching(MODELS, args.pattern)
        rows = _filtered([describe_model(name, model_facts(name)) for name in names], args)
        text = _model_text
    print(json.dumps(rows, indent=2) if args.json else text(rows, detailed=args.pattern in names))
    return 0


def describe_model(name: str, facts: ModelFacts) -> dict[str, Any]:
    """One network, at the default arguments of its builder: what we counted, what others published, our weights."""
    import inspect
    from dataclasses import asdict

    from fastseg.models import MODELS
    from fastseg.models.papers import PAPERS, Paper
    from fastseg.weights import published_weights

    paper = PAPERS.get(name, Paper(network=name))
    return {
        "name": name,
        "network": paper.network,
        "title": paper.title,
        "url": paper.url,
        "parameters": facts.parameters,
        "parameters_training": facts.parameters_training,
        "gmacs": {size: facts.gmacs(size) for size in facts.macs},
        "stride": facts.stride,
        "aux": dict(facts.aux),
        "published": [asdict(score) for score in paper.scores],
        "reference": asdict(paper.reference) if paper.reference else None,
        "note": paper.note,
        "caveat": paper.caveat,
        "licence": CODE_LICENCE if name in PAPERS else "",
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
        "arguments": _arguments(MODELS, name),
        "description": inspect.getdoc(MODELS.get(name)) or "",
    }


def describe_backbone(name: str) -> dict[str, Any]:
    """One backbone, at the default arguments of its builder."""
    import inspect

    import torch

    from fastseg.models import BACKBONES
    from fastseg.models.backbones.pretrained import IN_TORCHVISION
    from fastseg.models.facts import count_parameters

    with torch.device("meta"):
        backbone = BACKBONES.build(name)
    arguments = _arguments(BACKBONES, name)
    return {
        "name": name,
        "parameters": count_parameters(backbone),
        "strides": [info.stride for info in backbone.feature_info],
        "channels": [info.channels for info in backbone.feature_info],
        "pretrained": name in IN_TORCHVISION,
        "arguments": arguments,
        "description": inspect.getdoc(BACKBONES.get(name)) or "",
    }


def describe_head(name: str) -> dict[str, Any]:
    """One head with 19 classes over the maps of a ResNet-18, at its default arguments."""
    import inspect

    import torch

    from fastseg.models import HEADS
    from fastseg.models.facts import count_parameters
    from fastseg.types import FeatureInfo

    info = tuple(FeatureInfo(64 * 2**i, 4 * 2**i) for i in range(4))
    with torch.device("meta"), torch.no_grad():
        head = HEADS.build(name, info, 19).eval()
        maps = [torch.zeros(1, map_.channels, 1024 // map_.stride, 1024 // map_.stride) for map_ in info]
        stride = 1024 // head(maps).shape[-1]
    arguments = _arguments(HEADS, name)
    options = {key: value for key, value in arguments.items() if key not in ("feature_info", "num_classes")}
    return {
        "name": name,
        "parameters": count_parameters(head),
        "stride": stride,
        "arguments": options,
        "description": inspect.getdoc(HEADS.get(name)) or "",
    }


def short_metric(weights: dict[str, Any]) -> str:
    """'57.55 mIoU on CamVid test (233 images, ...), 2026-11-21' -> '57.55 CamVid test'; '' before it is measured."""
    found = re.match(r"([\d.]+) mIoU on ([^(,;]+)", weights["metric_measured"])
    return f"{found[1]} {found[2].strip()}" if found else ""


def short_score(row: dict[str, Any]) -> str:
    """'75.5 test (paper)' of a network: its first score, the source up to its first comma, and the caveat."""
    if not row["published"]:
        return ""
    score = row["published"][0]
    remarks = "; ".join(part for part in (score["source"].split(",")[0], row["caveat"]) if part)
    return f"{score['miou']} {score['split']} ({remarks})"


def first_metric(row: dict[str, Any]) -> str:
    """`short_metric` of the first weights of a network that were measured."""
    return next(filter(None, map(short_metric, row["weights"])), "")


def number(gmacs: float) -> str:
    """6.71, 27.8, 103.7, 2,094."""
    return f"{gmacs:,.0f}" if gmacs >= 1000 else f"{gmacs:.1f}" if gmacs >= 10 else f"{gmacs:.2f}"


def _number(text: str) -> float:
    """'5M' -> 5e6."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no number such as 1500000, 900k or 5M")
    return float(found[1]) * {"": 1.0, "k": 1e3, "m": 1e6}[found[2].lower()]


def _matching(registry: Registry[Any], pattern: str) -> list[str]:
    names = registry.names(pattern)
    if not names:
        raise UnknownNameError(f"no {registry.kind} matches {pattern!r}; {suggest(pattern, registry.names())}")
    return names


def _filtered(rows: list[dict[str, Any]], args: argparse.Namespace) -> list[dict[str, Any]]:
    kept = [
        row
        for row in rows
        if (row["weights"] or not args.pretrained)
        and (args.max_params is None or row["parameters"] <= args.max_params)
        and (args.max_gmacs is None or row["gmacs"]["1024x2048"] <= args.max_gmacs)
    ]
    if not kept:
        least = min(rows, key=SORT_KEYS["params"])
        raise ConfigError(
            f"none of the networks that match {args.pattern!r} meets the other conditions; the smallest is "
            f"{least['name']} with {least['parameters']:,} parameters and {number(least['gmacs']['1024x2048'])} GMACs"
        )
    return sorted(kept, key=SORT_KEYS[args.sort])


def _arguments(registry: Registry[Any], name: str) -> dict[str, Any]:
    return {
        argument: None if parameter.default is parameter.empty else parameter.default
        for argument, parameter in registry.arguments(name).items()
    }


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: tuple[int, ...]) -> str:
    """Lines of aligned columns; those numbered in `right` are aligned to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in [header, *rows]:
        cells = [c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _model_table(rows: list[dict[str, Any]]) -> str:
    cells = [
        (
            row["name"],
            f"{row['parameters']:,}",
            number(row["gmacs"]["1024x2048"]),
            str(row["stride"]),
            short_score(row),
            first_metric(row),
            row["licence"],
        )
        for row in rows
    ]
    header = ("network", "parameters", "GMACs", "stride", "mIoU published", "mIoU ours", "licence")
    lines = [
        _columns(header, cells, right=(1, 2, 3)),
        "",
        "19 classes. GMACs: billions of multiply-adds for one image of 1024x2048. stride: of the logits.",
        "mIoU published: on Cityscapes, by others; mIoU ours: of the published weights.",
        "licence: of the code. Weights have their own terms:",
    ]
    published = [(row["name"], weights) for row in rows for weights in row["weights"]]
    lines += [line for name, weights in published for line in _weights_lines(name, weights)] or ["  no weights"]
    return "\n".join(lines)


def _weights_lines(name: str, weights: dict[str, Any]) -> list[str]:
    metric = weights["metric_measured"] or weights["metric_published"]
    text = "; ".join(part for part in (metric, f"licence: {weights['licence']}" if weights["licence"] else "") if part)
    return _wrapped(f"{name} {weights['name']}: {text}")


def _wrapped(text: str, *, indent: int = 2) -> list[str]:
    first, rest = " " * indent, " " * (indent + 4)
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def _model_text(rows: list[dict[str, Any]], *, detailed: bool) -> str:
    return "\n".join([_model_table(rows), *(_model_details(rows[0]) if detailed else [])])


def _model_details(row: dict[str, Any]) -> list[str]:
    with_aux = f"; {row['parameters_training']:,} with auxiliary heads" if row["aux"] else ""
    facts = [
        ("paper", " ".join(part for part in (row["title"], row["url"]) if part)),
        ("parameters", f"{row['parameters']:,}{with_aux}"),
        ("GMACs", ", ".join(f"{number(gmacs)} at {size}" for size, gmacs in row["gmacs"].items())),
        (
            "auxiliary",
            ", ".join(
                f"{name} ({f'stride {stride}' if stride else 'one per image'})" for name, stride in row["aux"].items()
            ),
        ),
        *(("published", f"{score['miou']} on {score['split']}: {score['source']}") for score in row["published"]),
        ("reference", _reference(row["reference"]) if row["reference"] else ""),
        ("note", row["note"]),
    ]
    lines = [line for key, text in facts if text for line in _wrapped(f"{key}: {text}", indent=0)]
    return ["", *lines, *_builder_lines("create_model", row)]


def _builder_lines(function: str, row: dict[str, Any]) -> list[str]:
    lines = [f"  {argument}={default!r}" for argument, default in row["arguments"].items()]
    description = ["", row["description"]] if row["description"] else []
    return ["", f"arguments of {function}({row['name']!r}, ...):", *lines, *description]


def _reference(reference: dict[str, Any]) -> str:
    counts = [f"{reference['parameters']:,} parameters"] if reference["parameters"] else []
    counts += [f"{gmacs} GMACs at {size}" for size, gmacs in reference["gmacs"].items()]
    return f"{reference['name']} (licence: {reference['licence']}): {', '.join(counts)}"


def _backbone_text(rows: list[dict[str, Any]], *, detailed: bool) -> str:
    cells = [
        (
            row["name"],
            f"{row['parameters']:,}",
            " ".join(map(str, row["strides"])),
            " ".join(map(str, row["channels"])),
            "yes" if row["pretrained"] else "",
        )
        for row in rows
    ]
    lines = [
        _columns(("backbone", "parameters", "strides", "channels", "ImageNet weights"), cells, right=(1,)),
        "",
        "timm:NAME is a backbone, too, for the convolutional networks of timm (pip install 'fastseg-zoo[timm]').",
    ]
    return "\n".join([*lines, *(_builder_lines("create_backbone", rows[0]) if detailed else [])])


def _head_text(rows: list[dict[str, Any]], *, detailed: bool) -> str:
    cells = [(row["name"], f"{row['parameters']:,}", str(row["stride"])) for row in rows]
    lines = [
        _columns(("head", "parameters", "stride"), cells, right=(1, 2)),
        "",
        "Counted with 19 classes over the maps of a ResNet-18 (strides 4, 8, 16, 32); stride: of the logits.",
    ]
    return "\n".join([*lines, *(_builder_lines("create_head", rows[0]) if detailed else [])])
