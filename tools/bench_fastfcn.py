#!/usr/bin/env python3
"""How much faster joint pyramid upsampling is than the dilated backbone it replaces, head by head.

    tools/bench_fastfcn.py [--size 512] [--rounds 15] [--threads 2] [--device auto] [--write docs/results/fastfcn.md]

Both networks of a pair run in one process, in turns, one image at a time, so that what else the machine does hits both;
the ratio is the median over rounds. Weights are random: they do not change the time. FPS of the paper are those of
arXiv 1903.11816, tables 1 and 2, on its authors' GPU: compare ratios, not FPS.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fastseg.environment import processor_name
from fastseg.models import create_model
from fastseg.models.facts import measure

ROOT = Path(__file__).resolve().parent.parent
NUM_CLASSES = 59  # PASCAL-Context, as in the paper's tables
HEADER = """# FastFCN: joint pyramid upsampling against the dilated backbone

`{command}`:
{device}, torch {torch}, {date}, commit `{commit}`. Images of {size}x{size}, one at a time,
{classes} classes, float32, eval mode; both networks of a row in turns in one process, {rounds} rounds after {warmup} to
warm up.
Time is the median of a round, the ratio the median over rounds with its quartiles. The paper's FPS
([arXiv 1903.11816](https://arxiv.org/abs/1903.11816), tables 1 and 2) are its authors' GPU's; the last column is their
quotient.

| head, backbone | GMACs dilated | GMACs JPU | GMACs ratio | ms dilated | ms JPU | **ratio here** | quartiles | paper FPS dilated | paper FPS JPU | paper ratio |
|---|---|---|---|---|---|---|---|---|---|---|
"""  # noqa: E501
WARMUP = 2


@dataclass(frozen=True)
class Pair:
    """A network with JPU, and without; `paper` has the FPS of arXiv 1903.11816: dilated, JPU."""

    model: str
    head: str
    paper: tuple[float, float]


PAIRS = (
    Pair("fastfcn_r50_encnet", "EncNet, ResNet-50", (18.77, 37.56)),
    Pair("fastfcn_r50_psp", "PSP, ResNet-50", (18.08, 28.48)),
    Pair("fastfcn_r50_deeplabv3", "DeepLabV3, ResNet-50", (15.99, 20.67)),
    Pair("fastfcn_r101_encnet", "EncNet, ResNet-101", (10.51, 32.02)),
)


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, on a GPU until it is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def row(pair: Pair, size: int, rounds: int, device: torch.device) -> str:
    """One line of the table."""
    networks = [create_model(pair.model, num_classes=NUM_CLASSES, jpu=jpu).eval().to(device) for jpu in (None, "jpu")]
    networks = [network.to(memory_format=torch.channels_last) for network in networks]
    images = torch.randn(1, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    times: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        for round_number in range(WARMUP + rounds):
            for network, found in zip(networks, times, strict=True):
                taken = seconds(lambda network=network: network(images), device)  # type: ignore[misc]
                if round_number >= WARMUP:
                    found.append(taken)
    ratios = [dilated / jpu for dilated, jpu in zip(*times, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    shape = f"{size}x{size}"
    macs = [measure(pair.model, sizes=(shape,), num_classes=NUM_CLASSES, jpu=jpu).gmacs(shape) for jpu in (None, "jpu")]
    ms = [1000 * statistics.median(found) for found in times]
    return (
        f"| {pair.head} | {macs[0]:.1f} | {macs[1]:.1f} | {macs[0] / macs[1]:.2f} | {ms[0]:.1f} | {ms[1]:.1f} | "
        f"**{middle:.2f}** | {low:.2f}-{high:.2f} | {pair.paper[0]:.2f} | {pair.paper[1]:.2f} | "
        f"{pair.paper[1] / pair.paper[0]:.2f} |\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="side of the images")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table to FILE, too")
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error(f"--rounds is {args.rounds}; quartiles need 2 or more")

    torch.set_num_threads(args.threads)
    cuda = torch.cuda.is_available() if args.device == "auto" else args.device == "cuda"
    device = torch.device("cuda" if cuda else "cpu")
    name = torch.cuda.get_device_name(device) if cuda else f"{processor_name()}, torch threads: {args.threads}"
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    text = HEADER.format(
        command=f"tools/bench_fastfcn.py --size {args.size} --rounds {args.rounds} --threads {args.threads}",
        device=name,
        torch=torch.__version__,
        date=datetime.date.today(),
        commit=commit.stdout.strip(),
        size=args.size,
        classes=NUM_CLASSES,
        rounds=args.rounds,
        warmup=WARMUP,
    )
    print(text, end="", flush=True)
    for pair in PAIRS:
        line = row(pair, args.size, args.rounds, device)
        print(line, end="", flush=True)
        text += line
    if args.write is not None:
        args.write.write_text(text)


if __name__ == "__main__":
    main()
