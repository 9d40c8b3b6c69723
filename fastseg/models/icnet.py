"""ICNet: Zhao, Qi, Shen, Shi, Jia, ECCV 2018, arXiv 1704.08545.

An image cascade. The image at half size runs through the start of a dilated ResNet to 1/16 of its height and width;
that map, halved, runs through the rest at 1/32, where a pyramid adds context. Three convolutions see the image at full
size and stop at 1/8. Cascade feature fusion joins 1/32 with 1/16, then with 1/8. No stage of the ResNet runs twice.

There are two forms; `form` chooses (`icnet_r50_half` is always the authors'):

- 'mmsegmentation' (its `icnet_r18-d8` and `icnet_r50-d8`): the ResNet is cut after its second stage, whose map is
  projected to 256 channels; the pyramid is PSPNet's with 512 channels; the fusion has a ReLU before its sum as well as
  after it; an FCN head at stride 8.
- 'authors' (`icnet_cityscapes.prototxt`; in PyTorch by meetps, MIT): the ResNet is cut after the first block of its
  second stage; the pyramid's grids are added to the map, without convolutions; no ReLU before the sum; upsampled by
  two, then a 1x1 classifier at stride 4.

Further choices:

- `guidance`: what the auxiliary classifiers read. 'refined' is the coarser map after its convolution in the fusion,
  through an FCN head (mmsegmentation); 'input' is that map before, upsampled, through a 1x1 classifier (the paper's
  cascade label guidance).
- `contract_dilation`: True halves the dilation of the first block of a dilated stage (mmsegmentation); False dilates
  all blocks alike (authors).
- `mmseg_sizes=False`: True gives maps the sizes they have in mmsegmentation. There the max pool's last window may hang
  over the edge, which adds a row and a column to even sizes, and halving rounds down, which leaves out an odd last row.
  Its published weights were measured so.
- `stem="deep"`: 'plain' is one 7x7 convolution, the form that torchvision's ImageNet weights fit.

The authors' network, which is pruned, is `icnet_r50_half` with its defaults. Its form with stages of full width is
`icnet_r50(form="authors", guidance="input", contract_dilation=False, align_corners=True)`.

Deviations: all sizes round up (unless `mmseg_sizes`). Pyramids divide any map into grids, where the authors' pooling
windows are made for 1025x2049 and some overlap more. The stride of a bottleneck stands in its 3x3 convolution, as in
meetps's port; the authors' stands in the 1x1 before it. The 1x1 classifier comes before the upsampling by two instead
of after it: the same function for a quarter of the work. The authors prune a network of full width to half; ours of
half width trains from scratch.

Training needs a total batch of 2 or more in mmsegmentation's form, where a batch norm sees the one value per image of
the pyramid's grid of one cell; the authors' form needs it only where no side of a crop is above 32.

Parameters at 19 classes: ResNet-18 24,874,067, ResNet-50 47,527,507, half width 6,699,987; auxiliary heads 300,326
('refined') or 7,334 ('input'). (meetps's port has 7,757,945: with the auxiliary heads, and with the 1x1 convolutions of
a PSPNet pyramid, which never run.) Multiply-adds at 1024x2048: 74.0 G, 121.6 G, 29.0 G.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fastseg.layers.cascade_fusion import CascadeFeatureFusion
from fastseg.layers.conv import ConvBNAct
from fastseg.layers.pyramid_pooling import PyramidPooling, pyramid_pool_sum
from fastseg.layers.resize import resize
from fastseg.models.arguments import require_at_least
from fastseg.models.backbones.resnet import ResNet, resnet18, resnet50
from fastseg.models.heads.fcn import FCNHead
from fastseg.models.registry import MODELS
from fastseg.types import Head, SegModel, SegOutput

FORMS = ("mmsegmentation", "authors")
GUIDANCE = ("refined", "input")
FUSED_CHANNELS = 128
CONTEXT_CHANNELS = 256


class FineBranch(nn.Sequential):
    """Images (N,C,H,W) -> detail (N,64,ceil(H/8),ceil(W/8)), three convolutions (section 3.2)."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv1 = ConvBNAct(in_channels, 32, 3, stride=2)
        self.conv2 = ConvBNAct(32, 32, 3, stride=2)
        self.conv3 = ConvBNAct(32, 64, 3, stride=2)


