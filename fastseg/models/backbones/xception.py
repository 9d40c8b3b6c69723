"""Small Xceptions: BiSeNet's Xception39 (arXiv 1808.00897), DFANet's Xception A and B (arXiv 1904.02216).

Both stack the same block, three 3x3 separable convolutions beside a shortcut, after Chollet's Xception (arXiv
1610.02357). They differ in:

|                          | Xception39 (authors' code: TorchSeg)  | Xception A and B                               |
|--------------------------|---------------------------------------|------------------------------------------------|
| depthwise convolution    | without norm                          | with batch norm                                |
| projecting shortcut      | separable 3x3                         | 1x1                                            |
| stride stands in the     | first separable convolution           | last one, or `stride_position="first"`         |
| ReLU                     | after all but the third, and the sum  | before each, or `preactivation=False`          |
| stem                     | convolution and max pool, stride 4    | convolution, stride 2                          |

DFANet's authors published no code. Its norms, its 1x1 shortcut and ReLU before each convolution (Chollet's order) are
those of the public implementation in Tramac/awesome-semantic-segmentation-pytorch (Apache-2.0, without a training
result); with it, maps go out before their ReLU. The position of the stride is open: at the last separable convolution
the whole network needs 3.67 GMAC for 1024x1024 pixels, at the first 2.88, and the paper says 3.4. The fully connected
attention of DFANet is in `fastseg.models.dfanet`.

Parameters: Xception39 299,448; Xception A 165,248; Xception B 80,064.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.layers.conv import ConvBNAct
from fastseg.models.arguments import require_at_least
from fastseg.models.registry import BACKBONES
from fastseg.types import Backbone, FeatureInfo

STEM_CHANNELS = 8
EXPANSION = 4  # of a block: 12, 12, 48 channels


class SeparableConv(nn.Sequential):
    """Depthwise 3x3, with batch norm where `depthwise_norm`; then 1x1 with batch norm and, unless told, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        depthwise_norm: bool,
        activation: bool = True,
    ) -> None:
        super().__init__()
        self.depthwise: nn.Module
        if depthwise_norm:
            self.depthwise = ConvBNAct(in_channels, in_channels, 3, stride=stride, groups=in_channels, activation=False)
        else:
            self.depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False)
        self.pointwise = ConvBNAct(in_channels, out_channels, activation=activation)


class XceptionBlock(nn.Module):
    """Separable convolutions to `channels`, `channels` and four times as many, plus the shortcut.

    ReLU follows the sum, or, where `preactivation`, precedes the first convolution instead. `shortcut` projects the
    input where shapes change; None is the identity. Shapes: (N,in,h,w) -> (N,4*channels,ceil(h/stride),ceil(w/stride)).
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int = 1,
        stride_position: str = "first",
        depthwise_norm: bool,
        preactivation: bool,
        shortcut: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.preactivation = preactivation
        first, last = (stride, 1) if stride_position == "first" else (1, stride)
        self.conv1 = SeparableConv(in_channels, channels, stride=first, depthwise_norm=depthwise_norm)
        self.conv2 = SeparableConv(channels, channels, depthwise_norm=depthwise_norm)
        self.conv3 = SeparableConv(
            channels, channels * EXPANSION, stride=last, depthwise_norm=depthwise_norm, activation=False
        )
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(x) if self.preactivation else x
        x = self.conv3(self.conv2(self.conv1(inner))) + self.shortcut(x)
        return x if self.preactivation else F.relu(x, inplace=True)


class Xception39(Backbone):
    """BiSeNet's context path: images (N,C,H,W) -> maps of 8, 64, 128, 256 channels at strides 4, 8, 16, 32.

    The first map is the stem's. Source: the authors' code, depths 4, 8, 4.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        require_at_least(1, in_channels=in_channels)
        self.conv = ConvBNAct(in_channels, STEM_CHANNELS, 3, stride=2)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stage1 = self._stage(STEM_CHANNELS, 16, blocks=4)
        self.stage2 = self._stage(64, 32, blocks=8)
        self.stage3 = self._stage(128, 64, blocks=4)
        self.feature_info = (
            FeatureInfo(STEM_CHANNELS, 4),
            FeatureInfo(64, 8),
            FeatureInfo(128, 16),
            FeatureInfo(256, 32),
        )

    @staticmethod
    def _stage(in_channels: int, channels: int, *, blocks: int) -> nn.Sequential:
        out_channels = channels * EXPANSION
        block = partial(XceptionBlock, depthwise_norm=False, preactivation=False)
        shortcut = SeparableConv(in_channels, out_channels, stride=2, depthwise_norm=False, activation=False)
        first = block(in_channels, channels, stride=2, shortcut=shortcut)
        rest = [block(out_channels, channels) for _ in range(blocks - 1)]
        return nn.Sequential(first, *rest)

    def forward(self, images: Tensor) -> list[Tensor]:
        stride4 = self.maxpool(self.conv(images))
        stride8 = self.stage1(stride4)
        stride16 = self.stage2(stride8)
        stride32 = self.stage3(stride16)
        return [stride4, stride8, stride16, stride32]


