"""How often every label meets every prediction, in maps of bytes."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from fastseg import native
from fastseg.types import IGNORE_INDEX

# Pixels whose pairs, 4 bytes each, stay in the processor's cache until they are counted; a GPU takes them all at once.
BLOCK = 512 * 1024
# Pixels that are worth waking one more thread.
PER_THREAD = 64 * 1024
TABLES = 4  # of one thread; csrc/pair_histogram.c has the same number


def pair_counts(labels: Tensor, predictions: Tensor, num_classes: int) -> tuple[Tensor, dict[int, int]]:
    """Counts int64 (K+1,K+1) of uint8 maps of one shape on one device, and how often each wrong label occurs.

    Rows are labels, the last one that of the void label 255; columns are predictions, the last one those outside
    0..K-1. Wrong labels are those other than 0..K-1 and 255; the counts hold none of their pixels.
    """
    kernels = native.library() if labels.device.type == "cpu" else None
    if kernels is not None:
        table = _count_in_c(kernels, labels.contiguous(), predictions.contiguous(), num_classes)
        if not table[-1].any():
            return table[:-1], {}
    return _count_in_torch(labels, predictions, num_classes)  # it also knows which labels are wrong


def _count_in_c(kernels: ctypes.CDLL, labels: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """Counts (K+2,K+1), wrong labels in the last row."""
    pixels = labels.numel()
    threads = max(1, min(torch.get_num_threads(), pixels // PER_THREAD))
    tables = torch.zeros(threads * TABLES, num_classes + 2, num_classes + 1, dtype=torch.int64, device="cpu")
    kernels.fastseg_pair_histogram(
        ctypes.c_void_p(labels.data_ptr()),
        ctypes.c_void_p(predictions.data_ptr()),
        ctypes.c_int64(pixels),
        ctypes.c_int(num_classes),
        ctypes.c_void_p(tables.data_ptr()),
        ctypes.c_int(threads),
    )
    return tables.sum(0)


def _count_in_torch(labels: Tensor, predictions: Tensor, num_classes: int) -> tuple[Tensor, dict[int, int]]:
    # one pass over 256 x 256 bins needs no masks, and shows every wrong label value with its count
    pairs = torch.zeros(256 * 256, dtype=torch.int64, device=labels.device)
    block = BLOCK if labels.device.type == "cpu" else max(1, labels.numel())
    for rows, columns in zip(labels.flatten().split(block), predictions.flatten().split(block), strict=True):
        pairs += torch.bincount(columns.int().add_(rows, alpha=256), minlength=256 * 256)
    pairs = pairs.view(256, 256)
    K = num_classes
    wrong = pairs[K:IGNORE_INDEX].sum(dim=1)
    found = {int(value) + K: int(wrong[value]) for value in wrong.nonzero().flatten()}
    kept = torch.cat([pairs[:K], pairs[IGNORE_INDEX:]])
    return torch.cat([kept[:, :K], kept[:, K:].sum(dim=1, keepdim=True)], dim=1), found
