"""Pixel losses against torch, against a slow version, and the sums that make many processes equal to one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastseg.errors import ConfigError, UnknownNameError
from fastseg.losses import LOSSES, PixelLoss, cross_entropy, ohem_cross_entropy

K = 4
WEIGHTS = [0.5, 2.0, 1.0, 3.0]


def batch(n: int = 3, height: int = 5, width: int = 7, *, seed: int = 0, ignored: float = 0.3) -> tuple[Tensor, Tensor]:
    """Float64 logits that need a gradient, and labels of which a share is ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, K, height, width, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, K, (n, height, width), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < ignored] = 255
    return logits.requires_grad_(), labels


def slow_losses(logits: Tensor, labels: Tensor) -> np.ndarray:
    """-log softmax of the true class (N,H,W) by its definition, nan where ignored."""
    x, y = logits.detach().numpy(), labels.numpy()
    losses = np.full(y.shape, np.nan)
    for n, row, column in np.argwhere(y != 255):
        scores = x[n, :, row, column]
        shifted = np.exp(scores - scores.max())
        losses[n, row, column] = -np.log(shifted[y[n, row, column]] / shifted.sum())
    return losses


def slow_cross_entropy(logits: Tensor, labels: Tensor, weights: Sequence[float]) -> float:
    losses, y = slow_losses(logits, labels), labels.numpy()
    total = normalizer = 0.0
    for place in np.argwhere(y != 255):
        weight = weights[y[tuple(place)]]
        total += weight * losses[tuple(place)]
        normalizer += weight
    return total / normalizer


def slow_ohem(
    logits: Tensor, labels: Tensor, threshold: float, min_kept: int, weights: Sequence[float]
) -> tuple[float, float]:
    """Sum and normaliser: per image, valid pixels whose probability is at most the threshold, or the hardest few."""
    total = normalizer = 0.0
    for losses, y in zip(slow_losses(logits, labels), labels.numpy(), strict=True):
        valid = [(float(losses[tuple(p)]), weights[y[tuple(p)]]) for p in np.argwhere(y != 255)]
        valid.sort(reverse=True)
        hard = [pair for pair in valid if np.exp(-pair[0]) <= threshold]
        kept = hard if len(hard) >= min_kept else valid[:min_kept]
        total += sum(loss * weight for loss, weight in kept)
        normalizer += sum(weight for _, weight in kept)
    return total, normalizer


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_is_torchs_mean_and_the_definition(weights: list[float] | None) -> None:
    logits, labels = batch()
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    mean = cross_entropy(weights)(logits, labels).mean()
    torch.testing.assert_close(mean, F.cross_entropy(logits, labels, weight, ignore_index=255))
    assert mean.item() == pytest.approx(slow_cross_entropy(logits, labels, weights or [1.0] * K), rel=1e-12)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_its_gradient_is_torchs(weights: list[float] | None) -> None:
    logits, labels = batch()
    weight = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    (ours,) = torch.autograd.grad(cross_entropy(weights)(logits, labels).mean(), logits)
    (theirs,) = torch.autograd.grad(F.cross_entropy(logits, labels, weight, ignore_index=255), logits)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_cross_entropy_knows_its_normaliser_from_labels_alone(weights: list[float] | None) -> None:
    logits, labels = batch()
    loss = cross_entropy(weights)
    normalizer = loss.normalizer(labels)
    assert normalizer is not None
    torch.testing.assert_close(normalizer, loss(logits, labels).normalizer)
    assert ohem_cross_entropy().normalizer(labels) is None


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize(
    ("threshold", "min_kept"), [(0.7, 0), (0.7, 3), (0.05, 0), (0.05, 10), (0.05, 34), (0.05, 1000), (0.999, 5)]
)
def test_ohem_is_the_slow_version(threshold: float, min_kept: int, weights: list[float] | None) -> None:
    for seed in range(5):
        logits, labels = batch(seed=seed)
        term = ohem_cross_entropy(threshold, min_kept, weights)(logits, labels)
        total, normalizer = slow_ohem(logits, labels, threshold, min_kept, weights or [1.0] * K)
        assert term.normalizer.item() == pytest.approx(normalizer)
        assert term.total.item() == pytest.approx(total, rel=1e-12)


def test_ohem_keeps_at_least_min_kept_pixels_of_every_image_and_never_ignored_ones() -> None:
    logits, labels = batch(2, ignored=0.0)
    logits = (10 * F.one_hot(labels, K).permute(0, 3, 1, 2)).double() + 0.01 * logits.detach()  # all easy
    labels[1, :, 1:] = 255  # 5 valid pixels in the second image
    kept = {m: ohem_cross_entropy(0.5, m)(logits, labels).normalizer.item() for m in (0, 1, 5, 8)}
    assert kept == {0: 0, 1: 2, 5: 10, 8: 13}


def test_ohem_passes_gradients_to_kept_pixels_only() -> None:
    logits, labels = batch(1, ignored=0.2)
    (gradient,) = torch.autograd.grad(ohem_cross_entropy(0.3, 0)(logits, labels).mean(), logits)
    losses = torch.from_numpy(slow_losses(logits, labels))
    hard = (losses >= -np.log(0.3)) & (labels != 255)
    assert 0 < hard.sum() < hard.numel()
    assert torch.equal(gradient.abs().sum(1) > 0, hard)


ALL: list[PixelLoss] = [cross_entropy(), cross_entropy(WEIGHTS), ohem_cross_entropy(0.7, 4), ohem_cross_entropy(0.1, 9)]


