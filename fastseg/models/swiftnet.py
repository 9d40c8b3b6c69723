"""SwiftNet: Oršić, Krešo, Bevandić, Šegvić, CVPR 2019, arXiv 1903.08469; its pyramid: Oršić, Šegvić, Pattern
Recognition 110 (2021), "Efficient semantic segmentation with pyramidal fusion".

A ResNet-18 that starts from ImageNet's weights, and a thin decoder that only adds and blends. What the decoder takes
from a stage is the sum of its last block before the ReLU; norm and ReLU stand before the decoder's convolutions.

- `swiftnet_r18`: pyramid pooling on the map at stride 32, then an upsampling unit for each finer map, to stride 4.
- `swiftnet_r18_pyramid`: the pyramid network of the journal article and of the authors' code, with three levels: the
  image, its half and its quarter. All go through the same convolutions; each has its own batch norms, but for those of
  the shortcuts. 1x1 convolutions without norm bring all maps to one width, those of equal stride are added, and
  upsampling units blend them from stride 128 to stride 4. (The pyramid of the CVPR paper has two levels.)

What the papers leave open follows the counts of the authors' code (github.com/orsic/swiftnet, GPL-3.0; nothing is
copied): no bias but the classifier's, batch norm momentum 0.005 in the pyramid pooling, a norm per level in the stem.

Deviations: strides round up at every size, and so do the sizes of the levels. The authors' model normalises the images
itself, in place; here preprocessing travels with the weights. As in the authors' code, a level is drawn from the image
bicubically, from the nearest 4x4 pixels, without averaging first. `align_corners` (False as in the authors' code) holds
for the pyramid pooling, the upsampling units and the final upsampling.

Where the coarsest map is a single pixel, its batch norms need a total batch of 2 or more to train: in `swiftnet_r18`
where no side of a crop is above 32, with the image pyramid where none is above 128. To export the image pyramid with
dynamic sizes, both sides must be above 128 where it is traced and where it runs.

Parameters at 19 classes: 11,797,071, with the image pyramid 12,056,275. Multiply-adds at 512x1024 and 1024x2048: 25.9
and 103.6 G; with the image pyramid 32.0 and 128.2 G.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.layers.conv import BNActConv
from fastseg.layers.pyramid_pooling import PreactivationPyramidPooling
from fastseg.layers.resize import resize
from fastseg.models.arguments import require_at_least
from fastseg.models.backbones.resnet import BasicBlock, ResNet, resnet18
from fastseg.models.encoder_decoder import EncoderDecoder
from fastseg.models.registry import HEADS, MODELS
from fastseg.types import Backbone, FeatureInfo, Head, SegModel, SegOutput

POOLING_ROWS = (8, 4, 2)
LEVELS = 3  # of the image pyramid


class UpsamplingUnit(nn.Module):
    """Resize the coarser map to the finer one's size, add both, blend them by a 3x3 convolution."""

    def __init__(self, channels: int, *, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.blend = BNActConv(channels, channels, 3)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return self.blend(resize(coarse, like=fine, align_corners=self.align_corners) + fine)


class UpsamplingPath(nn.Module):
    """Maps of one width, finest first -> a map at the size of the finest: a unit for each map but the coarsest."""

    def __init__(self, maps: int, channels: int, *, align_corners: bool) -> None:
        super().__init__()
        self.units = nn.ModuleList(UpsamplingUnit(channels, align_corners=align_corners) for _ in range(maps - 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        *finer, x = maps
        for unit, fine in zip(reversed(self.units), reversed(finer), strict=True):
            x = unit(x, fine)
        return x


class SwiftNetHead(Head):
    """SwiftNet's pyramid pooling and decoder on all maps of a backbone; logits at the finest map's stride."""

    def __init__(
        self, feature_info: Sequence[FeatureInfo], num_classes: int, *, channels: int, align_corners: bool
    ) -> None:
        super().__init__()
        require_at_least(1, num_classes=num_classes, channels=channels)
        *finer, coarsest = feature_info
        self.pyramid = PreactivationPyramidPooling(
            coarsest.channels,
            channels,
            rows=POOLING_ROWS,
            bottleneck_channels=channels,
            branch_channels=max(1, channels // len(POOLING_ROWS)),
            align_corners=align_corners,
        )
        self.laterals = nn.ModuleList(BNActConv(info.channels, channels) for info in finer)
        self.upsampling = UpsamplingPath(len(feature_info), channels, align_corners=align_corners)
        self.classifier = BNActConv(channels, num_classes, bias=True)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Maps, finest first -> logits (N,K,h,w) at the size of the first."""
        *finer, coarsest = features
        laterals = [lateral(x) for lateral, x in zip(self.laterals, finer, strict=True)]
        return self.classifier(self.upsampling([*laterals, self.pyramid(coarsest)]))


@HEADS.register
def swiftnet(
    feature_info: Sequence[FeatureInfo], num_classes: int, channels: int = 128, align_corners: bool = False
) -> Head:
    """SwiftNet's decoder on all maps of any backbone; logits stand at the stride of the finest.

    It is made for maps that no ReLU has seen (`resnet18` with `preactivation=True`), and works on any.
    """
    return SwiftNetHead(feature_info, num_classes, channels=channels, align_corners=align_corners)


def norm_per_level(norm: nn.BatchNorm2d) -> nn.ModuleList:
    """A batch norm for each level of the pyramid, all starting as `norm`."""
    return nn.ModuleList(copy.deepcopy(norm) for _ in range(LEVELS))


class PyramidBlock(nn.Module):
    """A basic block of ResNet with batch norms for each level; the shortcut's is common."""

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1, self.conv2, self.downsample = block.conv1, block.conv2, block.downsample
        self.bn1, self.bn2 = norm_per_level(block.bn1), norm_per_level(block.bn2)

    def forward(self, x: Tensor, level: int) -> Tensor:
        """The block's sum before its ReLU."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1[level](self.conv1(x)), inplace=True)
        return self.bn2[level](self.conv2(x)) + shortcut


class PyramidResNet(Backbone):
    """A ResNet of basic blocks whose convolutions serve all levels of the image pyramid, each with its own norms.

    Names are torchvision's, with the level after that of a norm (`layer1.0.bn1.2.weight`). Every level starts with
    the norms of `resnet`.
    """

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        self.feature_info = resnet.feature_info
        self.conv1, self.maxpool = resnet.conv1, resnet.maxpool
        self.bn1 = norm_per_level(resnet.bn1)
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.ModuleList(PyramidBlock(cast(BasicBlock, block)) for block in stage)
            for stage in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
        )

    def forward(self, images: Tensor, level: int = 0) -> list[Tensor]:
        """Images of a level (N,C,H,W) -> maps, each the sum of a stage's last block before its ReLU."""
        x = self.maxpool(F.relu(self.bn1[level](self.conv1(images)), inplace=True))
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                total = block(x, level)
                x = F.relu(total)  # not in place: the last sum goes out as it is
            maps.append(total)
        return maps


class SwiftNetPyramid(SegModel):
    """SwiftNet over a pyramid of the image; logits at stride 4. See `swiftnet_r18_pyramid` for the arguments."""

    def __init__(self, backbone: PyramidResNet, num_classes: int, *, channels: int, align_corners: bool) -> None:
        super().__init__()
        require_at_least(1, num_classes=num_classes, channels=channels)
        self.num_classes = num_classes
        self.align_corners = align_corners
        self.aux_heads = nn.ModuleDict()
        self.backbone = backbone
        stages = backbone.feature_info
        self.laterals = nn.ModuleList(nn.Conv2d(info.channels, channels, 1, bias=False) for info in stages)
        self.upsampling = UpsamplingPath(len(stages) + LEVELS - 1, channels, align_corners=align_corners)
        self.classifier = BNActConv(channels, num_classes, bias=True)

    def forward(self, images: Tensor) -> SegOutput:
        levels = [
            [lateral(x) for lateral, x in zip(self.laterals, self.backbone(shrunk, level), strict=True)]
            for level, shrunk in enumerate(image_pyramid(images))
        ]
        return SegOutput(self.classifier(self.upsampling(add_equal_strides(levels))), {})


def image_pyramid(images: Tensor) -> list[Tensor]:
    """Images (N,C,H,W) and their versions of half and a quarter of the size, rounded up."""
    height, width = images.shape[-2:]
    # rounding up is written as convolutions do it, so that maps of equal stride have equal sizes in exported programs
    sizes = [((height - 1) // step + 1, (width - 1) // step + 1) for step in (2**level for level in range(LEVELS))]
    return [resize(images, size, mode="bicubic") for size in sizes]


def add_equal_strides(levels: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Maps of every level, finest first -> sums at strides 4, 8, ...: level and stage add up to the place."""
    places = range(len(levels[0]) + len(levels) - 1)
    return [
        functools.reduce(
            torch.add, [maps[place - level] for level, maps in enumerate(levels) if 0 <= place - level < len(maps)]
        )
        for place in places
    ]


@MODELS.register
def swiftnet_r18(
    num_classes: int = 19,
    in_channels: int = 3,
    backbone_weights: str | None = None,
    channels: int = 128,
    align_corners: bool = False,
) -> SegModel:
    """SwiftNet RN-18, single scale (arXiv 1903.08469, figure 3).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/4),ceil(W/4)).
    `backbone_weights` is 'imagenet' or a file. `channels` is the width of the decoder.
    Raises ValueError for classes or channels below 1, CheckpointError for weights that cannot be had or do not fit.
    """
    backbone = resnet18(in_channels, preactivation=True, weights=backbone_weights)
    head = swiftnet(backbone.feature_info, num_classes, channels, align_corners)
    return EncoderDecoder(backbone, head, num_classes, aux=False, align_corners=align_corners)


@MODELS.register
def swiftnet_r18_pyramid(
    num_classes: int = 19,
    in_channels: int = 3,
    backbone_weights: str | None = None,
    channels: int = 128,
    align_corners: bool = False,
) -> SegModel:
    """SwiftNet RN-18 with interleaved pyramid fusion over three levels of the image (the journal article's network).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/4),ceil(W/4)).
    `backbone_weights` is 'imagenet' or a file with torchvision's names; every level's norms start from them.
    `channels` is the width of the decoder.
    Raises ValueError for classes or channels below 1, CheckpointError for weights that cannot be had or do not fit.
    """
    backbone = PyramidResNet(resnet18(in_channels, weights=backbone_weights))
    return SwiftNetPyramid(backbone, num_classes, channels=channels, align_corners=align_corners)
