"""Supervision by the contours of classes: for every class, which pixels lie where it borders on another one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fastseg.losses.pixel import LOSSES, LossTerm, PixelLoss, check_labels, check_size
from fastseg.types import IGNORE_INDEX


def class_contours(labels: Tensor, num_classes: int, radius: int = 4, distance: str = "chebyshev") -> Tensor:
    """Which pixels lie on the contour of which class: labels int64 (N,H,W) -> bool (N,K,H,W).

    A valid pixel lies on the contour of class k when k and another class both occur among the valid pixels that are
    up to `radius` away: by 'chebyshev' distance (rows and columns each) or 'euclidean'. So a contour is a band `radius`
    pixels wide on either side of the border, and all classes that meet there share it. Ignored pixels lie on none and
    make no border. Raises ValueError for another distance.
    """
    classes = torch.arange(num_classes, device=labels.device)[:, None, None]
    near = _greatest_near(labels[:, None] == classes, _reaches(radius, distance))
    several = near.sum(1, keepdim=True) > 1
    return near & several & (labels != IGNORE_INDEX)[:, None]


def label_edges(labels: Tensor, radius: int = 2) -> Tensor:
    """Which pixels lie on an edge between classes: labels int64 (N,H,W) in 0..254 or ignored -> bool (N,1,H,W).

    A valid pixel lies on an edge when a valid pixel of another class is up to `radius` away, by Euclidean distance: so
    it does when it is on any class's contour. Class 0 counts like every other, ignored pixels lie on no edge and make
    none, and the image ends without one: the authors' code of Gated-SCNN pads with zeros, which frames every image.
    Source: arXiv 1907.05740, section 3.
    """
    reaches = _reaches(radius, "euclidean")
    # all of a pixel's valid neighbours are of one class when the greatest label is the least
    labels = labels[:, None].to(torch.uint8)
    ignored = labels == IGNORE_INDEX
    greatest = _greatest_near(labels.masked_fill(ignored, 0), reaches)
    least = IGNORE_INDEX - _greatest_near(IGNORE_INDEX - labels, reaches)  # here 255 - 255 = 0 never is the greatest
    return (greatest != least) & ~ignored


def _reaches(radius: int, distance: str) -> list[int]:
    """How many columns a neighbourhood extends to either side, for the row of its centre and `radius` rows below."""
    if distance == "chebyshev":
        return [radius] * (radius + 1)
    if distance == "euclidean":
        return [math.isqrt(radius**2 - row**2) for row in range(radius + 1)]
    raise ValueError(f"distance is {distance!r}; allowed: 'chebyshev', 'euclidean'")


def _greatest_near(values: Tensor, reaches: Sequence[int]) -> Tensor:
    """The greatest value (or whether anything is True) in every pixel's neighbourhood: (...,H,W) -> the same shape.

    `reaches` never grow with the distance of their row, so that rows far away are done when the way to the side is as
    long as they need, and nothing is compared twice: 4 * radius + 1 passes, whatever the neighbourhood's area.
    """
    height, width = values.shape[-2:]
    sideways, found, reached = values.clone(), values.clone(), 0
    for row in range(len(reaches) - 1, -1, -1):
        for column in range(reached + 1, min(reaches[row], width - 1) + 1):
            _keep_greatest(sideways, values, -1, column)
        reached = reaches[row]
        if row < height:
            _keep_greatest(found, sideways, -2, row)
    return found


def _keep_greatest(found: Tensor, values: Tensor, axis: int, step: int) -> None:
    """found = max(found, values `step` before it, values `step` after it) along `axis`."""
    rest = found.shape[axis] - step
    for start, source in ((step, 0), (0, step)):
        place = found.narrow(axis, start, rest)
        torch.maximum(place, values.narrow(axis, source, rest), out=place)


def _check_radius(name: str, radius: int) -> int:
    if radius < 1:
        raise ValueError(f"{name} radius is {radius}; it is a number of pixels, 1 or more")
    return radius


class ClassBoundary:
    """Binary cross entropy of logits against contours. See `class_boundary`."""

    learns = "contours"
    resizes = True

    def __init__(self, radius: int, positive_weight: float) -> None:
        self.radius = _check_radius("class_boundary", radius)
        if not (positive_weight > 0 and math.isfinite(positive_weight)):
            raise ValueError(f"class_boundary positive_weight is {positive_weight}; it is a finite number above 0")
        self.positive_weight = positive_weight

    def __call__(self, logits: Tensor, labels: Tensor) -> LossTerm:
        check_size(logits, labels)
        check_labels(labels, logits.shape[1])
        contours = class_contours(labels, logits.shape[1], self.radius).to(logits.dtype)
        weight = logits.new_full((), self.positive_weight)
        losses = F.binary_cross_entropy_with_logits(logits, contours, pos_weight=weight, reduction="none").mean(1)
        valid = (labels != IGNORE_INDEX).to(logits.dtype)
        return LossTerm((losses * valid).sum(), valid.sum())

    def normalizer(self, labels: Tensor) -> Tensor | None:
        return (labels != IGNORE_INDEX).to(torch.float64).sum()


class EdgeCrossEntropy:
    """Class-balanced binary cross entropy of logits against edges. See `edge_cross_entropy`."""

    learns = "edges"
    resizes = True

    def __init__(self, radius: int) -> None:
        self.radius = _check_radius("edge_cross_entropy", radius)

    def __call__(self, logits: Tensor, labels: Tensor) -> LossTerm:
        check_size(logits, labels)
        channels = logits.shape[1]
        if channels == 1:
            edges = label_edges(labels, self.radius)
        else:
            check_labels(labels, channels)
            edges = class_contours(labels, channels, self.radius, "euclidean")
        valid = (labels != IGNORE_INDEX)[:, None]
        pixels = valid.sum((1, 2, 3), keepdim=True).to(logits.dtype)
        share = edges.sum((1, 2, 3), keepdim=True).to(logits.dtype) / (channels * pixels).clamp(min=1)
        weights = torch.where(edges, 1 - share, share) * valid
        total = F.binary_cross_entropy_with_logits(logits, edges.to(logits.dtype), weights, reduction="sum") / channels
        return LossTerm(total, pixels.sum())

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


@LOSSES.register
def edge_cross_entropy(radius: int = 2) -> PixelLoss:
    """Mean class-balanced binary cross entropy, over valid pixels, of an auxiliary output's logits against edges.

    One channel (N,1,H,W) learns `label_edges`; one channel per class (N,K,H,W) learns Euclidean `class_contours`, and
    a pixel's loss is the mean over its classes. What is on an edge weighs the share of what is not, and the reverse,
    counted in every image over its valid pixels and classes together: an image without an edge weighs nothing. The
    authors' code counts over a process's batch and hands probabilities to a function of logits; these are logits.
    0 (with gradient) when every pixel is ignored. Raises ValueError for a radius below 1; with more than one channel,
    for labels that are neither one of them nor ignored, what cross entropy raises.
    Source: the edge loss of Gated-SCNN, arXiv 1907.05740, section 3.
    """
    return EdgeCrossEntropy(radius)
