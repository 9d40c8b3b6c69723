#!/usr/bin/env python3
"""How fast one core loads 1024x2048 PNG images to crops of 512x1024, against a pipeline as public code writes it.

    tools/bench_loader.py [--rounds 15] [--images 16] [--folder DIR] [--write docs/results/loader.md]

Makes a tree in Cityscapes' layout from procedural street scenes, with noise that brings a PNG to the size of the real
ones. Each pipeline has a process of its own with one thread; they take turns, one round after the other, so that what
else the machine does hits all; ratios are medians over rounds. The same samples at the same scales go through all.
"""

from __future__ import annotations

import argparse
import datetime
import mmap
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import PIL
from PIL import Image

from fastseg.config import AugmentConfig
from fastseg.data import build_dataset
from fastseg.data.augment import augment
from fastseg.data.cache import DiskCachedDataset, disk_cached
from fastseg.data.cache_file import CacheFile
from fastseg.data.cityscapes import CITYSCAPES
from fastseg.data.window import draw_window
from fastseg.environment import processor_name
from fastseg.types import IMAGENET_MEAN, IMAGENET_STD

ROOT = Path(__file__).resolve().parent.parent
HEIGHT, WIDTH, CROP = 1024, 2048, (512, 1024)
MEAN, STD = (np.array(numbers, np.float32) * 255 for numbers in (IMAGENET_MEAN, IMAGENET_STD))
GEOMETRY = AugmentConfig(crop=CROP, brightness=0, contrast=0, saturation=0, hue=0)
COLOURS = AugmentConfig(crop=CROP)
ROAD_SCENES_IDS = (7, 8, 11, 17, 19, 21, 23, 24, 26, 33)  # any ten of Cityscapes' official ids
NOISE = 0.8  # grey levels: brings the PNGs near the 2.3 MB of Cityscapes' own

Sample = tuple[np.ndarray, np.ndarray]
HEADER = """# Loading 1024x2048 PNG images to crops of 512x1024, on one core

`{command}`:
{device}, {date}, commit `{commit}`; Python {python}, OpenCV {opencv}, Pillow {pillow}, NumPy {numpy}.

{images} procedural street scenes in Cityscapes' layout: image and labelIds PNGs of {sizes};
Cityscapes' own images have about 2.3 MB. Scale drawn log-uniformly from 0.5 to 2, crop, flip; the same samples at the
same scales for all. Each pipeline is a process with one thread; they take turns for {rounds} rounds after one to warm
up. Milliseconds are medians over rounds, ratios medians of the ratios of one round, with quartiles; PNGs are OpenCV's
unless the row says otherwise. Files and cache are in memory, but in the row of the cold cache. Times are those of the
processor (`time.process_time`, page faults included): the machine was shared with other work, whose time the clock
would count, too. Peak memory is the most that a process held (`VmHWM`) from the first image on, Python and libraries
included; of that, the last column are pages of mapped files (libraries, the cache), which processes share and which the
kernel takes back at will.

| pipeline | ms per image | images/s | **ratio** | quartiles | peak memory, MB | of which mapped |
|---|---|---|---|---|---|---|
"""
NOTES = """
The baseline is written out in the tool, in the order of [Fast_Seg's](https://github.com/lxtGH/Fast_Seg)
`libs/datasets/cityscapes.py`: OpenCV decodes image and label, 34 boolean masks make classes of ids, image and label are
resized whole, the image becomes float32 and is normalised, both are padded, cropped and flipped, and the image becomes
(3,H,W). Our rows give uint8 (H,W,3), which the device normalises, except the one that says so.

Cold cache: before every image the process drops its pages of the cache (`madvise(MADV_DONTNEED)`) and has the kernel
drop the file's (`posix_fadvise(POSIX_FADV_DONTNEED)`), so that all it touches is read from the disk again, as with a
cache much larger than memory, and the sample is fetched as from such a one; dropping is not timed. {read:.1f} MB were
read per image. This row is time on the clock, which the disk and whoever else uses it decide; {busy:.1f} ms of it kept
the core busy.
"""


