"""How sure a network is of its labels, at the image's size, without the full-size logit map."""

from __future__ import annotations

import torch
from torch import Tensor

from fastseg.layers.resize import resize
from fastseg.ops.sampling import positions

BAND = 1 << 20  # numbers of the full-size map that are alive together


def confidence_of(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Logits (N,K,h,w) -> the largest softmax probability (N,H,W) of the bilinearly upsampled logits, in float32.

    All classes count for the sum, so that every pixel is interpolated: in bands of rows.
    """
    n, k, h, _ = logits.shape
    height, width = size
    before, way, unit = positions(h, height, align_corners)
    before, weight = before.to(logits.device), (way / unit).to(logits.device, torch.float32)[:, None]
    largest = torch.empty((n, *size), device=logits.device)
    step = max(1, BAND // max(1, n * k * width))
    for begin in range(0, height, step):
        rows = slice(begin, min(begin + step, height))
        first, second = (logits[:, :, (before[rows] + after).clamp(0, h - 1)].float() for after in (0, 1))
        lines = torch.lerp(first, second, weight[rows]).contiguous()
        x = resize(lines, (lines.shape[2], width), align_corners=align_corners)  # of the same height: columns only
        largest[:, rows] = (x - x.amax(1, keepdim=True)).exp_().sum(1).reciprocal_()
    return largest
