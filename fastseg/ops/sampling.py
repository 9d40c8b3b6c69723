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
    been rounded. A shorter run repeats its last pixel. Where all runs have the same weights, as in enlargements by
    whole numbers, they are there once. In runs that are `exact` every pixel is the map's first one, as in all of them
    where the map does not grow.
    """

    first: Tensor  # (R,) int64
    second: Tensor  # (R,) int64
    weights: Tensor  # (2,S,R) or (2,S,1) float64
    pixels: Tensor  # (S,R) int64
    run: Tensor  # (out,) int64: the run of each pixel
    exact: Tensor  # (R,) bool


def positions(length: int, out: int, align_corners: bool) -> tuple[Tensor, Tensor, int]:
    """Where `out` pixels stand on a side of `length`: the pixel before (out,), the way on from it (out,), and its unit.

    The way is in parts of 1 / unit. Coordinates are those of `torch.nn.functional.interpolate`: with aligned corners
    i * (length - 1) / (out - 1), otherwise (i + 1/2) * length / out - 1/2. Those less than 0, which are as good as 0,
    have -1 for the pixel before.
    """
    pixel = torch.arange(out, device="cpu")
    unit = max(out - 1, 1) if align_corners else 2 * out
    position = pixel * (length - 1) if align_corners else (2 * pixel + 1) * length - out
    before = position.div(unit, rounding_mode="floor")
    return before, position - before * unit, unit


@functools.lru_cache(maxsize=32)
def side(length: int, out: int, align_corners: bool, device: torch.device) -> Side:
    """Runs of a side that grows, or shrinks, from `length` to `out` pixels; both are at least 1."""
    with torch.inference_mode(False), torch.device("cpu"):  # what is kept here serves every mode
        before, way, unit = positions(length, out, align_corners)
        counts = before.unique_consecutive(return_counts=True)[1]
        start = (counts.cumsum(0) - counts).repeat_interleave(counts)
        longest = int(counts.max())
        longest = -(-longest // -(-longest // LONGEST_RUN))  # pieces of one size
        piece = (torch.arange(out) - start).div(longest, rounding_mode="floor")
        runs, counts = torch.stack([before, piece]).unique_consecutive(dim=1, return_counts=True)
        last = counts.cumsum(0) - 1
        pixels = torch.minimum(last - counts + 1 + torch.arange(int(counts.max()))[:, None], last)
        # a device without float64 does with float32, and only ties suffer
        exact = torch.float32 if device.type == "mps" else torch.float64
        weights = torch.stack([unit - way[pixels], way[pixels]]).to(exact)
        first, second = ((runs[0] + step).clamp(0, length - 1) for step in (0, 1))
        single = (way[pixels] == 0).all(0) | (first == second)
        inner = weights[..., first != second]  # between a pixel and itself, weights do not count
        if inner.shape[2] and bool((inner == inner[..., :1]).all()):
            weights = inner[..., :1]
        run = torch.arange(len(counts)).repeat_interleave(counts)
        return Side(*(x.to(device) for x in (first, second, weights, pixels, run, single)))