@pytest.mark.parametrize("loss", ALL)
def test_all_ignored_is_zero_with_a_finite_gradient(loss: PixelLoss) -> None:
    logits, labels = batch(ignored=1.1)
    term = loss(logits, labels)
    mean = term.mean()
    mean.backward()
    assert (term.total.item(), term.normalizer.item(), mean.item()) == (0, 0, 0)
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


@pytest.mark.parametrize("loss", ALL)
def test_gradcheck(loss: PixelLoss) -> None:
    logits, labels = batch(2, 2, 3)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels).mean(), (logits,))


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_stay_finite(loss: PixelLoss, dtype: torch.dtype) -> None:
    logits, labels = batch()
    assert loss(logits.to(dtype) * 1e4, labels).mean().isfinite()


@given(
    cuts=st.lists(st.integers(0, 6), max_size=5),
    seed=st.integers(0, 1000),
    ignored=st.sampled_from([0.0, 0.5, 0.95, 1.1]),
    which=st.integers(0, len(ALL) - 1),
)
@settings(max_examples=60, deadline=None)
def test_sums_over_any_split_of_the_batch_are_those_of_the_whole(
    cuts: list[int], seed: int, ignored: float, which: int
) -> None:
    logits, labels = batch(6, 3, 4, seed=seed, ignored=ignored)
    loss = ALL[which]
    whole = loss(logits, labels)
    edges = [0, *sorted(cuts), 6]
    parts = [loss(logits[a:b], labels[a:b]) for a, b in pairwise(edges) if b > a]
    torch.testing.assert_close(sum(p.total for p in parts), whole.total)
    torch.testing.assert_close(sum(p.normalizer for p in parts), whole.normalizer)


@pytest.mark.parametrize("build", [cross_entropy, ohem_cross_entropy])
def test_logit_adjustment_is_the_same_loss_on_logits_shifted_by_the_classes_weights(build: type) -> None:
    logits, labels = batch()
    weights = [0.5, 2.0, 4.0, 1.0]
    shifted = logits + 0.75 * torch.tensor(weights, dtype=logits.dtype).log()[None, :, None, None]
    torch.testing.assert_close(
        build(class_weights=weights, logit_adjustment=0.75)(logits, labels),
        build(class_weights=weights)(shifted, labels),
    )


def test_full_adjustment_learns_the_true_frequencies_where_plain_weights_do_not() -> None:
    """One pixel kind, class 1 in a tenth of the cases: what does the best constant logit difference say?"""
    labels = torch.zeros(1, 10, 10, dtype=torch.int64)
    labels[:, 0] = 1
    learned = {}
    for adjustment in (0.0, 1.0):
        loss = cross_entropy([1.0, 9.0], adjustment)
        bias = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([bias], max_iter=100, line_search_fn="strong_wolfe")

        def closure(loss: PixelLoss = loss, bias: torch.Tensor = bias) -> torch.Tensor:
            bias.grad = None
            value = loss(bias[None, :, None, None].expand(1, 2, 10, 10), labels).mean()
            value.backward()
            return value

        optimizer.step(closure)
        learned[adjustment] = float(bias.detach().softmax(0)[1])
    assert learned[0.0] == pytest.approx(0.5, abs=1e-4)  # the weight 9 makes up for the tenth
    assert learned[1.0] == pytest.approx(0.1, abs=1e-4)


@pytest.mark.parametrize("weights", [None, [1.0, 0.0]])
def test_logit_adjustment_without_positive_weights_is_refused(weights: list[float] | None) -> None:
    with pytest.raises(ValueError, match="needs a positive class weight"):
        cross_entropy(weights, 0.5)


@pytest.mark.parametrize("threshold", [0, 1, -0.1, 1.5, float("nan")])
def test_ohem_refuses_a_threshold_that_is_no_probability(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"OHEM threshold is .*between 0 and 1"):
        ohem_cross_entropy(threshold)


def test_ohem_refuses_a_negative_min_kept() -> None:
    with pytest.raises(ValueError, match="OHEM min_kept is -1"):
        ohem_cross_entropy(min_kept=-1)


@pytest.mark.parametrize("build", [cross_entropy, ohem_cross_entropy])
@pytest.mark.parametrize("weights", [[1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")], [[1.0], [2.0]]])
def test_impossible_class_weights_are_refused(build: type, weights: list[float]) -> None:
    with pytest.raises(ValueError, match=r"class_weights is .* per class"):
        build(class_weights=weights)


@pytest.mark.parametrize("loss", [cross_entropy([1.0, 2.0]), ohem_cross_entropy(class_weights=[1.0, 2.0])])
def test_class_weights_of_another_number_of_classes_are_refused(loss: PixelLoss) -> None:
    with pytest.raises(ConfigError, match=r"loss\.args\.class_weights has 2 numbers for 4 classes"):
        loss(*batch())


def test_labels_of_another_size_are_refused() -> None:
    logits, labels = batch()
    with pytest.raises(ValueError, match=r"\(3, 4, 5, 7\) but labels \(3, 5, 6\); resize the logits"):
        cross_entropy()(logits, labels[..., :-1])


def test_losses_are_registered_by_name() -> None:
    assert LOSSES.names() == [
        "class_boundary",
        "class_presence",
        "cross_entropy",
        "edge_cross_entropy",
        "image_balanced_cross_entropy",
        "ohem_cross_entropy",
    ]
    with pytest.raises(UnknownNameError, match="did you mean 'threshold'"):
        LOSSES.build("ohem_cross_entropy", treshold=0.7)
