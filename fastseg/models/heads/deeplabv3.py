"""The head of DeepLabV3: Chen, Papandreou, Schroff, Adam, arXiv 1706.05587, section 3.3."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fastseg.layers.aspp import ASPP
from fastseg.layers.conv import ConvBNAct
from fastseg.models.arguments import require_at_least, require_fraction
from fastseg.models.registry import HEADS
from fastseg.types import FeatureInfo, Head


class DeepLabV3Head(Head):
    """Atrous spatial pyramid pooling on the coarsest map, fused by convolutions, dropout, 1x1 classifier.

    With `projection` the branches are fused by a 1x1 convolution with a dropout of its own, and a 3x3 convolution
    follows; without it the 3x3 convolution fuses them.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        channels: int,
        rates: Sequence[int],
        projection: bool,
        projection_dropout: float,
        dropout: float,
    ) -> None:
        super().__init__()
        require_at_least(1, num_classes=num_classes, channels=channels)
        require_fraction(projection_dropout=projection_dropout, dropout=dropout)
        if min(rates, default=1) < 1:
            raise ValueError(f"rates are {tuple(rates)}; each must be 1 or more")
        self.pyramid = ASPP(in_channels, channels, rates=rates)
        fused = self.pyramid.out_channels
        self.projection: nn.Module = nn.Identity()
        if projection:
            self.projection = nn.Sequential(ConvBNAct(fused, channels), nn.Dropout2d(projection_dropout))
            fused = channels
        self.conv = ConvBNAct(fused, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps, finest first; the last one (N,C,h,w) -> logits (N,K,h,w)."""
        return self.classifier(self.dropout(self.conv(self.projection(self.pyramid(features[-1])))))


@HEADS.register
def deeplabv3(
    feature_info: Sequence[FeatureInfo],
    num_classes: int,
    channels: int = 256,
    rates: Sequence[int] = (12, 24, 36),
    projection: bool = True,
    projection_dropout: float = 0.5,
    dropout: float = 0.1,
) -> Head:
    """DeepLabV3's head on the coarsest map, as FastFCN and torchvision have it.

    `rates` are the dilations at stride 8; the paper halves them at stride 16. mmsegmentation's form has
    `channels=512, projection=False`. Training needs a total batch of 2 or more. Raises ValueError for numbers below 1
    and for a dropout outside 0 to 1.
    """
    return DeepLabV3Head(
        feature_info[-1].channels,
        num_classes,
        channels=channels,
        rates=rates,
        projection=projection,
        projection_dropout=projection_dropout,
        dropout=dropout,
    )
