#!/usr/bin/env python3
"""How long every network takes on a GPU, from a uint8 image to labels, and the kernel for labels beside its floor.

    tools/bench_gpu.py [MODEL ...] [--size 1024x2048] [--precision fp16 bf16] [--rounds 50] [--write FILE]

Ends with 2 where there is no GPU. All ways of a row take turns; times are medians over rounds.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fastseg.atomic import write_atomically
from fastseg.deploy.cuda_graph import CudaGraphs
from fastseg.engine.timing import quantile
from fastseg.environment import git_state
from fastseg.errors import FastsegError
from fastseg.layers.resize import resize
from fastseg.models import MODELS, create_model
from fastseg.models.papers import PAPERS
from fastseg.ops import upsample_argmax

ROOT = Path(__file__).resolve().parent.parent
NUM_CLASSES, WARMUP, COPIED = 19, 5, 1 << 30
HEADER = """# Networks on a GPU

`{command}`:
{device}, torch {torch}, CUDA {cuda}, {date}, commit `{commit}`. One uint8 image of {size} pixels that is on the GPU
already, {classes} classes, random weights. Medians of {rounds} rounds, in which all ways take turns, by CUDA's events.
'Network' is normalisation and network, to logits at the network's stride; 'labels' is what makes labels of the image's
size of them; 'whole' is both in one CUDA graph, and images/s is from that. Where no graph can be made, a call is an
ordinary one, marked by *. Papers' FPS are for their own size and GPU, and most of them leave labels out.

| network | precision | network, ms | in a graph, ms | labels, ms | whole, ms | **images/s** | paper's FPS |
|---|---|---|---|---|---|---|---|
"""
KERNEL = """
## Labels from logits

Logits (1,{classes},{h},{w}), float32, to {size} labels: {megabytes:.1f} MB that have to be read and written. A copy of
1 GiB moves {bandwidth:.0f} GB/s (read and written) here, which makes a floor of {floor:.4f} ms.

| logits | way | ms | times the floor |
|---|---|---|---|
"""


def milliseconds(calls: Sequence[Callable[[], object]], rounds: int, device: torch.device) -> list[float]:
    """Median time of each call; they take turns."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(WARMUP + rounds):
        for call, found in zip(calls, times, strict=True):
            taken = once(call, device)
            if number >= WARMUP:
                found.append(taken)
    return [quantile(found, 0.5) for found in times]


def once(call: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call, on a GPU from its first work there to the end of its last."""
    if device.type != "cuda":
        began = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - began)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize(device)
    return float(begin.elapsed_time(end))


def row(name: str, precision: str, size: tuple[int, int], rounds: int, device: torch.device) -> str:
    """One line of the networks' table."""
    deployed = create_model(name, num_classes=NUM_CLASSES).eval().to(device).deploy(precision=precision)
    images = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8, device=device)
    network, whole = CudaGraphs(deployed, after=0), CudaGraphs(deployed.labels, after=0)
    logits = deployed(images)
    align_corners = deployed.align_corners
    times = milliseconds(
        [
            lambda: deployed(images),
            lambda: network(images),
            lambda: upsample_argmax(logits, size, align_corners=align_corners),
            lambda: whole(images),
        ],
        rounds,
        device,
    )
    marks = ["", "" if network.works else "*", "", "" if whole.works else "*"]
    cells = [f"{taken:.3f}{mark}" for taken, mark in zip(times, marks, strict=True)]
    speed = PAPERS[name].speed if name in PAPERS else None
    gpu = f", {speed.gpu}" if speed and speed.gpu else ""
    published = f"{speed.fps:g} ({speed.size}{gpu})" if speed else ""
    return f"| `{name}` | {precision} | {' | '.join(cells)} | **{1000 / times[-1]:.1f}** | {published} |\n"


