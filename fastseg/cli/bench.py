"""`fastseg bench`."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from fastseg.errors import ConfigError, OutputError, printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SUMMARY = "time networks here, stage by stage, beside the plain path, other engines and the machine's floor"
EXAMPLES = """\
  fastseg bench                                     # Fast-SCNN at 1024x2048
  fastseg bench --model 'swiftnet*' --size 512x1024 --baseline
  fastseg bench --model fast_scnn --weights camvid --input-scale 1 --threads 2 --precision fp32 bf16 --baseline \\
      --runtime torch onnx openvino
  fastseg bench --all --baseline --csv zoo.csv --markdown zoo.md
  fastseg bench data CONFIG                         # loading of training data: see its own help

Variants take turns in one process, so that ratios hold while the machine's speed drifts; then each runs in a process
of its own, for its peak memory and, for the plain path, with the allocator as the system has it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--model",
        metavar="NAME|PATTERN",
        nargs="+",
        default=["fast_scnn"],
        help="names from `fastseg models`, or patterns such as 'swiftnet*' (default: fast_scnn)",
    )
    which.add_argument("--all", action="store_true", help="every network")
    parser.add_argument(
        "--weights", metavar="NAME|PATH", help="of one network: published weights or a file (default: random weights)"
    )
    parser.add_argument(
        "--input-scale",
        metavar="FACTOR",
        type=float,
        help="from image to network input, in place of the weights' own (CamVid's double the image)",
    )
    parser.add_argument("--classes", metavar="K", type=int, default=19, help="of random weights (default: 19)")
    parser.add_argument(
        "--precision", metavar="NAME", nargs="+", default=["fp32"], help="fp32, bf16, and fp16 on GPUs (default: fp32)"
    )
    parser.add_argument("--compile", action="store_true", help="the networks under torch.compile, too")
    parser.add_argument(
        "--baseline",
        action="store_true",
        help="the plain path, too: float NCHW network as trained, logits at full size, argmax or max",
    )
    parser.add_argument(
        "--runtime",
        metavar="NAME",
        nargs="+",
        default=["torch"],
        help="torch, onnx, openvino: the same weights in these engines (default: torch)",
    )
    add_measuring_arguments(parser, seconds=20.0)
    parser.add_argument("--rounds", metavar="R", type=int, default=20, help="at most so many (default: 20)")
    parser.add_argument(
        "--limit", metavar="S", type=float, default=600.0, help="give a process up after S seconds (default: 600)"
    )
    parser.add_argument("--no-tune", action="store_true", help="leave the allocator alone (fastseg.tune_cpu)")
    parser.add_argument("--no-own-process", action="store_true", help="no second runs: no peak memory, half the time")
    for kind, what in (("json", "everything, every round's seconds included"), ("csv", "rows"), ("markdown", "rows")):
        parser.add_argument(f"--{kind}", metavar="FILE", help=f"write {what} to FILE, too")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")


def add_measuring_arguments(parser: argparse.ArgumentParser, *, seconds: float) -> None:
    """On what to measure and for how long; `pick` has these, too."""
    parser.add_argument(
        "--size",
        metavar="HxW",
        default="1024x2048",
        help="height x width, the other way round than `video`'s sizes (default: 1024x2048)",
    )
    parser.add_argument("--threads", metavar="N", type=int, help="of the CPU (default: one per core)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: cpu)", default="cpu")
    parser.add_argument(
        "--seconds",
        metavar="S",
        type=float,
        default=seconds,
        help=f"begin no round of a network after S seconds (default: {seconds:g})",
    )


