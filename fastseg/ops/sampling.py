"""Where the pixels of an enlarged map lie between those of the map, along one side, in whole numbers."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

LONGEST_RUN = 32  # pixels: longer runs are split, so that a block of pixels stays small however large the factor is


class Side(NamedTuple):
    """One side of a bilinear enlargement, as R runs of neighbouring pixels that lie between the same two of the map.

    A run holds at most S pixels. The value of pixel s of run r is `weights[0, s, r]` times the value at `first[r]` plus
    `weights[1, s, r]` times that at `second[r]`, divided by the weights' sum. Weights are whole numbers, which sum to
    at most twice the side's length, the same sum for all: what they make of logits is exact where fractions would have
    been rounded. A shorter run repeats its last pixel. Where all runs have the same weights, as in enlargements by whole
    numbers, they are there once.
    """

    first: Tensor  # (R,) int64
    second: Tensor  # (R,) int64
    weights: Tensor  # (2,S,R) or (2,S,1) float64
    pixels: Tensor  # (S,R) int64
    run: Tensor  # (out,) int64: the run of each pixel


@functools.lru_cache(maxsize=32)
def side(length: int, out: int, align_corners: bool, device: torch.device) -> Side:
    """Runs of a side that grows, or shrinks, from `length` to `out` pixels; both are at least 1.

    Coordinates are those of `torch.nn.functional.interpolate`: i * (length - 1) / (out - 1) with aligned corners,
    otherwise (i + 1/2) * length / out - 1/2, which is moved to 0 where it is less.
    """
    with torch.inference_mode(False), torch.device("cpu"):  # what is kept here serves every mode
        pixel = torch.arange(out)
        unit = max(out - 1, 1) if align_corners else 2 * out
        position = pixel * (length - 1) if align_corners else (2 * pixel + 1) * length - out  # in parts of 1 / unit
        cell = position.div(unit, rounding_mode="floor")  # -1 before the first pixel of the map
        counts = cell.unique_consecutive(return_counts=True)[1]
        start = (counts.cumsum(0) - counts).repeat_interleave(counts)
        longest = int(counts.max())
        longest = -(-longest // -(-longest // LONGEST_RUN))  # pieces of one size
        piece = (pixel - start).div(longest, rounding_mode="floor")
        cells_and_pieces, counts = torch.stack([cell, piece]).unique_consecutive(dim=1, return_counts=True)
        last = counts.cumsum(0) - 1
        pixels = torch.minimum((last - counts + 1) + torch.arange(int(counts.max()))[:, None], last)
        rest = (position - cell * unit)[pixels]
        # a device without float64 does with float32, and only ties suffer
        exact = torch.float32 if device.type == "mps" else torch.float64
        weights = torch.stack([unit - rest, rest]).to(exact)
        first, second = ((cells_and_pieces[0] + step).clamp(0, length - 1) for step in (0, 1))
        inner = weights[..., first != second]  # between a pixel and itself, weights do not count
        if inner.shape[2] and bool((inner == inner[..., :1]).all()):
            weights = inner[..., :1]
        run = torch.arange(len(counts)).repeat_interleave(counts)
        return Side(*(x.to(device) for x in (first, second, weights, pixels, run)))
