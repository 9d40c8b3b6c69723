"""Which classes an image has, learnt from logits of the whole image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import IGNORED, assert_normalizer_known, assert_shares_add_up, assert_zero_with_gradient, noise, patches
from torch import Tensor

from fastseg.losses import LOSSES, class_presence

K = 5


def batch(n: int = 4, *, seed: int = 0, ignored: str | float = "some") -> tuple[Tensor, Tensor]:
    return noise(n, K, 1, 1, seed=seed), patches(n, 6, 7, classes=K, seed=seed, ignored=ignored, cell=4)


def slow(logits: Tensor, labels: Tensor) -> tuple[float, int]:
    """Sum of the images' mean binary cross entropy over classes, and how many images have a valid pixel."""
    total, images = 0.0, 0
    for x, y in zip(logits.detach().numpy(), labels.numpy(), strict=True):
        seen = set(y[y != 255].tolist())
        if seen:
            probabilities = 1 / (1 + np.exp(-x[:, 0, 0]))
            total -= sum(np.log(p if k in seen else 1 - p) for k, p in enumerate(probabilities)) / K
            images += 1
    return total, images


@pytest.mark.parametrize("ignored", IGNORED)
def test_it_is_the_slow_version(ignored: str) -> None:
    logits, labels = batch(ignored=ignored)
    term = class_presence()(logits, labels)
    total, images = slow(logits, labels)
    assert term.total.item() == pytest.approx(total, rel=1e-12)
    assert term.normalizer.item() == images


def test_one_pixel_makes_a_class_present_and_an_ignored_one_does_not() -> None:
    logits = noise(1, 3, 1, 1)
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    labels[0, 3, 3] = 2
    for label, present in ((2, [1.0, 0.0, 1.0]), (255, [1.0, 0.0, 0.0])):
        labels[0, 3, 3] = label
        expected = F.binary_cross_entropy_with_logits(logits.flatten(), torch.tensor(present, dtype=torch.float64))
        torch.testing.assert_close(class_presence()(logits, labels).mean(), expected)


def test_its_gradient_is_that_of_finite_differences() -> None:
    logits, labels = batch(ignored="an image")
    assert torch.autograd.gradcheck(lambda x: class_presence()(x, labels).mean(), (logits,))


def test_an_image_without_valid_pixels_gets_no_gradient() -> None:
    logits, labels = batch()
    labels[1] = 255
    (gradient,) = torch.autograd.grad(class_presence()(logits, labels).mean(), logits)
    assert (gradient != 0).flatten(1).all(1).tolist() == [True, False, True, True]


def test_nothing_but_ignored_pixels_gives_zero_and_a_gradient_of_zero() -> None:
    logits, labels = batch()
    assert_zero_with_gradient(class_presence()(logits, torch.full_like(labels, 255)), logits)


@given(st.lists(st.integers(1, 5), max_size=3), st.integers(0, 99), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_sums_over_shares_of_a_batch_add_up(cuts: list[int], seed: int, ignored: float) -> None:
    logits, labels = batch(6, seed=seed, ignored=ignored)
    assert_shares_add_up(lambda part: class_presence()(logits[part], labels[part]), 6, cuts)


@pytest.mark.parametrize("ignored", IGNORED)
def test_its_normaliser_comes_from_labels_alone(ignored: str) -> None:
    logits, labels = batch(ignored=ignored)
    assert_normalizer_known(class_presence().normalizer(labels), class_presence()(logits, labels))


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_it_is_finite_in_float32_and_close_to_float64(scale: float) -> None:
    logits, labels = batch()
    narrow = (scale * logits).detach().float().requires_grad_()
    mean = class_presence()(narrow, labels).mean()
    # float32 has 7 digits
    torch.testing.assert_close(mean.double(), class_presence()(narrow.double(), labels).mean(), rtol=1e-5, atol=0)
    assert torch.autograd.grad(mean, narrow)[0].isfinite().all()


@pytest.mark.parametrize("label", [K, 254, -1])
def test_labels_beyond_the_classes_are_refused_as_by_cross_entropy(label: int) -> None:
    logits, labels = batch()
    labels[0, 0, 0] = label
    with pytest.raises(IndexError, match=f"Target {label} is out of bounds"):
        class_presence()(logits, labels)


@pytest.mark.parametrize("shape", [(4, K, 6, 7), (4, K, 1, 2), (4, K), (3, K, 1, 1)])
def test_logits_that_are_not_one_per_image_and_class_are_refused(shape: tuple[int, ...]) -> None:
    _, labels = batch()
    with pytest.raises(ValueError, match=r"class_presence logits are .* for 4 label maps; give \(N,K,1,1\)"):
        class_presence()(torch.zeros(shape), labels)


def test_it_is_registered_and_takes_the_output_as_it_is() -> None:
    assert not LOSSES.build("class_presence").resizes