def run(args: argparse.Namespace) -> int:
    height, width = parse_size(args.size)
    check_measuring_arguments(args)
    if args.rounds < 1:
        raise ConfigError(f"--rounds is {args.rounds}; give 1 or more")
    if not 1 <= args.classes <= 256:
        raise ConfigError(f"--classes is {args.classes}; allowed: 1 to 256")
    if args.input_scale is not None and not (args.weights and 0 < args.input_scale <= 8):
        raise ConfigError(f"--input-scale is {args.input_scale}; it goes with --weights, and is above 0, up to 8")
    if args.limit <= 0:
        raise ConfigError(f"--limit is {args.limit}; give seconds above 0")

    import json

    from fastseg.engine.bench import bench, machine, models_of, to_dict, variants_of
    from fastseg.engine.bench_job import Job
    from fastseg.engine.bench_table import csv_text, markdown, text_table
    from fastseg.environment import usable_cores

    targets = _targets(args)
    variants = variants_of(
        args.precision, compiled=args.compile, baseline=args.baseline, runtimes=args.runtime, device=args.device
    )
    jobs = [
        Job(
            model=name,
            variants=variants,
            height=height,
            width=width,
            weights=args.weights,
            input_scale=args.input_scale,
            num_classes=args.classes,
            device=args.device,
            threads=args.threads or usable_cores(),
            tune=not args.no_tune,
            rounds=args.rounds,
            seconds=args.seconds,
        )
        for name in models_of(["*"] if args.all else args.model, args.weights)
    ]
    results = bench(jobs, apart=not args.no_own_process, limit=args.limit, say=say)
    facts = machine(args.device)
    print(text_table(results, facts))
    command = f"fastseg bench {shlex.join(_arguments(args))}".strip()
    texts = {
        "json": lambda: json.dumps(to_dict(results, {**facts, "command": command}), indent=2) + "\n",
        "csv": lambda: csv_text(results, {**facts, "command": command}),
        "markdown": lambda: markdown(results, facts, command),
    }
    _write({targets[kind]: make() for kind, make in texts.items() if kind in targets})
    failed = [result for result in results if any(row["error"] for row in result.rows())]
    return int(bool(failed))


def parse_size(text: str) -> tuple[int, int]:
    """'1024x2048' -> (1024, 2048). Raises ConfigError."""
    height, x, width = text.lower().partition("x")
    if not (x and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ConfigError(f"--size is {text!r}; give HEIGHTxWIDTH in pixels, both 1 or more, such as 1024x2048")
    return int(height), int(width)


def check_measuring_arguments(args: argparse.Namespace) -> None:
    """Raises ConfigError for values of `add_measuring_arguments` out of range, and a device that is not there."""
    if args.threads is not None and not 1 <= args.threads <= 4096:
        raise ConfigError(f"--threads is {args.threads}; give 1 or more")
    if not 0 < args.seconds <= 3600:
        raise ConfigError(f"--seconds is {args.seconds}; allowed: above 0, up to 3600")
    import torch

    try:
        device = torch.device(args.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch built without CUDA
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {args.device} cannot be used ({reason}); use cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"--device is {args.device}; measuring knows cpu and cuda")


def say(text: str) -> None:
    """Progress, apart from the results."""
    import sys

    print(text, file=sys.stderr, flush=True)


def _targets(args: argparse.Namespace) -> dict[str, Path]:
    """Files to write by kind, known to be free before anything is measured."""
    from pathlib import Path

    from fastseg.output import check_target, check_writable

    targets = {kind: Path(name) for kind in ("json", "csv", "markdown") if (name := getattr(args, kind)) is not None}
    if len({path.absolute() for path in targets.values()}) < len(targets):
        raise ConfigError("--json, --csv and --markdown name the same file; give each its own")
    for path in targets.values():
        check_target(path, overwrite=args.overwrite)
        check_writable(path)
    return targets


def _write(texts: Mapping[Path, str]) -> None:
    """Every file that can be written is, whatever becomes of the others; then raises OutputError for those."""
    from fastseg.atomic import write_atomically

    problems = []
    for path, text in texts.items():
        try:
            write_atomically(path, text.encode())
        except OutputError as error:
            problems.append(str(error))
        else:
            print(f"wrote {printable(path)}")
    if problems:
        raise OutputError("; ".join(problems))


def _arguments(args: argparse.Namespace) -> list[str]:
    """The options that shape the numbers, as they could be typed again."""
    given = ["--all"] if args.all else ["--model", *args.model]
    given += ["--weights", args.weights] if args.weights else []
    given += ["--input-scale", f"{args.input_scale:g}"] if args.input_scale else []
    given += ["--size", args.size, *(["--threads", str(args.threads)] if args.threads else [])]
    given += ["--precision", *args.precision, "--runtime", *args.runtime]
    given += ["--device", args.device] if args.device != "cpu" else []
    given += ["--classes", str(args.classes)] if args.classes != 19 else []
    given += [f"--{name}" for name in ("compile", "baseline") if getattr(args, name)]
    given += ["--no-tune"] if args.no_tune else []
    return [*given, "--rounds", str(args.rounds), "--seconds", f"{args.seconds:g}"]
