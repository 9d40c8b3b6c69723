"""Losses of the whole output by name, and attention to edges: cross entropy where the network sees one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import IGNORED, assert_normalizer_known, assert_shares_add_up, assert_zero_with_gradient, noise, patches
from torch import Tensor

from fastseg.errors import ArgumentTypeError, UnknownNameError
from fastseg.losses import TERMS, edge_attention, image_balanced_cross_entropy
from fastseg.types import SegOutput

K = 4
SURE = torch.finfo(torch.float32).max  # logits of an edge beyond doubt


def batch(n: int = 3, *, channels: int = 1, seed: int = 0, ignored: str | float = "some") -> tuple[SegOutput, Tensor]:
    logits, edges = noise(n, K, 5, 7, seed=seed), noise(n, channels, 5, 7, seed=seed + 1)
    return SegOutput(logits, {"edge": edges}), patches(n, 5, 7, classes=K, seed=seed, ignored=ignored)


def slow(output: SegOutput, labels: Tensor, threshold: float) -> tuple[float, int]:
    """Sum of the images' weighted means over attended pixels, pixel by pixel, and how many images have a valid one."""
    total = 0.0
    for x, edge, y in zip(output.logits.detach(), output.aux["edge"].detach(), labels.numpy(), strict=True):
        attended = [
            (row, column)
            for row, column in np.argwhere(y != 255)
            if any(1 / (1 + np.exp(-z)) > threshold for z in edge[:, row, column].numpy())
        ]
        classes = [y[place] for place in attended]
        losses = weights = 0.0
        for (row, column), k in zip(attended, classes, strict=True):
            weight = 2 - classes.count(k) / len(classes)
            losses -= weight * x[:, row, column].log_softmax(0)[k].item()
            weights += weight
        total += losses / weights if attended else 0.0
    return total, int((labels != 255).flatten(1).any(1).sum())


def test_terms_are_registered_by_name() -> None:
    assert TERMS.names() == ["dual_task", "edge_attention"]
    with pytest.raises(UnknownNameError, match=r"'edge_atention'; did you mean 'edge_attention'"):
        TERMS.build("edge_atention")
    with pytest.raises(ArgumentTypeError, match=r"threshold is '0\.8'"):
        TERMS.build("edge_attention", threshold="0.8")


@pytest.mark.parametrize("channels", [1, K])
@pytest.mark.parametrize("threshold", [0.2, 0.8, 0.99])
@pytest.mark.parametrize("ignored", IGNORED)
def test_attention_is_the_slow_version(channels: int, threshold: float, ignored: str) -> None:
    output, labels = batch(channels=channels, ignored=ignored)
    term = edge_attention(threshold)(output, labels)
    total, images = slow(output, labels, threshold)
    assert term.total.item() == pytest.approx(total, rel=1e-12)
    assert term.normalizer.item() == images


def test_attention_to_every_pixel_is_image_balanced_cross_entropy() -> None:
    output, labels = batch()
    everywhere = SegOutput(output.logits, {"shape": torch.full((3, 1, 5, 7), SURE)})
    term = edge_attention(output="shape", upper_bound=2.0)(everywhere, labels)
    torch.testing.assert_close(term, image_balanced_cross_entropy(2.0)(output.logits, labels))


def test_an_image_without_attended_pixels_has_no_loss_and_counts() -> None:
    output, labels = batch(2, ignored="none")
    edges = torch.full((2, 1, 5, 7), SURE)
    edges[1] = -SURE
    term = edge_attention()(SegOutput(output.logits, {"edge": edges}), labels)
    torch.testing.assert_close(term.total, image_balanced_cross_entropy()(output.logits[:1], labels[:1]).total)
    assert term.normalizer == 2


def test_no_attention_gives_zero_and_a_gradient_of_zero() -> None:
    output, labels = batch()
    term = edge_attention()(SegOutput(output.logits, {"edge": torch.full((3, 1, 5, 7), -SURE)}), labels)
    assert term.mean() == 0
    (gradient,) = torch.autograd.grad(term.mean(), output.logits)
    assert torch.equal(gradient, torch.zeros_like(output.logits))


def test_no_gradient_passes_into_the_edges() -> None:
    output, labels = batch()
    logits, edges = torch.autograd.grad(
        edge_attention(0.5)(output, labels).mean(), (output.logits, output.aux["edge"]), allow_unused=True
    )
    assert edges is None
    assert torch.equal((logits != 0).any(1), (output.aux["edge"][:, 0] > 0) & (labels != 255))


@pytest.mark.parametrize("ignored", ["none", "some", "an image"])
def test_its_gradient_is_that_of_finite_differences(ignored: str) -> None:
    output, labels = batch(2, ignored=ignored)
    loss = edge_attention(0.5)
    small = {"edge": output.aux["edge"].detach()[..., :3, :4]}
    logits = output.logits[..., :3, :4].detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(SegOutput(x, small), labels[:, :3, :4]).mean(), (logits,))


def test_nothing_but_ignored_pixels_gives_zero_and_a_gradient_of_zero() -> None:
    output, labels = batch()
    assert_zero_with_gradient(edge_attention(0.1)(output, torch.full_like(labels, 255)), output.logits)


@given(st.lists(st.integers(1, 5), max_size=3), st.integers(0, 99), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_sums_over_shares_of_a_batch_add_up(cuts: list[int], seed: int, ignored: float) -> None:
    output, labels = batch(6, seed=seed, ignored=ignored)
    assert_shares_add_up(
        lambda part: edge_attention()(SegOutput(output.logits[part], {"edge": output.aux["edge"][part]}), labels[part]),
        6,
        cuts,
    )


@pytest.mark.parametrize("ignored", IGNORED)
def test_its_normaliser_comes_from_labels_alone(ignored: str) -> None:
    output, labels = batch(ignored=ignored)
    assert_normalizer_known(edge_attention().normalizer(labels), edge_attention()(output, labels))


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_it_is_finite_in_float32_and_close_to_float64(scale: float) -> None:
    output, labels = batch()
    narrow = (scale * output.logits).detach().float().requires_grad_()
    edges = {"edge": output.aux["edge"].detach()}
    mean = edge_attention(0.5)(SegOutput(narrow, edges), labels).mean()
    wide = edge_attention(0.5)(SegOutput(narrow.double(), edges), labels).mean()
    # float32 has 7 digits; the sums are of some thirty terms
    torch.testing.assert_close(mean.double(), wide, rtol=1e-5, atol=0)
    assert torch.autograd.grad(mean, narrow)[0].isfinite().all()


@pytest.mark.parametrize("label", [K, 254, -1])
def test_labels_beyond_the_classes_are_refused_though_nothing_is_attended(label: int) -> None:
    output, labels = batch()
    labels[0, 0, 0] = label
    with pytest.raises(IndexError, match=f"Target {label} is out of bounds"):
        edge_attention()(SegOutput(output.logits, {"edge": torch.full((3, 1, 5, 7), -SURE)}), labels)


@pytest.mark.parametrize("threshold", [0, 1, -0.5, 80.0, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"edge_attention threshold is .*; it is a probability between 0 and 1"):
        edge_attention(threshold)


def test_a_negative_upper_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="edge_attention upper_bound is -1"):
        edge_attention(upper_bound=-1)
