"""The library's only interpolation of tensors. It imports nothing of fastseg, so that every rank may use it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize(
    x: Tensor,
    size: tuple[int, int] | None = None,
    *,
    like: Tensor | None = None,
    align_corners: bool = False,
    mode: str = "bilinear",
) -> Tensor:
    """Resize maps (N,C,h,w) to `size` = (H, W), or to the height and width of `like`.

    `mode` is 'bilinear', 'bicubic' (Keys' kernel with a = -0.75) or 'nearest', for which `align_corners` does not
    count. None of them averages before it shrinks (no antialiasing). A map that has the size already is returned as
    it is. Raises ValueError unless exactly one of `size` and `like` is given.
    """
    if (size is None) == (like is None):
        raise ValueError("resize needs exactly one of size=(height, width) and like=tensor")
    if like is not None:
        size = (like.shape[-2], like.shape[-1])
    # an exported program has one form for all sizes, so it may not ask whether two of them agree
    if not torch.compiler.is_exporting() and tuple(x.shape[-2:]) == size:
        return x
    if mode == "nearest":
        return F.interpolate(x, size=size, mode="nearest")
    return F.interpolate(x, size=size, mode=mode, align_corners=align_corners)


def resize_rows(x: Tensor, size: tuple[int, int], start: int, stop: int, *, align_corners: bool = False) -> Tensor:
    """Rows `start` to `stop` (left out) of `resize(x, size)`, bilinear, without the others; equal up to rounding.

    Shapes: x (N,C,h,w) -> (N,C,stop-start,W). Raises ValueError for rows outside 0..H.
    """
    height, width = size
    if not 0 <= start < stop <= height:
        raise ValueError(f"rows {start} to {stop} do not lie in a map of {height} rows")
    if x.shape[-2] == height:
        rows = x[..., start:stop, :]
    else:
        above, below, share = _source_rows(x.shape[-2], height, start, stop, align_corners=align_corners)
        weight = share.to(x)[:, None]
        rows = x[..., above.to(x.device), :] * (1 - weight) + x[..., below.to(x.device), :] * weight
    return resize(rows, (stop - start, width), align_corners=align_corners)


def _source_rows(
    source: int, height: int, start: int, stop: int, *, align_corners: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row, the two of `source` rows that it lies between, and the share of the lower one."""
    rows = torch.arange(start, stop, dtype=torch.float64)
    if align_corners:
        positions = rows * ((source - 1) / (height - 1) if height > 1 else 0.0)
    else:
        positions = ((rows + 0.5) * (source / height) - 0.5).clamp_(min=0)
    above = positions.floor().long().clamp_(max=source - 1)
    return above, (above + 1).clamp_(max=source - 1), positions - above
