#!/usr/bin/env python3
"""Count every network and write the tables that repeat the counts, or check that they are what they should be.

    tools/model_tables.py            # says which of the files are stale; exit code 1 if any is
    tools/model_tables.py --write    # brings them up to date

Files: fastseg/models/facts.json, docs/results/facts.md, and README.md between its markers. Nothing is timed, so that
every machine writes the same.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this clone's networks, whichever fastseg is installed

from fastseg.cli.models import describe_model, first_metric, number, short_score  # noqa: E402
from fastseg.models import MODELS  # noqa: E402
from fastseg.models.facts import FULL, HALF, SIZES, ModelFacts, measure  # noqa: E402
from fastseg.models.papers import PAPERS  # noqa: E402

FACTS, DOCUMENT, README = "fastseg/models/facts.json", "docs/results/facts.md", "README.md"
BEGIN, END = "<!-- models:begin -->", "<!-- models:end -->"

HEAD = """# Parameters, multiply-adds and published scores

Written by `tools/model_tables.py --write`; a test fails when a network no longer agrees with it.

Every network as its builder makes it by default, with 19 classes. Parameters are trained numbers, without auxiliary
heads and with them. GMACs are billions of multiply-adds in convolutions and matrix products for one image in eval mode,
without auxiliary heads: half of what `torch.utils.flop_counter` counts on the meta device, so that nothing here depends
on hardware. Papers of this field mostly call the same number FLOPs. Norms, activations and resizing are left
out; pyramid grids are matrix products here and count, which is less than a thousandth.

