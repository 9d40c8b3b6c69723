"""`fastseg pick`."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from fastseg.cli.bench import add_measuring_arguments, check_measuring_arguments, parse_size, say
from fastseg.errors import ConfigError, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

SUMMARY = "measure the networks here and name the most accurate one within a budget"
EXAMPLES = """\
  fastseg pick --fps 30                              # at 1024x2048, on the CPU
  fastseg pick --ms 50 --size 512x1024 --precision bf16 --plot frontier.png
  fastseg pick --mem 500MB --params 5M --models 'espnet*' 'dfanet*' fast_scnn

Latency and memory are measured here, from an image in memory to its labels, with random weights, which take as long as
trained ones. Accuracy is the papers' and others' for Cityscapes (test or val, as said), and ours for CamVid: no
measurement here can know it. Networks whose multiply-adds alone break the budget are not measured."""

CLASSES = {"cityscapes": 19, "camvid": 11}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument("--fps", metavar="N", type=float, help="at least so many images a second, one after the other")
    speed.add_argument("--ms", metavar="T", type=float, help="at most so many milliseconds an image")
    parser.add_argument("--mem", metavar="SIZE", help="at most so much memory an image, such as 500MB, 2GB")
    parser.add_argument("--params", metavar="NUMBER", type=_number, help="at most so many parameters, such as 5M")
    parser.add_argument(
        "--models", metavar="NAME|PATTERN", nargs="+", help="only these (default: all with a known accuracy)"
    )
    parser.add_argument(
        "--dataset", choices=tuple(CLASSES), default="cityscapes", help="whose accuracy counts (default: cityscapes)"
    )
    parser.add_argument("--precision", default="fp32", metavar="NAME", help="fp32, bf16, and fp16 on GPUs")
    add_measuring_arguments(parser, seconds=5.0)
    parser.add_argument("--plot", metavar="FILE.png", help="draw the frontier (needs matplotlib)")
    parser.add_argument(
        "--cache", metavar="FILE", help="keep measurements in FILE and take those of this machine from it"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing plot")


def run(args: argparse.Namespace) -> int:
    height, width = parse_size(args.size)
    for option in ("fps", "ms"):
        value = getattr(args, option)
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"--{option} is {value}; give a number above 0")
    check_measuring_arguments(args)

    from pathlib import Path

    from fastseg.atomic import write_atomically
    from fastseg.engine.bench import machine, models_of, variants_of
    from fastseg.engine.bench_job import Job
    from fastseg.engine.bench_process import measure_apart
    from fastseg.engine.bench_table import where
    from fastseg.engine.pick import Budget, Store, best_of, pick
    from fastseg.engine.pick_table import budget_text, pick_plot, pick_text, require_matplotlib
    from fastseg.environment import usable_cores
    from fastseg.memory_budget import parse_bytes
    from fastseg.output import check_target, check_writable

    memory = parse_bytes(args.mem) if args.mem is not None else None
    variants = variants_of([args.precision], compiled=False, baseline=False, runtimes=["torch"], device=args.device)
    if args.plot is not None:
        require_matplotlib()
        if not args.plot.lower().endswith(".png"):
            raise ConfigError(f"--plot is {printable(args.plot)}; a PNG is drawn: give a name that ends in .png")
        if args.cache is not None and Path(args.cache).absolute() == Path(args.plot).absolute():
            raise ConfigError(f"--plot and --cache name the same file, {printable(args.plot)}; give each its own")
        check_target(Path(args.plot), overwrite=args.overwrite)
        check_writable(Path(args.plot))
    if args.cache is not None:
        check_writable(Path(args.cache))
    scores = known_scores(models_of(args.models or ["*"], None), args.dataset, keep_unknown=args.models is not None)
    facts = machine(args.device)
    store = Store(Path(args.cache), facts) if args.cache is not None else None
    seconds = 1 / args.fps if args.fps is not None else args.ms / 1000 if args.ms is not None else None
    budget = Budget(seconds, memory, args.params)
    job = Job(
        model="",
        variants=variants,
        height=height,
        width=width,
        num_classes=CLASSES[args.dataset],
        device=args.device,
        threads=args.threads or usable_cores(),
        seconds=args.seconds,
    )
    candidates = pick(scores, job, budget, measure=measure_apart, store=store, say=say)
    title = f"{args.size}, {args.precision}, {where(job)}"
    here = f"{facts['hardware']}; {facts['versions']}; {facts['date']}"
    print(f"{title}; {here}")
    print(f"budget: {budget_text(budget)}; accuracy on {args.dataset}\n")
    print(pick_text(candidates, budget))
    if args.plot is not None:
        write_atomically(Path(args.plot), pick_plot(candidates, budget, f"{args.dataset}, {title}", here))
        print(f"wrote {printable(args.plot)}")
    return 0 if best_of(candidates, budget) is not None else 1


def known_scores(
    names: Sequence[str], dataset: str, *, keep_unknown: bool = False
) -> dict[str, tuple[float | None, str]]:
    """Accuracy of networks on a data set and whose it is: 'paper' and others' for Cityscapes, ours for CamVid.

    Networks without one are left out unless `keep_unknown`. Raises ConfigError when none is left.
    """
    from fastseg.cli.models import describe_model, short_metric, short_score
    from fastseg.models.facts import model_facts

    scores: dict[str, tuple[float | None, str]] = {}
    for name in names:
        row = describe_model(name, model_facts(name))
        score = short_score(row) if dataset == "cityscapes" else ""
        if dataset == "camvid":
            ours = [short_metric(weights) for weights in row["weights"] if weights["dataset"] == dataset]
            score = f"{ours[0]} (ours)" if ours and ours[0] else ""
        if score:
            miou, _, rest = score.partition(" ")
            scores[name] = float(miou), rest
        elif keep_unknown:
            scores[name] = None, "no known accuracy"
    if not scores:
        raise ConfigError(f"no network has a known accuracy on {dataset}; name networks with --models")
    return scores


def _number(text: str) -> float:
    units = {"": 1.0, "k": 1e3, "m": 1e6}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.lower())
    if not found or found[2] not in units or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no amount such as 1500000, 900k or 5M")
    return float(found[1]) * units[found[2]]
