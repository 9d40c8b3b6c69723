"""Convolution blocks: convolution, batch norm, activation."""

from __future__ import annotations

from torch import Tensor, nn


class Subsample(nn.Module):
    """Every `stride`-th row and column: (N,C,H,W) -> (N,C,ceil(H/stride),ceil(W/stride))."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :: self.stride, :: self.stride]


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
        if kernel_size == 1 and stride > 1:
            # the same in two steps: oneDNN 3.13 overwrites foreign memory in the backward pass of a 1x1 convolution
            # with a stride, fewer than 16 input channels and channels_last memory (docs/log.md, 2026-11-21)
            self.subsample = Subsample(stride)
            stride = 1
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.bn = nn.BatchNorm2d(out_channels)
        if activation:
            self.act = nn.ReLU(inplace=True)


class BNActConv(nn.Sequential):
    """Batch norm, ReLU, then convolution, without bias unless `bias`: the order of pre-activation networks.

    Maps (N,in,H,W) to (N,out,H,W). `momentum` is the batch norm's. The map given is left as it is.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        bias: bool = False,
        momentum: float = 0.1,
    ) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels, momentum=momentum)
        self.act = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=(kernel_size - 1) // 2, bias=bias)


class DepthwiseSeparableConv(nn.Sequential):
    """Depthwise 3x3 with batch norm, then pointwise 1x1 with batch norm and ReLU.

    `depthwise_activation` puts a ReLU between the two; `stride` and `dilation` are the depthwise convolution's.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        depthwise_activation: bool = True,
    ) -> None:
        super().__init__()
        self.depthwise = ConvBNAct(
            in_channels,
            in_channels,
            3,
            stride=stride,
            dilation=dilation,
            groups=in_channels,
            activation=depthwise_activation,
        )
        self.pointwise = ConvBNAct(in_channels, out_channels)