class Xception(Backbone):
    """DFANet's backbone: images (N,C,H,W) -> enc2, enc3, enc4 of `channels` channels at strides 4, 8, 16."""

    def __init__(
        self, channels: tuple[int, int, int], *, in_channels: int, stride_position: str, preactivation: bool
    ) -> None:
        super().__init__()
        require_at_least(1, in_channels=in_channels)
        self.conv = ConvBNAct(in_channels, STEM_CHANNELS, 3, stride=2)
        self.enc2, self.enc3, self.enc4 = xception_stages(
            (STEM_CHANNELS, *channels[:-1]), channels, stride_position=stride_position, preactivation=preactivation
        )
        self.feature_info = tuple(
            FeatureInfo(width, stride) for width, stride in zip(channels, (4, 8, 16), strict=True)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        enc2 = self.enc2(self.conv(images))
        enc3 = self.enc3(enc2)
        enc4 = self.enc4(enc3)
        return [enc2, enc3, enc4]


def xception_stages(
    in_channels: Sequence[int], out_channels: Sequence[int], *, stride_position: str, preactivation: bool
) -> list[nn.Sequential]:
    """The stages enc2, enc3, enc4 of 4, 6, 4 blocks, each halving its map's size (DFANet).

    Raises ValueError unless `stride_position` is 'last' or 'first'.
    """
    if stride_position not in ("last", "first"):
        raise ValueError(
            f"stride_position is {stride_position!r}; allowed: 'last' (the stride stands in a block's last separable "
            "convolution) or 'first' (in its first)"
        )
    block = partial(XceptionBlock, depthwise_norm=True, preactivation=preactivation)
    stages = []
    for inputs, outputs, blocks in zip(in_channels, out_channels, (4, 6, 4), strict=True):
        channels = outputs // EXPANSION
        shortcut = ConvBNAct(inputs, outputs, stride=2, activation=False)
        first = block(inputs, channels, stride=2, stride_position=stride_position, shortcut=shortcut)
        rest = [block(outputs, channels) for _ in range(blocks - 1)]
        stages.append(nn.Sequential(first, *rest))
    return stages


@BACKBONES.register
def xception39(in_channels: int = 3) -> Xception39:
    """BiSeNet's Xception39; maps of 8, 64, 128, 256 channels at strides 4, 8, 16, 32."""
    return Xception39(in_channels)


@BACKBONES.register
def xception_a(in_channels: int = 3, stride_position: str = "last", preactivation: bool = True) -> Xception:
    """DFANet's Xception A; maps of 48, 96, 192 channels at strides 4, 8, 16. See the module for the arguments."""
    channels = (48, 96, 192)
    return Xception(channels, in_channels=in_channels, stride_position=stride_position, preactivation=preactivation)


@BACKBONES.register
def xception_b(in_channels: int = 3, stride_position: str = "last", preactivation: bool = True) -> Xception:
    """DFANet's Xception B; maps of 32, 64, 128 channels at strides 4, 8, 16. See the module for the arguments."""
    channels = (32, 64, 128)
    return Xception(channels, in_channels=in_channels, stride_position=stride_position, preactivation=preactivation)
