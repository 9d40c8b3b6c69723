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