class PyramidSum(nn.Module):
    """A map plus its averages over the grids of 1, 2, 3 and 6 rows and columns: (N,C,h,w) -> (N,C,h,w)."""

    def __init__(self, *, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners

    def forward(self, x: Tensor) -> Tensor:
        return pyramid_pool_sum(x, align_corners=self.align_corners)


class Classifier(Head):
    """1x1 convolution on the coarsest map."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, num_classes, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.conv(features[-1])


class ICNet(SegModel):
    """ICNet over a ResNet of output stride 8; logits at stride 8, or 4 in the authors' form.

    The module's docstring explains the arguments. Raises ValueError for an unknown form or guidance, and for
    fewer classes than 1.
    """

    def __init__(
        self,
        backbone: ResNet,
        num_classes: int,
        *,
        in_channels: int,
        aux: bool,
        form: str,
        guidance: str,
        mmseg_sizes: bool,
        align_corners: bool,
    ) -> None:
        super().__init__()
        require_at_least(1, num_classes=num_classes)
        if form not in FORMS:
            raise ValueError(f"ICNet's form is {form!r}; allowed: {', '.join(map(repr, FORMS))}")
        if guidance not in GUIDANCE:
            raise ValueError(f"ICNet's guidance is {guidance!r}; allowed: {', '.join(map(repr, GUIDANCE))}")
        self.num_classes = num_classes
        self.align_corners = align_corners
        self.guidance = guidance
        self.mmseg_sizes = mmseg_sizes
        self.authors_form = form == "authors"
        self.backbone = backbone
        backbone.maxpool.ceil_mode = mmseg_sizes
        self.fine = FineBranch(in_channels)
        _, stage2, _, stage4 = backbone.feature_info
        self.context: nn.Module
        self.medium: nn.Module
        self.head: Head
        if self.authors_form:
            self.blocks_at_half = 1
            self.context = nn.Sequential(
                PyramidSum(align_corners=align_corners), ConvBNAct(stage4.channels, CONTEXT_CHANNELS)
            )
            self.medium = nn.Identity()
            medium_channels = stage2.channels
            self.head = Classifier(FUSED_CHANNELS, num_classes)
        else:
            self.blocks_at_half = len(backbone.layer2)
            pyramid = PyramidPooling(
                stage4.channels, 512, branch_channels=512, fuse_kernel_size=3, align_corners=align_corners
            )
            self.context = nn.Sequential(pyramid, ConvBNAct(512, CONTEXT_CHANNELS))
            self.medium = ConvBNAct(stage2.channels, 256)
            medium_channels = 256
            self.head = FCNHead(FUSED_CHANNELS, num_classes, channels=128, dropout=0.0)
        self.fusion24, self.fusion12 = (
            CascadeFeatureFusion(
                low, high, FUSED_CHANNELS, activation=not self.authors_form, align_corners=align_corners
            )
            for low, high in ((CONTEXT_CHANNELS, medium_channels), (FUSED_CHANNELS, 64))
        )
        self.aux_heads = nn.ModuleDict()
        if aux:
            for name, low in (("sub4", CONTEXT_CHANNELS), ("sub24", FUSED_CHANNELS)):
                self.aux_heads[name] = (
                    Classifier(low, num_classes)
                    if guidance == "input"
                    else FCNHead(FUSED_CHANNELS, num_classes, channels=128, dropout=0.1)
                )

    def forward(self, images: Tensor) -> SegOutput:
        resnet = self.backbone
        fine = self.fine(images)
        medium = resnet.layer1(resnet.stem_features(self._halve(images)))
        medium = resnet.layer2[: self.blocks_at_half](medium)
        coarse = resnet.layer2[self.blocks_at_half :](self._halve(medium))
        coarse = resnet.layer4(resnet.layer3(coarse))
        sub24, input4, refined4 = self.fusion24(self.context(coarse), self.medium(medium))
        sub124, input24, refined24 = self.fusion12(sub24, fine)
        logits = self.head([sub124])
        if self.authors_form:
            height, width = images.shape[-2:]
            logits = resize(logits, ((height + 3) // 4, (width + 3) // 4), align_corners=self.align_corners)
        maps = (
            {"sub4": input4, "sub24": input24} if self.guidance == "input" else {"sub4": refined4, "sub24": refined24}
        )
        aux = {name: head([maps[name]]) for name, head in self.aux_heads.items()} if self.training else {}
        return SegOutput(logits, aux)

    def _halve(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if self.mmseg_sizes:
            height, width = (cast(int, torch.sym_max(1, side - side % 2)) for side in (height, width))
            # by index: a slice makes torch.export ask whether its memory is in one piece, and fix the answer
            x = x.index_select(2, torch.arange(height, device=x.device))
            x = x.index_select(3, torch.arange(width, device=x.device))
        return resize(x, ((height + 1) // 2, (width + 1) // 2), align_corners=self.align_corners)


@MODELS.register
def icnet_r18(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    backbone_weights: str | None = None,
    stem: str = "deep",
    contract_dilation: bool = True,
    form: str = "mmsegmentation",
    guidance: str = "refined",
    mmseg_sizes: bool = False,
    align_corners: bool = False,
) -> SegModel:
    """ICNet with ResNet-18 at full width (arXiv 1704.08545; mmsegmentation's `icnet_r18-d8`).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/8),ceil(W/8)), with
    `form='authors'` (N,num_classes,ceil(H/4),ceil(W/4)). Auxiliary outputs with `aux=True`: 'sub4' (stride 16) and
    'sub24' (stride 8), weighted 0.16 and 0.4 in the paper, both 0.4 in mmsegmentation. `backbone_weights`: a file's
    path, or 'imagenet', which needs `stem='plain'`. Raises ValueError for an unknown stem, form or guidance, for
    'imagenet' with another stem, and for classes or channels below 1; CheckpointError for weights that do not fit.
    """
    backbone = resnet18(
        in_channels, output_stride=8, stem=stem, contract_dilation=contract_dilation, weights=backbone_weights
    )
    return ICNet(
        backbone,
        num_classes,
        in_channels=in_channels,
        aux=aux,
        form=form,
        guidance=guidance,
        mmseg_sizes=mmseg_sizes,
        align_corners=align_corners,
    )


@MODELS.register
def icnet_r50(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    backbone_weights: str | None = None,
    stem: str = "deep",
    contract_dilation: bool = True,
    form: str = "mmsegmentation",
    guidance: str = "refined",
    mmseg_sizes: bool = False,
    align_corners: bool = False,
) -> SegModel:
    """ICNet with ResNet-50 at full width (arXiv 1704.08545; mmsegmentation's `icnet_r50-d8`). As `icnet_r18`."""
    backbone = resnet50(
        in_channels, output_stride=8, stem=stem, contract_dilation=contract_dilation, weights=backbone_weights
    )
    return ICNet(
        backbone,
        num_classes,
        in_channels=in_channels,
        aux=aux,
        form=form,
        guidance=guidance,
        mmseg_sizes=mmseg_sizes,
        align_corners=align_corners,
    )


@MODELS.register
def icnet_r50_half(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    guidance: str = "input",
    align_corners: bool = True,
) -> SegModel:
    """ICNet with ResNet-50 at half width, the authors' network after pruning (arXiv 1704.08545).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/4),ceil(W/4)). Auxiliary
    outputs with `aux=True`: 'sub4' (stride 16) and 'sub24' (stride 8), weighted 0.16 and 0.4 in the paper.
    Raises ValueError for an unknown guidance, and for classes or channels below 1.
    """
    return ICNet(
        resnet50(in_channels, output_stride=8, stem="deep", width=0.5, contract_dilation=False),
        num_classes,
        in_channels=in_channels,
        aux=aux,
        form="authors",
        guidance=guidance,
        mmseg_sizes=False,
        align_corners=align_corners,
    )
