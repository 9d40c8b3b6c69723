"""Contours of classes and the loss against them: a slow version, gradients, ignored pixels, shares of a batch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastseg.losses import class_boundary, class_contours, cross_entropy

K = 4


def batch(
    n: int = 3, height: int = 9, width: int = 11, *, seed: int = 0, ignored: float = 0.2, cell: int = 3
) -> tuple[Tensor, Tensor]:
    """Float64 logits that need a gradient, and labels in patches of `cell` pixels of which a share is ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, K, height, width, generator=generator, dtype=torch.float64)
    patches = torch.randint(0, K, (n, -(-height // cell), -(-width // cell)), generator=generator)
    labels = patches.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, :height, :width].clone()
    labels[torch.rand(labels.shape, generator=generator) < ignored] = 255
    return logits.requires_grad_(), labels


def slow_contours(labels: Tensor, num_classes: int, radius: int, distance: str = "chebyshev") -> np.ndarray:
    """Bool (N,K,H,W) by the definition, pixel by pixel."""
    y = labels.numpy()
    contours = np.zeros((len(y), num_classes, *y.shape[1:]), bool)
    rows, columns = np.indices(y.shape[1:])
    for n, row, column in np.argwhere(y != 255):
        away = np.abs(rows - row), np.abs(columns - column)
        distances = np.maximum(*away) if distance == "chebyshev" else np.hypot(*away)
        seen = set(y[n, (distances <= radius) & (y[n] != 255)].tolist())
        for k in range(num_classes):
            contours[n, k, row, column] = k in seen and bool(seen - {k})
    return contours


def slow_loss(logits: Tensor, labels: Tensor, radius: int, positive_weight: float) -> tuple[float, int]:
    """Sum over valid pixels of the mean binary cross entropy over classes, and the number of valid pixels."""
    x, y = logits.detach().numpy(), labels.numpy()
    contours = slow_contours(labels, K, radius)
    total = 0.0
    for n, row, column in np.argwhere(y != 255):
        for k in range(K):
            probability = 1 / (1 + np.exp(-x[n, k, row, column]))
            hit = contours[n, k, row, column]
            total -= positive_weight * np.log(probability) / K if hit else np.log(1 - probability) / K
    return total, int((y != 255).sum())


def test_a_straight_border_makes_a_band_of_the_radius_on_either_side_for_both_classes() -> None:
    labels = torch.zeros(1, 4, 12, dtype=torch.int64)
    labels[..., 6:] = 2
    contours = class_contours(labels, 3, radius=2)
    band = torch.zeros(4, 12, dtype=torch.bool)
    band[:, 4:8] = True
    assert contours.dtype == torch.bool
    assert torch.equal(contours[0, 0], band)
    assert torch.equal(contours[0, 2], band)
    assert not contours[0, 1].any()


def test_the_contour_of_a_single_pixel_is_a_square_also_for_class_zero() -> None:
    labels = torch.ones(1, 7, 7, dtype=torch.int64)
    labels[0, 3, 3] = 0
    square = torch.zeros(7, 7, dtype=torch.bool)
    square[2:5, 2:5] = True
    for k in (0, 1):
        assert torch.equal(class_contours(labels, 2, radius=1)[0, k], square)


@pytest.mark.parametrize("ignored", [0, 1, 2, 3])
def test_ignored_pixels_make_no_border_and_lie_on_none(ignored: int) -> None:
    labels = torch.zeros(1, 6, 6, dtype=torch.int64)
    labels[0, ignored : ignored + 2] = 255
    assert not class_contours(labels, 3).any()
    labels[0, :, 4:] = torch.where(labels[0, :, 4:] == 0, 1, 255)
    contours = class_contours(labels, 3, radius=1)
    assert not contours[0, :, labels[0] == 255].any()
    assert torch.equal(contours[0, 0], contours[0, 1])
    assert contours[0, 0].sum() == 2 * 4  # columns 3 and 4 of the four rows that are not ignored


def test_a_gap_of_ignored_pixels_narrower_than_the_radius_does_not_hide_a_border() -> None:
    labels = torch.tensor([[[0, 0, 0, 255, 255, 1, 1, 1]]])
    assert not class_contours(labels, 2, radius=2).any()
    assert class_contours(labels, 2, radius=3)[0, 0, 0].tolist() == [0, 0, 1, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("distance", ["chebyshev", "euclidean"])
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.integers(0, 99), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_contours_follow_the_definition(
    distance: str, height: int, width: int, radius: int, seed: int, ignored: float
) -> None:
    _, labels = batch(2, height, width, seed=seed, ignored=ignored)
    contours = class_contours(labels, K, radius, distance)
    assert np.array_equal(contours.numpy(), slow_contours(labels, K, radius, distance))


def test_the_euclidean_contour_of_a_single_pixel_is_a_disc() -> None:
    labels = torch.ones(1, 7, 7, dtype=torch.int64)
    labels[0, 3, 3] = 0
    disc = torch.tensor(
        [
            [0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 1, 0, 0, 0],
            [0, 0, 1, 1, 1, 0, 0],
            [0, 1, 1, 1, 1, 1, 0],
            [0, 0, 1, 1, 1, 0, 0],
            [0, 0, 0, 1, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0],
        ]
    )
    for k in (0, 1):
        assert torch.equal(class_contours(labels, 2, 2, "euclidean")[0, k], disc.bool())


def test_an_unknown_distance_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"distance is 'manhattan'; allowed: 'chebyshev', 'euclidean'"):
        class_contours(torch.zeros(1, 2, 2, dtype=torch.int64), 2, 1, "manhattan")


def test_labels_are_left_alone() -> None:
    _, labels = batch()
    before = labels.clone()
    class_contours(labels, K)
    assert torch.equal(labels, before)


@pytest.mark.parametrize(("radius", "positive_weight"), [(1, 1.0), (2, 3.5)])
def test_the_loss_follows_the_definition(radius: int, positive_weight: float) -> None:
    logits, labels = batch()
    term = class_boundary(radius, positive_weight)(logits, labels)
    total, count = slow_loss(logits, labels, radius, positive_weight)
    assert term.total.item() == pytest.approx(total, rel=1e-12)
    assert term.normalizer.item() == count


def test_without_ignored_pixels_its_mean_is_torchs() -> None:
    logits, labels = batch(ignored=0)
    contours = class_contours(labels, K, 4).double()
    assert 0.1 < contours.mean() < 0.9
    torch.testing.assert_close(
        class_boundary()(logits, labels).mean(), F.binary_cross_entropy_with_logits(logits, contours)
    )


@pytest.mark.parametrize("positive_weight", [1.0, 5.0])
def test_its_gradient_is_that_of_finite_differences(positive_weight: float) -> None:
    logits, labels = batch(2, 4, 5)
    loss = class_boundary(1, positive_weight)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels).mean(), (logits,))


