"""The dual-task regulariser: a slow version, a planted contour, gradients, ignored pixels, Gumbel noise."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import IGNORED, assert_normalizer_known, assert_shares_add_up, assert_zero_with_gradient, noise, patches
from torch import Tensor

from fastseg.losses import LossTerm, OutputLoss, contour_strength, dual_task
from fastseg.losses.dual_task import gumbel_softmax
from fastseg.types import SegOutput

K = 3
plain = functools.partial(dual_task, gumbel=False)


def batch(
    n: int = 2, height: int = 9, width: int = 11, *, seed: int = 0, ignored: str | float = "some"
) -> tuple[Tensor, Tensor]:
    return noise(n, K, height, width, seed=seed), patches(
        n, height, width, classes=K, seed=seed, ignored=ignored, cell=5
    )


def of(loss: OutputLoss, logits: Tensor, labels: Tensor) -> LossTerm:
    return loss(SegOutput(logits, {}), labels)


def slow_strength(probabilities: np.ndarray, valid: np.ndarray, radius: int) -> np.ndarray:
    """Of one image: probabilities (K,H,W), valid (H,W) -> (K,H,W), nan where not valid."""
    _, H, W = probabilities.shape
    smooth = np.full(probabilities.shape, np.nan)
    for row, column in np.ndindex(H, W):
        weighted, weights = 0.0, 0.0
        for y, x in np.ndindex(H, W):
            weight = max(0, radius + 1 - abs(y - row)) * max(0, radius + 1 - abs(x - column)) * valid[y, x]
            weighted, weights = weighted + weight * probabilities[:, y, x], weights + weight
        if weights:
            smooth[:, row, column] = weighted / weights
    strength = np.full(probabilities.shape, np.nan)
    for row, column in np.argwhere(valid):
        up, down, left, right = max(row - 1, 0), min(row + 1, H - 1), max(column - 1, 0), min(column + 1, W - 1)
        down_slope = (smooth[:, down, column] - smooth[:, up, column]) / max(down - up, 1)
        right_slope = (smooth[:, row, right] - smooth[:, row, left]) / max(right - left, 1)
        strength[:, row, column] = np.sqrt(down_slope**2 + right_slope**2) / np.sqrt(2)
    return strength


def slow(logits: Tensor, labels: Tensor, radius: int, threshold: float) -> tuple[float, int]:
    """Sum over images of half the mean where predicted contours are steep and half that where true ones are."""
    total, images = 0.0, 0
    for x, y in zip(logits.detach().numpy(), labels.numpy(), strict=True):
        valid = y != 255
        if not valid.any():
            continue
        images += 1
        probabilities = np.exp(x) / np.exp(x).sum(0)
        predicted = slow_strength(probabilities, valid, radius)
        true = slow_strength(np.stack([y == k for k in range(len(x))]).astype(float), valid, radius)
        for strength in (predicted, true):
            greatest = np.nanmax(strength)
            steep = [
                abs(predicted[place] - true[place])
                for place in np.ndindex(predicted.shape)
                if valid[place[1:]] and strength[place] > max(threshold * greatest, 1e-5)
            ]
            total += 0.5 * sum(steep) / max(len(steep), 1)
    return total, images


@pytest.mark.parametrize("ignored", IGNORED)
@pytest.mark.parametrize(("radius", "threshold"), [(1, 0.0), (2, 0.5), (4, 0.2)])
def test_it_is_the_slow_version(radius: int, threshold: float, ignored: str) -> None:
    logits, labels = batch(ignored=ignored)
    term = of(plain(radius, threshold=threshold), logits, labels)
    total, images = slow(logits, labels, radius, threshold)
    assert total > 0.001
    # what makes the root safe at 0 adds 1e-6 where there is no slope at all
    assert term.total.item() == pytest.approx(total, abs=1e-6)
    assert term.normalizer.item() == images


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 9), st.integers(0, 99), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_strength_follows_the_definition_at_any_size(
    height: int, width: int, radius: int, seed: int, ignored: float
) -> None:
    logits, labels = batch(1, height, width, seed=seed, ignored=ignored)
    probabilities, valid = logits.detach().softmax(1), labels != 255
    strength = contour_strength(probabilities, valid[:, None], radius)[0].numpy()
    expected = np.nan_to_num(slow_strength(probabilities[0].numpy(), valid[0].numpy(), radius), nan=0.0)
    # as above; nan_to_num stands for ignored pixels only, unless a valid one met a filter that covers nothing
    np.testing.assert_allclose(strength, expected, rtol=0, atol=1.5e-6)


def test_a_contour_is_as_strong_as_the_slope_of_the_smoothed_step() -> None:
    step = torch.zeros(1, 1, 3, 20, dtype=torch.float64)
    step[..., 10:] = 1
    strength = contour_strength(step, torch.ones(1, 1, 3, 20, dtype=torch.bool), 4)[0, 0, 1]
    # central differences of a ramp whose differences are 1 2 3 4 5 4 3 2 1, in 25ths
    ramp = torch.tensor([0.5, 1.5, 2.5, 3.5, 4.5, 4.5, 3.5, 2.5, 1.5, 0.5], dtype=torch.float64)
    torch.testing.assert_close(strength[5:15], ramp / 25 / 2**0.5, rtol=0, atol=1e-10)
    assert strength[:5].max() < 1e-5 > strength[15:].max()


def test_a_line_of_one_pixel_is_strong_enough_to_count_beside_a_straight_border() -> None:
    labels = torch.zeros(30, 60, dtype=torch.float64)
    labels[:, 10] = labels[:, 40:] = 1
    strength = contour_strength(labels[None, None], torch.ones(1, 1, 30, 60, dtype=torch.bool))[0, 0]
    assert strength[:, :20].max() / strength.max() == pytest.approx(1 / 4.5)  # slopes of 1 / 25 and 4.5 / 25


@pytest.mark.parametrize("ignored", IGNORED)
def test_neither_the_border_of_the_image_nor_ignored_pixels_make_a_contour(ignored: str) -> None:
    _, labels = batch(ignored=ignored)
    flat = torch.full((2, K, 9, 11), 1 / K)
    for dtype in (torch.float32, torch.float64):
        assert contour_strength(flat.to(dtype), (labels != 255)[:, None]).max() < 5e-6  # below what counts as flat


def test_a_prediction_equal_to_the_labels_has_no_loss() -> None:
    _, labels = batch()
    logits = 200.0 * (labels[:, None] == torch.arange(K)[:, None, None])
    assert of(plain(), logits, labels).mean() == 0
    assert of(dual_task(), logits, labels).mean() < 1e-9


def test_an_image_of_one_class_leaves_half_the_mean_over_predicted_contours() -> None:
    logits, labels = batch(1, ignored="none")
    strength = contour_strength(logits.softmax(1), torch.ones(1, 1, 9, 11, dtype=torch.bool))
    steep = strength > 0.2 * strength.max()
    assert 0 < steep.sum() < steep.numel()
    mean = of(plain(), logits, torch.ones_like(labels)).mean()
    torch.testing.assert_close(mean, strength[steep].mean() / 2, rtol=0, atol=1e-6)  # 1e-6 as above


def test_what_is_flat_and_true_of_one_class_has_no_loss_in_float32() -> None:
    for labels in (torch.ones(1, 30, 40, dtype=torch.int64), patches(1, 30, 40, classes=1, ignored="most")):
        logits = torch.randn(1, K, 1, 1).expand(1, K, 30, 40).clone().requires_grad_()
        term = of(plain(), logits, labels)
        (gradient,) = torch.autograd.grad(term.total, logits)
        assert term.total == 0
        assert torch.equal(gradient, torch.zeros_like(gradient))


# A planted contour: class 0 on the left, class 1 on the right, class 2 below; the prediction displaces the border of 0
# and 1 to the right by d. Contours of the smoothed labels are 10 pixels wide, 8 of which are steep enough to count.
COLUMN, ROW = 32, 20


def planted_labels() -> Tensor:
    labels = torch.zeros(1, 30, 64, dtype=torch.int64)
    labels[..., COLUMN:] = 1
    labels[:, ROW:] = 2
    return labels


def planted_logits(displacement: Tensor | float, sharpness: float) -> Tensor:
    right = torch.arange(64, dtype=torch.float64)[None, :] - (COLUMN - 0.5) - displacement
    down = torch.arange(30, dtype=torch.float64)[:, None] - (ROW - 0.5)
    first, second = (sharpness * x.expand(30, 64) for x in (-right, right))
    return torch.stack([first, second, torch.maximum(first, second) + 2 * sharpness * down])[None] / 2


@pytest.mark.parametrize("sharpness", [1.0, 1.5, 3.0, 20.0])
@pytest.mark.parametrize("side", [1, -1])
def test_the_loss_falls_as_a_planted_contour_approaches_the_true_one(side: int, sharpness: float) -> None:
    losses = [
        of(plain(), planted_logits(side * d, sharpness), planted_labels()).mean().item() for d in range(9, -1, -1)
    ]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == len(losses)


@pytest.mark.parametrize("sharpness", [1.0, 1.5, 3.0])
@pytest.mark.parametrize("displacement", [d / 4 for d in range(-24, 25) if d])
def test_the_gradient_draws_a_planted_contour_to_the_true_one(displacement: float, sharpness: float) -> None:
    at = torch.tensor(displacement, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(of(plain(), planted_logits(at, sharpness), planted_labels()).mean(), at)
    assert slope.sign() == np.sign(displacement)


@pytest.mark.parametrize("displacement", [-6.0, -2.0, 1.0, 3.5])
def test_a_step_along_the_gradient_of_the_logits_lowers_the_loss(displacement: float) -> None:
    logits = planted_logits(displacement, 1.0).requires_grad_()
    loss = of(plain(), logits, planted_labels()).mean()
    (gradient,) = torch.autograd.grad(loss, logits)
    after = of(plain(), logits - 0.1 * gradient / gradient.abs().max(), planted_labels()).mean()
    assert after < loss


def test_it_is_slopes_that_count_and_not_which_class_lies_on_which_side() -> None:
    logits, labels = planted_logits(0, 3.0)[:, :2, :ROW], planted_labels()[:, :ROW]
    swapped = logits.flip(1)
    torch.testing.assert_close(of(plain(), swapped, labels).mean(), of(plain(), logits, labels).mean())
    assert (swapped.argmax(1) != labels).all()


def test_a_sharp_contour_beyond_the_reach_of_the_true_one_is_equally_wrong_anywhere() -> None:
    near, at_reach, beyond, far = (
        of(plain(), planted_logits(d, 20.0)[:, :2, :ROW], planted_labels()[:, :ROW]).mean() for d in (8, 9, 10, 20)
    )
    assert near < at_reach
    torch.testing.assert_close(beyond, at_reach, rtol=1e-6, atol=0)  # sharp, but no step
    torch.testing.assert_close(far, beyond, rtol=1e-6, atol=0)


def test_pixels_beyond_the_reach_of_every_contour_get_no_gradient() -> None:
    logits = planted_logits(3.0, 1.0).requires_grad_()
    (gradient,) = torch.autograd.grad(of(plain(), logits, planted_labels()).mean(), logits)
    assert gradient[..., :10, :16].abs().max() < 1e-9 * gradient.abs().max()
    assert gradient[..., :10, 48:].abs().max() < 1e-9 * gradient.abs().max()


@pytest.mark.parametrize("ignored", ["none", "some", "rows", "an image"])
@pytest.mark.parametrize("radius", [1, 4])
def test_its_gradient_is_that_of_finite_differences(radius: int, ignored: str) -> None:
    logits, labels = batch(2, 5, 6, ignored=ignored)
    assert torch.autograd.gradcheck(lambda x: of(plain(radius), x, labels).mean(), (logits,))


def test_its_gradient_is_that_of_finite_differences_at_fixed_gumbel_noise() -> None:
    logits, labels = batch(2, 4, 5)

    def seeded(x: Tensor) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return of(dual_task(2), x, labels).mean()

    assert torch.autograd.gradcheck(seeded, (logits,))


@pytest.mark.parametrize("ignored", ["some", "most", "rows"])
def test_what_the_network_says_of_ignored_pixels_does_not_count(ignored: str) -> None:
    logits, labels = batch(ignored=ignored)
    mean = of(plain(), logits, labels).mean()
    (gradient,) = torch.autograd.grad(mean, logits)
    hidden = (labels == 255)[:, None]
    assert torch.equal(gradient.masked_select(hidden), torch.zeros_like(gradient.masked_select(hidden)))
    other = torch.where(hidden, 30 * torch.randn(logits.shape, dtype=torch.float64), logits)
    torch.testing.assert_close(of(plain(), other, labels).mean(), mean)


def test_nothing_but_ignored_pixels_gives_zero_and_a_gradient_of_zero() -> None:
    logits, labels = batch()
    for loss in (plain(), dual_task()):
        assert_zero_with_gradient(of(loss, logits, torch.full_like(labels, 255)), logits)


@given(st.lists(st.integers(1, 3), max_size=2), st.integers(0, 99), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_sums_over_shares_of_a_batch_add_up(cuts: list[int], seed: int, ignored: float) -> None:
    logits, labels = batch(4, seed=seed, ignored=ignored)
    assert_shares_add_up(lambda part: of(plain(), logits[part], labels[part]), 4, cuts)


@pytest.mark.parametrize("ignored", IGNORED)
def test_its_normaliser_comes_from_labels_alone(ignored: str) -> None:
    logits, labels = batch(ignored=ignored)
    assert_normalizer_known(dual_task().normalizer(labels), of(dual_task(), logits, labels))


@pytest.mark.parametrize("gumbel", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0, 1e30])
def test_loss_and_gradient_are_finite_in_float32(gumbel: bool, scale: float) -> None:
    logits, labels = batch()
    logits = (scale * logits.detach().sign()).float().requires_grad_()
    mean = of(dual_task(gumbel=gumbel), logits, labels).mean()
    assert mean.isfinite()
    assert torch.autograd.grad(mean, logits)[0].isfinite().all()


def test_float32_is_close_to_float64() -> None:
    logits, labels = batch(2, 30, 40)
    narrow, wide = (of(plain(), x, labels).mean().double() for x in (logits.float(), logits.float().double()))
    # slopes of some 1e-2, each a difference of two numbers near 1 with 7 digits
    torch.testing.assert_close(narrow, wide, rtol=1e-5, atol=0)


def test_gumbel_noise_repeats_with_the_seed_and_only_with_it() -> None:
    logits, labels = batch()
    with torch.random.fork_rng():
        draws = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            draws.append(of(dual_task(), logits, labels).mean())
    assert draws[0] == draws[1] != draws[2]


def test_gumbel_samples_choose_classes_as_often_as_softmax_says() -> None:
    logits = torch.tensor([1.0, 0.0, -2.0])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        samples = gumbel_softmax(logits[None, :, None, None].expand(1, 3, 200, 200), 0.5)
    chosen = torch.nn.functional.one_hot(samples.argmax(1), 3).double().mean((0, 1, 2))
    # five standard deviations of a share of 40,000
    torch.testing.assert_close(chosen, logits.double().softmax(0), rtol=0, atol=5 * (0.25 / 40_000) ** 0.5)


def test_a_low_temperature_makes_gumbel_samples_sharp() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        cold, warm = (gumbel_softmax(torch.zeros(1, 3, 50, 50), t).amax(1).mean() for t in (0.01, 100.0))
    assert cold > 0.98
    assert warm < 0.34


def test_the_mean_over_gumbel_samples_is_not_the_loss_of_softmax() -> None:
    logits, labels = batch()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = torch.stack([of(dual_task(), logits.detach(), labels).mean() for _ in range(50)])
    away = (draws.mean() - of(plain(), logits, labels).mean()).abs()
    assert away > 5 * draws.std() / 50**0.5


def test_gumbel_noise_is_finite_where_the_generator_gives_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "uniform_", Tensor.zero_)
    for dtype in (torch.float32, torch.float64):
        assert gumbel_softmax(torch.zeros(1, 3, 2, 2, dtype=dtype), 0.5).isfinite().all()


@pytest.mark.parametrize("label", [K, 254, -1])
def test_labels_beyond_the_classes_are_refused_as_by_cross_entropy(label: int) -> None:
    logits, labels = batch()
    labels[0, 0, 0] = label
    with pytest.raises(IndexError, match=f"Target {label} is out of bounds"):
        of(dual_task(), logits, labels)


def test_labels_of_another_size_are_refused() -> None:
    logits, labels = batch()
    with pytest.raises(ValueError, match="resize the logits"):
        of(dual_task(), logits, labels[..., :-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"radius": 0}, "radius is 0; it is a number of pixels, 1 or more"),
        ({"temperature": 0.0}, "temperature is 0.0; it is a finite number above 0"),
        ({"temperature": float("inf")}, "temperature is inf; it is a finite number above 0"),
        ({"threshold": 1.0}, "threshold is 1.0; it is a share of the steepest slope, 0 to below 1"),
        ({"threshold": -0.1}, "threshold is -0.1; it is a share of the steepest slope, 0 to below 1"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"dual_task {message}"):
        dual_task(**arguments)  # type: ignore[arg-type]


def test_strength_of_a_radius_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="contour_strength radius is 0"):
        contour_strength(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2, dtype=torch.bool), 0)
