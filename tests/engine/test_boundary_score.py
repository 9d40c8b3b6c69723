"""The boundary F-score equals a count with discs, pixel by pixel, and follows contours as far as its threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.engine.boundary_score import ONE, PAPER_THRESHOLDS, BoundaryScore, boundary_pixels
from fastseg.errors import ConfigError
from fastseg.metrics import BoundaryF

K, VOID = 3, 255
THRESHOLDS = (0.5, 1.0, math.sqrt(2), 2.0, 3.0, 20.0)
ROUNDING = 1e-11  # F is kept in steps of 2**-40, about 1e-12

Pair = tuple[np.ndarray, np.ndarray]


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """Labels with void, and predictions that may be no class, of one size."""
    shape = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cell = draw(st.integers(1, 4))  # larger cells give regions instead of noise
    cells = np.arange(shape[0])[:, None] // cell, np.arange(shape[1]) // cell
    values = np.array(draw(st.sampled_from([(0, 1, 2, VOID), (0, 1), (0, VOID), (2,)])), np.uint8)
    label = random.choice(values, (8, 8))[cells]
    prediction = np.where(random.random(shape) < draw(st.floats(0, 1)), random.integers(0, K + 1, shape), label)
    return label, prediction.astype(np.uint8)


def slow_boundary(mask: np.ndarray) -> set[tuple[int, int]]:
    height, width = mask.shape
    return {
        (y, x)
        for y in range(height)
        for x in range(width)
        for below, beside in ((y, x + 1), (y + 1, x), (y + 1, x + 1))
        if below < height and beside < width and mask[y, x] != mask[below, beside]
    }


def slow_f(truth: np.ndarray, predicted: np.ndarray, threshold: float) -> float | None:
    """F of two masks: every boundary pixel grows into a disc."""
    if not truth.any() and not predicted.any():
        return None
    if not truth.any() or not predicted.any():
        return 0.0
    reach = range(-int(threshold), int(threshold) + 1)
    disc = [(dy, dx) for dy in reach for dx in reach if math.sqrt(dy * dy + dx * dx) <= threshold]
    true, found = slow_boundary(truth), slow_boundary(predicted)
    if not true and not found:
        return 1.0
    near_true, near_found = ({(y + dy, x + dx) for y, x in points for dy, dx in disc} for points in (true, found))
    precision = len(found & near_true) / len(found) if found else 1.0
    recall = len(true & near_found) / len(true) if true else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def slow_scores(images: Sequence[Pair], threshold: float) -> list[float]:
    scores = []
    for index in range(K):
        valid = [(label == index, (prediction == index) & (label != VOID)) for label, prediction in images]
        seen = [score for masks in valid if (score := slow_f(*masks, threshold)) is not None]
        scores.append(sum(seen) / len(seen) if seen else math.nan)
    return scores


def score(*images: Pair, thresholds: Sequence[float] = THRESHOLDS) -> BoundaryF:
    return counted(*images, thresholds=thresholds).scores()


def counted(*images: Pair, thresholds: Sequence[float] = THRESHOLDS) -> BoundaryScore:
    boundary = BoundaryScore(K, thresholds)
    for label, prediction in images:
        boundary.update(label, prediction)
    return boundary


def block(top: int, left: int, size: int = 2, shape: tuple[int, int] = (40, 40)) -> np.ndarray:
    """A square of class 1 in class 0."""
    label = np.zeros(shape, np.uint8)
    label[top : top + size, left : left + size] = 1
    return label


@settings(max_examples=150, deadline=None)
@given(st.lists(pairs(), min_size=1, max_size=3))
def test_scores_equal_a_count_with_discs(images: list[Pair]) -> None:
    scores = score(*images)
    for row, threshold, mean in zip(scores.per_class, THRESHOLDS, scores.means, strict=True):
        expected = slow_scores(images, threshold)
        assert row == pytest.approx(expected, abs=ROUNDING, nan_ok=True)
        present = [value for value in expected if not math.isnan(value)]
        assert mean == pytest.approx(np.mean(present) if present else math.nan, abs=ROUNDING, nan_ok=True)


@settings(max_examples=50, deadline=None)
@given(pairs())
def test_boundary_pixels_equal_a_loop_over_pixels(pair: Pair) -> None:
    mask = pair[0] == 0
    assert set(map(tuple, np.argwhere(boundary_pixels(mask)).tolist())) == slow_boundary(mask)


@settings(max_examples=100, deadline=None)
@given(pairs())
def test_a_prediction_right_on_every_labelled_pixel_scores_exactly_one(pair: Pair) -> None:
    label, anything = pair
    prediction = np.where(label == VOID, anything, label)
    counts = counted((label, prediction)).counts
    seen = [index in label for index in range(K)]
    assert counts[:, 0].tolist() == [int(present) for present in seen]
    assert counts[:, 1:].tolist() == [[ONE if present else 0] * len(THRESHOLDS) for present in seen]


@settings(max_examples=100, deadline=None)
@given(pairs(), pairs())
def test_what_is_predicted_on_void_does_not_matter(pair: Pair, other: Pair) -> None:
    label, prediction = pair
    changed = np.where(label == VOID, np.resize(other[1], label.shape), prediction)
    assert torch.equal(counted((label, prediction)).counts, counted((label, changed)).counts)


@settings(max_examples=100, deadline=None)
@given(pairs())
def test_a_larger_threshold_never_lowers_the_score(pair: Pair) -> None:
    sums = counted(pair).counts[:, 1:]
    assert (sums.diff(dim=1) >= 0).all()
    assert (sums >= 0).all()
    assert (sums <= ONE).all()


@settings(max_examples=100, deadline=None)
@given(pairs())
def test_truth_and_prediction_are_interchangeable_without_void(pair: Pair) -> None:
    label, prediction = (np.where(values >= K, 0, values) for values in pair)
    assert torch.equal(counted((label, prediction)).counts, counted((prediction, label)).counts)


@settings(max_examples=50, deadline=None)
@given(st.lists(pairs(), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_images_in_any_order_and_any_shares_sum_to_the_same_integers(images: list[Pair], random: object) -> None:
    whole = counted(*images).counts
    random.shuffle(images)  # type: ignore[attr-defined]
    assert torch.equal(counted(*images[::2]).counts + counted(*images[1::2]).counts, whole)
    assert whole.dtype is torch.int64


@pytest.mark.parametrize("shift", [1, 3, 5, 12])
def test_a_square_shifted_by_d_pixels_is_right_from_threshold_d_on(shift: int) -> None:
    images = block(10, 8, 9), block(10, 8 + shift, 9)
    below, at, above = (row[1] for row in score(images, thresholds=(shift - 0.01, shift, shift + 1)).per_class)
    assert below < 1
    assert at == above == 1


@pytest.mark.parametrize("shift", [(y, x) for y in range(1, 13) for x in range(y, 13, 2)])
def test_a_threshold_equal_to_a_distance_reaches_it(shift: tuple[int, int]) -> None:
    """Distances are roots: not one of them may come out on the wrong side of itself."""
    distance = math.sqrt(shift[0] ** 2 + shift[1] ** 2)
    images = block(5, 5), block(5 + shift[0], 5 + shift[1])
    short, exact = score(images, thresholds=(math.nextafter(distance, 0), distance)).per_class
    assert exact[1] == 1
    assert short[1] < 1


def test_a_half_right_contour_by_hand() -> None:
    """Truth: columns 0-3 of 8. Prediction: the same in rows 0-3, columns 0-5 below. Rows 0-3 agree in all pixels."""
    label, prediction = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    label[:, :4] = prediction[:4, :4] = prediction[4:, :6] = 1
    # True boundary: the 8 pixels of column 3. Predicted: column 3 in rows 0-3, columns 4 and 5 of row 3 above the step,
    # column 5 in rows 4-7: 10 pixels. Within 1 px are, of the true ones, rows 0-4 (row 4 from row 3), and of the
    # predicted ones column 3 in rows 0-3 and column 4 of row 3.
    precision, recall = 5 / 10, 5 / 8
    expected = 2 * precision * recall / (precision + recall)
    assert score((label, prediction), thresholds=[1]).per_class[0][1] == pytest.approx(expected, abs=ROUNDING)


def test_a_class_in_truth_or_prediction_only_scores_zero_and_in_neither_is_left_out() -> None:
    label, prediction = block(3, 3), np.where(block(3, 3) == 1, 2, 0).astype(np.uint8)
    scores = score((label, prediction), thresholds=[5])
    assert scores.per_class == ((1.0, 0.0, 0.0),)
    scores = score((label, label), thresholds=[5])
    assert scores.per_class[0][:2] == (1.0, 1.0)
    assert math.isnan(scores.per_class[0][2])
    assert scores.means == (1.0,)


def test_an_image_without_a_class_does_not_change_the_score_of_that_class() -> None:
    wrong, without = (block(3, 3, 6), block(3, 5, 6)), (np.zeros((5, 5), np.uint8),) * 2
    assert score(wrong, without).per_class[1][1] == score(wrong).per_class[1][1]
    assert score(wrong, without).per_class[1][0] > score(wrong).per_class[1][0]  # class 0 is right there


def test_a_class_predicted_only_on_void_is_not_seen() -> None:
    label = np.zeros((4, 4), np.uint8)
    label[0] = VOID
    scores = score((label, np.where(label == VOID, 1, 0)))
    assert [math.isnan(value) for value in scores.per_class[0]] == [False, True, True]


def test_a_class_that_fills_the_image_has_no_boundary_and_scores_one_when_right() -> None:
    full = np.zeros((6, 7), np.uint8)
    assert score((full, full), thresholds=[1]).per_class[0][0] == 1
    assert score((full, block(2, 2, 2, (6, 7))), thresholds=[9]).per_class[0][:2] == (0.0, 0.0)


def test_nothing_seen_gives_no_score() -> None:
    void = np.full((3, 3), VOID, np.uint8)
    scores = score((void, np.zeros((3, 3), np.uint8)), thresholds=[3])
    assert all(map(math.isnan, (*scores.per_class[0], *scores.means)))


def test_the_papers_fractions_of_the_cityscapes_diagonal_are_the_default_pixels() -> None:
    diagonal = math.hypot(1024, 2048)
    assert tuple(math.ceil(part * diagonal) for part in (0.00088, 0.001875, 0.00375, 0.005)) == PAPER_THRESHOLDS
    assert BoundaryScore(K).thresholds == PAPER_THRESHOLDS


@pytest.mark.parametrize("wrong", [(0,), (3, -1), (math.nan,), (3, math.inf)])
def test_thresholds_that_are_no_distance_are_refused(wrong: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="give distances in pixels above 0"):
        BoundaryScore(K, wrong)
