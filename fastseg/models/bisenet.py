"""BiSeNet: Yu, Wang, Peng, Gao, Yu, Sang, ECCV 2018, arXiv 1808.00897.

A spatial path of four convolutions keeps detail at stride 8. A context path runs a light backbone to stride 32, refines
its last two maps by attention, adds the mean of the last one and climbs back to stride 8. The feature fusion module
joins both; the classifier stands at stride 8.

The defaults are the authors' code (TorchSeg, MIT, `cityscapes.bisenet.X39.speed` and `R18.speed`): a 3x3 convolution
before the gate of each attention refinement and after each upsampling, no reduction in the gate of the fusion,
`align_corners=True`. Where the paper is silent or implementations differ, an argument decides:

- `head_channels=64`, `aux_channels=128`: width of the classifiers' 3x3 convolution. The authors' R18 for whole images
  has 256 in the auxiliary heads; mmsegmentation and CoinCheung's code have 256 and 64.
- `fusion_gate="two_convs"`, `fusion_reduction=1`: the gate of the fusion; 'conv_bn' is CoinCheung's form,
  'conv_bn_relu' mmsegmentation's.
- `context_upsampling="bilinear"`: 'nearest' in mmsegmentation and CoinCheung's code.
- `dropout=0.0`: before the classifiers; 0.1 in mmsegmentation.

mmsegmentation's `bisenetv1_r18-d32` is `bisenet_r18(head_channels=256, aux_channels=64, fusion_gate="conv_bn_relu",
context_upsampling="nearest", dropout=0.1, align_corners=False)`.

Deviations: logits and auxiliary logits stay at their own strides, where the authors upsample the auxiliary output at
stride 16 before the loss; no log-softmax. New convolutions start as torch's do, where the authors' training script
draws them from Kaiming's normal distribution. Batch norms after the mean over the map see one value per image and
channel: training needs a total batch of 2 or more.

Parameters at 19 classes: Xception39 1,541,963, ResNet-18 12,894,163 (the paper's 5.8 M and 49.0 M match no public
implementation); the auxiliary heads add 300,326. mmsegmentation's form has 13,275,539. Multiply-adds at 512x1024 and
1024x2048: 6.94 and 27.8 G, 25.9 and 103.7 G.
"""

from __future__ import annotations

from torch import Tensor, nn

from fastseg.layers.attention import AttentionRefinement, FeatureFusion
from fastseg.layers.conv import ConvBNAct
from fastseg.layers.resize import resize
from fastseg.models.arguments import require_at_least
from fastseg.models.backbones.resnet import resnet18
from fastseg.models.backbones.xception import xception39
from fastseg.models.heads.fcn import FCNHead
from fastseg.models.registry import MODELS
from fastseg.types import Backbone, SegModel, SegOutput

PATH_CHANNELS = 128  # of both paths at stride 8


class SpatialPath(nn.Sequential):
    """Images (N,C,H,W) -> detail (N,128,ceil(H/8),ceil(W/8)). Section 3.1, widths from the authors' code."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv1 = ConvBNAct(in_channels, 64, 7, stride=2)
        self.conv2 = ConvBNAct(64, 64, 3, stride=2)
        self.conv3 = ConvBNAct(64, 64, 3, stride=2)
        self.conv4 = ConvBNAct(64, PATH_CHANNELS)


class ContextPath(nn.Module):
    """The backbone's maps at strides 8, 16, 32 -> context at strides 16 and 8, 128 channels each (figure 2a)."""

    def __init__(self, channels16: int, channels32: int, *, upsampling: str, align_corners: bool) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.align_corners = align_corners
        self.global_context = ConvBNAct(channels32, PATH_CHANNELS)
        self.attention32 = AttentionRefinement(channels32, PATH_CHANNELS)
        self.attention16 = AttentionRefinement(channels16, PATH_CHANNELS)
        self.refine32 = ConvBNAct(PATH_CHANNELS, PATH_CHANNELS, 3)
        self.refine16 = ConvBNAct(PATH_CHANNELS, PATH_CHANNELS, 3)

    def forward(self, stride8: Tensor, stride16: Tensor, stride32: Tensor) -> tuple[Tensor, Tensor]:
        tail = self.global_context(stride32.mean((2, 3), keepdim=True))
        context16 = self.refine32(self._upsample(self.attention32(stride32) + tail, stride16))
        context8 = self.refine16(self._upsample(self.attention16(stride16) + context16, stride8))
        return context16, context8

    def _upsample(self, x: Tensor, like: Tensor) -> Tensor:
        return resize(x, like=like, mode=self.upsampling, align_corners=self.align_corners)


