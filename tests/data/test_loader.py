"""The training stream: one order for all processes, from any step, whatever the workers."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.config import AugmentConfig
from fastseg.data.dataset import SegDataset
from fastseg.data.loader import AugmentedDataset, Batch, StreamSampler, training_loader
from fastseg.errors import ImageReadError
from fastseg.types import DatasetInfo


class Numbered(SegDataset):
    """Image and label of sample i are filled with i."""

    info = DatasetInfo("numbered", ("a", "b"), ((0, 0, 0), (1, 1, 1)))

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full((12, 16, 3), index, np.uint8), np.full((12, 16), index % 2, np.uint8)

    def sample_name(self, index: int) -> str:
        return f"sample{index}"


def stream(
    length: int,
    *,
    batch_size: int = 2,
    rank: int = 0,
    world_size: int = 1,
    start: int = 0,
    stop: int = 12,
    seed: int = 3,
) -> list[list[tuple[int, int]]]:
    sampler = StreamSampler(
        length, batch_size=batch_size, rank=rank, world_size=world_size, seed=seed, start=start, stop=stop
    )
    batches = list(sampler)
    assert len(batches) == len(sampler)
    return batches


@pytest.mark.parametrize("length", range(1, 8))
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_every_epoch_is_a_permutation_and_no_batch_is_short(length: int, batch_size: int) -> None:
    epochs = 6
    batches = stream(length, batch_size=batch_size, stop=length * epochs)
    assert {len(batch) for batch in batches} == {batch_size}
    keys = list(chain(*batches))[: length * epochs]
    for epoch in range(epochs):
        assert sorted(keys[epoch * length : (epoch + 1) * length]) == [(epoch, i) for i in range(length)]


def test_epochs_and_seeds_shuffle_differently() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [index for e, index in chain(*stream(20, stop=40, seed=seed)) if e == epoch]

    orders = [order(0, 0), order(0, 1), order(1, 0), order(1, 1), list(range(20))]
    assert len({tuple(o) for o in orders}) == 5
    assert order(0, 1) == order(0, 1)


@given(length=st.integers(1, 20), world_size=st.integers(1, 4), batch_size=st.integers(1, 4), start=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_processes_share_one_stream_without_overlap(length: int, world_size: int, batch_size: int, start: int) -> None:
    ranks = [
        stream(length, batch_size=batch_size, rank=rank, world_size=world_size, start=start, stop=start + 7)
        for rank in range(world_size)
    ]
    joined = [list(chain(*shares)) for shares in zip(*ranks, strict=True)]
    assert joined == stream(length, batch_size=batch_size * world_size, start=start, stop=start + 7)
    keys = list(chain(*joined))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("length", range(1, 7))
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_starting_later_gives_the_rest_of_the_stream(length: int, world_size: int) -> None:
    for rank in range(world_size):
        whole = stream(length, rank=rank, world_size=world_size)
        for start in range(len(whole) + 1):
            assert stream(length, rank=rank, world_size=world_size, start=start) == whole[start:]


def test_iterating_twice_gives_the_same() -> None:
    sampler = StreamSampler(5, batch_size=2, rank=0, world_size=1, seed=0, start=0, stop=9)
    assert list(sampler) == list(sampler)


def test_a_sample_is_named_by_its_key_and_differs_between_epochs() -> None:
    augmented = AugmentedDataset(Numbered(4), AugmentConfig(crop=(8, 10)), input_scale=1.0, seed=0)
    first, again, later = (augmented[key] for key in ((0, 3), (0, 3), (1, 3)))
    assert isinstance(first, tuple)
    assert isinstance(again, tuple)
    assert isinstance(later, tuple)
    image, label, name = first
    assert name == "sample3"
    assert image.shape == (8, 10, 3)
    assert np.array_equal(again[0], image)
    assert not np.array_equal(later[0], image)
    assert set(np.unique(label)) <= {1, 255}


def batches(workers: int, start: int = 0) -> list[Batch]:
    sampler = StreamSampler(5, batch_size=3, rank=0, world_size=1, seed=9, start=start, stop=6)
    config = AugmentConfig(crop=(8, 10), rotate=5)
    loader = training_loader(
        Numbered(5), config, input_scale=1.0, seed=9, sampler=sampler, workers=workers, pin_memory=False
    )
    return list(loader)


def test_workers_change_nothing_and_a_resumed_stream_is_the_rest() -> None:
    torch.manual_seed(1)
    alone = batches(0)
    torch.manual_seed(2)
    for other, expected in ((batches(2), alone), (batches(0, start=4), alone[4:])):
        assert len(other) == len(expected)
        for a, b in zip(other, expected, strict=True):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.labels, b.labels)
            assert a.names == b.names


def test_batches_are_uint8_of_the_crops_size() -> None:
    first = batches(0)[0]
    assert (first.images.shape, first.images.dtype) == ((3, 8, 10, 3), torch.uint8)
    assert (first.labels.shape, first.labels.dtype) == ((3, 8, 10), torch.uint8)
    assert len(first.names) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_no_global_random_state_is_touched(workers: int) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    before, before_numpy = torch.get_rng_state(), str(np.random.get_state())
    batches(workers)
    assert torch.equal(torch.get_rng_state(), before)
    assert str(np.random.get_state()) == before_numpy


class Bad(Numbered):
    """A data set whose sample 2 is damaged."""

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index == 2:
            raise ImageReadError("two.png is damaged; fetch it again")
        return super().load(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_sample_is_its_own_error_wherever_it_is_loaded(workers: int) -> None:
    sampler = StreamSampler(4, batch_size=2, rank=0, world_size=1, seed=0, start=0, stop=2)
    loader = training_loader(
        Bad(4), AugmentConfig(crop=(8, 10)), input_scale=1.0, seed=0, sampler=sampler, workers=workers, pin_memory=False
    )
    with pytest.raises(ImageReadError) as caught:
        list(loader)
    assert str(caught.value) == "two.png is damaged; fetch it again"  # without a worker's traceback
