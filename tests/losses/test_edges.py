"""Edges between classes by distance, and the class-balanced loss against them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import IGNORED, assert_normalizer_known, assert_shares_add_up, assert_zero_with_gradient, noise, patches
from torch import Tensor

from fastseg.losses import LOSSES, class_contours, edge_cross_entropy, label_edges

K = 4
CHANNELS = pytest.mark.parametrize("channels", [1, K])


def batch(
    n: int = 3, height: int = 8, width: int = 9, *, channels: int = 1, seed: int = 0, ignored: str | float = "some"
) -> tuple[Tensor, Tensor]:
    labels = patches(n, height, width, classes=K, seed=seed, ignored=ignored)
    return noise(n, channels, height, width, seed=seed), labels


def slow_edges(labels: Tensor, radius: int) -> np.ndarray:
    """Bool (N,1,H,W): every pair of pixels."""
    y = labels.numpy()
    edges = np.zeros(y.shape, bool)
    for n, row, column in np.argwhere(y != 255):
        for other_row, other_column in np.argwhere(y[n] != 255):
            near = (row - other_row) ** 2 + (column - other_column) ** 2 <= radius**2
            edges[n, row, column] |= near and y[n, row, column] != y[n, other_row, other_column]
    return edges[:, None]


def distance_edges(labels: Tensor, radius: int) -> np.ndarray:
    """Bool (N,1,H,W) by OpenCV's exact distance of a class's pixels to the nearest valid one of another class."""
    y = labels.numpy()
    edges = np.zeros(y.shape, bool)
    for n, k in ((n, k) for n in range(len(y)) for k in range(K)):
        other = (y[n] != k) & (y[n] != 255)
        if other.any():
            distances = cv2.distanceTransform((~other).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
            # a float32; the next distance above a radius up to 12 is more than 0.04 away
            edges[n] |= (y[n] == k) & (distances < radius + 0.01)
    return edges[:, None]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(0, 99), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_edges_follow_the_definition(height: int, width: int, radius: int, seed: int, ignored: float) -> None:
    _, labels = batch(2, height, width, seed=seed, ignored=ignored)
    assert np.array_equal(label_edges(labels, radius).numpy(), slow_edges(labels, radius))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 12), st.integers(0, 99), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_edges_are_where_the_distance_transform_is_small(
    height: int, width: int, radius: int, seed: int, ignored: float
) -> None:
    labels = patches(1, height, width, classes=K, seed=seed, ignored=ignored, cell=11)
    assert np.array_equal(label_edges(labels, radius).numpy(), distance_edges(labels, radius))


@pytest.mark.parametrize("ignored", IGNORED)
@pytest.mark.parametrize("radius", [1, 2, 3, 7])
def test_a_pixel_is_on_an_edge_when_it_is_on_the_contour_of_any_class(radius: int, ignored: str) -> None:
    _, labels = batch(2, 21, 34, ignored=ignored)
    edges = label_edges(labels, radius)
    assert torch.equal(edges, class_contours(labels, K, radius, "euclidean").any(1, keepdim=True))


def test_a_straight_border_makes_an_edge_of_the_radius_on_either_side_also_of_class_zero() -> None:
    labels = torch.zeros(1, 3, 10, dtype=torch.int64)
    labels[..., 5:] = 254
    edges = label_edges(labels)
    assert edges.dtype == torch.bool
    assert edges.shape == (1, 1, 3, 10)
    assert edges[0, 0].tolist() == [[False] * 3 + [True] * 4 + [False] * 3] * 3


@pytest.mark.parametrize("k", [0, 1, 254])
def test_the_border_of_the_image_and_of_what_is_ignored_is_no_edge(k: int) -> None:
    labels = torch.full((1, 8, 8), k)
    labels[0, 2:4] = 255
    assert not label_edges(labels, 3).any()


def test_edges_leave_the_labels_alone() -> None:
    _, labels = batch()
    before = labels.clone()
    label_edges(labels)
    assert torch.equal(labels, before)


def slow_loss(logits: Tensor, labels: Tensor, radius: int) -> tuple[float, int]:
    """Sum over valid pixels of the mean, over channels, of the weighted binary cross entropy; how many are valid."""
    edges = label_edges(labels, radius) if logits.shape[1] == 1 else class_contours(labels, K, radius, "euclidean")
    total = 0.0
    for x, y, edge in zip(logits.detach().numpy(), labels.numpy(), edges.numpy(), strict=True):
        valid = np.argwhere(y != 255)
        on = sum(edge[k, row, column] for row, column in valid for k in range(len(edge)))
        for row, column in valid:
            for k in range(len(edge)):
                share_on = on / (len(valid) * len(edge))
                probability = 1 / (1 + np.exp(-x[k, row, column]))
                hit = edge[k, row, column]
                loss = (1 - share_on) * -np.log(probability) if hit else share_on * -np.log(1 - probability)
                total += loss / len(edge)
    return total, int((labels != 255).sum())


@CHANNELS
@pytest.mark.parametrize("ignored", IGNORED)
def test_the_loss_is_the_slow_version(channels: int, ignored: str) -> None:
    logits, labels = batch(channels=channels, ignored=ignored)
    term = edge_cross_entropy(1)(logits, labels)
    total, valid = slow_loss(logits, labels, 1)
    assert total > 0
    assert term.total.item() == pytest.approx(total, rel=1e-12)
    assert term.normalizer.item() == valid


@CHANNELS
def test_edges_and_the_rest_weigh_the_same_in_all(channels: int) -> None:
    logits, labels = batch(1, channels=channels)
    undecided = torch.zeros_like(logits, requires_grad=True)
    (gradient,) = torch.autograd.grad(edge_cross_entropy(1)(undecided, labels).total, undecided)
    assert gradient.min() < 0 < gradient.max()
    torch.testing.assert_close(gradient.sum(), torch.zeros_like(gradient.sum()))


@CHANNELS
def test_logits_go_through_the_sigmoid_once(channels: int) -> None:
    _, labels = batch(channels=channels)
    edges = label_edges(labels, 1) if channels == 1 else class_contours(labels, K, 1, "euclidean")
    sure = torch.where(edges, 20.0, -20.0)
    assert edge_cross_entropy(1)(sure, labels).mean() < 1e-8  # a second sigmoid would leave 0.31 of an edge and more


@CHANNELS
def test_an_image_without_an_edge_weighs_nothing(channels: int) -> None:
    logits, labels = batch(channels=channels)
    term = edge_cross_entropy()(logits, torch.where(labels == 255, 255, 2))
    assert term.total == 0
    assert term.normalizer == (labels != 255).sum()


@CHANNELS
def test_its_gradient_is_that_of_finite_differences(channels: int) -> None:
    logits, labels = batch(2, 4, 7, channels=channels)
    assert torch.autograd.gradcheck(lambda x: edge_cross_entropy(1)(x, labels).mean(), (logits,))


@CHANNELS
def test_ignored_pixels_get_no_gradient_and_valid_ones_do(channels: int) -> None:
    logits, labels = batch(channels=channels)
    (gradient,) = torch.autograd.grad(edge_cross_entropy(1)(logits, labels).mean(), logits)
    assert torch.equal((gradient != 0).all(1), labels != 255)


@CHANNELS
def test_nothing_but_ignored_pixels_gives_zero_and_a_gradient_of_zero(channels: int) -> None:
    logits, labels = batch(channels=channels)
    assert_zero_with_gradient(edge_cross_entropy()(logits, torch.full_like(labels, 255)), logits)


@CHANNELS
@given(st.lists(st.integers(1, 5), max_size=3), st.integers(0, 99), st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_sums_over_shares_of_a_batch_add_up(channels: int, cuts: list[int], seed: int, ignored: float) -> None:
    logits, labels = batch(6, channels=channels, seed=seed, ignored=ignored)
    assert_shares_add_up(lambda part: edge_cross_entropy(1)(logits[part], labels[part]), 6, cuts)


@CHANNELS
@pytest.mark.parametrize("ignored", IGNORED)
def test_its_normaliser_comes_from_labels_alone(channels: int, ignored: str) -> None:
    logits, labels = batch(channels=channels, ignored=ignored)
    assert_normalizer_known(edge_cross_entropy().normalizer(labels), edge_cross_entropy()(logits, labels))


@CHANNELS
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_it_is_finite_in_float32_and_close_to_float64(channels: int, scale: float) -> None:
    logits, labels = batch(channels=channels)
    narrow = (scale * logits).detach().float().requires_grad_()
    mean = edge_cross_entropy(1)(narrow, labels).mean()
    # float32 has 7 digits; the sum is of some hundred terms
    torch.testing.assert_close(mean.double(), edge_cross_entropy(1)(narrow.double(), labels).mean(), rtol=1e-5, atol=0)
    assert torch.autograd.grad(mean, narrow)[0].isfinite().all()


@pytest.mark.parametrize("label", [K, 254, -1])
def test_channels_that_do_not_fit_the_classes_of_the_labels_are_refused_as_by_cross_entropy(label: int) -> None:
    logits, labels = batch(channels=K)
    labels[0, 0, 0] = label
    with pytest.raises(IndexError, match=f"Target {label} is out of bounds"):
        edge_cross_entropy()(logits, labels)


def test_labels_of_another_size_are_refused() -> None:
    logits, labels = batch()
    with pytest.raises(ValueError, match="resize the logits"):
        edge_cross_entropy()(logits, labels[..., :-1])


@pytest.mark.parametrize("radius", [0, -1])
def test_a_radius_below_one_is_refused(radius: int) -> None:
    with pytest.raises(
        ValueError, match=rf"edge_cross_entropy radius is {radius}; it is a number of pixels, 1 or more"
    ):
        edge_cross_entropy(radius)


def test_it_is_registered_and_takes_logits_at_the_size_of_the_labels() -> None:
    assert LOSSES.build("edge_cross_entropy", radius=3).resizes
