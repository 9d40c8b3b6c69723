"""Losses of a network's whole output, beyond one loss per output: what couples them, or a second view of one."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from fastseg.losses.pixel import LossTerm, check_labels, check_upper_bound, count_images, image_balanced_means
from fastseg.registry import Registry
from fastseg.types import IGNORE_INDEX, SegOutput


class OutputLoss(Protocol):
    """A loss of the logits together with the auxiliary outputs that it `reads`."""

    reads: tuple[str, ...]

    def __call__(self, output: SegOutput, labels: Tensor) -> LossTerm:
        """Logits (N,K,H,W) and auxiliary maps (N,C,H,W), resized to the labels int64 (N,H,W) -> sum and normaliser."""
        ...

    def normalizer(self, labels: Tensor) -> Tensor | None:
        """The normaliser where labels alone decide it (then gradient accumulation is exact), else None."""


TERMS: Registry[OutputLoss] = Registry("loss term", typed=True)


class EdgeAttention:
    """Image-balanced cross entropy where the network sees an edge. See `edge_attention`."""

    def __init__(self, threshold: float, output: str, upper_bound: float) -> None:
        if not 0 < threshold < 1:
            raise ValueError(
                f"edge_attention threshold is {threshold}; it is a probability between 0 and 1, such as 0.8"
            )
        self.least = math.log(threshold / (1 - threshold))  # the logit of the threshold
        self.reads: tuple[str, ...] = (output,)
        self.upper_bound = check_upper_bound("edge_attention", upper_bound)

    def __call__(self, output: SegOutput, labels: Tensor) -> LossTerm:
        # what is not attended is not checked by the cross entropy below
        check_labels(labels, output.logits.shape[1])
        edges = output.aux[self.reads[0]].amax(1)
        attended = torch.where(edges > self.least, labels, IGNORE_INDEX)
        means = image_balanced_means(output.logits, attended, self.upper_bound)
        return LossTerm(means.sum(), count_images(labels).to(means.dtype))

    def normalizer(self, labels: Tensor) -> Tensor | None:
        return count_images(labels)


@TERMS.register
def edge_attention(threshold: float = 0.8, output: str = "edge", upper_bound: float = 1.0) -> OutputLoss:
    """`image_balanced_cross_entropy` of the main logits, over pixels that the auxiliary `output` takes for an edge.

    Those are where the sigmoid of its logits (N,C,H,W), the greatest of its channels, is above `threshold`; no gradient
    passes into it. Classes weigh by their shares of an image's attended pixels. An image in which none is attended has
    a mean of 0 and counts: the normaliser is the number of images with a valid pixel, as labels alone decide it, and a
    first image with one attended pixel does not weigh as much as a whole batch.
    0 (with gradient) when every pixel is ignored or none attended. Raises ValueError for a threshold that is no
    probability and a negative upper_bound; for labels that are neither a class nor ignored, what cross entropy raises.
    Source: arXiv 1907.05740, section 3; the threshold from its authors' code.
    """
    return EdgeAttention(threshold, output, upper_bound)
