#!/usr/bin/env python3
"""How much faster labels of upsampled logits are made than by interpolation and argmax, and in how little memory.

    tools/bench_ops.py [--rounds 15] [--threads 2] [--photo FILE ...] [--write docs/results/ops.md]

All ways run in turns in one process, so that what else the machine does hits all; ratios are medians over rounds. Every
way's labels are compared with those of interpolation in float64.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

import fastseg
from fastseg.data import build_dataset
from fastseg.data.readers import read_image
from fastseg.environment import processor_name
from fastseg.ops import normalize_images
from fastseg.ops.native_upsample_argmax import upsample_argmax_native
from fastseg.ops.uniform_cells import upsample_argmax_torch

ROOT = Path(__file__).resolve().parent.parent
SIZE = (1024, 2048)
HUGE = (4096, 8192)
NOISE = 0.5
HEADER = """# Labels of upsampled logits

`{command}`:
{device}, {threads} threads, torch {torch}, {date}, commit `{commit}`.

`fastseg.ops.upsample_argmax` to 1024x2048 against `F.interpolate(..., mode="bilinear")` of the same float32 logits,
followed by `argmax(1)` or by `max(1)[1]`. Logits lie in memory as the networks around give them: class by class for
interpolation, unless the row says otherwise, and channels_last, as from a deployed network, for ours. All ways take
turns in one process, {rounds} rounds after one to warm up; times are medians over rounds, ratios medians of the ratios
of one round, with quartiles. Time is {clock}. Uniform are the cells of four neighbours whose largest
logits are of one class: nothing is computed there. Wrong are pixels whose label is not that of interpolation in
float64.

| logits | uniform | way | ms | **against argmax** | quartiles | **against max** | quartiles | wrong pixels |
|---|---|---|---|---|---|---|---|---|
"""
NOTES = """
The trained networks are the embedded Fast-SCNN weights on a procedural street scene, drawn at 256x512 and enlarged to
1024x2048; `x2` is at the input scale of those weights, whose map is twice as fine. Rows of a file are of a photograph
(`--photo`) that CamVid's weights were not trained on, enlarged likewise: what such a network is for. The drawn map has
the areas of a street scene's labels, 10 times their share of each pixel of the map, and noise of deviation {noise} for
19 classes. The untrained network has random weights and the statistics of this image in its normalisations.

