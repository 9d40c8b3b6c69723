"""Supervision by the contours of classes: for every class, which pixels lie where it borders on another one."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fastseg.losses.pixel import LOSSES, LossTerm, PixelLoss, check_size
from fastseg.types import IGNORE_INDEX


def class_contours(labels: Tensor, num_classes: int, radius: int = 4) -> Tensor:
    """Which pixels lie on the contour of which class: labels int64 (N,H,W) -> bool (N,K,H,W).

    A valid pixel lies on the contour of class k when k and another class both occur among the valid pixels that are
    up to `radius` rows and columns away (Chebyshev distance). So a contour is a band `radius` pixels wide on either
    side of the border, and all classes that meet there share it. Ignored pixels lie on none and make no border.
    """
    classes = torch.arange(num_classes, device=labels.device)[:, None, None]
    near = _spread(labels[:, None] == classes, radius)
    several = near.sum(1, keepdim=True) > 1
    return near & several & (labels != IGNORE_INDEX)[:, None]


def _spread(mask: Tensor, radius: int) -> Tensor:
    """Whether anything within `radius` along both of the last two axes is True."""
    for axis in (-2, -1):
        size, found = mask.shape[axis], mask.clone()
        for step in range(1, min(radius, size - 1) + 1):
            for start, source in ((step, 0), (0, step)):
                found.narrow(axis, start, size - step).logical_or_(mask.narrow(axis, source, size - step))
        mask = found
    return mask


class ClassBoundary:
    """Binary cross entropy of logits against contours. See `class_boundary`."""

    resizes = True

    def __init__(self, radius: int, positive_weight: float) -> None:
        if radius < 1:
            raise ValueError(f"class_boundary radius is {radius}; it is a number of pixels, 1 or more")
        if not (positive_weight > 0 and math.isfinite(positive_weight)):
            raise ValueError(f"class_boundary positive_weight is {positive_weight}; it is a finite number above 0")
        self.radius = radius
        self.positive_weight = positive_weight

    def __call__(self, logits: Tensor, labels: Tensor) -> LossTerm:
        check_size(logits, labels)
        # for its check of the labels alone: IndexError on the CPU, an assertion on CUDA that waits for nothing
        F.nll_loss(logits.detach(), labels, ignore_index=IGNORE_INDEX, reduction="none")
        contours = class_contours(labels, logits.shape[1], self.radius).to(logits.dtype)
        weight = logits.new_full((), self.positive_weight)
        losses = F.binary_cross_entropy_with_logits(logits, contours, pos_weight=weight, reduction="none").mean(1)
        valid = (labels != IGNORE_INDEX).to(logits.dtype)
        return LossTerm((losses * valid).sum(), valid.sum())

    def normalizer(self, labels: Tensor) -> Tensor | None:
        return (labels != IGNORE_INDEX).to(torch.float64).sum()


@LOSSES.register
def class_boundary(radius: int = 4, positive_weight: float = 1.0) -> PixelLoss:
    """Mean binary cross entropy, over valid pixels and classes, of logits (N,K,H,W) against `class_contours`.

    For an auxiliary output that has one logit per class for the class's contour, not for a network's classes. The
    default radius makes a contour as wide as one cell of a map at stride 8. `positive_weight` multiplies the loss of
    pixels on a contour, of which there are few. 0 (with gradient) when every pixel is ignored.
    Raises ValueError for a radius below 1 and a weight that is not positive; for labels that are neither a class nor
    ignored, what cross entropy raises.
    Source: class boundary supervision, arXiv 1911.07217, whose abstract leaves width and weights open.
    """
    return ClassBoundary(radius, positive_weight)
