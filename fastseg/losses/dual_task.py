"""The dual-task regulariser of Gated-SCNN: the contours that a segmentation implies against those of the truth."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fastseg.losses.pixel import LossTerm, check_labels, check_size, count_images
from fastseg.losses.terms import TERMS, OutputLoss
from fastseg.types import IGNORE_INDEX, SegOutput

FLAT = 1e-5  # no contour: rounding in float32 feigns a strength of 1e-6, and a class that begins has 0.13 at radius 4
TINY = 1e-12  # what makes the slope of a square root finite at 0; its own root is well below FLAT


def contour_strength(probabilities: Tensor, valid: Tensor, radius: int = 4) -> Tensor:
    """How steeply every class's smoothed probability changes: |grad(G * p)| / sqrt(2), per pixel; 0 where not valid.

    Shapes: probabilities (N,K,H,W), valid bool (N,1,H,W). G is a separable triangle filter with the weights
    1, 2 .. radius + 1 .. 2, 1; grad are central differences, at the image's border one-sided ones. The filter is a mean
    over the valid pixels that it covers, so that neither ignored pixels nor the image's border make a contour.
    Raises ValueError for a radius below 1. Source: arXiv 1907.05740, section 3.
    """
    if radius < 1:
        raise ValueError(f"contour_strength radius is {radius}; it is a number of pixels, 1 or more")
    seen = valid.to(probabilities.dtype)
    # Where the filter covers no valid pixel, 0 / 0 is made 0, and no difference that counts reads it: those are taken
    # at valid pixels, between them and pixels beside them, and from there the filter covers that valid pixel.
    covered = _triangle(seen, radius).clamp(min=1)
    smooth = _Triangle.apply(probabilities * seen, radius) / covered
    return ((_slope(smooth, -1).square() + _slope(smooth, -2).square()) / 2 + TINY).sqrt() * seen


class _Triangle(torch.autograd.Function):
    """`_triangle` for autograd. It is symmetric, so that its gradient is itself, and nothing needs to be kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, radius: int) -> Tensor:
        ctx.radius = radius
        return _triangle(x, radius)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Triangle.apply(gradient, ctx.radius), None


def _triangle(x: Tensor, radius: int) -> Tensor:
    """Sums along H and W with the weights 1, 2 .. radius + 1 .. 2, 1; nothing lies beyond the border."""
    for axis in (-1, -2):
        size, total = x.shape[axis], x * (radius + 1)
        for step in range(1, min(radius, size - 1) + 1):
            rest, weight = size - step, radius + 1 - step
            total.narrow(axis, step, rest).add_(x.narrow(axis, 0, rest), alpha=weight)
            total.narrow(axis, 0, rest).add_(x.narrow(axis, step, rest), alpha=weight)
        x = total
    return x


def _slope(x: Tensor, axis: int) -> Tensor:
    """Central differences along `axis`, -1 or -2; one-sided at both ends, 0 where there is one pixel."""
    size = x.shape[axis]
    if size == 1:
        return torch.zeros_like(x)
    steps = x.diff(dim=axis)
    behind = torch.cat([steps.narrow(axis, 0, 1), steps], axis)
    ahead = torch.cat([steps, steps.narrow(axis, size - 2, 1)], axis)
    return (behind + ahead) / 2


def gumbel_softmax(logits: Tensor, temperature: float) -> Tensor:
    """A soft sample of the classes (N,K,H,W): softmax((logits + Gumbel noise) / temperature).

    The noise comes from torch's global generator, by way of a uniform number: that is thrice as fast as
    `F.gumbel_softmax` on a CPU, and clamped at 0, so that it is finite.
    """
    noise = torch.empty_like(logits, requires_grad=False).uniform_()
    noise.clamp_(min=torch.finfo(noise.dtype).tiny).log_().neg_().log_().neg_()
    return ((logits + noise) / temperature).softmax(1)


class DualTask:
    """L1 between the contours of a segmentation and those of its labels. See `dual_task`."""

    reads: tuple[str, ...] = ()

    def __init__(self, radius: int, gumbel: bool, temperature: float, threshold: float) -> None:
        if radius < 1:
            raise ValueError(f"dual_task radius is {radius}; it is a number of pixels, 1 or more")
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"dual_task temperature is {temperature}; it is a finite number above 0")
        if not 0 <= threshold < 1:
            raise ValueError(f"dual_task threshold is {threshold}; it is a share of the steepest slope, 0 to below 1")
        self.radius = radius
        self.gumbel = gumbel
        self.temperature = temperature
        self.threshold = threshold

    def __call__(self, output: SegOutput, labels: Tensor) -> LossTerm:
        logits = output.logits
        check_size(logits, labels)
        check_labels(labels, logits.shape[1])
        valid = (labels != IGNORE_INDEX)[:, None]
        with torch.no_grad():
            classes = torch.arange(logits.shape[1], device=labels.device)[:, None, None]
            wanted = contour_strength((labels[:, None] == classes).to(logits.dtype), valid, self.radius)
        probabilities = gumbel_softmax(logits, self.temperature) if self.gumbel else logits.softmax(1)
        predicted = contour_strength(probabilities, valid, self.radius)
        difference = predicted - wanted
        with torch.no_grad():
            # with the sign of what they weigh, since every map that autograd keeps counts: K classes at full resolution
            weights = (self._mean_where_steep(predicted) + self._mean_where_steep(wanted)) / 2 * difference.sign()
        return LossTerm((difference * weights).sum(), count_images(labels).to(logits.dtype))

    def normalizer(self, labels: Tensor) -> Tensor | None:
        return count_images(labels)

    def _mean_where_steep(self, strength: Tensor) -> Tensor:
        """Weights (N,K,H,W) that add up to each image's mean over where `strength` counts as a contour; else all 0."""
        least = (self.threshold * strength.amax((1, 2, 3), keepdim=True)).clamp(min=FLAT)
        steep = (strength > least).to(strength.dtype)
        return steep / steep.sum((1, 2, 3), keepdim=True).clamp(min=1)


@TERMS.register
def dual_task(radius: int = 4, gumbel: bool = True, temperature: float = 0.5, threshold: float = 0.2) -> OutputLoss:
    """Mean, over images, of |predicted - true contour strength|: half over predicted contours, half over true ones.

    Both strengths are `contour_strength` of radius `radius`: the truth's of its labels, one-hot; the prediction's of a
    Gumbel-softmax of the main logits at `temperature`, or with gumbel=False of their softmax. A class at a pixel lies
    on a contour when its strength is above `threshold` times its image's greatest: 0.2 keeps the contours of a line one
    pixel wide (they reach 0.22 of a straight border's at radius 4), and leaves out the foot of every ramp and most of
    what Gumbel noise makes of uncertain regions. Ignored pixels count nowhere, an image without a predicted or a true
    contour has 0 for that half, and one without a valid pixel does not count. 0 (with gradient) when every pixel is
    ignored. A sharp contour is drawn to a true one up to 2 * radius + 1 pixels away; beyond, their ramps do not meet.
    The authors' code returns from filter and differences at once and so compares probabilities; this compares slopes.
    Raises ValueError for a radius below 1, a temperature that is not positive and a threshold outside 0 to 1; for
    labels that are neither a class nor ignored, what cross entropy raises.
    Source: arXiv 1907.05740, section 3; filter radius, temperature and halves from its authors' code.
    """
    return DualTask(radius, gumbel, temperature, threshold)
