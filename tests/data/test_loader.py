"""The training stream: one order for all processes, from any step, whatever the workers."""

from __future__ import annotations

from functools import partial
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.config import AugmentConfig
from fastseg.data.class_uniform import ClassUniform
from fastseg.data.loader import AugmentedDataset, Batch, FocusedKey, Key, StreamSampler, training_loader
from fastseg.errors import ImageReadError, LabelError
from toys import Numbered


def stream(
    length: int,
    *,
    batch_size: int = 2,
    rank: int = 0,
    world_size: int = 1,
    start: int = 0,
    stop: int = 12,
    seed: int = 3,
    class_uniform: ClassUniform | None = None,
) -> list[list[Key]]:
    sampler = StreamSampler(
        length,
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        seed=seed,
        start=start,
        stop=stop,
        class_uniform=class_uniform,
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
        return [key[1] for key in chain(*stream(20, stop=40, seed=seed)) if key[0] == epoch]

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


@pytest.mark.parametrize("world_size", range(1, 6))
def test_every_small_number_of_images_processes_and_batches(world_size: int) -> None:
    for length in range(1, 51):
        for batch_size in range(1, 6):
            share_of = partial(stream, length, batch_size=batch_size, world_size=world_size, stop=5)
            shares = [share_of(rank=rank) for rank in range(world_size)]
            keys = [key for step in zip(*shares, strict=True) for share in step for key in share]
            assert all(len(batch) == batch_size for share in shares for batch in share)
            assert len(set(keys)) == len(keys) == 5 * batch_size * world_size  # an epoch has each image once
            for first in range(0, len(keys) - length + 1, length):
                assert sorted(key[1] for key in keys[first : first + length]) == list(range(length))
            assert share_of(rank=world_size - 1, start=2) == shares[-1][2:]


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


class Alike(Numbered):
    """Samples of the same pixels, no two of which are equal."""

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image = np.arange(12 * 16 * 3, dtype=np.uint16).astype(np.uint8).reshape(12, 16, 3)
        return image, np.zeros((12, 16), np.uint8)


def test_seed_and_sample_each_choose_another_crop() -> None:
    def crop(seed: int, index: int) -> np.ndarray:
        sample = AugmentedDataset(Alike(9), AugmentConfig(crop=(4, 5)), input_scale=1.0, seed=seed)[0, index]
        assert isinstance(sample, tuple)
        return sample[0]

    for others in ([crop(seed, 0) for seed in range(1, 9)], [crop(0, index) for index in range(1, 9)]):
        assert sum(not np.array_equal(other, crop(0, 0)) for other in others) > 6


def places(share: float, length: int = 5) -> ClassUniform:
    """One place of each class in every other sample of Numbered, whose class is the parity of its number."""
    rows = [(index % 2, index, 3 + index % 9, 2) for index in range(0, length, 2)]
    return ClassUniform(np.array([*rows, (1, 1, 15, 11)], np.int32), share)


def test_class_uniform_replaces_its_share_and_leaves_the_other_keys_as_they_are() -> None:
    plain = list(chain(*stream(7, stop=300)))
    mixed = list(chain(*stream(7, stop=300, class_uniform=places(0.4, 7))))
    assert len(mixed) == len(plain) == 600
    replaced = [isinstance(key, FocusedKey) for key in mixed]
    assert 0.3 < np.mean(replaced) < 0.5  # five standard deviations
    for place, (key, usual) in enumerate(zip(mixed, plain, strict=True)):
        if isinstance(key, FocusedKey):
            assert (key.epoch, key.place) == divmod(place, 7)
        else:
            assert key == usual
    assert list(chain(*stream(7, stop=300, class_uniform=places(0, 7)))) == plain


def test_class_uniform_draws_anew_in_every_epoch_and_for_every_seed() -> None:
    first, second, other = (
        [(key[1], key.focus) for key in chain(*stream(40, batch_size=40, start=start, stop=start + 1, seed=seed,
         class_uniform=places(1, 40))) if isinstance(key, FocusedKey)]
        for start, seed in ((0, 3), (1, 3), (0, 4))
    )  # fmt: skip
    assert len(first) == len(second) == len(other) == 40
    assert len(set(first)) > 10, "every crop of an epoch is drawn for itself"
    assert first != second
    assert first != other


@given(length=st.integers(1, 20), world_size=st.integers(1, 4), batch_size=st.integers(1, 4), start=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_class_uniform_is_one_stream_for_all_processes_from_any_step(
    length: int, world_size: int, batch_size: int, start: int
) -> None:
    sampling = places(0.5, length)
    ranks = [
        stream(length, batch_size=batch_size, rank=r, world_size=world_size, start=start, class_uniform=sampling)
        for r in range(world_size)
    ]
    joined = [list(chain(*shares)) for shares in zip(*ranks, strict=True)]
    assert joined == stream(length, batch_size=batch_size * world_size, class_uniform=sampling)[start:]


def test_a_focused_crop_shows_its_place_and_no_two_of_a_sample_are_alike() -> None:
    class Spotted(Numbered):
        def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            random = np.random.default_rng(0)
            label = np.zeros((48, 64), np.uint8)
            label[40:42, 50:52] = 1
            return random.integers(0, 255, (48, 64, 3), np.uint8), label

    augmented = AugmentedDataset(Spotted(4), AugmentConfig(crop=(12, 16)), input_scale=1.0, seed=0)
    focused = [augmented[FocusedKey(0, 3, place, (50, 40))] for place in range(20)]
    usual = [augmented[0, index] for index in range(20)]
    assert all(isinstance(sample, tuple) and (sample[1] == 1).any() for sample in focused)
    assert sum(isinstance(sample, tuple) and bool((sample[1] == 1).any()) for sample in usual) < 10
    crops = {sample[0].tobytes() for sample in (*focused, augmented[0, 3]) if isinstance(sample, tuple)}
    assert len(crops) == 21
    again = augmented[FocusedKey(0, 3, 7, (50, 40))]
    assert isinstance(again, tuple)
    assert again[0].tobytes() in crops


def batches(workers: int, start: int = 0, class_uniform: ClassUniform | None = None) -> list[Batch]:
    sampler = StreamSampler(
        5, batch_size=3, rank=0, world_size=1, seed=9, start=start, stop=6, class_uniform=class_uniform
    )
    config = AugmentConfig(crop=(8, 10), rotate=5)
    loader = training_loader(
        Numbered(5), config, input_scale=1.0, seed=9, sampler=sampler, workers=workers, pin_memory=False
    )
    return list(loader)


@pytest.mark.parametrize("class_uniform", [None, places(0.5)], ids=["permutations", "class-uniform"])
def test_workers_change_nothing_and_a_resumed_stream_is_the_rest(class_uniform: ClassUniform | None) -> None:
    torch.manual_seed(1)
    alone = batches(0, class_uniform=class_uniform)
    torch.manual_seed(2)
    others = batches(2, class_uniform=class_uniform), batches(0, start=4, class_uniform=class_uniform)
    for other, expected in zip(others, (alone, alone[4:]), strict=True):
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


class Foreign(Numbered):
    """A data set of another's making, whose sample 1 has one label that its classes do not have."""

    def __init__(self, value: int, dtype: type = np.uint8) -> None:
        super().__init__(2)
        self.value, self.dtype = value, dtype

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = super().load(index)
        label = label.astype(self.dtype)
        if index == 1:
            label[3, 5:8] = self.value
        return image, label


WHOLE = AugmentConfig(crop=(12, 16), scale=(1.0, 1.0))


@pytest.mark.parametrize("value", range(256))
def test_a_label_that_is_no_class_never_leaves_the_loader(value: int) -> None:
    augmented = AugmentedDataset(Foreign(value), WHOLE, input_scale=1.0, seed=0)
    assert isinstance(augmented[0, 0], tuple)
    sample = augmented[0, 1]
    if value in (0, 1, 255):
        assert isinstance(sample, tuple)
        return
    assert isinstance(sample, LabelError)
    assert str(sample) == (
        f"sample1 of numbered: a crop of its label has values {{{value}: 3 px}}; allowed are 0-1 and 255 (ignored). "
        "Correct the data set's load()"
    )


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_labels_of_another_type_are_refused(dtype: type) -> None:
    sample = AugmentedDataset(Foreign(1, dtype), WHOLE, input_scale=1.0, seed=0)[0, 1]
    assert isinstance(sample, LabelError)
    assert f"sample1 of numbered: its label is {np.dtype(dtype)}; allowed is uint8." in str(sample)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_label_that_is_no_class_ends_the_stream_in_its_own_words(workers: int) -> None:
    sampler = StreamSampler(2, batch_size=2, rank=0, world_size=1, seed=0, start=0, stop=1)
    loader = training_loader(
        Foreign(77), WHOLE, input_scale=1.0, seed=0, sampler=sampler, workers=workers, pin_memory=False
    )
    with pytest.raises(LabelError, match=r"^sample1 of numbered: .* \{77: 3 px\}"):
        list(loader)


def test_a_turned_crop_at_the_corner_shows_the_class_that_was_drawn() -> None:
    class Cornered(Numbered):
        def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            label = np.zeros((128, 256), np.uint8)
            label[2:5, 2:5] = 1
            return np.zeros((128, 256, 3), np.uint8), label

    config = AugmentConfig(crop=(64, 64), scale=(1.0, 2.0), rotate=30)
    augmented = AugmentedDataset(Cornered(1), config, input_scale=1.0, seed=0)
    crops = [augmented[FocusedKey(0, 0, place, (3, 3))] for place in range(100)]
    assert all(isinstance(crop, tuple) and (crop[1] == 1).any() for crop in crops)
