"""FastFCN: Wu, Zhang, Huang, Liang, Yu, arXiv 1903.11816.

A ResNet at stride 32, whose last three maps joint pyramid upsampling (JPU) joins at stride 8 in place of dilation, and
one of three heads: EncNet's (arXiv 1803.08904), DeepLabV3's (arXiv 1706.05587) or PSPNet's (arXiv 1612.01105). An
auxiliary classifier on the third stage helps training; with EncNet's head another one learns, from the encoding of the
scene, which classes an image has.

The defaults are the authors' code (wuhuikai/FastFCN, MIT): a deep stem of three 3x3 convolutions with 64, 64, 128
channels, `align_corners=True`, dropout 0.1 before every classifier and 0.5 after the projection of DeepLabV3's pyramid.
Where there is a choice, an argument decides:

- `jpu="jpu"`: 'jpu_x' is the authors' later form, two modules in cascade with group norm. None is what FastFCN is
  compared with: the head on a backbone dilated to stride 8, with half the dilation in a stage's first block as in
  PyTorch-Encoding, and a 3x3 convolution in place of a 1x1 at the beginning of EncNet's head. (In the authors' code
  `jpu=None` alone leaves the backbone at stride 32.)
- `stem="deep"`, `stem_channels`: 'plain' is one 7x7 convolution with 64 channels, which torchvision's ImageNet weights
  fit; the deep stem has 128.
- `mmseg=False`: True is mmsegmentation's form. The last two stages keep their strides and are dilated by 2 and 4 all
  the same, the stem has 64 channels, EncNet's head begins with a 3x3 convolution, DeepLabV3's pyramid has branches of
  512 channels which a 3x3 convolution fuses at once, and `align_corners` is False. So `fastfcn_r50_psp(mmseg=True)` is
  its `fastfcn_r50-d32_jpu_psp`, with the other heads its `.._jpu_enc` and `.._jpu_aspp`; with `jpu=None` as well they
  are its `pspnet_r50-d8`, `encnet_r50-d8` and `deeplabv3_r50-d8`.

Deviations: maps are concatenated finest first, where the authors begin with the coarsest; strides round up at every
size. EncNet's head has no lateral connections, which the authors switch on for some of their ResNet-101s.

Training needs a total batch of 2 or more with the heads of DeepLabV3 and PSPNet, where a batch norm sees one value per
image; EncNet's takes one image.

Parameters at 19 classes, without auxiliary heads (the authors' count of EncNet's has 9,747 more, the classifier of
classes present, which is an auxiliary head here):

|            | EncNet     | DeepLabV3  | PSPNet     |
|------------|------------|------------|------------|
| ResNet-50  | 44,969,011 | 59,497,683 | 66,450,899 |
| ResNet-101 | 63,961,139 | 78,489,811 | 85,443,027 |

JPU_X has 16,384 fewer; the auxiliary head of the third stage adds 2,364,691.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from fastseg.layers.jpu import JPU, JPUX
from fastseg.models.arguments import require_fraction
from fastseg.models.backbones.resnet import ResNet, resnet50, resnet101
from fastseg.models.heads.deeplabv3 import deeplabv3
from fastseg.models.heads.encnet import EncNetHead, encnet
from fastseg.models.heads.fcn import fcn
from fastseg.models.heads.psp import psp
from fastseg.models.registry import MODELS
from fastseg.types import FeatureInfo, Head, SegModel, SegOutput

STRIDE = 8  # of the logits, with and without JPU
DILATED_STAGES = (1, 1, 2, 4)  # in mmsegmentation's form


class FastFCN(SegModel):
    """A ResNet, joint pyramid upsampling (None where the backbone is dilated) and a head; logits at stride 8.

    Auxiliary outputs with `aux`: 'layer3', logits at the stride of the third stage, and with EncNet's head 'se',
    (N,num_classes,1,1) logits of the classes that the image has.
    """

    def __init__(
        self,
        backbone: ResNet,
        jpu: JPU | JPUX | None,
        head: Head,
        num_classes: int,
        *,
        aux: bool,
        dropout: float,
        align_corners: bool,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.align_corners = align_corners
        self.backbone = backbone
        self.jpu = jpu
        self.head = head
        self.aux_heads = nn.ModuleDict()
        if aux:
            self.aux_heads["layer3"] = fcn(backbone.feature_info[:3], num_classes, dropout=dropout)
        if aux and isinstance(head, EncNetHead):
            self.aux_heads["se"] = nn.Conv2d(head.channels, num_classes, 1)
            self.aux_losses = {"se": "class_presence"}

    def forward(self, images: Tensor) -> SegOutput:
        features = self.backbone(images)
        maps = features if self.jpu is None else [self.jpu(features)]
        read: dict[str, Any] = {"layer3": features[:3]}
        if isinstance(self.head, EncNetHead):
            logits, read["se"] = self.head.with_encoding(maps)
        else:
            logits = self.head(maps)
        aux = {name: head(read[name]) for name, head in self.aux_heads.items()} if self.training else {}
        return SegOutput(logits, aux)


def _fastfcn(
    build_backbone: Callable[..., ResNet],
    head: str,
    num_classes: int,
    in_channels: int,
    aux: bool,
    backbone_weights: str | None,
    jpu: str | None,
    stem: str,
    stem_channels: int | None,
    mmseg: bool,
    dropout: float,
    align_corners: bool | None,
) -> SegModel:
    """The network of a ResNet's builder and a head's name; the arguments are those of the models."""
    if jpu not in ("jpu", "jpu_x", None):
        raise ValueError(
            f"jpu is {jpu!r}; allowed: 'jpu', 'jpu_x', or None (null in YAML and on the command line) for a backbone "
            f"dilated to stride {STRIDE}"
        )
    require_fraction(dropout=dropout)
    if mmseg and jpu == "jpu_x":
        raise ValueError("mmseg=True with jpu='jpu_x': mmsegmentation has no JPU_X; give jpu='jpu', or leave mmseg out")
    aligned = not mmseg if align_corners is None else align_corners
    if stem_channels is None:
        stem_channels = 128 if stem == "deep" and not mmseg else 64
    backbone = build_backbone(
        in_channels,
        output_stride=STRIDE if jpu is None else 32,
        stem=stem,
        stem_channels=stem_channels,
        dilations=DILATED_STAGES if mmseg else None,
        weights=backbone_weights,
    )
    info = backbone.feature_info
    upsampling: JPU | JPUX | None = None
    if jpu is not None:
        build_jpu = JPU if jpu == "jpu" else JPUX
        upsampling = build_jpu([stage.channels for stage in info[1:]], align_corners=aligned)
        info = (FeatureInfo(upsampling.out_channels, STRIDE),)
    decoder: Head
    if head == "encnet":
        kernel_size = 3 if jpu is None or mmseg else 1
        decoder = encnet(info, num_classes, kernel_size=kernel_size, dropout=dropout)
    elif head == "deeplabv3":
        form: dict[str, Any] = {"channels": 512, "projection": False} if mmseg else {}
        decoder = deeplabv3(info, num_classes, dropout=dropout, **form)
    else:
        decoder = psp(info, num_classes, dropout=dropout, align_corners=aligned)
    return FastFCN(backbone, upsampling, decoder, num_classes, aux=aux, dropout=dropout, align_corners=aligned)


@MODELS.register
def fastfcn_r50_encnet(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    backbone_weights: str | None = None,
    jpu: str | None = "jpu",
    stem: str = "deep",
    stem_channels: int | None = None,
    mmseg: bool = False,
    dropout: float = 0.1,
    align_corners: bool | None = None,
) -> SegModel:
    """FastFCN with ResNet-50 and EncNet's head (arXiv 1903.11816).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/8),ceil(W/8)).
    Auxiliary outputs with `aux=True`: 'layer3' (stride 16; 8 with `jpu=None`) and 'se' (N,num_classes,1,1), which is
    trained by the loss `class_presence`; both weighted 0.2 by the authors.
    `jpu='jpu'` is the paper's joint upsampling of the last three maps to stride 8; 'jpu_x' the authors' later form, two
    modules in cascade with group norm; None leaves it out and dilates the backbone to stride 8 instead.
    `mmseg=True` is mmsegmentation's form: dilated last stages, a stem of 64 channels, a 3x3 convolution at the head's
    beginning and `align_corners=False`. `backbone_weights`: a file's path, or 'imagenet', which needs `stem='plain'`.
    `stem_channels` and `align_corners` follow `stem` and `mmseg` unless given.
    Raises ValueError for an unknown jpu or stem, for `mmseg` with JPU_X, for 'imagenet' with another stem, and for
    numbers out of their range; CheckpointError for weights that cannot be had or do not fit.
    """
    own = (num_classes, in_channels, aux, backbone_weights, jpu, stem, stem_channels, mmseg, dropout, align_corners)
    return _fastfcn(resnet50, "encnet", *own)


@MODELS.register
def fastfcn_r50_deeplabv3(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    backbone_weights: str | None = None,
    jpu: str | None = "jpu",
    stem: str = "deep",
    stem_channels: int | None = None,
    mmseg: bool = False,
    dropout: float = 0.1,
    align_corners: bool | None = None,
) -> SegModel:
    """FastFCN with ResNet-50 and DeepLabV3's head (arXiv 1903.11816).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/8),ceil(W/8)).
    Auxiliary output with `aux=True`: 'layer3' (stride 16; 8 with `jpu=None`). Training needs a total batch of 2 or
    more. With `mmseg=True` the pyramid's branches have 512 channels, and a 3x3 convolution fuses them at once. `jpu`,
    `stem`, `mmseg`, weights and errors are explained at `fastfcn_r50_encnet`.
    """
    own = (num_classes, in_channels, aux, backbone_weights, jpu, stem, stem_channels, mmseg, dropout, align_corners)
    return _fastfcn(resnet50, "deeplabv3", *own)


@MODELS.register
def fastfcn_r50_psp(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    backbone_weights: str | None = None,
    jpu: str | None = "jpu",
    stem: str = "deep",
    stem_channels: int | None = None,
    mmseg: bool = False,
    dropout: float = 0.1,
    align_corners: bool | None = None,
) -> SegModel:
    """FastFCN with ResNet-50 and PSPNet's head (arXiv 1903.11816).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/8),ceil(W/8)).
    Auxiliary output with `aux=True`: 'layer3' (stride 16; 8 with `jpu=None`). Training needs a total batch of 2 or
    more. `jpu`, `stem`, `mmseg`, weights and errors are explained at `fastfcn_r50_encnet`.
    """
    own = (num_classes, in_channels, aux, backbone_weights, jpu, stem, stem_channels, mmseg, dropout, align_corners)
    return _fastfcn(resnet50, "psp", *own)


@MODELS.register
def fastfcn_r101_encnet(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    backbone_weights: str | None = None,
    jpu: str | None = "jpu",
    stem: str = "deep",
    stem_channels: int | None = None,
    mmseg: bool = False,
    dropout: float = 0.1,
    align_corners: bool | None = None,
) -> SegModel:
    """FastFCN with ResNet-101 and EncNet's head (arXiv 1903.11816).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/8),ceil(W/8)).
    Auxiliary outputs with `aux=True`: 'layer3' (stride 16; 8 with `jpu=None`) and 'se' (N,num_classes,1,1), which is
    trained by the loss `class_presence`. `jpu`, `stem`, `mmseg`, weights and errors are explained at
    `fastfcn_r50_encnet`.
    """
    own = (num_classes, in_channels, aux, backbone_weights, jpu, stem, stem_channels, mmseg, dropout, align_corners)
    return _fastfcn(resnet101, "encnet", *own)


@MODELS.register
def fastfcn_r101_deeplabv3(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    backbone_weights: str | None = None,
    jpu: str | None = "jpu",
    stem: str = "deep",
    stem_channels: int | None = None,
    mmseg: bool = False,
    dropout: float = 0.1,
    align_corners: bool | None = None,
) -> SegModel:
    """FastFCN with ResNet-101 and DeepLabV3's head (arXiv 1903.11816).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/8),ceil(W/8)).
    Auxiliary output with `aux=True`: 'layer3' (stride 16; 8 with `jpu=None`). Training needs a total batch of 2 or
    more. With `mmseg=True` the pyramid's branches have 512 channels, and a 3x3 convolution fuses them at once. `jpu`,
    `stem`, `mmseg`, weights and errors are explained at `fastfcn_r50_encnet`.
    """
    own = (num_classes, in_channels, aux, backbone_weights, jpu, stem, stem_channels, mmseg, dropout, align_corners)
    return _fastfcn(resnet101, "deeplabv3", *own)


@MODELS.register
def fastfcn_r101_psp(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    backbone_weights: str | None = None,
    jpu: str | None = "jpu",
    stem: str = "deep",
    stem_channels: int | None = None,
    mmseg: bool = False,
    dropout: float = 0.1,
    align_corners: bool | None = None,
) -> SegModel:
    """FastFCN with ResNet-101 and PSPNet's head (arXiv 1903.11816).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/8),ceil(W/8)).
    Auxiliary output with `aux=True`: 'layer3' (stride 16; 8 with `jpu=None`). Training needs a total batch of 2 or
    more. `jpu`, `stem`, `mmseg`, weights and errors are explained at `fastfcn_r50_encnet`.
    """
    own = (num_classes, in_channels, aux, backbone_weights, jpu, stem, stem_channels, mmseg, dropout, align_corners)
    return _fastfcn(resnet101, "psp", *own)
