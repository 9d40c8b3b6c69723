"""Pyramid pooling: context at several grid sizes, brought back to the map's size."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastseg.layers.conv import ConvBNAct
from fastseg.layers.resize import resize


def adaptive_average_pool(x: Tensor, bins: tuple[int, int]) -> Tensor:
    """Average maps (N,C,H,W) over a grid of bins (N,C,*bins); bin i spans floor(i*H/b) up to ceil((i+1)*H/b).

    Equal to `adaptive_avg_pool2d` up to rounding. As two small matrix products it exports with dynamic sizes,
    where the native operator breaks at every size but the traced one, and it is deterministic on CUDA.
    """
    on_meta = x.device.type == "meta"  # shapes only: there is no autocast to switch off, and asking for it raises
    with contextlib.nullcontext() if on_meta else torch.autocast(x.device.type, enabled=False):
        wide = x if x.dtype == torch.float64 else x.float()  # the sums run over whole maps
        rows = _bin_weights(x.shape[2], bins[0], wide)
        columns = _bin_weights(x.shape[3], bins[1], wide)
        pooled = torch.matmul(torch.matmul(rows, wide), columns.transpose(0, 1))
    return pooled.to(x.dtype)


def _bin_weights(length: int, bins: int, like: Tensor) -> Tensor:
    """Averaging matrix (bins, length), rows sum to 1."""
    index = torch.arange(bins, device=like.device)[:, None]
    position = torch.arange(length, device=like.device)[None, :]
    start = (index * length) // bins
    end = -((-(index + 1) * length) // bins)
    inside = ((position >= start) & (position < end)).to(like.dtype)
    return inside / (end - start).to(like.dtype)


class PyramidPooling(nn.Module):
    """Pyramid pooling module of PSPNet (arXiv 1612.01105, figure 3).

    Each grid of `bins` averages the map, a 1x1 convolution reduces it to `in_channels // len(bins)`, and it is
    resized back; the input and all grids are concatenated and fused to `out_channels` by a convolution of
    `fuse_kernel_size`. Shapes: (N,in,h,w) -> (N,out,h,w).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bins: Sequence[int] = (1, 2, 3, 6),
        fuse_kernel_size: int = 1,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.align_corners = align_corners
        branch_channels = in_channels // len(self.bins)
        self.branches = nn.ModuleList(ConvBNAct(in_channels, branch_channels) for _ in self.bins)
        self.fuse = ConvBNAct(in_channels + branch_channels * len(self.bins), out_channels, fuse_kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for bins, branch in zip(self.bins, self.branches, strict=True):
            pooled = branch(adaptive_average_pool(x, (bins, bins)))
            maps.append(resize(pooled, like=x, align_corners=self.align_corners))
        return self.fuse(torch.cat(maps, 1))
