"""How fast one core loads training data, stage by stage, and how many cores keep the configured network fed."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from fastseg.config import Config
from fastseg.data.augment import recoloured, render
from fastseg.data.cache import disk_cached, find_cache
from fastseg.data.dataset import CachedDataset, ConcatDataset, FileDataset, SegDataset
from fastseg.data.files import FileInMemory
from fastseg.data.loader import AugmentedDataset, collate
from fastseg.data.readers import read_image
from fastseg.data.window import draw_window
from fastseg.engine import build, training_data
from fastseg.engine.distributed import Processes
from fastseg.engine.dry_run import random_labels
from fastseg.engine.step import backward
from fastseg.environment import processor_name
from fastseg.errors import DataError, FastsegError
from fastseg.ops import normalize_images

SAMPLES = 64  # that are gone through in turn: more than a processor's cache holds, and soon in memory
FILES, CACHE = "all, from the files", "all, from the cache"
LARGEST_BATCH = 8  # images that are stacked at most: a share of the work that does not grow with the batch
NETWORK_STEPS = 5

Say = Callable[[str], None]


@dataclass
class DataBench:
    """`stages` has the seconds that every sample took, by stage; `network` the images/s of its training step here."""

    data: str
    samples: int
    size: tuple[int, int]
    crop: tuple[int, int]
    workers: int
    processor: str
    stages: dict[str, list[float]] = field(default_factory=dict)
    network: float | None = None
    network_name: str = ""

    def rate(self, stage: str) -> float:
        """Images/s of one core, by the mean time."""
        return 1 / statistics.fmean(self.stages[stage])

    def cores(self, stage: str) -> float | None:
        """Cores that keep the network fed from this stage, or None without a network."""
        return None if self.network is None else self.network / self.rate(stage)

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON: images/s, milliseconds, cores."""
        wholes = [stage for stage in (FILES, CACHE) if stage in self.stages]
        return {
            "data": self.data,
            "samples": self.samples,
            "image": list(self.size),
            "crop": list(self.crop),
            "processor": self.processor,
            "images_timed": len(self.stages[FILES]),
            "milliseconds": {stage: 1000 * statistics.fmean(times) for stage, times in self.stages.items()},
            "images_per_second_per_core": {stage: self.rate(stage) for stage in self.stages},
            "network": self.network_name,
            "network_images_per_second": self.network,
            "cores_needed": {stage: self.cores(stage) for stage in wholes},
        }

    def table(self) -> str:
        """What a person reads."""
        width = max(len(stage) for stage in self.stages)
        lines = [
            f"{self.data}: {self.samples} samples, such as {self.size[1]}x{self.size[0]}; crop "
            f"{self.crop[1]}x{self.crop[0]}",
            f"one core of {self.processor}, mean of {len(self.stages[FILES])} images",
            "",
            f"{'stage':<{width}}  {'ms/image':>9}  {'images/s':>9}",
            "-" * (width + 22),
        ]
        for stage, times in self.stages.items():
            lines.append(f"{stage:<{width}}  {1000 * statistics.fmean(times):9.2f}  {self.rate(stage):9.1f}")
        if CACHE not in self.stages:
            lines.append("no cache of this data on disk: build one with --cache, train with data.cache=disk")
        if self.network is not None:
            lines += ["", f"{self.network_name}: {self.network:.1f} images/s"]
            for stage in (FILES, CACHE):
                cores = self.cores(stage) if stage in self.stages else None
                if cores is not None:
                    lines.append(
                        f"{stage}: {cores:.2f} cores keep it fed, data.workers={math.ceil(cores)} or more"
                        + (f" (configured: {self.workers})" if self.workers != math.ceil(cores) else "")
                    )
        return "\n".join(lines)


def bench_data(
    config: Config, *, seconds: float, cache: bool, network: bool, procs: Processes, say: Say = print
) -> DataBench:
    """Time the loading of the configured training data on this core for about `seconds`, then the network's step.

    The configured cache takes part, and one on disk where there is one; with `cache` it is built first. Samples are
    warm: their files, or their pages of the cache, are in memory. Raises FastsegError as training does.
    """
    dataset, sources = training_data.build_training_data(config)
    if not len(dataset):
        raise DataError(f"{config.source}: {sources[0].name} has no samples; nothing to time")
    cached: SegDataset | None
    if cache or config.data.cache == "disk":
        cached = disk_cached(dataset, config.data.cache_dir, say=say)
    elif config.data.cache == "memory":
        cached = CachedDataset(dataset)
    else:
        cached = find_cache(dataset, config.data.cache_dir)
    bench = DataBench(
        data=" + ".join(source.name for source in sources),
        samples=len(dataset),
        size=dataset.size(0),
        crop=config.augment.crop,
        workers=config.data.workers,
        processor=processor_name(),
    )
    say(f"loading for {seconds:.0f} s on one core")
    _time_stages(bench, config, dataset, cached, seconds)
    if network:
        bench.network, bench.network_name = _network_rate(config, dataset.info.num_classes, procs, seconds, say)
    return bench


