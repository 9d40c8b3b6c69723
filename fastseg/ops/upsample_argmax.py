"""Labels of bilinearly upsampled logits, without the full-size logit map."""

from __future__ import annotations

import torch
from torch import Tensor

from fastseg.layers.resize import resize


def upsample_argmax(logits: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Logits (N,K,h,w) -> labels (N,H,W): bilinear upsampling to `size`, then argmax, ties to the lowest index.

    One class at a time against a running maximum, so at most two float maps of the image's size are alive instead
    of K. Labels are uint8 up to 256 classes, int16 beyond. Raises ValueError when there is no class.
    """
    num_classes = logits.shape[1]
    if num_classes == 0:
        raise ValueError("upsample_argmax needs at least one class; logits have shape " + str(tuple(logits.shape)))
    logits = logits.detach().float()
    best = resize(logits[:, :1], size, align_corners=align_corners).clone()
    labels = torch.zeros(best.shape, dtype=torch.uint8 if num_classes <= 256 else torch.int16, device=logits.device)
    for index in range(1, num_classes):
        score = resize(logits[:, index : index + 1], size, align_corners=align_corners)
        labels.masked_fill_(score > best, index)
        torch.maximum(best, score, out=best)
    return labels[:, 0]
