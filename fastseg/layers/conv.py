"""Convolution blocks: convolution, batch norm, activation."""

from __future__ import annotations

from torch import nn


class ConvBNAct(nn.Sequential):
    """Convolution without bias, batch norm and, unless `activation` is False, ReLU.

    Maps (N,in,H,W) to (N,out,ceil(H/stride),ceil(W/stride)): padding is `dilation * (kernel_size - 1) / 2`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        activation: bool = True,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel_size - 1) // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.bn = nn.BatchNorm2d(out_channels)
        if activation:
            self.act = nn.ReLU(inplace=True)


class DepthwiseSeparableConv(nn.Sequential):
    """Depthwise 3x3 with batch norm, then pointwise 1x1 with batch norm and ReLU.

    `depthwise_activation` puts a ReLU between the two.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, depthwise_activation: bool = True
    ) -> None:
        super().__init__()
        self.depthwise = ConvBNAct(
            in_channels, in_channels, 3, stride=stride, groups=in_channels, activation=depthwise_activation
        )
        self.pointwise = ConvBNAct(in_channels, out_channels)