class BiSeNet(SegModel):
    """BiSeNet over a backbone whose last three maps have strides 8, 16, 32; logits at stride 8.

    The module's docstring explains the arguments. Raises ValueError for an unknown gate or upsampling, and for
    numbers below 1.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        in_channels: int,
        aux: bool,
        head_channels: int,
        aux_channels: int,
        fusion_gate: str,
        fusion_reduction: int,
        context_upsampling: str,
        dropout: float,
        align_corners: bool,
    ) -> None:
        super().__init__()
        require_at_least(
            1,
            num_classes=num_classes,
            head_channels=head_channels,
            aux_channels=aux_channels,
            fusion_reduction=fusion_reduction,
        )
        if context_upsampling not in ("bilinear", "nearest"):
            raise ValueError(
                f"context_upsampling is {context_upsampling!r}; allowed: 'bilinear' (authors' code) or 'nearest' "
                "(mmsegmentation's)"
            )
        *_, stride16, stride32 = backbone.feature_info
        self.num_classes = num_classes
        self.align_corners = align_corners
        self.backbone = backbone
        self.spatial_path = SpatialPath(in_channels)
        self.context_path = ContextPath(
            stride16.channels, stride32.channels, upsampling=context_upsampling, align_corners=align_corners
        )
        fused = 2 * PATH_CHANNELS
        self.fusion = FeatureFusion(fused, fused, gate=fusion_gate, reduction=fusion_reduction)
        self.head = FCNHead(fused, num_classes, channels=head_channels, dropout=dropout)
        self.aux_heads = nn.ModuleDict()
        if aux:
            for name in ("context16", "context8"):
                self.aux_heads[name] = FCNHead(PATH_CHANNELS, num_classes, channels=aux_channels, dropout=dropout)

    def forward(self, images: Tensor) -> SegOutput:
        detail = self.spatial_path(images)
        *_, stride8, stride16, stride32 = self.backbone(images)
        context16, context8 = self.context_path(stride8, stride16, stride32)
        logits = self.head([self.fusion(detail, context8)])
        maps = {"context16": context16, "context8": context8}
        aux = {name: head([maps[name]]) for name, head in self.aux_heads.items()} if self.training else {}
        return SegOutput(logits, aux)


@MODELS.register
def bisenet_x39(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    head_channels: int = 64,
    aux_channels: int = 128,
    fusion_gate: str = "two_convs",
    fusion_reduction: int = 1,
    context_upsampling: str = "bilinear",
    dropout: float = 0.0,
    align_corners: bool = True,
) -> SegModel:
    """BiSeNet with Xception39 (arXiv 1808.00897; authors' `cityscapes.bisenet.X39.speed`).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/8),ceil(W/8)).
    Auxiliary outputs with `aux=True`: 'context16' (stride 16) and 'context8' (stride 8), both weighted 1 by the
    authors. They train from ImageNet weights of Xception39, which no lasting address offers.
    Raises ValueError for an unknown gate or upsampling, and for classes, channels or a reduction below 1.
    """
    return BiSeNet(
        xception39(in_channels),
        num_classes,
        in_channels=in_channels,
        aux=aux,
        head_channels=head_channels,
        aux_channels=aux_channels,
        fusion_gate=fusion_gate,
        fusion_reduction=fusion_reduction,
        context_upsampling=context_upsampling,
        dropout=dropout,
        align_corners=align_corners,
    )


@MODELS.register
def bisenet_r18(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    backbone_weights: str | None = None,
    head_channels: int = 64,
    aux_channels: int = 128,
    fusion_gate: str = "two_convs",
    fusion_reduction: int = 1,
    context_upsampling: str = "bilinear",
    dropout: float = 0.0,
    align_corners: bool = True,
) -> SegModel:
    """BiSeNet with ResNet-18 (arXiv 1808.00897; authors' `cityscapes.bisenet.R18.speed`).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/8),ceil(W/8)).
    Auxiliary outputs with `aux=True`: 'context16' (stride 16) and 'context8' (stride 8), both weighted 1 by the
    authors. `backbone_weights`: 'imagenet' or a file's path.
    Raises ValueError as `bisenet_x39`, CheckpointError for weights that cannot be had or do not fit.
    """
    return BiSeNet(
        resnet18(in_channels, weights=backbone_weights),
        num_classes,
        in_channels=in_channels,
        aux=aux,
        head_channels=head_channels,
        aux_channels=aux_channels,
        fusion_gate=fusion_gate,
        fusion_reduction=fusion_reduction,
        context_upsampling=context_upsampling,
        dropout=dropout,
        align_corners=align_corners,
    )
