"""Joint pyramid upsampling: the coarse maps of a backbone brought to stride 8 (Wu et al., arXiv 1903.11816).

A dilated backbone computes its last two stages at stride 8, which is most of its work. FastFCN leaves the backbone at
stride 32 and lets convolutions of several dilations guess, from the last three maps together, what it would have given.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastseg.layers.conv import ConvBNAct, DepthwiseSeparableConv
from fastseg.layers.resize import resize

NORM_GROUPS = 32  # of JPU_X's group norms


class JPU(nn.Module):
    """Joint pyramid upsampling (arXiv 1903.11816, figure 4).

    Each of the last three maps is reduced to `width` channels by a 3x3 convolution and resized to the finest of them.
    Four separable convolutions with dilations 1, 2, 4 and 8 see all three, and are concatenated.
    Shapes: maps, finest first, the last three with the given `channels` -> (N,4*width,h,w), h and w of the third last.
    """

    def __init__(self, channels: Sequence[int], *, width: int = 512, align_corners: bool = False) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.out_channels = 4 * width
        self.reductions = nn.ModuleList(ConvBNAct(count, width, 3) for count in channels)
        self.dilated = nn.ModuleList(
            DepthwiseSeparableConv(len(channels) * width, width, dilation=dilation, depthwise_activation=False)
            for dilation in (1, 2, 4, 8)
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps, finest first -> one map of the size of the third last."""
        finest, *coarser = [reduce(x) for reduce, x in zip(self.reductions, features[-3:], strict=True)]
        x = torch.cat([finest, *(resize(x, like=finest, align_corners=self.align_corners) for x in coarser)], 1)
        return torch.cat([branch(x) for branch in self.dilated], 1)


class JPUX(nn.Module):
    """JPU_X, the authors' later form of `JPU`: two joint upsampling modules in cascade, with group norm.

    The first joins the second map to the finer one before it, at half of `width` and with dilations from 1; the second
    joins the coarsest map to the result, at `width` and with dilations from 2. Shapes as `JPU`.
    `width` is a multiple of 128: 32 groups of two channels or more, since a norm of a single value is refused.
    """

    def __init__(self, channels: Sequence[int], *, width: int = 512, align_corners: bool = False) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.first = JointUpsampling(fine, middle, width=width // 2, dilation=1, align_corners=align_corners)
        self.second = JointUpsampling(
            self.first.out_channels, coarse, width=width, dilation=2, align_corners=align_corners
        )
        self.out_channels = self.second.out_channels

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps, finest first -> one map of the size of the third last."""
        fine, middle, coarse = features[-3:]
        return self.second(self.first(fine, middle), coarse)


class JointUpsampling(nn.Module):
    """A fine and a coarse map joined at the fine one's size: a step of `JPUX`.

    3x3 convolutions reduce both to `width` channels, and the coarse one is resized. Three separable convolutions, with
    `dilation` and two and four times as much, see both; they and the resized map are concatenated.
    Shapes: (N,fine,h,w) and (N,coarse,..) -> (N,4*width,h,w).
    """

    def __init__(self, fine: int, coarse: int, *, width: int, dilation: int, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.out_channels = 4 * width
        self.fine = ConvBNAct(fine, width, 3)
        self.coarse = ConvBNAct(coarse, width, 3)
        self.dilated = nn.ModuleList(
            _separable_group_norm(2 * width, width, dilation=factor * dilation) for factor in (1, 2, 4)
        )

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        fine = self.fine(fine)
        coarse = resize(self.coarse(coarse), like=fine, align_corners=self.align_corners)
        x = torch.cat([fine, coarse], 1)
        return torch.cat([coarse, *(branch(x) for branch in self.dilated)], 1)


def _separable_group_norm(in_channels: int, out_channels: int, *, dilation: int) -> nn.Sequential:
    """`DepthwiseSeparableConv` without an activation between its convolutions, and with group norms."""
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, 1, dilation, dilation, in_channels, bias=False),
        nn.GroupNorm(NORM_GROUPS, in_channels),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.GroupNorm(NORM_GROUPS, out_channels),
        nn.ReLU(inplace=True),
    )
