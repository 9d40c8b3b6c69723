"""Batches for training: an endless, keyed stream that starts at any step.

Step i of a run takes the images `i * total_batch ...` of a stream in which every epoch is one permutation after the
other, so that all processes take equally many, no batch is short, and a resumed run goes on where it stopped.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from fastseg.config import AugmentConfig
from fastseg.data.augment import augment
from fastseg.data.class_uniform import ClassUniform
from fastseg.data.coding import counted
from fastseg.data.dataset import SegDataset
from fastseg.data.loading import batches_ahead, end_loading, leave_signals_to_the_training, named_failures, patiently
from fastseg.errors import FastsegError, LabelError, printable
from fastseg.types import IGNORE_INDEX

CHOICE, CROP = 1, 2  # what random numbers of a place in the stream are for; not 0, which a seed sequence drops


class Batch(NamedTuple):
    """`images` uint8 (N,H,W,3) RGB, `labels` uint8 (N,H,W), and the samples' names."""

    images: Tensor
    labels: Tensor
    names: list[str]


class FocusedKey(NamedTuple):
    """A crop of `sample` that shows the pixel `focus` (x, y); `place` in the epoch tells it from others of it."""

    epoch: int
    sample: int
    place: int
    focus: tuple[int, int]


Key: TypeAlias = tuple[int, int] | FocusedKey  # (epoch, index) of a crop like any other


class StreamSampler(Sampler[list[Key]]):
    """Micro-batches of keys for one process, from micro-batch `start` on.

    A step is `accumulate` micro-batches, a micro-batch `world_size` shares of `batch_size` images, in that order, so
    one process with `batch_size * world_size` sees the same images per micro-batch as many processes together.

    Every epoch is a permutation of (epoch, index) keys, of which `class_uniform` replaces its share by focused ones. A
    key depends on seed and position in the stream alone.
    """

    def __init__(
        self,
        length: int,
        *,
        batch_size: int,
        rank: int,
        world_size: int,
        seed: int,
        start: int,
        stop: int,
        class_uniform: ClassUniform | None = None,
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.seed = seed
        self.start = start
        self.stop = stop
        self.class_uniform = class_uniform
        self._epoch = -1
        self._order = np.arange(0)

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in range(self.start, self.stop):
            first = (batch * self.world_size + self.rank) * self.batch_size
            yield [self._key(position) for position in range(first, first + self.batch_size)]

    def _key(self, position: int) -> Key:
        epoch, place = divmod(position, self.length)
        if self.class_uniform is not None:
            drawn = self.class_uniform.draw(_generator(self.seed, epoch, place, CHOICE))
            if drawn is not None:
                return FocusedKey(epoch, drawn.sample, place, (drawn.x, drawn.y))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = _generator(self.seed, epoch).permutation(self.length)
        return epoch, int(self._order[place])


def _generator(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


class AugmentedDataset(Dataset[tuple[np.ndarray, np.ndarray, str] | FastsegError]):
    """Augmented samples by key; or the error of a bad one, since torch would wrap it in a traceback."""

    def __init__(self, dataset: SegDataset, config: AugmentConfig, *, input_scale: float, seed: int) -> None:
        self.dataset = dataset
        self.config = config
        self.input_scale = input_scale
        self.seed = seed

    def __getitem__(self, key: Key) -> tuple[np.ndarray, np.ndarray, str] | FastsegError:
        epoch, index, *_ = key
        numbers: tuple[int, ...] = (self.seed, epoch, index)
        focus = None
        if isinstance(key, FocusedKey):
            numbers, focus = (self.seed, epoch, key.place, CROP), key.focus
        try:
            image, label = self.dataset.load(index)
        except FastsegError as error:
            return error
        if label.dtype != np.uint8:
            return self._wrong(index, f"its label is {label.dtype}; allowed is uint8")
        image, label = augment(image, label, self.config, input_scale=self.input_scale, key=numbers, focus=focus)
        num_classes = self.dataset.info.num_classes
        # a class too many would end a GPU's process; adding 1 turns ignored ones to 0, and takes no array of indices
        if int((label + np.uint8(1)).max()) > num_classes:
            values, counts = np.unique(label[(label >= num_classes) & (label != IGNORE_INDEX)], return_counts=True)
            return self._wrong(
                index,
                f"a crop of its label has values {{{counted(values, counts)}}}; allowed are 0-{num_classes - 1} and "
                f"{IGNORE_INDEX} (ignored)",
            )
        return image, label, self.dataset.sample_name(index)

    def _wrong(self, index: int, what: str) -> LabelError:
        dataset = self.dataset
        return LabelError(
            f"{printable(dataset.sample_name(index))} of {dataset.info.name}: {what}. Correct the data set's load()"
        )


def collate(samples: Sequence[tuple[np.ndarray, np.ndarray, str] | FastsegError]) -> Batch | FastsegError:
    """Stack samples of one size, or hand on the first error among them."""
    good = []
    for sample in samples:
        if isinstance(sample, FastsegError):
            return sample
        good.append(sample)
    images, labels, names = zip(*good, strict=True)
    return Batch(torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)), list(names))


def training_loader(
    dataset: SegDataset,
    config: AugmentConfig,
    *,
    input_scale: float,
    seed: int,
    sampler: StreamSampler,
    workers: int,
    pin_memory: bool,
    give_up: Callable[[float], Exception | None] = lambda _: None,
    timeout_seconds: float = 600,
) -> Iterator[Batch]:
    """Batches of the sampler's micro-batches, in order. Nothing is drawn from torch's global random state.

    Raises what the data set raises (DataError for a bad sample), as it is, also where another process loads;
    LoadingError for a loading process that was killed, or when none gives a batch for `timeout_seconds`, or has the
    room for one; and what `give_up(seconds)` returns, by the seconds that it has
    waited for one.
    """
    height, width = config.crop
    ahead = batches_ahead(workers, sampler.batch_size * height * width * 4) if workers else None
    loader = DataLoader(
        AugmentedDataset(dataset, config, input_scale=input_scale, seed=seed),
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(seed),
        persistent_workers=False,
        prefetch_factor=ahead,
        worker_init_fn=leave_signals_to_the_training,
    )
    others = set(multiprocessing.active_children())
    iterator = iter(loader)
    loading = set(multiprocessing.active_children()) - others
    batches: Iterator[Batch | FastsegError] = iterator
    if workers:
        batches = patiently(batches, loading, give_up=give_up, timeout_seconds=timeout_seconds)
    try:
        with named_failures():
            for batch in batches:
                if isinstance(batch, FastsegError):
                    raise batch
                yield batch
    finally:
        end_loading(iterator, loading)