One image of 4096x8192 from 19x512x1024 logits (the enlarged drawn map), in a process of its own: beyond logits and
labels, the plain form takes {plain:.0f} MB at its peak and the compiled one {compiled:.0f} MB; interpolation alone
takes 2550 MB.
"""


def scene(height: int, width: int) -> tuple[Tensor, Tensor]:
    """A street and its labels, drawn at 256x512 and enlarged: uint8 (1,H,W,3) and (H,W)."""
    image, labels = build_dataset("road_scenes", "val", args={"count": 1}).load(0)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    return torch.from_numpy(image)[None], torch.from_numpy(labels)


def trained(name: str, scale: float, photo: Path | None = None) -> Tensor:
    network = fastseg.create_model("fast_scnn", pretrained=name).eval()
    image = scene(*SIZE)[0] if photo is None else photograph(photo)
    return network(normalize_images(image, network.preprocessing, scale=scale)).logits


def photograph(path: Path) -> Tensor:
    image = cv2.resize(read_image(path), SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    return torch.from_numpy(image)[None]


def untrained() -> Tensor:
    network = fastseg.create_model("fast_scnn", num_classes=19)
    network.train()  # batch statistics: those of initialisation would make one class win everywhere
    return network(normalize_images(scene(*SIZE)[0], network.preprocessing).repeat(2, 1, 1, 1)).logits[:1]


def drawn(height: int, width: int) -> Tensor:
    labels = scene(8 * height, 8 * width)[1].long()
    shares = F.one_hot(labels.where(labels < 10, 0), 19).permute(2, 0, 1)[None].float()
    return 10 * F.avg_pool2d(shares, 8) + NOISE * torch.randn(1, 19, height, width)


LOGITS: dict[str, Callable[[], Tensor]] = {
    "Fast-SCNN, CamVid": lambda: trained("camvid", 1),
    "Fast-SCNN, CamVid, x2": lambda: trained("camvid", 2),
    "Fast-SCNN, road scenes": lambda: trained("road_scenes", 1),
    "drawn": lambda: drawn(SIZE[0] // 8, SIZE[1] // 8),
    "Fast-SCNN, untrained": untrained,
}
# from logits class by class, and from those in channels_last
WAYS: dict[str, Callable[[Tensor, Tensor], Tensor | None]] = {
    "interpolate, argmax": lambda x, last: F.interpolate(x, SIZE, mode="bilinear").argmax(1),
    "interpolate, max": lambda x, last: F.interpolate(x, SIZE, mode="bilinear").max(1)[1],
    "interpolate, max, channels_last": lambda x, last: F.interpolate(last, SIZE, mode="bilinear").max(1)[1],
    "**plain torch**": lambda x, last: upsample_argmax_torch(last, SIZE, False),
    "**compiled**": lambda x, last: upsample_argmax_native(last, SIZE, False),
}


def uniform_share(logits: Tensor) -> float:
    corners = logits.argmax(1)
    first = corners[:, :-1, :-1]
    others = corners[:, 1:, :-1], corners[:, :-1, 1:], corners[:, 1:, 1:]
    return float(torch.stack([first == other for other in others]).all(0).float().mean())


def rows(name: str, logits: Tensor, rounds: int, clock: Callable[[], float]) -> str:
    """The lines of these logits."""
    layouts = logits.contiguous(), logits.contiguous(memory_format=torch.channels_last)
    expected = F.interpolate(logits.double(), SIZE, mode="bilinear").argmax(1)
    found = {title: way(*layouts) for title, way in WAYS.items()}
    wrong = {title: int((labels != expected).sum()) for title, labels in found.items() if labels is not None}
    times: dict[str, list[float]] = {title: [] for title in wrong}
    for _ in range(rounds):
        for title, taken in times.items():
            began = clock()
            WAYS[title](*layouts)
            taken.append(clock() - began)
    text = ""
    shape = "x".join(str(length) for length in logits.shape[1:])
    for title, taken in times.items():
        ratios = ""
        for against in ("interpolate, argmax", "interpolate, max"):
            quotients = [theirs / ours for theirs, ours in zip(times[against], taken, strict=True)]
            low, middle, high = statistics.quantiles(quotients, n=4, method="inclusive")
            ratios += f"**{middle:.3g}** | {low:.3g}-{high:.3g} | "
        text += (
            f"| {name}, {shape} | {uniform_share(logits):.0%} | {title} | {1000 * statistics.median(taken):.2f} | "
            f"{ratios}{wrong[title]} |\n"
        )
    return text


def held(kind: str) -> int:
    """Bytes of memory that this process holds, as the kernel counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


@torch.inference_mode()
def extra_memory(compiled: bool, threads: int) -> float:
    """MB beyond logits and labels at the peak of one huge image."""
    torch.set_num_threads(threads)
    label = upsample_argmax_native if compiled else upsample_argmax_torch
    logits = drawn(HUGE[0] // 8, HUGE[1] // 8).contiguous(memory_format=torch.channels_last)
    label(logits[..., :16, :16], (128, 128), False)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins now
    before = held("VmRSS")
    label(logits, HUGE, False)
    return (held("VmHWM") - before - HUGE[0] * HUGE[1]) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--photo", type=Path, nargs="+", default=[], metavar="FILE", help="images such as CamVid's")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table to FILE, too")
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error(f"--rounds is {args.rounds}; quartiles need 2 or more")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    # of one thread, the processor's time is the time on the clock, less what other programs took of it
    clock = time.process_time if args.threads == 1 else time.perf_counter
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    text = HEADER.format(
        command=" ".join(["tools/bench_ops.py", *sys.argv[1:]]),
        device=processor_name(),
        threads=args.threads,
        torch=torch.__version__,
        date=datetime.date.today(),
        commit=commit.stdout.strip(),
        rounds=args.rounds,
        clock="the processor's" if args.threads == 1 else "on the clock",
    )
    print(text, end="", flush=True)
    with torch.inference_mode():
        photos = {f"Fast-SCNN, CamVid, {path.name}": partial(trained, "camvid", 1, path) for path in args.photo}
        for name, make in {**LOGITS, **photos}.items():
            lines = rows(name, make(), args.rounds, clock)
            print(lines, end="", flush=True)
            text += lines
    memory = []
    for compiled in (False, True):  # each in a process of its own: what one has freed would be there for the other
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            memory.append(pool.submit(extra_memory, compiled, args.threads).result())
    notes = NOTES.format(noise=NOISE, plain=memory[0], compiled=memory[1])
    print(notes, end="")
    if args.write is not None:
        args.write.write_text(text + notes)


if __name__ == "__main__":
    main()
