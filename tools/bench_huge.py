#!/usr/bin/env python3
"""Memory and time of one huge image: the plain path, the deployed network, and the deployed network in bands of rows.

    tools/bench_huge.py [NETWORK[@WEIGHTS][:BUDGET...] ...] [--size 4096x8192] [--threads 2] [--write FILE]

`fast_scnn@road_scenes:500:250` is Fast-SCNN with its published weights of that name (random ones unless given), whole
and in bands within 500 and 250 MB. Each variant runs in a process of its own, on a drawn road scene. Memory is what the
process's largest resident set grows by from the loaded model and image to the labels, `fastseg.tune_cpu` not called
(Linux). Ratios are to the plain path: normalised float NCHW images, the network as it was trained, logits resized to
the image, argmax. Labels are compared with its.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = """# Huge images

`{command}`:
{processor}, torch threads: {threads}, torch {torch}, {date}, commit `{commit}`, load of the machine {load:.1f} when it
began. One uint8 image of {size} pixels to labels on the CPU in float32, each variant in a process of its own, {runs}.
MB of resident memory above the loaded model and image; s is the fastest run, the first of which also plans the bands.
A budget is for what the program can count: tensors, and a supplement for the convolutions' own memory.
Ratios and labels are relative to the plain path: normalise, float NCHW network, full-size interpolate, argmax.

| network | weights | variant | MB | memory ratio | s | time ratio | labels equal |
|---|---|---|---|---|---|---|---|
"""


def resident(field: str) -> float:
    """A memory figure of this process in MB: 'VmRSS', or its peak 'VmHWM'."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6


def measure(name: str, variant: str, args: argparse.Namespace) -> None:
    """Run one variant, write its labels to `args.labels`, and print its figures as JSON."""
    import torch

    from fastseg.data.road_scenes import render_scene
    from fastseg.deploy.bands import banded_labels
    from fastseg.engine.bench_stages import Plain
    from fastseg.engine.timing import Stopwatch
    from fastseg.weights import create_model

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    height, width = map(int, args.size.split("x"))
    name, _, weights = name.partition("@")
    model = create_model(name, pretrained=weights) if weights else create_model(name, num_classes=19)
    model.eval()
    scene, _ = render_scene(0, height // 4, width // 4)
    images = torch.from_numpy(scene).repeat_interleave(4, 0).repeat_interleave(4, 1)[None]

    plain = Plain(model, torch.device("cpu"), maximum=False)
    deployed = None if variant == "plain" else model.deploy()

    def labels(images: torch.Tensor) -> torch.Tensor:
        if deployed is None:
            return torch.from_numpy(plain.run(images[0].numpy(), Stopwatch()))[None]
        return deployed.labels(images) if variant == "whole" else banded_labels(deployed, images, int(variant) * 10**6)

    with torch.inference_mode():
        labels(images[:, :512, :512].contiguous())
        before, seconds, found = resident("VmRSS"), [], None
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
        for _ in range(args.runs):
            del found  # the labels of the last run
            began = time.perf_counter()
            found = labels(images)
            seconds.append(time.perf_counter() - began)
    peak = resident("VmHWM")
    found[0].to(torch.uint8).numpy().tofile(args.labels)
    print(json.dumps({"extra": peak - before, "seconds": min(seconds)}))


def run(name: str, variant: str, labels: Path, args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, name, "--here", variant, "--labels", str(labels), "--size", args.size]
    command += ["--threads", str(args.threads), "--runs", str(args.runs)]
    found: dict[str, float] = json.loads(
        subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
    )
    return found


def header(args: argparse.Namespace) -> str:
    import torch

    from fastseg.environment import processor_name

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return HEADER.format(
        command=" ".join(["tools/bench_huge.py", *sys.argv[1:]]),
        processor=processor_name(),
        threads=args.threads,
        torch=torch.__version__,
        date=datetime.date.today(),
        commit=commit.stdout.strip(),
        load=os.getloadavg()[0],
        size=args.size,
        runs=f"{args.runs} runs",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["fast_scnn:500:250"], help="network[@weights][:MB...]")
    parser.add_argument("--size", default="4096x8192", help="height x width, multiples of 4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table to FILE, too")
    parser.add_argument("--here", help=argparse.SUPPRESS)  # in the process of one variant
    parser.add_argument("--labels", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        measure(args.names[0], args.here, args)
        return

    import numpy as np

    budgets = {name: each for name, *each in (given.split(":") for given in args.names)}
    text = header(args)
    print(text, end="", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in budgets:
            plain = run(name, "plain", Path(folder, "plain"), args)
            for variant in ("plain", "whole", *budgets[name]):
                file = Path(folder, variant)
                found = plain if variant == "plain" else run(name, variant, file, args)
                equal = np.mean(np.fromfile(file, np.uint8) == np.fromfile(Path(folder, "plain"), np.uint8))
                shown = f"in bands, {variant} MB" if variant.isdigit() else variant
                network, _, weights = name.partition("@")
                line = (
                    f"| `{network}` | {weights or 'random'} | {shown} | {found['extra']:.0f} "
                    f"| {plain['extra'] / found['extra']:.1f} | {found['seconds']:.2f} "
                    f"| {plain['seconds'] / found['seconds']:.1f} | {100 * equal:.4f} % |\n"
                )
                print(line, end="", flush=True)
                text += line
    if args.write is not None:
        args.write.write_text(text)


if __name__ == "__main__":
    main()
