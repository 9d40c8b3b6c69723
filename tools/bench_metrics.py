#!/usr/bin/env python3
"""How fast pixels are counted for the confusion matrix: our two forms against NumPy's bincount with a mask.

    tools/bench_metrics.py [--rounds 25] [--threads 2] [--write docs/results/metrics.md]

All take turns in one process, one round after the other, so that what else the machine does hits all; ratios are
medians over rounds.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import torch

from fastseg import native
from fastseg.atomic import write_atomically
from fastseg.data import build_dataset
from fastseg.engine.timing import measured, pairwise_ratio, quantile
from fastseg.environment import git_state, processor_name
from fastseg.metrics import ConfusionMatrix

ROOT = Path(__file__).resolve().parent.parent
HEIGHT, WIDTH, STRIDE, NUM_CLASSES, VOID = 1024, 2048, 8, 19, 255
HEADER = """# The confusion matrix

`{command}`:
{device}, torch threads: {threads}, {date}, commit `{commit}`; Python {python}, torch {torch}, NumPy {numpy}.

Pairs of uint8 maps of 1024x2048 pixels, ground truth and prediction, {classes} classes, to counts. All rows take turns
in one process for {rounds} rounds after one to warm up; times are medians, ratios medians of the ratios of one round.

| maps | way | ms | Mpixel/s | **ratio** |
|---|---|---|---|---|
"""
NOTES = """
NumPy's row is what most public code does: a mask of the labelled pixels, and one `bincount` of `K * label +
prediction` over them. Ours are `ConfusionMatrix.update`, which also counts void and predictions outside the classes,
and refuses wrong labels; without the kernel (`FASTSEG_NATIVE=0`, or where it was not built) it is one pass over
256 x 256 bins. The counts of all rows are equal.

Street scenes are procedural (`road_scenes`), their predictions the labels at an eighth of the size, enlarged again:
{wrong:.1%} of the pixels are wrong, along the contours. Noise has no two neighbours alike, which no real map does.
"""


def street() -> tuple[np.ndarray, np.ndarray]:
    """Labels, and a prediction that misses them along contours."""
    scenes = build_dataset("road_scenes", "train", args={"count": 1, "height": HEIGHT, "width": WIDTH})
    _, labels = scenes.load(0)
    small = cv2.resize(labels, (WIDTH // STRIDE, HEIGHT // STRIDE), interpolation=cv2.INTER_NEAREST)
    small[small == VOID] = 0
    return labels, cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)


def noise() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels, predictions = random.integers(0, NUM_CLASSES, (2, HEIGHT, WIDTH), dtype=np.uint8)
    return labels, predictions


def with_numpy(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    K = NUM_CLASSES
    seen = (labels >= 0) & (labels < K)
    return np.bincount(K * labels[seen].astype(int) + predictions[seen], minlength=K**2).reshape(K, K)


def ours(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    matrix = ConfusionMatrix(NUM_CLASSES)
    matrix.update(torch.from_numpy(labels), torch.from_numpy(predictions))
    return matrix.counts[:NUM_CLASSES, :NUM_CLASSES].numpy()


def without_kernel(labels: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    with mock.patch.object(native, "library", return_value=None):
        return ours(labels, predictions)


def rows(kind: str, maps: tuple[np.ndarray, np.ndarray], rounds: int) -> str:
    """Lines of the table. Stops the program where counts differ."""
    ways: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "NumPy, mask and bincount": with_numpy,
        "ours, plain torch": without_kernel,
    }
    if native.library() is not None:
        ways["ours, kernel"] = ours
    times: dict[str, list[float]] = {name: [] for name in ways}
    expected = with_numpy(*maps)
    for _ in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            counts = way(*maps)
            times[name].append(time.perf_counter() - began)
            if not np.array_equal(counts, expected):
                raise SystemExit(f"{name} counts otherwise than NumPy")
    found = {name: measured(taken) for name, taken in times.items()}
    baseline, *_ = found.values()
    lines = ""
    for name, taken in found.items():
        middle = quantile(taken, 0.5)
        speed = HEIGHT * WIDTH / 1e6 / middle
        lines += (
            f"| {kind} | {name} | {1000 * middle:.2f} | {speed:.0f} | **{pairwise_ratio(baseline, taken):.1f}** |\n"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2, help="of torch and the kernel")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table to FILE, too")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error(f"--rounds is {args.rounds}; give 1 or more")
    torch.set_num_threads(args.threads)
    git = git_state(ROOT)
    text = HEADER.format(
        command=f"tools/bench_metrics.py --rounds {args.rounds} --threads {args.threads}",
        device=processor_name(),
        threads=args.threads,
        date=datetime.date.today(),
        commit=f"{git['commit'][:7]}{', with changes' if git['changed'] else ''}" if git else "unknown",
        python=platform.python_version(),
        torch=torch.__version__,
        numpy=np.__version__,
        classes=NUM_CLASSES,
        rounds=args.rounds,
    )
    labels, predictions = street()
    text += rows("street scene", (labels, predictions), args.rounds) + rows("noise", noise(), args.rounds)
    text += NOTES.format(wrong=float((labels != predictions).mean()))
    print(text, end="")
    if args.write is not None:
        write_atomically(args.write, text.encode())


if __name__ == "__main__":
    main()
