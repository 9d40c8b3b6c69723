"""DF-Seg: Li, Zhou, Pan, Feng, CVPR 2019 (Partial Order Pruning), arXiv 1903.03777.

A DF-Net, pyramid pooling on its stride-32 map, and a decoder of two very narrow fusion nodes down to stride 8. A node
projects the coarser map (1x1), upsamples it, concatenates it with the lateral map (1x1) and fuses both (3x3). Grids of
the pyramid keep the image's aspect: at 1024x2048 they are 1x2, 2x4, 4x8 and 8x16.

Widths are those of the networks that the authors published. Where these say 19 (lateral and node at stride 8; in
DF2-Seg1 also at stride 16) it is the number of Cityscapes' classes. It stays 19 for any `num_classes` here, so that a
decoder trained on Cityscapes fits another data set up to its last layer. For many more classes use the head with other
widths: `encoder_decoder(backbone="df2", head="dfseg", head_args={"lateral_channels": ..., "node_channels": ...})`.

Deviations: the authors upsample by fixed bilinear deconvolutions (kernel 4, stride 2, not trained); resizing to the
lateral map's size is the same inside the map, works at every size, and repeats the outermost pixels, where the
deconvolution fades to zero. The authors pool by windows of 32, 16, 8 and 4 pixels, whatever the map's size; here
the rows of the pyramid are fixed, which is the same where the map at stride 32 has 32 rows and a multiple of 32
columns. `align_corners` (False by default, which is the deconvolution's grid) holds for the pyramid, the nodes and the
final upsampling.

Training needs a total batch of 2 or more unless images are much wider than high: in the grid of one row, a batch norm
sees one value per image and channel where the map is less than 1.5 times as wide as high.

Input of the authors: BGR in 0..255, minus (72, 83, 73), times 0.008.

Trained parameters at 19 classes, equal to the authors' networks: DF1-Seg 13,107,243, DF2-Seg1 22,498,216, DF2-Seg2
24,115,147; their convolutions take 41.6, 84.3 and 95.3 GMAC at 1024x2048.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastseg.layers.conv import ConvBNAct
from fastseg.layers.pyramid_pooling import PyramidPooling
from fastseg.layers.resize import resize
from fastseg.models.arguments import require_at_least
from fastseg.models.backbones.df import df1, df2
from fastseg.models.encoder_decoder import EncoderDecoder
from fastseg.models.registry import HEADS, MODELS
from fastseg.types import Backbone, FeatureInfo, Head, SegModel

PYRAMID_ROWS = (1, 2, 4, 8)  # average pools of 32, 16, 8 and 4 pixels on the 32x64 map of a 1024x2048 image
PYRAMID_BRANCH_CHANNELS = 128
PYRAMID_CHANNELS = 512


class FusionNode(nn.Module):
    """Coarser map and lateral map -> one map of `channels` at the lateral map's size."""

    def __init__(self, coarse_channels: int, lateral_channels: int, channels: int, *, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.projection = ConvBNAct(coarse_channels, channels)
        self.fuse = ConvBNAct(channels + lateral_channels, channels, 3)

    def forward(self, coarse: Tensor, lateral: Tensor) -> Tensor:
        coarse = resize(self.projection(coarse), like=lateral, align_corners=self.align_corners)
        return self.fuse(torch.cat([coarse, lateral], 1))


class DFSegHead(Head):
    """DF-Seg's pyramid and decoder on the last three maps (or those there are); logits at the finest one's stride."""

    def __init__(
        self,
        feature_info: Sequence[FeatureInfo],
        num_classes: int,
        *,
        lateral_channels: Sequence[int],
        node_channels: Sequence[int],
        align_corners: bool,
    ) -> None:
        super().__init__()
        if (len(lateral_channels), len(node_channels)) != (3, 2):
            raise ValueError(
                f"lateral_channels is {list(lateral_channels)} and node_channels {list(node_channels)}; give three and "
                "two widths, finest first, such as [32, 32, 512] and [32, 32]"
            )
        require_at_least(
            1, num_classes=num_classes, lateral_channels=min(lateral_channels), node_channels=min(node_channels)
        )
        in_channels = [info.channels for info in feature_info[-3:]]
        self.maps = len(in_channels)
        in_channels[-1] = PYRAMID_CHANNELS
        laterals = lateral_channels[-self.maps :]
        widths = [*node_channels, lateral_channels[-1]][-self.maps :]  # of what comes out at each stride
        self.pyramid = PyramidPooling(
            feature_info[-1].channels,
            PYRAMID_CHANNELS,
            bins=PYRAMID_ROWS,
            branch_channels=PYRAMID_BRANCH_CHANNELS,
            aspect=True,
            fuse_kernel_size=3,
            align_corners=align_corners,
        )
        self.laterals = nn.ModuleList(ConvBNAct(i, o) for i, o in zip(in_channels, laterals, strict=True))
        self.nodes = nn.ModuleList(
            FusionNode(coarse, lateral, width, align_corners=align_corners)
            for coarse, lateral, width in zip(widths[1:], laterals[:-1], widths[:-1], strict=True)
        )
        self.classifier = ConvBNAct(widths[0], num_classes, 3, activation=False)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps, finest first -> logits (N,K,h,w) at the size of the third last."""
        *finer, coarsest = features[-self.maps :]
        maps = [*finer, self.pyramid(coarsest)]
        *laterals, x = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        for node, lateral in zip(reversed(self.nodes), reversed(laterals), strict=True):
            x = node(x, lateral)
        return self.classifier(x)


@HEADS.register
def dfseg(
    feature_info: Sequence[FeatureInfo],
    num_classes: int,
    lateral_channels: Sequence[int] = (32, 32, 512),
    node_channels: Sequence[int] = (32, 32),
    align_corners: bool = False,
) -> Head:
    """DF-Seg's decoder on the last three maps of any backbone; it uses fewer where there are fewer.

    `lateral_channels` (three) and `node_channels` (two) are widths from the finest map on; the defaults are those of
    the authors' DFlite-Seg. Logits stand at the stride of the third last map. Raises ValueError for other numbers of
    widths, and for classes or widths below 1.
    """
    return DFSegHead(
        feature_info,
        num_classes,
        lateral_channels=lateral_channels,
        node_channels=node_channels,
        align_corners=align_corners,
    )


def _dfseg_model(
    backbone: Backbone, num_classes: int, laterals: Sequence[int], nodes: Sequence[int], *, align_corners: bool
) -> SegModel:
    head = dfseg(backbone.feature_info, num_classes, laterals, nodes, align_corners)
    return EncoderDecoder(backbone, head, num_classes, aux=False, align_corners=align_corners)


@MODELS.register
def dfseg_df1(num_classes: int = 19, in_channels: int = 3, align_corners: bool = False) -> SegModel:
    """DF1-Seg (arXiv 1903.03777): images (N,in_channels,H,W) -> logits (N,num_classes,ceil(H/8),ceil(W/8))."""
    return _dfseg_model(df1(in_channels), num_classes, (19, 32, 128), (19, 32), align_corners=align_corners)


@MODELS.register
def dfseg_df2_1(num_classes: int = 19, in_channels: int = 3, align_corners: bool = False) -> SegModel:
    """DF2-Seg1 (arXiv 1903.03777): images (N,in_channels,H,W) -> logits (N,num_classes,ceil(H/8),ceil(W/8))."""
    return _dfseg_model(df2(in_channels), num_classes, (19, 19, 32), (19, 19), align_corners=align_corners)


@MODELS.register
def dfseg_df2_2(num_classes: int = 19, in_channels: int = 3, align_corners: bool = False) -> SegModel:
    """DF2-Seg2 (arXiv 1903.03777): images (N,in_channels,H,W) -> logits (N,num_classes,ceil(H/8),ceil(W/8))."""
    return _dfseg_model(df2(in_channels), num_classes, (19, 256, 512), (19, 256), align_corners=align_corners)
