"""MSFNet, a reconstruction: Si, Zhang, Lv, Yu, Lu, arXiv 1911.07217. Its authors published no code.

From the abstract and public summaries of the paper: spatial aware pooling (SAP) after every stage of a light backbone;
a multi-features fusion module (MFM) that joins maps of one resolution and of different receptive fields; class boundary
supervision, which is two independent fast upsamplings of the fused maps, one of which learns the boundaries of the
classes; logits at 1/8 of the image; a weighted sum of both losses.

The rest is ours, so a number measured with this network says nothing about the authors':

- ResNet-18. SAP averages a stage's map over overlapping windows of 2f-1 pixels at steps of f = 1, 2, 4, 8, 16, where
  that leads to a stride from 8 to 128; a 1x1 convolution brings each average to the common width.
- MFM joins all maps of a stride and fuses them by a separable 3x3 convolution.
- An upsampling head climbs from stride 128 to 8: resize, join with the finer map, separable 3x3 convolution; a 1x1
  classifier. The one for boundaries is its twin with weights of its own, and runs in training only.
- `channels=296`, the common width, is calibrated: with it the work is that which later papers list for MSFNet (24.2 and
  96.8 G at 512x1024 and 1024x2048, arXiv 2101.06085). It is 24.16 and 96.65 G multiply-adds.

`align_corners` (False by default) holds for both heads and the final upsampling. The map at stride 128 is a single
pixel where no side of a crop is above 128: its batch norms then need a total batch of 2 or more to train. To export
with dynamic sizes, both sides must be above 128 where it is traced and where it runs.

Parameters at 19 classes: 14,400,859; the boundary head adds 734,987.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.layers.conv import ConvBNAct, DepthwiseSeparableConv
from fastseg.layers.resize import resize
from fastseg.models.arguments import require_at_least
from fastseg.models.backbones.resnet import resnet18
from fastseg.models.registry import MODELS
from fastseg.types import Backbone, Head, SegModel, SegOutput

STRIDES = (8, 16, 32, 64, 128)  # at which features are fused
LARGEST_FACTOR = 16


class SpatialAwarePooling(nn.Module):
    """A stage's map (N,in,h,w) -> for each factor f its overlapping averages (N,channels,ceil(h/f),ceil(w/f))."""

    def __init__(self, in_channels: int, channels: int, factors: Sequence[int]) -> None:
        super().__init__()
        self.factors = tuple(factors)
        self.projections = nn.ModuleList(ConvBNAct(in_channels, channels) for _ in self.factors)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [project(average(x, factor)) for project, factor in zip(self.projections, self.factors, strict=True)]


def average(x: Tensor, factor: int) -> Tensor:
    """Means over windows of `2 * factor - 1` pixels at steps of `factor`; at the border of what lies inside."""
    return F.avg_pool2d(x, 2 * factor - 1, stride=factor, padding=factor - 1, count_include_pad=False)


class MultiFeaturesFusion(nn.Module):
    """The backbone's maps -> one fused map for each of `STRIDES`, finest first (MFM with its SAPs)."""

    def __init__(self, backbone: Backbone, channels: int) -> None:
        super().__init__()
        reached = [[s for s in STRIDES if i.stride <= s <= LARGEST_FACTOR * i.stride] for i in backbone.feature_info]
        self.reached = reached
        self.poolings = nn.ModuleList(
            SpatialAwarePooling(info.channels, channels, [stride // info.stride for stride in strides])
            for info, strides in zip(backbone.feature_info, reached, strict=True)
        )
        self.fusions = nn.ModuleList(
            DepthwiseSeparableConv(channels * sum(stride in strides for strides in reached), channels)
            for stride in STRIDES
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        maps: dict[int, list[Tensor]] = {stride: [] for stride in STRIDES}
        for pooling, strides, x in zip(self.poolings, self.reached, features, strict=True):
            for stride, pooled in zip(strides, pooling(x), strict=True):
                maps[stride].append(pooled)
        return [fuse(torch.cat(maps[stride], 1)) for stride, fuse in zip(STRIDES, self.fusions, strict=True)]


class UpsamplingHead(Head):
    """Fused maps, finest first -> logits (N,K,h,w) at the finest one's size."""

    def __init__(self, channels: int, num_classes: int, *, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.steps = nn.ModuleList(DepthwiseSeparableConv(2 * channels, channels) for _ in STRIDES[1:])
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        *finer, x = features
        for step, fine in zip(self.steps, reversed(finer), strict=True):
            x = step(torch.cat((resize(x, like=fine, align_corners=self.align_corners), fine), 1))
        return self.classifier(x)


class MSFNet(SegModel):
    """Reconstruction of MSFNet; logits at stride 8. See `msfnet` for the arguments."""

    def __init__(self, backbone: Backbone, num_classes: int, *, aux: bool, channels: int, align_corners: bool) -> None:
        super().__init__()
        require_at_least(1, num_classes=num_classes, channels=channels)
        self.num_classes = num_classes
        self.align_corners = align_corners
        self.backbone = backbone
        self.fusion = MultiFeaturesFusion(backbone, channels)
        self.head = UpsamplingHead(channels, num_classes, align_corners=align_corners)
        self.aux_heads = nn.ModuleDict()
        if aux:
            self.aux_losses = {"boundary": "class_boundary"}
            self.aux_heads["boundary"] = UpsamplingHead(channels, num_classes, align_corners=align_corners)

    def forward(self, images: Tensor) -> SegOutput:
        fused = self.fusion(self.backbone(images))
        logits = self.head(fused)
        aux = {name: head(fused) for name, head in self.aux_heads.items()} if self.training else {}
        return SegOutput(logits, aux)


@MODELS.register
def msfnet(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    backbone_weights: str | None = None,
    channels: int = 296,
    align_corners: bool = False,
) -> SegModel:
    """MSFNet, a reconstruction from the abstract of arXiv 1911.07217: its authors published no code.

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/8),ceil(W/8)).
    Auxiliary output with `aux=True`: 'boundary' (stride 8), for each class the logit that a pixel is on its contour,
    learnt by the loss `class_boundary`.
    `backbone_weights` is 'imagenet' or a file. `channels` is the common width of all that follows the backbone.
    Raises ValueError for classes or channels below 1, CheckpointError for weights that cannot be had or do not fit.
    """
    backbone = resnet18(in_channels, weights=backbone_weights)
    return MSFNet(backbone, num_classes, aux=aux, channels=channels, align_corners=align_corners)
