"""The fully convolutional head, as PSPNet, BiSeNet, ICNet and Fast-SCNN use it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fastseg.layers.conv import ConvBNAct
from fastseg.models.arguments import require_at_least, require_fraction
from fastseg.models.registry import HEADS
from fastseg.types import FeatureInfo, Head


class FCNHead(Head):
    """3x3 convolution, batch norm, ReLU, dropout, 1x1 classifier on the coarsest feature map."""

    def __init__(self, in_channels: int, num_classes: int, *, channels: int, dropout: float) -> None:
        super().__init__()
        require_at_least(1, num_classes=num_classes, channels=channels)
        require_fraction(dropout=dropout)
        self.conv = ConvBNAct(in_channels, channels, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps, finest first; the last one (N,C,h,w) -> logits (N,K,h,w)."""
        return self.classifier(self.dropout(self.conv(features[-1])))


@HEADS.register
def fcn(
    feature_info: Sequence[FeatureInfo], num_classes: int, channels: int | None = None, dropout: float = 0.1
) -> Head:
    """FCN head on the coarsest map; `channels` defaults to a quarter of that map's.

    Raises ValueError for `channels` below 1 and for a dropout outside 0 to 1.
    """
    in_channels = feature_info[-1].channels
    if channels is None:
        channels = max(1, in_channels // 4)
    return FCNHead(in_channels, num_classes, channels=channels, dropout=dropout)
