"""Pixel-wise losses as (sum, normaliser) pairs.

A mean over the valid pixels of one process is not the mean over all processes when their shares of ignored pixels
differ. So every loss returns its sum and the weight to divide by; who trains adds up the weights of all processes
before dividing (`engine.train`), and one process gets the ordinary mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fastseg.errors import ConfigError
from fastseg.registry import Registry
from fastseg.types import IGNORE_INDEX


class LossTerm(NamedTuple):
    """Scalar tensors: `total`, the weighted sum over pixels, and `normalizer`, the sum of the pixels' weights."""

    total: Tensor
    normalizer: Tensor

    def mean(self) -> Tensor:
        """The mean on this process alone; 0 (with gradient) when every pixel is ignored."""
        return self.total / self.normalizer.clamp(min=1e-12)


class PixelLoss(Protocol):
    """A loss on logits (N,K,H,W) and labels int64 (N,H,W) of the same size."""

    def __call__(self, logits: Tensor, labels: Tensor) -> LossTerm: ...

    def normalizer(self, labels: Tensor) -> Tensor | None:
        """The normaliser where labels alone decide it (then gradient accumulation is exact), else None."""


LOSSES: Registry[PixelLoss] = Registry("loss")


def _pixel_losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log likelihood (N,H,W), 0 where ignored, and the mask of valid pixels."""
    if logits.shape[-2:] != labels.shape[-2:]:
        raise ValueError(
            f"logits are {tuple(logits.shape)} but labels {tuple(labels.shape)}; resize the logits to the labels first"
        )
    nll = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="none")
    return nll, labels != IGNORE_INDEX


def _check_class_weights(class_weights: Sequence[float] | None) -> Tensor | None:
    """Weights (K) as a tensor. Raises ValueError for negative ones and for numbers that are not finite."""
    if class_weights is None:
        return None
    weights = torch.tensor(class_weights, dtype=torch.float64)
    if weights.ndim != 1 or not bool(((weights >= 0) & weights.isfinite()).all()):
        raise ValueError(f"class_weights is {class_weights}; it is one finite number, 0 or more, per class")
    return weights


def _pixel_weights(labels: Tensor, class_weights: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Weight of each pixel (N,H,W): its class's weight, 0 where ignored."""
    valid = labels != IGNORE_INDEX
    if class_weights is None:
        return valid.to(dtype)
    weights = class_weights.to(device=labels.device, dtype=dtype)[labels.clamp(max=len(class_weights) - 1)]
    return weights * valid


def _check_num_classes(logits: Tensor, class_weights: Tensor | None) -> None:
    if class_weights is not None and len(class_weights) != logits.shape[1]:
        raise ConfigError(
            f"loss.args.class_weights has {len(class_weights)} numbers for {logits.shape[1]} classes; give one each"
        )


class CrossEntropy:
    """Cross entropy over all valid pixels. See `cross_entropy`."""

    def __init__(self, class_weights: Sequence[float] | None = None) -> None:
        self.class_weights = _check_class_weights(class_weights)

    def __call__(self, logits: Tensor, labels: Tensor) -> LossTerm:
        _check_num_classes(logits, self.class_weights)
        nll, _ = _pixel_losses(logits, labels)
        weights = _pixel_weights(labels, self.class_weights, nll.dtype)
        return LossTerm((nll * weights).sum(), weights.sum())

    def normalizer(self, labels: Tensor) -> Tensor:
        return _pixel_weights(labels, self.class_weights, torch.float64).sum()


class OhemCrossEntropy:
    """Cross entropy over hard pixels. See `ohem_cross_entropy`."""

    def __init__(self, threshold: float, min_kept: int, class_weights: Sequence[float] | None = None) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"OHEM threshold is {threshold}; it is a probability between 0 and 1, such as 0.7")
        if min_kept < 0:
            raise ValueError(f"OHEM min_kept is {min_kept}; it is a number of pixels per image, 0 or more")
        self.threshold = threshold
        self.min_kept = min_kept
        self.class_weights = _check_class_weights(class_weights)

    def __call__(self, logits: Tensor, labels: Tensor) -> LossTerm:
        _check_num_classes(logits, self.class_weights)
        nll, valid = _pixel_losses(logits, labels)
        with torch.no_grad():
            # p < threshold is nll > -log(threshold); ignored pixels have nll 0 and are never hard
            hardness = nll.detach().flatten(1)
            cut = torch.full_like(hardness[:, :1], -1.0)
            cut = cut * torch.log(torch.tensor(self.threshold, dtype=nll.dtype, device=nll.device))
            if self.min_kept:
                kept = min(self.min_kept, hardness.shape[1])
                kth = hardness.topk(kept, dim=1).values[:, -1:]
                cut = torch.minimum(cut, kth)
            keep = (hardness >= cut).view_as(labels) & valid
        weights = _pixel_weights(labels, self.class_weights, nll.dtype) * keep
        return LossTerm((nll * weights).sum(), weights.sum())

    def normalizer(self, labels: Tensor) -> None:
        return None


@LOSSES.register
def cross_entropy(class_weights: Sequence[float] | None = None) -> PixelLoss:
    """Mean cross entropy over valid pixels; with `class_weights` (K) the weighted mean, as torch defines it."""
    return CrossEntropy(class_weights)


@LOSSES.register
def ohem_cross_entropy(
    threshold: float = 0.7, min_kept: int = 10_000, class_weights: Sequence[float] | None = None
) -> PixelLoss:
    """Mean cross entropy over hard pixels: those whose true class has probability at most `threshold`.

    Each image keeps at least its `min_kept` hardest valid pixels. Published code counts `min_kept` over a process's
    batch, so that its result depends on how images are spread over processes; per image it does not.
    0 (with gradient) when every pixel is ignored. Raises ValueError unless 0 < threshold < 1.
    """
    return OhemCrossEntropy(threshold, min_kept, class_weights)
