"""Image-balanced cross entropy: a slow version, gradients, ignored pixels, images that count alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import IGNORED, assert_normalizer_known, assert_shares_add_up, assert_zero_with_gradient, noise, patches
from torch import Tensor

from fastseg.losses import LOSSES, image_balanced_cross_entropy

K = 4


def batch(n: int = 3, *, seed: int = 0, ignored: str | float = "some") -> tuple[Tensor, Tensor]:
    return noise(n, K, 5, 7, seed=seed), patches(n, 5, 7, classes=K, seed=seed, ignored=ignored)


def slow(logits: Tensor, labels: Tensor, upper_bound: float) -> tuple[float, int]:
    """Sum of the images' weighted means by the definition, pixel by pixel, and how many images have one."""
    total, images = 0.0, 0
    for x, y in zip(logits.detach().numpy(), labels.numpy(), strict=True):
        seen = y[y != 255]
        if not len(seen):
            continue
        losses = weights = 0.0
        for row, column in np.argwhere(y != 255):
            k = y[row, column]
            weight = 1 + upper_bound * (1 - (seen == k).sum() / len(seen))
            scores = np.exp(x[:, row, column])
            losses -= weight * np.log(scores[k] / scores.sum())
            weights += weight
        total, images = total + losses / weights, images + 1
    return total, images


@pytest.mark.parametrize("ignored", IGNORED)
@pytest.mark.parametrize("upper_bound", [0.0, 1.0, 2.5])
def test_it_is_the_slow_version(upper_bound: float, ignored: str) -> None:
    logits, labels = batch(ignored=ignored)
    term = image_balanced_cross_entropy(upper_bound)(logits, labels)
    total, images = slow(logits, labels, upper_bound)
    assert term.total.item() == pytest.approx(total, rel=1e-12)
    assert term.normalizer.item() == images


def test_a_rare_class_weighs_more_than_a_common_one() -> None:
    logits = torch.zeros(1, 2, 1, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[[0, 0, 0, 1]]])
    (gradient,) = torch.autograd.grad(image_balanced_cross_entropy()(logits, labels).mean(), logits)
    # weights 1 + 1 - 3/4 and 1 + 1 - 1/4; at equal logits each pixel's slope is half of its weight over their sum
    weights = torch.tensor([1.25, 1.25, 1.25, 1.75], dtype=torch.float64)
    torch.testing.assert_close(gradient[0, :, 0].abs(), (weights / (2 * weights.sum())).expand(2, -1))


def test_an_upper_bound_of_zero_is_the_mean_over_images_of_plain_cross_entropy() -> None:
    logits, labels = batch()
    plain = [F.cross_entropy(x[None], y[None], ignore_index=255) for x, y in zip(logits, labels, strict=True)]
    torch.testing.assert_close(image_balanced_cross_entropy(0)(logits, labels).mean(), torch.stack(plain).mean())


def test_an_image_of_one_class_has_its_plain_mean() -> None:
    logits, labels = batch(1)
    labels[labels != 255] = 2
    torch.testing.assert_close(
        image_balanced_cross_entropy(3)(logits, labels).mean(), F.cross_entropy(logits, labels, ignore_index=255)
    )


def test_images_count_alike_however_many_of_their_pixels_are_valid() -> None:
    logits, labels = batch(2, ignored="none")
    labels[1, 1:] = 255
    loss = image_balanced_cross_entropy()
    alone = [loss(logits[i : i + 1], labels[i : i + 1]).mean() for i in range(2)]
    torch.testing.assert_close(loss(logits, labels).mean(), torch.stack(alone).mean())


@pytest.mark.parametrize("ignored", ["none", "some", "an image"])
def test_its_gradient_is_that_of_finite_differences(ignored: str) -> None:
    logits, labels = batch(2, ignored=ignored)
    logits = logits[..., :3, :4].detach().requires_grad_()
    loss = image_balanced_cross_entropy()
    assert torch.autograd.gradcheck(lambda x: loss(x, labels[:, :3, :4]).mean(), (logits,))


def test_ignored_pixels_get_no_gradient_and_valid_ones_do() -> None:
    logits, labels = batch()
    (gradient,) = torch.autograd.grad(image_balanced_cross_entropy()(logits, labels).mean(), logits)
    assert torch.equal((gradient != 0).any(1), labels != 255)


def test_nothing_but_ignored_pixels_gives_zero_and_a_gradient_of_zero() -> None:
    logits, labels = batch()
    assert_zero_with_gradient(image_balanced_cross_entropy()(logits, torch.full_like(labels, 255)), logits)


@given(st.lists(st.integers(1, 5), max_size=3), st.integers(0, 99), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_sums_over_shares_of_a_batch_add_up(cuts: list[int], seed: int, ignored: float) -> None:
    logits, labels = batch(6, seed=seed, ignored=ignored)
    assert_shares_add_up(lambda part: image_balanced_cross_entropy()(logits[part], labels[part]), 6, cuts)


@pytest.mark.parametrize("ignored", IGNORED)
def test_its_normaliser_comes_from_labels_alone(ignored: str) -> None:
    logits, labels = batch(ignored=ignored)
    loss = image_balanced_cross_entropy()
    assert_normalizer_known(loss.normalizer(labels), loss(logits, labels))


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_it_is_finite_in_float32_and_close_to_float64(scale: float) -> None:
    logits, labels = batch()
    narrow = (scale * logits).detach().float().requires_grad_()
    mean = image_balanced_cross_entropy()(narrow, labels).mean()
    # float32 has 7 digits; the sums are of some thirty terms
    torch.testing.assert_close(
        mean.double(), image_balanced_cross_entropy()(narrow.double(), labels).mean(), rtol=1e-5, atol=0
    )
    assert torch.autograd.grad(mean, narrow)[0].isfinite().all()


@pytest.mark.parametrize("label", [K, 254, -1])
def test_labels_beyond_the_classes_are_refused(label: int) -> None:
    logits, labels = batch()
    labels[0, 0, 0] = label
    with pytest.raises(IndexError, match=f"Target {label} is out of bounds"):
        image_balanced_cross_entropy()(logits, labels)


def test_labels_of_another_size_are_refused() -> None:
    logits, labels = batch()
    with pytest.raises(ValueError, match="resize the logits"):
        image_balanced_cross_entropy()(logits, labels[..., :-1])


@pytest.mark.parametrize("upper_bound", [-0.1, float("nan"), float("inf")])
def test_an_upper_bound_that_is_negative_or_not_finite_is_refused(upper_bound: float) -> None:
    with pytest.raises(ValueError, match=r"image_balanced_cross_entropy upper_bound is .* 0 or more"):
        image_balanced_cross_entropy(upper_bound)


def test_it_is_registered_and_takes_logits_at_the_size_of_the_labels() -> None:
    assert LOSSES.build("image_balanced_cross_entropy", upper_bound=0.5).resizes
