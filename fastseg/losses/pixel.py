"""Pixel-wise losses as (sum, normaliser) pairs.

A mean over the valid pixels of one process is not the mean over all processes when their shares of ignored pixels
differ. So every loss returns its sum and the weight to divide by; who trains adds up the weights of all processes
before dividing (`engine.step`), and one process gets the ordinary mean.
"""

from __future__ import annotations

import math
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
    """A loss on logits (N,K,H,W) and labels int64 (N,H,W).

    `learns` says what the logits stand for: 'classes'; 'contours' of each class (N,K,H,W); 'edges' of all classes
    (N,1,H,W), or of each; 'presence' of classes in the image (N,K,1,1). With `resizes` they are resized to the labels
    first; without, the loss takes the network's output as it is.
    """

    learns: str
    resizes: bool

    def __call__(self, logits: Tensor, labels: Tensor) -> LossTerm: ...

    def normalizer(self, labels: Tensor) -> Tensor | None:
        """The normaliser where labels alone decide it (then gradient accumulation is exact), else None."""


LOSSES: Registry[PixelLoss] = Registry("loss", typed=True)


def check_size(logits: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless logits (N,K,H,W) and labels (N,H,W) have the same height and width."""
    if logits.shape[-2:] != labels.shape[-2:]:
        raise ValueError(
            f"logits are {tuple(logits.shape)} but labels {tuple(labels.shape)}; resize the logits to the labels first"
        )


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise what cross entropy does for labels that are neither 0..K-1 nor ignored.

    An IndexError on the CPU; on CUDA an assertion of the device, which waits for nothing.
    """
    F.nll_loss(
        torch.zeros(1, num_classes, device=labels.device).expand(labels.numel(), -1),
        labels.flatten(),
        ignore_index=IGNORE_INDEX,
        reduction="none",
    )


def class_counts(labels: Tensor, num_classes: int) -> Tensor:
    """Valid pixels of every class in every image: labels (N,H,W) in 0..K-1 or ignored -> int64 (N,K)."""
    bins = labels.clamp(max=num_classes).flatten(1)  # ignored pixels go into a bin of their own
    ones = torch.ones((), dtype=torch.int64, device=labels.device).expand_as(bins)
    return bins.new_zeros(len(labels), num_classes + 1).scatter_add_(1, bins, ones)[:, :num_classes]


def count_images(labels: Tensor) -> Tensor:
    """How many images of labels (N,H,W) have a valid pixel: the normaliser of a mean over images, float64."""
    return (labels != IGNORE_INDEX).flatten(1).any(1).to(torch.float64).sum()


def image_balanced_means(logits: Tensor, labels: Tensor, upper_bound: float) -> Tensor:
    """Each image's weighted mean of cross entropy (N): logits (N,K,H,W), labels (N,H,W) in 0..K-1 or ignored.

    A class weighs 1 + upper_bound * (1 - its share of the image's valid pixels). 0 where an image has none.
    """
    nll = _pixel_losses(logits, labels)
    counts = class_counts(labels, logits.shape[1]).to(logits.dtype)
    weights = 1 + upper_bound * (1 - counts / counts.sum(1, keepdim=True).clamp(min=1))
    # an ignored pixel has no loss, whichever weight it finds
    of_pixels = weights.gather(1, labels.clamp(max=logits.shape[1] - 1).flatten(1))
    return (nll.flatten(1) * of_pixels).sum(1) / (counts * weights).sum(1).clamp(min=1e-12)


def _pixel_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log likelihood (N,H,W), 0 where ignored."""
    check_size(logits, labels)
    return F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="none")


def check_upper_bound(name: str, upper_bound: float) -> float:
    """`upper_bound`. Raises ValueError, for the loss `name`, unless it is a finite number, 0 or more."""
    if not (upper_bound >= 0 and math.isfinite(upper_bound)):
        raise ValueError(
            f"{name} upper_bound is {upper_bound}; it is what the rarest class weighs beyond 1, 0 or more: 1 doubles it"
        )
    return upper_bound


def _check_class_weights(class_weights: Sequence[float] | None) -> Tensor | None:
    """Weights (K) as a tensor. Raises ValueError for negative ones and for numbers that are not finite."""
    if class_weights is None:
        return None
    weights = torch.tensor(class_weights, dtype=torch.float64)
    if weights.ndim != 1 or not bool(((weights >= 0) & weights.isfinite()).all()):
        raise ValueError(f"class_weights is {class_weights}; it is one finite number, 0 or more, per class")
    return weights


def _logit_shift(class_weights: Tensor | None, logit_adjustment: float) -> Tensor | None:
    """What the loss adds to the logits (K). Raises ValueError unless every class has a positive weight."""
    if not logit_adjustment:
        return None
    if class_weights is None or not bool((class_weights > 0).all()):
        raise ValueError(
            f"logit_adjustment is {logit_adjustment} and needs a positive class weight for every class; set "
            f"loss.class_weights, or leave it out"
        )
    return logit_adjustment * class_weights.log()


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

    learns = "classes"
    resizes = True

    def __init__(self, class_weights: Sequence[float] | None = None, logit_adjustment: float = 0.0) -> None:
        self.class_weights = _check_class_weights(class_weights)
        self.shift = _logit_shift(self.class_weights, logit_adjustment)

    def __call__(self, logits: Tensor, labels: Tensor) -> LossTerm:
        nll, weights = self._weighted(logits, labels)
        return LossTerm((nll * weights).sum(), weights.sum())

    def normalizer(self, labels: Tensor) -> Tensor | None:
        return _pixel_weights(labels, self.class_weights, torch.float64).sum()

    def _weighted(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Negative log likelihood and weight of each pixel (N,H,W), both 0 where ignored."""
        _check_num_classes(logits, self.class_weights)
        if self.shift is not None:
            logits = logits + self.shift.to(logits)[None, :, None, None]
        return _pixel_losses(logits, labels), _pixel_weights(labels, self.class_weights, logits.dtype)


class OhemCrossEntropy(CrossEntropy):
    """Cross entropy over hard pixels. See `ohem_cross_entropy`."""

    def __init__(
        self,
        threshold: float,
        min_kept: int,
        class_weights: Sequence[float] | None = None,
        logit_adjustment: float = 0.0,
    ) -> None:
        super().__init__(class_weights, logit_adjustment)
        if not 0 < threshold < 1:
            raise ValueError(f"OHEM threshold is {threshold}; it is a probability between 0 and 1, such as 0.7")
        if min_kept < 0:
            raise ValueError(f"OHEM min_kept is {min_kept}; it is a number of pixels per image, 0 or more")
        self.threshold = threshold
        self.min_kept = min_kept

    def __call__(self, logits: Tensor, labels: Tensor) -> LossTerm:
        nll, weights = self._weighted(logits, labels)
        with torch.no_grad():
            # p < threshold is nll > -log(threshold); ignored pixels have nll 0 and are never hard
            hardness = nll.detach().flatten(1)
            cut = torch.full_like(hardness[:, :1], -math.log(self.threshold))
            if self.min_kept:
                kept = min(self.min_kept, hardness.shape[1])
                kth = hardness.topk(kept, dim=1).values[:, -1:]
                cut = torch.minimum(cut, kth)
            keep = (hardness >= cut).view_as(labels)
        weights = weights * keep
        return LossTerm((nll * weights).sum(), weights.sum())

    def normalizer(self, labels: Tensor) -> None:
        return None


class ImageBalancedCrossEntropy:
    """Cross entropy with weights by each image's own classes. See `image_balanced_cross_entropy`."""

    learns = "classes"
    resizes = True

    def __init__(self, upper_bound: float) -> None:
        self.upper_bound = check_upper_bound("image_balanced_cross_entropy", upper_bound)

    def __call__(self, logits: Tensor, labels: Tensor) -> LossTerm:
        means = image_balanced_means(logits, labels, self.upper_bound)
        return LossTerm(means.sum(), count_images(labels).to(means.dtype))

    def normalizer(self, labels: Tensor) -> Tensor | None:
        return count_images(labels)


@LOSSES.register
def cross_entropy(class_weights: Sequence[float] | None = None, logit_adjustment: float = 0.0) -> PixelLoss:
    """Mean cross entropy over valid pixels; with `class_weights` (K) the weighted mean, as torch defines it.

    Class weights teach a network to claim too many pixels for rare classes. `logit_adjustment` t takes that back: the
    loss sees logits + t * log(class_weights), so the network's own logits lean towards heavy classes by a share
    1 - t only; at 1 they are those of an unweighted loss, learned with weighted gradients (the additive form of
    arXiv 2007.07314, section 5). Raises ValueError for it without positive class weights.
    """
    return CrossEntropy(class_weights, logit_adjustment)


@LOSSES.register
def ohem_cross_entropy(
    threshold: float = 0.7,
    min_kept: int = 10_000,
    class_weights: Sequence[float] | None = None,
    logit_adjustment: float = 0.0,
) -> PixelLoss:
    """Mean cross entropy over hard pixels: those whose true class has probability at most `threshold`.

    Each image keeps at least its `min_kept` hardest valid pixels. Published code counts `min_kept` over a process's
    batch, so that its result depends on how images are spread over processes; per image it does not.
    0 (with gradient) when every pixel is ignored. `class_weights` and `logit_adjustment` as for `cross_entropy`.
    Raises ValueError unless 0 < threshold < 1.
    """
    return OhemCrossEntropy(threshold, min_kept, class_weights, logit_adjustment)


@LOSSES.register
def image_balanced_cross_entropy(upper_bound: float = 1.0) -> PixelLoss:
    """Mean, over images, of the weighted mean of cross entropy in which classes that are rare in an image weigh more.

    A class weighs 1 + upper_bound * (1 - its share of the image's valid pixels). Every image counts the same, however
    many of its pixels are valid; one without any counts not at all. 0 (with gradient) when every pixel is ignored.
    Raises ValueError for a negative upper_bound.
    Source: the segmentation loss of Gated-SCNN, arXiv 1907.05740, section 3, with the weights of its authors' code.
    """
    return ImageBalancedCrossEntropy(upper_bound)