A reference is public code whose parameters (less parts that never run) and multiply-adds (to three digits) were counted
in the same way, or the paper where there is no code; its licence is that of that code. None of it is in this package,
which is Apache-2.0.
"""


def measure_all() -> dict[str, ModelFacts]:
    """Facts of every registered network, also at the sizes at which its reference is known."""
    facts = {}
    for name in MODELS.names():
        paper = PAPERS.get(name)
        known = paper.reference.gmacs if paper and paper.reference else {}
        facts[name] = measure(name, sizes=tuple(dict.fromkeys((*SIZES, *known))))
    return facts


def texts(facts: Mapping[str, ModelFacts], readme: str) -> dict[str, str]:
    """File -> what it should say, for counted `facts` and the text of the README as it is."""
    rows = [describe_model(name, facts[name]) for name in facts]
    table = "\n".join([BEGIN, *_table(_readme_row, rows), END])
    if not (BEGIN in readme and END in readme):
        raise SystemExit(f"{README} has no {BEGIN} and {END} around its table of networks")
    return {
        FACTS: json.dumps({name: asdict(counted) for name, counted in facts.items()}, indent=2) + "\n",
        DOCUMENT: "\n\n".join([HEAD.strip(), *(_section(*section, rows) for section in SECTIONS)]) + "\n",
        README: re.sub(f"{BEGIN}.*?{END}", lambda _: table, readme, flags=re.DOTALL),
    }


def stale(facts: Mapping[str, ModelFacts], root: Path = ROOT) -> list[str]:
    """Files below `root` that differ from what `facts` say."""
    wanted = texts(facts, (root / README).read_text())
    return [name for name, text in wanted.items() if not (root / name).is_file() or (root / name).read_text() != text]


def write(facts: Mapping[str, ModelFacts], root: Path = ROOT) -> None:
    for name, text in texts(facts, (root / README).read_text()).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def _readme_row(row: dict[str, Any]) -> dict[str, str]:
    configs = sorted(path.parent.name for path in (ROOT / "configs").glob(f"*/{row['name']}.yaml"))
    return {
        "network": _link(row),
        "parameters": f"{row['parameters']:,}",
        "GMACs": number(row["gmacs"][FULL]),
        "stride": str(row["stride"]),
        "mIoU, published": short_score(row),
        "mIoU, ours": first_metric(row),
        "name": f"`{row['name']}`",
        "configurations": ", ".join(configs),
    }


def _parameter_row(row: dict[str, Any]) -> dict[str, str]:
    reference = row["reference"] or {"parameters": None, "parameters_training": None}
    expected, expected_training = reference["parameters"], reference["parameters_training"]
    return {
        "network": f"`{row['name']}`",
        "parameters": f"{row['parameters']:,}",
        "reference": f"{expected:,}" if expected else "",
        "difference": _difference(row["parameters"], expected),
        "with auxiliary heads": f"{row['parameters_training']:,}",
        "reference, with them": f"{expected_training:,}" if expected_training else "",
        "difference, with them": _difference(row["parameters_training"], expected_training),
    }


def _gmacs_row(row: dict[str, Any]) -> dict[str, str]:
    known = row["reference"]["gmacs"] if row["reference"] else {}
    sizes = list(known) or [""]
    return {
        "network": f"`{row['name']}`",
        f"GMACs {HALF}": number(row["gmacs"][HALF]),
        f"GMACs {FULL}": number(row["gmacs"][FULL]),
        "reference": "; ".join(f"{known[size]} at {size}" for size in sizes if size),
        "ours there": "; ".join(number(row["gmacs"][size]) for size in sizes if size),
        "difference": "; ".join(_difference(row["gmacs"][size], known[size]) for size in sizes if size),
    }


def _output_row(row: dict[str, Any]) -> dict[str, str]:
    return {
        "network": f"`{row['name']}`",
        "stride of the logits": str(row["stride"]),
        "auxiliary outputs, their strides": ", ".join(
            f"`{name}` {stride or 'per image'}" for name, stride in row["aux"].items()
        ),
    }


def _score_row(row: dict[str, Any]) -> dict[str, str]:
    return {
        "network": f"`{row['name']}`",
        "mIoU, published": "<br>".join(f"{score['miou']} {score['split']}" for score in row["published"]),
        "source": "<br>".join(score["source"] for score in row["published"]),
        "mIoU, ours": "<br>".join(f"{weights['metric_measured']} (`{weights['name']}`)" for weights in row["weights"]),
    }


def _source_row(row: dict[str, Any]) -> dict[str, str]:
    reference = row["reference"]
    return {
        "network": f"`{row['name']}`",
        "paper": f"[{row['title']}]({row['url']})" if row["url"] else "",
        "reference": reference["name"] if reference else "",
        "its licence": reference["licence"] if reference else "",
        "note": row["note"],
    }


SECTIONS = (
    ("Parameters", "", _parameter_row),
    ("Multiply-adds", "", _gmacs_row),
    ("Outputs", "Auxiliary outputs exist in training only, with `aux=True`.", _output_row),
    (
        "Scores",
        "Published figures are mIoU in percent on Cityscapes, and none of them is ours. Where there is none, none was\n"
        "found with a source to name. Ours are those of the published weights.",
        _score_row,
    ),
    ("Sources", "", _source_row),
)


def _section(title: str, text: str, make_row: Any, rows: list[dict[str, Any]]) -> str:
    return "\n\n".join(part for part in (f"## {title}", text, "\n".join(_table(make_row, rows))) if part)


def _table(make_row: Any, rows: list[dict[str, Any]]) -> list[str]:
    made = [make_row(row) for row in rows]
    lines = [" | ".join(made[0]), " | ".join("---" for _ in made[0]), *(" | ".join(row.values()) for row in made)]
    return [f"| {line} |" for line in lines]


def _link(row: dict[str, Any]) -> str:
    return f"[{row['network']}]({row['url']})" if row["url"] else row["network"]


def _difference(ours: float, reference: float | None) -> str:
    if reference is None:
        return ""
    return "none" if ours == reference else f"{ours / reference - 1:+.2%}"


def main(arguments: list[str] | None = None) -> int:
    """Check or write. Returns 1 when something was stale and is not written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="bring the files up to date")
    args = parser.parse_args(arguments)
    facts = measure_all()
    names = stale(facts)
    if args.write:
        write(facts)
    for name in names:
        print(f"{name}: {'written' if args.write else 'stale; run tools/model_tables.py --write'}")
    if not names:
        print(f"{len(facts)} networks: counts and tables agree")
    return int(bool(names) and not args.write)


if __name__ == "__main__":
    sys.exit(main())
