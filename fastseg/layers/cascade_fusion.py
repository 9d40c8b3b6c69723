"""ICNet's way of joining two branches of an image cascade."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.layers.conv import ConvBNAct
from fastseg.layers.resize import resize


class CascadeFeatureFusion(nn.Module):
    """Cascade feature fusion unit of ICNet (arXiv 1704.08545, figure 3).

    The coarse map is resized to the fine one and goes through a 3x3 convolution of dilation 2, the fine one through a
    1x1 convolution, both with batch norm; the ReLU of their sum goes out. `activation` puts a ReLU before the sum too
    (mmsegmentation). Shapes: low (N,low,h,w), high (N,high,H,W) -> three maps at (H,W): the fused one (N,out,H,W), the
    resized low one (N,low,H,W), and what its convolution made of it (N,out,H,W). The latter two are for cascade label
    guidance: the paper's auxiliary classifier reads the first of them, mmsegmentation's the second.
    """

    def __init__(
        self,
        low_channels: int,
        high_channels: int,
        out_channels: int,
        *,
        activation: bool = False,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.low = ConvBNAct(low_channels, out_channels, 3, dilation=2, activation=activation)
        self.high = ConvBNAct(high_channels, out_channels, activation=activation)

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        resized = resize(low, like=high, align_corners=self.align_corners)
        refined = self.low(resized)
        return F.relu(refined + self.high(high)), resized, refined
