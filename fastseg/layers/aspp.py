"""Atrous spatial pyramid pooling: one map seen through several dilations, and as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastseg.layers.conv import ConvBNAct
from fastseg.layers.pyramid_pooling import adaptive_average_pool
from fastseg.layers.resize import resize


class ASPP(nn.Module):
    """The branches of atrous spatial pyramid pooling (DeepLabV3, arXiv 1706.05587, section 3.3), concatenated.

    A 1x1 convolution, a 3x3 convolution for each dilation of `rates`, and the map's average after a 1x1 convolution,
    each with batch norm and ReLU. Networks fuse them in their own ways. The average gives a batch norm one value per
    image, so training needs a total batch of 2 or more.
    Shapes: (N,in,h,w) -> (N,(len(rates)+2)*channels,h,w).
    """

    def __init__(self, in_channels: int, channels: int, *, rates: Sequence[int] = (12, 24, 36)) -> None:
        super().__init__()
        self.out_channels = (len(rates) + 2) * channels
        self.pointwise = ConvBNAct(in_channels, channels)
        self.dilated = nn.ModuleList(ConvBNAct(in_channels, channels, 3, dilation=rate) for rate in rates)
        self.image = ConvBNAct(in_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        image = self.image(adaptive_average_pool(x, (1, 1)))
        image = resize(image, like=x)  # one value per channel: alignment is of no account
        return torch.cat([self.pointwise(x), *(branch(x) for branch in self.dilated), image], 1)
