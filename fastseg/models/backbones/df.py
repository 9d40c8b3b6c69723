"""DF-Net: Li, Zhou, Pan, Feng, CVPR 2019 (Partial Order Pruning), arXiv 1903.03777.

Plain residual networks whose depths and widths were searched for the best accuracy at a given latency: a stem of two
3x3 convolutions with stride 2, then three stages, each of which halves the map and is a row of groups of equal blocks.
The layer tables are those of the networks that the authors published; in them the first block of every group
has a projection, also where neither size nor channels change (the 1024-channel end of DF2A), and the stride of a
bottleneck stands in its 3x3 convolution.

Deviation: strides round up at every size (padding 1 everywhere). Weights are drawn as for ResNet; there are no ImageNet
weights of these networks to load.

Parameters without classifier: DF1 8,020,128, DF2 17,474,208, DF2A 18,126,240; with a 1000-way linear classifier
8,533,128, 17,987,208 and 19,151,240, and 0.747, 1.774 and 1.916 GMAC at 224x224 (the paper: 746M and 1.77G for the
first two).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.layers.conv import ConvBNAct
from fastseg.layers.init import kaiming_convolutions
from fastseg.models.arguments import require_at_least
from fastseg.models.registry import BACKBONES
from fastseg.types import Backbone, FeatureInfo


class Group(NamedTuple):
    """Equal blocks in a row: two 3x3 convolutions each, or with `bottleneck` channels 1x1, 3x3, 1x1."""

    blocks: int
    channels: int
    bottleneck: int | None = None


STRIDES = (4, 8, 16, 32)
DF1 = ([Group(3, 64)], [Group(3, 128)], [Group(3, 256), Group(1, 512)])
DF2 = ([Group(2, 64), Group(1, 128)], [Group(10, 128), Group(1, 256)], [Group(4, 256), Group(2, 512)])
DF2A = (
    [Group(2, 64), Group(1, 128)],
    [Group(10, 512, 128), Group(1, 1024, 256)],
    [Group(4, 1024, 256), Group(2, 1024, 512)],
)


class ResidualBlock(nn.Module):
    """ReLU of the sum of a path of convolutions and the map, which is projected in the first block of a group."""

    def __init__(self, in_channels: int, group: Group, *, stride: int, project: bool) -> None:
        super().__init__()
        channels, bottleneck = group.channels, group.bottleneck
        if bottleneck is None:
            self.path = nn.Sequential(
                ConvBNAct(in_channels, channels, 3, stride=stride),
                ConvBNAct(channels, channels, 3, activation=False),
            )
        else:
            self.path = nn.Sequential(
                ConvBNAct(in_channels, bottleneck),
                ConvBNAct(bottleneck, bottleneck, 3, stride=stride),
                ConvBNAct(bottleneck, channels, activation=False),
            )
        self.projection = ConvBNAct(in_channels, channels, stride=stride, activation=False) if project else None

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.projection is None else self.projection(x)
        return F.relu(self.path(x) + shortcut, inplace=True)


def _stage(in_channels: int, groups: Sequence[Group]) -> nn.Sequential:
    """Blocks of all groups; the first one halves the map."""
    blocks = []
    for index, group in enumerate(groups):
        blocks.append(ResidualBlock(in_channels, group, stride=2 if index == 0 else 1, project=True))
        in_channels = group.channels
        blocks += [ResidualBlock(in_channels, group, stride=1, project=False) for _ in range(group.blocks - 1)]
    return nn.Sequential(*blocks)


class DFNet(Backbone):
    """DF-Net without its classifier: images (N,C,H,W) -> the stem's map and those of three stages, strides 4 to 32."""

    def __init__(self, stages: Sequence[Sequence[Group]], *, in_channels: int) -> None:
        super().__init__()
        require_at_least(1, in_channels=in_channels)
        stage2, stage3, stage4 = stages
        self.stem = nn.Sequential(ConvBNAct(in_channels, 32, 3, stride=2), ConvBNAct(32, 64, 3, stride=2))
        self.stage2 = _stage(64, stage2)
        self.stage3 = _stage(stage2[-1].channels, stage3)
        self.stage4 = _stage(stage3[-1].channels, stage4)
        widths = (64, *(stage[-1].channels for stage in stages))
        self.feature_info = tuple(FeatureInfo(width, stride) for width, stride in zip(widths, STRIDES, strict=True))
        kaiming_convolutions(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.stem(images)]
        for stage in (self.stage2, self.stage3, self.stage4):
            maps.append(stage(maps[-1]))
        return maps


@BACKBONES.register
def df1(in_channels: int = 3) -> Backbone:
    """DF1: maps of 64, 64, 128 and 512 channels; the fastest."""
    return DFNet(DF1, in_channels=in_channels)


@BACKBONES.register
def df2(in_channels: int = 3) -> Backbone:
    """DF2: maps of 64, 128, 256 and 512 channels."""
    return DFNet(DF2, in_channels=in_channels)


@BACKBONES.register
def df2a(in_channels: int = 3) -> Backbone:
    """DF2A: DF2 with bottleneck blocks from stride 16 on; maps of 64, 128, 1024 and 1024 channels."""
    return DFNet(DF2A, in_channels=in_channels)
