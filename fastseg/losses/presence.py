"""Supervision by which classes an image has at all, wherever they are."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fastseg.losses.pixel import LOSSES, LossTerm, PixelLoss, check_labels, class_counts, count_images
from fastseg.types import IGNORE_INDEX


class ClassPresence:
    """Binary cross entropy of logits against the classes that occur. See `class_presence`."""

    learns = "presence"
    resizes = False

    def __call__(self, logits: Tensor, labels: Tensor) -> LossTerm:
        if logits.shape[-2:] != (1, 1) or len(logits) != len(labels):
            raise ValueError(
                f"class_presence logits are {tuple(logits.shape)} for {len(labels)} label maps; give (N,K,1,1), one "
                f"logit per image and class; it is a loss of auxiliary outputs that speak of the whole image"
            )
        classes = logits.shape[1]
        check_labels(labels, classes)
        present = (class_counts(labels, classes) > 0).to(logits.dtype)
        losses = F.binary_cross_entropy_with_logits(logits[..., 0, 0], present, reduction="none").mean(1)
        counted = (labels != IGNORE_INDEX).flatten(1).any(1)
        return LossTerm((losses * counted).sum(), counted.to(logits.dtype).sum())

    def normalizer(self, labels: Tensor) -> Tensor | None:
        return count_images(labels)


@LOSSES.register
def class_presence() -> PixelLoss:
    """Mean binary cross entropy, over images and classes, of logits (N,K,1,1) against which classes an image has.

    A class occurs when one valid pixel or more is of it; images without a valid pixel do not count. For an auxiliary
    output that sees the whole image. 0 (with gradient) when every pixel is ignored.
    Raises ValueError for logits of another shape; for labels that are neither a class nor ignored, what cross entropy
    raises. Source: the semantic-encoding loss of EncNet, arXiv 1803.08904, section 3.
    """
    return ClassPresence()
