#!/usr/bin/env python3
"""How much memory networks take to predict one image on the CPU.

    tools/peak_memory.py gscnn_r50 gscnn_wrn38 [--size 1024x2048] [--threads 2] [--write docs/results/memory.md]

Each network runs once in a process of its own, from uint8 image to uint8 labels as `Predictor` does it, with random
weights. The peak is that process's largest resident set, torch and weights included (Linux).
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = """# Peak memory

`{command}`:
{processor}, torch threads: {threads}, torch {torch}, {date}, commit `{commit}`. One uint8 image of {size} pixels
to uint8 labels on the CPU, 19 classes, float32, random weights, each network in a process of its own. GiB of resident
memory: before the image (Python, torch, the network's weights), and the peak.

| network | before | peak | s |
|---|---|---|---|
"""


def gib() -> float:
    """The largest resident set so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def predict(name: str, height: int, width: int, threads: int) -> None:
    """Run one network and print its figures as JSON."""
    import numpy as np
    import torch

    from fastseg.models import create_model
    from fastseg.predict import Predictor

    torch.set_num_threads(threads)
    predictor = Predictor(create_model(name, num_classes=19), device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    before, began = gib(), time.perf_counter()
    predictor.predict_array(image)
    print(json.dumps({"before": before, "peak": gib(), "seconds": time.perf_counter() - began}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="networks")
    parser.add_argument("--size", default="1024x2048", help="height x width")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table to FILE, too")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in the process of one network
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    if args.here:
        predict(args.names[0], height, width, args.threads)
        return

    import torch

    from fastseg.environment import processor_name

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    text = HEADER.format(
        command=f"tools/peak_memory.py {' '.join(args.names)} --size {args.size} --threads {args.threads}",
        processor=processor_name(),
        threads=args.threads,
        torch=torch.__version__,
        date=datetime.date.today(),
        commit=commit.stdout.strip(),
        size=args.size,
    )
    print(text, end="", flush=True)
    for name in args.names:
        command = [sys.executable, __file__, name, "--here", "--size", args.size, "--threads", str(args.threads)]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        line = f"| `{name}` | {found['before']:.2f} | **{found['peak']:.2f}** | {found['seconds']:.1f} |\n"
        print(line, end="", flush=True)
        text += line
    if args.write is not None:
        args.write.write_text(text)


if __name__ == "__main__":
    main()