def _time_stages(
    bench: DataBench, config: Config, dataset: SegDataset, cached: SegDataset | None, seconds: float
) -> None:
    """One sample after the other, each through every stage and through the whole, so that all see the same machine."""
    chosen = np.unique(np.linspace(0, len(dataset) - 1, SAMPLES).astype(int)).tolist()
    seed, scale = config.train.seed, config.input.scale
    whole = {FILES: AugmentedDataset(dataset, config.augment, input_scale=scale, seed=seed)}
    if cached is not None:
        whole[CACHE] = AugmentedDataset(cached, config.augment, input_scale=scale, seed=seed)
        for index in chosen:  # from the disk into memory
            cached.load(index)[0].max()
    batch = min(config.train.total_batch // config.train.accumulate, LARGEST_BATCH)
    _augmented(whole[FILES], (0, 0))  # what is loaded and allocated once
    clock, held = _Clock(bench.stages), []
    began = time.perf_counter()
    for number in itertools.count():
        if number >= batch and time.perf_counter() - began > seconds:
            break
        epoch, place = divmod(number, len(chosen))
        index = chosen[place]
        clock.start()
        image, label = _load(dataset, index, clock)
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch, index))))
        clock.start()
        window = draw_window(label, config.augment, random, input_scale=scale)
        image, label = render(image, label, window, config.augment.crop)
        clock.stop("window and resize")
        image = recoloured(image, config.augment, random)
        clock.stop("colour and blur")
        held.append((image, label, ""))
        if len(held) == batch:
            clock.start()
            collate(held)
            clock.stop("collate", images=batch)
            held = []
        for name, samples in whole.items():
            clock.start()
            _augmented(samples, (epoch, index))
            clock.stop(name)
    for name in whole:  # the end of the table
        bench.stages[name] = bench.stages.pop(name)


def _augmented(samples: AugmentedDataset, key: tuple[int, int]) -> None:
    sample = samples[key]
    if isinstance(sample, FastsegError):
        raise sample


def _load(dataset: SegDataset, index: int, clock: _Clock) -> tuple[np.ndarray, np.ndarray]:
    """Sample `index`, in the stages of its files where it has any."""
    while isinstance(dataset, ConcatDataset):
        dataset, index = dataset.locate(index)
    if not isinstance(dataset, FileDataset):
        sample = dataset.load(index)
        clock.stop("make image and label")
        return sample
    files = dataset.samples[index]
    data = files.image.read_bytes(), files.label.read_bytes()
    clock.stop("read files")
    image = read_image(data[0], apply_exif=False)
    clock.stop("decode image")
    label = dataset.coding.load(FileInMemory(str(files.label), data[1]))
    clock.stop("decode label")
    return image, label


class _Clock:
    """Adds the time since the last call to a stage."""

    def __init__(self, stages: dict[str, list[float]]) -> None:
        self._stages = stages
        self._last = 0.0

    def start(self) -> None:
        self._last = time.perf_counter()

    def stop(self, stage: str, *, images: int = 1) -> None:
        now = time.perf_counter()
        self._stages.setdefault(stage, []).append((now - self._last) / images)
        self._last = time.perf_counter()


def _network_rate(config: Config, num_classes: int, procs: Processes, seconds: float, say: Say) -> tuple[float, str]:
    """Images/s of this process's training step on random images of the configured crop and batch, and what was timed.

    Input comes as the loader hands it over: uint8, normalised on the device. The median of a few steps after one.
    """
    model = build.build_model(config, num_classes).to(procs.device).train()
    layout = torch.channels_last if config.train.channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)
    seg_loss = build.build_loss(config, model, None)
    optimizer = build.build_optimizer(config, model)
    size, (height, width) = build.split_batch(config, procs), config.augment.crop
    name = (
        f"{config.model.name}, training step of {size} x {width}x{height} in {config.train.precision} on "
        f"{_device_name(procs.device)}"
    )
    say(f"timing {name}")
    images = torch.randint(0, 256, (size, height, width, 3), dtype=torch.uint8)
    labels = torch.cat([random_labels(num_classes, height, width) for _ in range(-(-size // 2))])[:size]
    neutral = replace(config.preprocessing, input_scale=1.0)  # a crop is what the network sees
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 2 or (len(times) <= NETWORK_STEPS and time.perf_counter() - began < seconds):
        start = time.perf_counter()
        inputs = normalize_images(images.to(procs.device), neutral).contiguous(memory_format=layout)
        optimizer.zero_grad(set_to_none=True)
        batch = [(inputs, labels.to(procs.device))]
        backward(model, seg_loss, batch, procs, autocast=build.autocast(config, procs.device))
        optimizer.step()
        if procs.device.type == "cuda":
            torch.cuda.synchronize(procs.device)
        times.append(time.perf_counter() - start)
    return size / statistics.median(times[1:]), name


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device}, {torch.get_num_threads()} threads"