def baseline(root: Path, cache: Path, *, early: bool) -> Callable[[int, int], Sample]:
    """As public pipelines do it, written for this comparison; `early`: all of the resized image becomes float32."""
    samples = build_dataset("cityscapes", "train", root=str(root)).samples  # type: ignore[attr-defined]
    files = [(str(sample.image), str(sample.label)) for sample in samples]
    classes = dict.fromkeys(range(34), 255) | {raw: index for index, raw in enumerate(CITYSCAPES.official_ids)}

    def load(epoch: int, index: int) -> Sample:
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence((0, epoch, index))))
        image = cv2.imread(files[index][0], cv2.IMREAD_COLOR)[..., ::-1]
        raw = cv2.imread(files[index][1], cv2.IMREAD_GRAYSCALE)
        label = raw.copy()
        for number, value in classes.items():
            label[raw == number] = value
        window = draw_window(label, GEOMETRY, random, input_scale=1.0)
        size = round(WIDTH * window.scale_x), round(HEIGHT * window.scale_y)
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
        if early:
            image = image.astype(np.float32)
            image -= MEAN
            image /= STD
        below, right = max(0, CROP[0] - size[1]), max(0, CROP[1] - size[0])
        if below or right:
            image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=(0, 0, 0))
            label = cv2.copyMakeBorder(label, 0, below, 0, right, cv2.BORDER_CONSTANT, value=255)
        top = int(random.integers(0, label.shape[0] - CROP[0] + 1))
        left = int(random.integers(0, label.shape[1] - CROP[1] + 1))
        image, label = (each[top : top + CROP[0], left : left + CROP[1]] for each in (image, label))
        if not early:
            image = (image.astype(np.float32) - MEAN) / STD
        if window.flip:
            image, label = image[:, ::-1], label[:, ::-1]
        return np.ascontiguousarray(image.transpose(2, 0, 1)), np.ascontiguousarray(label)

    return load


def ours(root: Path, cache: Path, *, cached: bool, config: AugmentConfig, floats: bool = False, cold: bool = False):  # type: ignore[no-untyped-def]
    """What training does; `floats` also does what the device would."""
    dataset = build_dataset("cityscapes", "train", root=str(root))
    if cached:
        # pages that another process maps, too, cannot be dropped: the cold one has a cache of its own
        dataset = disk_cached(dataset, cache / "cold" if cold else cache, announce=False)

    def load(epoch: int, index: int) -> Sample:
        image, label = augment(*dataset.load(index), config, input_scale=1.0, key=(0, epoch, index))
        if floats:
            image = np.ascontiguousarray(((image.astype(np.float32) - MEAN) / STD).transpose(2, 0, 1))
        return image, label

    if cold:
        assert isinstance(dataset, DiskCachedDataset)
        dataset.file = CacheFile(dataset.file.path, fits=False)
        load.drop = lambda: drop(dataset)  # type: ignore[attr-defined]
    return load


