"""PSPNet: Zhao, Shi, Qi, Wang, Jia, CVPR 2017, arXiv 1612.01105.

A dilated ResNet at stride 8, pyramid pooling over its last map, a classifier. An auxiliary classifier on the third
stage helps it to train.

The defaults are the authors' code (semseg, MIT, `model/pspnet.py`): a deep stem of three 3x3 convolutions with 64, 64,
128 channels, dilation 2 in the third stage and 4 in the fourth, in their first blocks too, `align_corners=True`, and an
auxiliary head of a quarter of its map's channels. The authors have no ResNet-18: ours has mmsegmentation's widths, with
a deep stem of 32, 32, 64 channels. Where implementations differ, an argument decides:

- `stem="deep"`, `stem_channels`: 'plain' is one 7x7 convolution with 64 channels, the form that torchvision's
  ImageNet weights fit; the deep stem has 128 channels, 64 in `pspnet_r18` and in mmsegmentation's V1c.
- `contract_dilation=False`: True halves the dilation of the first block of a dilated stage, as torchvision,
  PyTorch-Encoding and mmsegmentation do. Parameters are the same.

mmsegmentation's `pspnet_r50-d8` is `pspnet_r50(stem_channels=64, contract_dilation=True, align_corners=False)`, its
`pspnet_r18-d8` is `pspnet_r18(contract_dilation=True, align_corners=False)`.

Deviation: strides round up at every size, where the authors' code takes sides of 8 k + 1 only.

Training needs a total batch of 2 or more: in the pyramid's grid of one cell a batch norm sees one value per image.

Parameters at 19 classes, without and with the auxiliary head: ResNet-18 12,641,267 and 12,790,086, ResNet-50 46,715,347
and 49,080,038, ResNet-101 65,707,475 and 68,072,166. Multiply-adds at 513x1025: ResNet-50 376.6 G, ResNet-101 535.4 G.
"""

from __future__ import annotations

from torch import Tensor, nn

from fastseg.models.backbones.resnet import ResNet, resnet18, resnet50, resnet101
from fastseg.models.heads.fcn import fcn
from fastseg.models.heads.psp import psp
from fastseg.models.registry import MODELS
from fastseg.types import SegModel, SegOutput


class PSPNet(SegModel):
    """PSPNet over a ResNet; logits at the stride of its last map, auxiliary logits 'layer3' at that of its third."""

    def __init__(self, backbone: ResNet, num_classes: int, *, aux: bool, dropout: float, align_corners: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.align_corners = align_corners
        self.backbone = backbone
        self.head = psp(backbone.feature_info, num_classes, dropout=dropout, align_corners=align_corners)
        self.aux_heads = nn.ModuleDict()
        if aux:
            self.aux_heads["layer3"] = fcn(backbone.feature_info[:3], num_classes, dropout=dropout)

    def forward(self, images: Tensor) -> SegOutput:
        features = self.backbone(images)
        logits = self.head(features)
        aux = {name: head(features[:3]) for name, head in self.aux_heads.items()} if self.training else {}
        return SegOutput(logits, aux)


@MODELS.register
def pspnet_r18(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    backbone_weights: str | None = None,
    stem: str = "deep",
    stem_channels: int = 64,
    contract_dilation: bool = False,
    dropout: float = 0.1,
    align_corners: bool = True,
) -> SegModel:
    """PSPNet with ResNet-18 (arXiv 1612.01105; widths of mmsegmentation's `pspnet_r18-d8`).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/8),ceil(W/8)).
    Auxiliary output with `aux=True`: 'layer3' (stride 8), usually weighted 0.4. `backbone_weights`: a file's path, or
    'imagenet', which needs `stem='plain'`.
    Raises ValueError for an unknown stem, for 'imagenet' with another stem, and for numbers below their range;
    CheckpointError for weights that cannot be had or do not fit.
    """
    backbone = resnet18(
        in_channels,
        output_stride=8,
        stem=stem,
        stem_channels=stem_channels,
        contract_dilation=contract_dilation,
        weights=backbone_weights,
    )
    return PSPNet(backbone, num_classes, aux=aux, dropout=dropout, align_corners=align_corners)


@MODELS.register
def pspnet_r50(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    backbone_weights: str | None = None,
    stem: str = "deep",
    stem_channels: int | None = None,
    contract_dilation: bool = False,
    dropout: float = 0.1,
    align_corners: bool = True,
) -> SegModel:
    """PSPNet with ResNet-50 (arXiv 1612.01105; authors' semseg).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/8),ceil(W/8)).
    Auxiliary output with `aux=True`: 'layer3' (stride 8), weighted 0.4 by the authors. `stem_channels` is 128 for the
    deep stem and 64 for the plain one unless given. `backbone_weights`: a file's path, or 'imagenet', which needs
    `stem='plain'`. Raises as `pspnet_r18`.
    """
    backbone = resnet50(
        in_channels,
        output_stride=8,
        stem=stem,
        stem_channels=_stem_channels(stem) if stem_channels is None else stem_channels,
        contract_dilation=contract_dilation,
        weights=backbone_weights,
    )
    return PSPNet(backbone, num_classes, aux=aux, dropout=dropout, align_corners=align_corners)


@MODELS.register
def pspnet_r101(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    backbone_weights: str | None = None,
    stem: str = "deep",
    stem_channels: int | None = None,
    contract_dilation: bool = False,
    dropout: float = 0.1,
    align_corners: bool = True,
) -> SegModel:
    """PSPNet with ResNet-101 (arXiv 1612.01105; authors' semseg). As `pspnet_r50`."""
    backbone = resnet101(
        in_channels,
        output_stride=8,
        stem=stem,
        stem_channels=_stem_channels(stem) if stem_channels is None else stem_channels,
        contract_dilation=contract_dilation,
        weights=backbone_weights,
    )
    return PSPNet(backbone, num_classes, aux=aux, dropout=dropout, align_corners=align_corners)


def _stem_channels(stem: str) -> int:
    return 128 if stem == "deep" else 64
