"""Blocks of depthwise-separable convolutions that are more than a sequence of them."""

from __future__ import annotations

from torch import Tensor, nn

from fastseg.layers.conv import ConvBNAct
from fastseg.layers.resize import resize


class InvertedResidual(nn.Module):
    """Bottleneck of MobileNetV2 with ReLU: expand 1x1, depthwise 3x3, project 1x1; identity where shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int = 6) -> None:
        super().__init__()
        self.use_identity = stride == 1 and in_channels == out_channels
        channels = in_channels * expansion
        self.expand = ConvBNAct(in_channels, channels)
        self.depthwise = ConvBNAct(channels, channels, 3, stride=stride, groups=channels)
        self.project = ConvBNAct(channels, out_channels, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.project(self.depthwise(self.expand(x)))
        return x + out if self.use_identity else out


class SeparableFeatureFusion(nn.Module):
    """Fusion of Fast-SCNN (arXiv 1902.04502, table 3): upsampled context, depthwise 3x3 and 1x1, plus the detail map.

    Maps detail (N,`detail_channels`,H,W) and context (N,`context_channels`,h,w) to (N,`out_channels`,H,W). `bias` is
    that of the two 1x1 convolutions.
    """

    def __init__(
        self,
        detail_channels: int,
        context_channels: int,
        out_channels: int,
        *,
        dilation: int,
        bias: bool,
        align_corners: bool,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.depthwise = ConvBNAct(context_channels, context_channels, 3, dilation=dilation, groups=context_channels)
        self.context = ConvBNAct(context_channels, out_channels, bias=bias, activation=False)
        self.detail = ConvBNAct(detail_channels, out_channels, bias=bias, activation=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        context = resize(context, like=detail, align_corners=self.align_corners)
        return self.act(self.detail(detail) + self.context(self.depthwise(context)))