def bandwidth(rounds: int, device: torch.device, amount: int = COPIED) -> float:
    """Bytes a second that a copy reads and writes."""
    source = torch.zeros(amount, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * amount / (milliseconds([lambda: target.copy_(source)], rounds, device)[0] / 1000)


def kernel_table(size: tuple[int, int], rounds: int, device: torch.device, amount: int = COPIED) -> str:
    """Ways from logits to labels beside the time that their bytes need."""
    height, width = size
    h, w = -(-height // 8), -(-width // 8)
    random = torch.randn(1, NUM_CLASSES, h, w, device=device)
    # large regions of one class with soft borders, as trained networks see them
    coarse = torch.randn(1, NUM_CLASSES, max(1, h // 16), max(1, w // 16), device=device) * 10
    regions = resize(coarse, (h, w), mode="bicubic")
    megabytes = (random.nbytes + height * width) / 1e6
    speed = bandwidth(rounds, device, amount)
    floor = 1000 * 1e6 * megabytes / speed
    text = KERNEL.format(
        classes=NUM_CLASSES,
        h=h,
        w=w,
        size=f"{height}x{width}",
        megabytes=megabytes,
        bandwidth=speed / 1e9,
        floor=floor,
    )
    for title, logits in (("regions", regions), ("random", random)):
        ways = kernel_ways(logits, size)
        found = milliseconds(list(ways.values()), rounds, device)
        for way, taken in zip(ways, found, strict=True):
            text += f"| {title} | {way} | {taken:.4f} | {taken / floor:.1f} |\n"
    return text


def kernel_ways(logits: Tensor, size: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """Each in a CUDA graph, so that a GPU's time is measured and not Python's."""
    nhwc = logits.contiguous(memory_format=torch.channels_last)
    ours = CudaGraphs(lambda x: upsample_argmax(x, size), after=0)
    plain = CudaGraphs(lambda x: resize(x, size).argmax(1), after=0)
    return {
        "ours, NCHW": lambda: ours(logits),
        "ours, channels last": lambda: ours(nhwc),
        "interpolate, then argmax": lambda: plain(logits),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all")
    parser.add_argument("--size", default="1024x2048", metavar="HEIGHTxWIDTH")
    parser.add_argument("--precision", nargs="+", default=["fp16", "bf16"], choices=["fp32", "fp16", "bf16"])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the tables to FILE, too")
    args = parser.parse_args(arguments)
    if args.rounds < 1:
        parser.error(f"--rounds is {args.rounds}; give 1 or more")
    try:
        height, width = map(int, args.size.split("x"))
        names = [name for name in args.models or MODELS.names() if MODELS.get(name)]
    except FastsegError as error:
        parser.error(str(error))
    except ValueError:
        parser.error(f"--size is {args.size!r}; give HEIGHTxWIDTH, such as 1024x2048")
    if not torch.cuda.is_available():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs only"
        print(
            f"no GPU: torch {torch.__version__} (built for {built}) sees none, and this measures one", file=sys.stderr
        )
        return 2
    device = torch.device("cuda")
    git = git_state(ROOT)
    text = HEADER.format(
        command=" ".join(["tools/bench_gpu.py", *(sys.argv[1:] if arguments is None else arguments)]),
        device=torch.cuda.get_device_name(device),
        torch=torch.__version__,
        cuda=torch.version.cuda,
        date=datetime.date.today(),
        commit=f"{git['commit'][:7]}{', with changes' if git['changed'] else ''}" if git else "unknown",
        size=args.size,
        classes=NUM_CLASSES,
        rounds=args.rounds,
    )
    print(text, end="", flush=True)
    with torch.inference_mode():
        for name in names:
            for precision in args.precision:
                line = row(name, precision, (height, width), args.rounds, device)
                print(line, end="", flush=True)
                text += line
            torch.cuda.empty_cache()
        table = kernel_table((height, width), args.rounds, device)
    print(table, end="")
    if args.write is not None:
        write_atomically(args.write, (text + table).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
