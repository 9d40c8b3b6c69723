"""Channel attention: a gate per channel, computed from the whole map.

The gates' batch norms see one value per image and channel, so training needs a total batch of 2 or more.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastseg.layers.conv import ConvBNAct

FUSION_GATES = ("two_convs", "conv_bn", "conv_bn_relu")


class AttentionRefinement(nn.Module):
    """Attention refinement module of BiSeNet (arXiv 1808.00897, figure 2b), with the authors' 3x3 convolution.

    The gate is the mean over the map, 1x1 convolution, batch norm, sigmoid. Shapes: (N,in,h,w) -> (N,out,h,w).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = ConvBNAct(in_channels, out_channels, 3)
        self.gate = nn.Sequential(ConvBNAct(out_channels, out_channels, activation=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.gate(x.mean((2, 3), keepdim=True))


class FeatureFusion(nn.Module):
    """Feature fusion module of BiSeNet (arXiv 1808.00897, figure 2c): join two maps, then add the gated sum to itself.

    `gate` is what stands between the mean over the map and the sigmoid: 'two_convs' (paper and authors' code: 1x1 to
    `out_channels // reduction`, ReLU, 1x1, neither bias nor norm), 'conv_bn' (CoinCheung's code: one 1x1 with batch
    norm) or 'conv_bn_relu' (mmsegmentation's). Shapes: (N,a,h,w) and (N,b,h,w), a + b = in -> (N,out,h,w).
    Raises ValueError for another gate.
    """

    def __init__(self, in_channels: int, out_channels: int, *, gate: str = "two_convs", reduction: int = 1) -> None:
        super().__init__()
        if gate not in FUSION_GATES:
            raise ValueError(f"the fusion's gate is {gate!r}; allowed: {', '.join(map(repr, FUSION_GATES))}")
        self.conv = ConvBNAct(in_channels, out_channels)
        reduced = max(1, out_channels // reduction)
        if gate == "two_convs":
            layers: list[nn.Module] = [
                nn.Conv2d(out_channels, reduced, 1, bias=False),
                nn.ReLU(inplace=True),
                nn.Conv2d(reduced, out_channels, 1, bias=False),
            ]
        else:
            layers = [ConvBNAct(out_channels, out_channels, activation=gate == "conv_bn_relu")]
        self.gate = nn.Sequential(*layers, nn.Sigmoid())

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        x = self.conv(torch.cat((detail, context), 1))
        return x + x * self.gate(x.mean((2, 3), keepdim=True))
