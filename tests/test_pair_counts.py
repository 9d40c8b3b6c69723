"""Pairs of label and prediction are counted like NumPy counts them, by the kernel and by torch alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastseg import native
from fastseg.errors import LabelError
from fastseg.metrics import ConfusionMatrix
from fastseg.metrics.pair_counts import PER_THREAD, pair_counts

VOID = 255


@pytest.fixture(params=["kernel", "torch"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "torch":
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("the kernels are not built: python setup.py build_ext --inplace")


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def by_numpy(labels: Tensor, predictions: Tensor, num_classes: int) -> tuple[np.ndarray, dict[int, int]]:
    """Masks, and one bincount of what they leave."""
    K = num_classes
    rows, columns = labels.numpy().astype(np.int64), predictions.numpy().astype(np.int64)
    bad = (rows >= K) & (rows != VOID)
    values, times = np.unique(rows[bad], return_counts=True)
    rows, columns = np.where(rows == VOID, K, rows)[~bad], np.minimum(columns, K)[~bad]
    counts = np.bincount(rows * (K + 1) + columns, minlength=(K + 1) ** 2).reshape(K + 1, K + 1)
    return counts, dict(zip(values.tolist(), times.tolist(), strict=True))


@st.composite
def maps(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    """Maps of runs, long, short and of one pixel, of lengths around those at which the kernel changes its step."""
    num_classes = draw(st.one_of(st.integers(1, 6), st.just(19), st.just(150), st.just(255)))
    height, width = draw(st.integers(0, 5)), draw(st.sampled_from([1, 7, 8, 9, 63, 64, 65, 130, 257]))
    run = draw(st.sampled_from([1, 3, 8, 50, 300]))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    allowed = np.array([*range(num_classes), VOID])
    if draw(st.integers(0, 3)) == 0:
        allowed = np.arange(256)  # wrong labels, too

    def draw_map(values: np.ndarray) -> Tensor:
        size = height * width
        return torch.from_numpy(np.repeat(random.choice(values, size // run + 1), run)[:size].astype(np.uint8))

    return draw_map(allowed).view(height, width), draw_map(np.arange(256)).view(height, width), num_classes


@pytest.mark.usefixtures("form")
@given(maps())
@settings(max_examples=200, deadline=None)
def test_counts_and_wrong_labels_equal_numpy(drawn: tuple[Tensor, Tensor, int]) -> None:
    labels, predictions, num_classes = drawn
    expected, expected_wrong = by_numpy(labels, predictions, num_classes)
    counts, wrong = pair_counts(labels, predictions, num_classes)
    assert counts.dtype is torch.int64
    assert np.array_equal(counts.numpy(), expected)
    assert wrong == expected_wrong


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("num_classes", [1, 19, 254])
def test_every_label_with_every_prediction(num_classes: int) -> None:
    labels, predictions = torch.meshgrid(*[torch.arange(256, dtype=torch.uint8)] * 2, indexing="ij")
    counts, wrong = pair_counts(labels, predictions, num_classes)
    expected, expected_wrong = by_numpy(labels, predictions, num_classes)
    assert np.array_equal(counts.numpy(), expected)
    assert wrong == expected_wrong == dict.fromkeys(range(num_classes, VOID), 256)


@pytest.mark.usefixtures("form", "three_threads")
@pytest.mark.parametrize("extra", [0, 1, 63])
def test_parts_that_threads_count_add_up(extra: int) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = 3 * PER_THREAD + extra
    labels, predictions = (torch.randint(0, 9, (pixels,), dtype=torch.uint8, generator=generator) for _ in range(2))
    counts, _ = pair_counts(labels, predictions, 9)
    assert np.array_equal(counts.numpy(), by_numpy(labels, predictions, 9)[0])


@pytest.mark.usefixtures("form")
def test_blocks_that_torch_counts_one_by_one_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastseg.metrics.pair_counts.BLOCK", 100)
    labels = torch.arange(1050, dtype=torch.int64).remainder(7).to(torch.uint8)
    counts, _ = pair_counts(labels, labels.flip(0), 7)
    assert np.array_equal(counts.numpy(), by_numpy(labels, labels.flip(0), 7)[0])


@pytest.mark.usefixtures("form")
def test_views_that_skip_or_turn_memory_count_as_what_they_show() -> None:
    generator = torch.Generator().manual_seed(0)
    memory = torch.randint(0, 4, (80, 90), dtype=torch.uint8, generator=generator)
    labels, predictions = memory[::2, 1::3], memory.t()[5:35, 7:47].t()
    counts, _ = pair_counts(labels, predictions, 4)
    assert np.array_equal(counts.numpy(), by_numpy(labels, predictions, 4)[0])


@pytest.mark.usefixtures("form")
def test_maps_without_a_pixel_count_nothing() -> None:
    counts, wrong = pair_counts(torch.zeros(0, 5, dtype=torch.uint8), torch.zeros(0, 5, dtype=torch.uint8), 3)
    assert counts.tolist() == torch.zeros(4, 4).tolist()
    assert wrong == {}


@pytest.mark.usefixtures("form")
def test_a_matrix_stays_as_it_was_when_labels_are_wrong() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(torch.tensor([0, 1, VOID], dtype=torch.uint8), torch.tensor([0, 2, 2], dtype=torch.uint8))
    before = matrix.counts.clone()
    with pytest.raises(LabelError, match=r"\{3: 2 px, 200: 1 px\}; allowed are 0-2, and 255"):
        matrix.update(torch.tensor([3, 0, 200, 3], dtype=torch.uint8), torch.zeros(4, dtype=torch.uint8))
    assert torch.equal(matrix.counts, before)


def test_the_kernel_is_chosen_where_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    if native.library() is None:
        pytest.skip("the kernels are not built: python setup.py build_ext --inplace")
    monkeypatch.setattr(torch, "bincount", None)  # what torch's form cannot do without
    counts, _ = pair_counts(torch.zeros(5, dtype=torch.uint8), torch.zeros(5, dtype=torch.uint8), 2)
    assert counts[0, 0] == 5
