"""What a training step is fed with: batches on the device, normalised, from any place of the stream on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from fastseg.config import Config
from fastseg.data.class_uniform import ClassUniform
from fastseg.data.dataset import SegDataset
from fastseg.data.loader import StreamSampler, training_loader
from fastseg.data.loading import StoppedWaitingError
from fastseg.engine.distributed import Processes, StopFlag
from fastseg.errors import DistributedError
from fastseg.ops import normalize_images

STOP_SECONDS = 10.0  # that a process among many waits on for a batch when it is told to stop; launchers kill after 30


class StepBatches(NamedTuple):
    """(images float (N,3,H,W), labels int64 (N,H,W)) of each accumulation step, and the samples' names."""

    batches: list[tuple[Tensor, Tensor]]
    names: list[str]


def feed(
    config: Config,
    train_data: SegDataset,
    procs: Processes,
    stop: StopFlag,
    *,
    first: int,
    total: int,
    batch_size: int,
    class_uniform: ClassUniform | None,
    layout: torch.memory_format,
) -> Iterator[StepBatches]:
    """Batches of step `first` up to `total` of a run. Close it: loading processes end with it.

    Raises as `training_loader` does. When the run is told to stop while no batch comes: StoppedWaitingError, so that a
    process alone saves at once; among many, which agree on a step before they save, DistributedError after 10 s.
    """

    def give_up(waited: float) -> Exception | None:
        if procs.world_size == 1 and stop:
            return StoppedWaitingError()
        if min(waited, stop.seconds) > STOP_SECONDS:
            return DistributedError(
                f"told to stop by {stop.name} while no batch came for {waited:.0f} s: rank {procs.rank} cannot "
                "save with the others; go on from the last checkpoint with --resume auto"
            )
        return None

    accumulate = config.train.accumulate
    sampler = StreamSampler(
        len(train_data), batch_size=batch_size, rank=procs.rank, world_size=procs.world_size,
        seed=config.train.seed, start=first * accumulate, stop=total * accumulate, class_uniform=class_uniform,
    )  # fmt: skip
    loader = training_loader(
        train_data, config.augment, input_scale=config.input.scale, seed=config.train.seed, sampler=sampler,
        workers=config.data.workers, pin_memory=procs.device.type == "cuda", give_up=give_up,
        timeout_seconds=config.train.timeout,
    )  # fmt: skip
    neutral = replace(config.preprocessing, input_scale=1.0)  # augmentation has applied the scale already
    with closing(loader):  # type: ignore[type-var]
        for _ in range(first, total):
            step = StepBatches([], [])
            for _ in range(accumulate):
                batch = next(loader)
                images = normalize_images(batch.images.to(procs.device, non_blocking=True), neutral)
                labels = batch.labels.to(procs.device, non_blocking=True).long()
                step.batches.append((images.contiguous(memory_format=layout), labels))
                step.names.extend(batch.names)
            yield step