def drop(dataset: DiskCachedDataset) -> None:
    """Have the kernel forget the cache's pages."""
    dataset.file._map.madvise(mmap.MADV_DONTNEED)
    descriptor = os.open(dataset.file.path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


class Turn(NamedTuple):
    """One round of a pipeline: seconds of the processor and on the clock per image, bytes held, mapped and read."""

    seconds: float
    wall: float
    peak: int
    mapped: int
    read: float


@dataclass(frozen=True)
class Pipeline:
    """A row: its title, how many images it loads in a round, and what makes its loading function."""

    title: str
    per_round: int
    make: str
    options: Mapping[str, object] = field(default_factory=dict)
    waits: bool = False  # for the disk
    writer: str = "opencv"  # of the PNG files
    against: int = 0  # the row whose time is divided by this one's


def row(
    title: str, per_round: int, *, waits: bool = False, writer: str = "opencv", against: int = 0, **options: object
) -> Pipeline:
    return Pipeline(title, per_round, "ours", options, waits, writer, against)


COLD = 7
PIPELINES = (
    Pipeline("baseline: decode, 34 masks, resize, float32, crop", 12, "baseline", {"early": True}),
    Pipeline("the same, but crop before float32", 12, "baseline", {"early": False}),
    row("**ours, from PNG**", 12, cached=False, config=GEOMETRY),
    row("ours, from PNG, with colours", 12, cached=False, config=COLOURS),
    row("**ours, from the cache**", 64, cached=True, config=GEOMETRY),
    row("ours, from the cache, with colours", 64, cached=True, config=COLOURS),
    row("ours, from the cache, and float32 (3,H,W) here", 64, cached=True, config=GEOMETRY, floats=True),
    row("ours, from a cold cache", 16, waits=True, cached=True, config=GEOMETRY, cold=True),
    Pipeline("baseline, PNGs by Pillow", 12, "baseline", {"early": True}, writer="pillow", against=8),
    row("ours, PNGs by Pillow", 12, writer="pillow", against=8, cached=False, config=GEOMETRY),
)


def serve(pipeline: Pipeline, root: Path, cache: Path, count: int, pipe: Connection) -> None:
    """Load `per_round` images whenever asked: answer seconds per image, peak memory and what was read from disk."""
    cv2.setNumThreads(1)
    load = globals()[pipeline.make](root / pipeline.writer, cache, **pipeline.options)
    forget = getattr(load, "drop", None)
    number = 0
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins now, not with the parent's
    while pipe.recv():
        spent = wall = 0.0
        before = resource.getrusage(resource.RUSAGE_SELF)
        for _ in range(pipeline.per_round):
            if forget is not None:
                forget()
            began, began_wall = time.process_time(), time.perf_counter()
            load(*divmod(number, count))
            spent, wall = spent + time.process_time() - began, wall + time.perf_counter() - began_wall
            number += 1
        after = resource.getrusage(resource.RUSAGE_SELF)
        read = (after.ru_inblock - before.ru_inblock) * 512 / pipeline.per_round
        times = spent / pipeline.per_round, wall / pipeline.per_round
        pipe.send(Turn(*times, held("VmHWM"), held("RssFile"), read))


def held(kind: str) -> int:
    """Bytes of memory that this process holds, as the kernel counts them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(kind):
            return int(line.split()[1]) * 1024
    return 0


def make_tree(root: Path, count: int) -> str:
    """Write the images and labels twice, by OpenCV and by Pillow; their mean sizes, for the document."""
    scenes = build_dataset("road_scenes", "train", args={"count": count, "height": HEIGHT // 2, "width": WIDTH // 2})
    ids = np.full(256, 4, np.uint8)  # static, which is ignored
    ids[: len(ROAD_SCENES_IDS)] = ROAD_SCENES_IDS
    random = np.random.default_rng(0)
    files: dict[tuple[str, str], list[Path]] = {}
    for index in range(count):
        image, label = scenes.load(index)
        large = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        large = (large + random.normal(0, NOISE, large.shape)).clip(0, 255).round().astype(np.uint8)
        raw = cv2.resize(ids[label], (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
        name = f"town_{index:06d}_000000"
        for writer in ("opencv", "pillow"):
            for kind, pixels in ((f"leftImg8bit/train/town/{name}_leftImg8bit.png", large),
                                 (f"gtFine/train/town/{name}_gtFine_labelIds.png", raw)):  # fmt: skip
                path = root / writer / kind
                path.parent.mkdir(parents=True, exist_ok=True)
                if writer == "pillow":
                    Image.fromarray(pixels).save(path)
                else:
                    cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels)
                files.setdefault((writer, kind[:2]), []).append(path)
    means = {key: statistics.fmean(path.stat().st_size for path in paths) for key, paths in files.items()}
    return ", ".join(
        f"{means[writer, 'le'] / 1e6:.2f} MB and {means[writer, 'gt'] / 1e3:.0f} kB written by {title}"
        for writer, title in (("opencv", "OpenCV (one row filter)"), ("pillow", "Pillow (libpng's choice of filters)"))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="where images and cache go for the time (default: a temporary one)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table to FILE, too")
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error(f"--rounds is {args.rounds}; quartiles need 2 or more")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        root, cache = Path(folder) / "data", Path(folder) / "cache"
        sizes = make_tree(root, args.images)
        for place in (cache, cache / "cold"):
            disk_cached(build_dataset("cityscapes", "train", root=str(root / "opencv")), place)
        results = measure(root, cache, args.images, args.rounds)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    text = HEADER.format(
        command=f"tools/bench_loader.py --rounds {args.rounds} --images {args.images}",
        device=processor_name(),
        date=datetime.date.today(),
        commit=commit.stdout.strip(),
        python=platform.python_version(),
        opencv=cv2.__version__,
        numpy=np.__version__,
        pillow=PIL.__version__,
        images=args.images,
        sizes=sizes,
        rounds=args.rounds,
    )
    for pipeline, found in zip(PIPELINES, results, strict=True):
        # a process that waits for the disk spends no processor time on it
        kind = "wall" if pipeline.waits else "seconds"
        taken = [getattr(turn, kind) for turn in found]
        ratios = [theirs.seconds / ours for theirs, ours in zip(results[pipeline.against], taken, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        peak, shared = max(turn.peak for turn in found), max(turn.mapped for turn in found)
        median = statistics.median(taken)
        text += (
            f"| {pipeline.title} | {1000 * median:.2f} | {1 / median:.1f} | **{middle:.2f}** | {low:.2f}-{high:.2f} | "
            f"{peak / 1e6:.0f} | {shared / 1e6:.0f} |\n"
        )
    cold = results[COLD]
    read = statistics.median(turn.read for turn in cold)
    text += NOTES.format(read=read / 1e6, busy=1000 * statistics.median(turn.seconds for turn in cold))
    print(text, end="")
    if args.write is not None:
        args.write.write_text(text)


def measure(root: Path, cache: Path, count: int, rounds: int) -> list[list[Turn]]:
    """The turns of every pipeline."""
    context = multiprocessing.get_context("spawn")
    members = []
    for pipeline in PIPELINES:
        mine, theirs = context.Pipe()
        process = context.Process(target=serve, args=(pipeline, root, cache, count, theirs), daemon=True)
        process.start()
        theirs.close()
        members.append((process, mine))
    results: list[list[Turn]] = [[] for _ in PIPELINES]
    for number in range(-1, rounds):
        for (_, pipe), found in zip(members, results, strict=True):
            pipe.send(True)
            answer = pipe.recv()
            if number >= 0:
                found.append(answer)
        if number >= 0:
            print(" ".join(f"{1000 * found[-1].seconds:.1f}" for found in results), "ms", file=sys.stderr, flush=True)
    for process, pipe in members:
        pipe.send(False)
        process.join()
    return results


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come
    main()