def test_ignored_pixels_get_no_gradient_and_valid_ones_do() -> None:
    logits, labels = batch()
    (gradient,) = torch.autograd.grad(class_boundary(2)(logits, labels).mean(), logits)
    assert torch.equal((gradient != 0).all(1), labels != 255)


def test_nothing_but_ignored_pixels_gives_zero_and_a_gradient_of_zero() -> None:
    logits, labels = batch()
    term = class_boundary()(logits, torch.full_like(labels, 255))
    assert term.mean() == 0
    (gradient,) = torch.autograd.grad(term.mean(), logits)
    assert torch.equal(gradient, torch.zeros_like(logits))


def test_extreme_logits_stay_finite() -> None:
    logits, labels = batch()
    term = class_boundary(positive_weight=7)(1e30 * logits.float(), labels)
    assert term.total.isfinite()


@given(st.lists(st.integers(1, 5), max_size=3), st.integers(0, 99), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_sums_over_shares_of_a_batch_add_up(cuts: list[int], seed: int, ignored: float) -> None:
    logits, labels = batch(6, 4, 5, seed=seed, ignored=ignored)
    loss = class_boundary(1)
    whole = loss(logits, labels)
    parts = [loss(logits[a:b], labels[a:b]) for a, b in pairwise([0, *sorted(cuts), 6]) if b > a]
    torch.testing.assert_close(sum(part.total for part in parts), whole.total)
    torch.testing.assert_close(sum(part.normalizer for part in parts), whole.normalizer)


def test_its_normaliser_comes_from_labels_alone() -> None:
    logits, labels = batch()
    loss = class_boundary()
    normalizer = loss.normalizer(labels)
    assert normalizer is not None
    assert normalizer == loss(logits, labels).normalizer == (labels != 255).sum()


def test_labels_of_another_size_are_refused() -> None:
    logits, labels = batch()
    with pytest.raises(ValueError, match="resize the logits"):
        class_boundary()(logits, labels[..., :-1])


@pytest.mark.parametrize("label", [K, 254, -1])
def test_labels_beyond_the_classes_are_refused_as_by_cross_entropy(label: int) -> None:
    logits, labels = batch()
    labels[0, 0, 0] = label
    for loss in (cross_entropy(), class_boundary()):
        with pytest.raises(IndexError, match=f"Target {label} is out of bounds"):
            loss(logits, labels)


@pytest.mark.parametrize("radius", [0, -1])
def test_a_radius_below_one_is_refused(radius: int) -> None:
    with pytest.raises(ValueError, match=rf"radius is {radius}; it is a number of pixels, 1 or more"):
        class_boundary(radius)


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_that_is_not_positive_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"positive_weight is .*; it is a finite number above 0"):
        class_boundary(positive_weight=weight)
