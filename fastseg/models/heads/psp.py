"""The head of PSPNet: Zhao et al., CVPR 2017, arXiv 1612.01105, figure 3."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fastseg.layers.pyramid_pooling import PyramidPooling
from fastseg.models.arguments import require_at_least, require_fraction
from fastseg.models.registry import HEADS
from fastseg.types import FeatureInfo, Head


class PSPHead(Head):
    """Pyramid pooling on the coarsest feature map, fused by a 3x3 convolution, dropout, 1x1 classifier."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        channels: int,
        bins: Sequence[int],
        dropout: float,
        align_corners: bool,
    ) -> None:
        super().__init__()
        require_at_least(1, num_classes=num_classes, channels=channels)
        require_fraction(dropout=dropout)
        self.pyramid = PyramidPooling(in_channels, channels, bins=bins, fuse_kernel_size=3, align_corners=align_corners)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps, finest first; the last one (N,C,h,w) -> logits (N,K,h,w)."""
        return self.classifier(self.dropout(self.pyramid(features[-1])))


@HEADS.register
def psp(
    feature_info: Sequence[FeatureInfo],
    num_classes: int,
    channels: int | None = None,
    bins: Sequence[int] = (1, 2, 3, 6),
    dropout: float = 0.1,
    align_corners: bool = False,
) -> Head:
    """PSPNet's head on the coarsest map.

    `channels` is the width after the fusion, by default a quarter of that map's; the grids of `bins` rows and columns
    share out as many channels as the map has, as in the paper. Logits stand at the map's stride.
    Raises ValueError for `channels` below 1 and for a dropout outside 0 to 1.
    """
    in_channels = feature_info[-1].channels
    return PSPHead(
        in_channels,
        num_classes,
        channels=max(1, in_channels // 4) if channels is None else channels,
        bins=bins,
        dropout=dropout,
        align_corners=align_corners,
    )
