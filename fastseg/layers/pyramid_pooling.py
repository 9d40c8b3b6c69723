"""Pyramid pooling: context at several grid sizes, brought back to the map's size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fastseg.layers.conv import BNActConv, ConvBNAct
from fastseg.layers.precision import widened, without_autocast
from fastseg.layers.resize import resize


def adaptive_average_pool(x: Tensor, bins: tuple[int, int]) -> Tensor:
    """Average maps (N,C,H,W) over a grid of bins (N,C,*bins); bin i spans floor(i*H/b) up to ceil((i+1)*H/b).

    Equal to `adaptive_avg_pool2d` up to rounding. As two small matrix products it exports with dynamic sizes,
    where the native operator breaks at every size but the traced one, and it is deterministic on CUDA.
    """
    return _average(x, bins, stored=bins)


def _average(x: Tensor, bins: tuple[int, int], *, stored: tuple[int, int]) -> Tensor:
    """As `adaptive_average_pool`; bins from the last on are repeated up to `stored` rows and columns."""
    with without_autocast(x):
        wide = widened(x)  # the sums run over whole maps
        rows = _bin_weights(x.shape[2], bins[0], stored[0], wide)
        columns = _bin_weights(x.shape[3], bins[1], stored[1], wide)
        eager = not (torch.compiler.is_exporting() or torch.jit.is_tracing())
        if eager and wide.is_contiguous(memory_format=torch.channels_last):
            # the products below would copy such a map channel by channel; here channels are the products' columns
            by_row = torch.matmul(rows, wide.permute(0, 2, 3, 1).flatten(2)).unflatten(2, (x.shape[3], x.shape[1]))
            pooled = torch.matmul(columns, by_row).permute(0, 3, 1, 2)
        else:
            pooled = torch.matmul(torch.matmul(rows, wide), columns.transpose(0, 1))
    return pooled.to(x.dtype)


def _bin_weights(length: int, bins: int, stored: int, like: Tensor) -> Tensor:
    """Averaging matrix (stored, length), rows sum to 1."""
    index = torch.arange(stored, device=like.device).clamp(max=bins - 1)[:, None]
    position = torch.arange(length, device=like.device)[None, :]
    start = (index * length) // bins
    end = -((-(index + 1) * length) // bins)
    inside = ((position >= start) & (position < end)).to(like.dtype)
    return inside / (end - start).to(like.dtype)


def grid_for(x: Tensor, rows: int, *, aspect: bool) -> tuple[int, int]:
    """Rows and columns of a pooling grid for maps (N,C,H,W).

    The grid is square; with `aspect` its cells are, as nearly as they can be: there are
    `max(1, round(rows * W / H))` columns, halves rounding to even as Python's `round` does. Sizes may be symbolic.
    """
    if not aspect:
        return rows, rows
    height, width = x.shape[-2:]
    doubled = 2 * rows * width
    # nothing negative is divided: exported to ONNX, that would round towards zero
    up = (doubled + height) // (2 * height)  # halves round up
    down = (doubled + height - 1) // (2 * height)  # halves round down
    return rows, cast(int, torch.sym_max(1, up - (up - down) * (up % 2)))


def _context_maps(
    x: Tensor, rows: Iterable[int], branches: Iterable[nn.Module], *, aspect: bool, align_corners: bool
) -> list[Tensor]:
    """For each grid: average the map, apply the grid's branch, resize back."""
    maps = []
    for count, branch in zip(rows, branches, strict=True):
        grid = stored = grid_for(x, count, aspect=aspect)
        if aspect and torch.compiler.is_exporting():
            # tracing asks of every size whether it is 1, and fixes the answer; two equal columns are as good as one
            stored = (grid[0], cast(int, torch.sym_max(2, grid[1])))
        maps.append(resize(branch(_average(x, grid, stored=stored)), like=x, align_corners=align_corners))
    return maps


def pyramid_pool_sum(x: Tensor, bins: Sequence[int] = (1, 2, 3, 6), *, align_corners: bool = False) -> Tensor:
    """Add to maps (N,C,H,W) their averages over square grids, each resized back: a pyramid without convolutions.

    Source: the network that ICNet's authors published with arXiv 1704.08545.
    """
    identities = [nn.Identity() for _ in bins]
    return x + sum(_context_maps(x, bins, identities, aspect=False, align_corners=align_corners))


class PyramidPooling(nn.Module):
    """Pyramid pooling module of PSPNet (arXiv 1612.01105, figure 3).

    Each grid of `bins` rows (as many columns, or with `aspect` those of `grid_for`) averages the map, a 1x1
    convolution reduces it to `branch_channels` (by default `in_channels // len(bins)`), and it is resized back; the
    input and all grids are concatenated and fused to `out_channels` by a convolution of `fuse_kernel_size`.
    Shapes: (N,in,h,w) -> (N,out,h,w). A grid of one cell gives a batch norm one value per image, so training needs a
    total batch of 2 or more.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bins: Sequence[int] = (1, 2, 3, 6),
        branch_channels: int | None = None,
        aspect: bool = False,
        fuse_kernel_size: int = 1,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.aspect = aspect
        self.align_corners = align_corners
        channels = branch_channels or max(1, in_channels // len(self.bins))
        self.branches = nn.ModuleList(ConvBNAct(in_channels, channels) for _ in self.bins)
        self.fuse = ConvBNAct(in_channels + channels * len(self.bins), out_channels, fuse_kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        pooled = _context_maps(x, self.bins, self.branches, aspect=self.aspect, align_corners=self.align_corners)
        return self.fuse(torch.cat([x, *pooled], 1))


class PreactivationPyramidPooling(nn.Module):
    """Pyramid pooling of SwiftNet (arXiv 1903.08469, section 3.2), where norm and ReLU stand before each convolution.

    A 1x1 convolution reduces the map to `bottleneck_channels`. Grids of `rows` with nearly square cells (`grid_for`)
    average it, a 1x1 convolution reduces each to `branch_channels`, and it is resized back. The reduced map and all
    grids are concatenated and fused by a 1x1 convolution. `momentum` is that of the batch norms.
    Shapes: (N,in,h,w), a sum that no ReLU has seen yet -> (N,out,h,w).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        rows: Sequence[int] = (8, 4, 2),
        bottleneck_channels: int = 128,
        branch_channels: int = 42,
        momentum: float = 0.005,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.rows = tuple(rows)
        self.align_corners = align_corners
        self.bottleneck = BNActConv(in_channels, bottleneck_channels, momentum=momentum)
        self.branches = nn.ModuleList(
            BNActConv(bottleneck_channels, branch_channels, momentum=momentum) for _ in self.rows
        )
        fused_channels = bottleneck_channels + branch_channels * len(self.rows)
        self.fuse = BNActConv(fused_channels, out_channels, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bottleneck(x)
        pooled = _context_maps(x, self.rows, self.branches, aspect=True, align_corners=self.align_corners)
        return self.fuse(torch.cat([x, *pooled], 1))
