"""Gated-SCNN: Takikawa, Acuna, Jampani, Fidler, ICCV 2019, arXiv 1907.05740.

Two streams. The regular one is a classification network at stride 8. The shape stream keeps the size of the image and
has few channels; gated convolutions, each told by a deeper map of the regular stream where to look, leave in it what
belongs to the edges between classes. Its edge map, together with an edge prior (Canny), is one more branch of an
atrous spatial pyramid, whose result is joined with a fine map of the regular stream.

Which maps of the regular stream go where:

| network                   | shape stream starts from   | gates                  | fine map                 |
|---------------------------|----------------------------|------------------------|--------------------------|
| `gscnn_wrn38` (authors')  | mod1, stride 1             | mod3, mod4, mod7       | mod2: logits at stride 2 |
| `gscnn_r50`, `gscnn_r101` | stem before its max pool   | layer2, layer3, layer4 | layer1: logits at 4      |

The paper's ablation has ResNets, of which it tells the maps of the gates (res3, res4, res5); start and fine map are
those of a public port, leftthomas/GatedSCNN. Our default stem is the plain one, for torchvision's ImageNet weights.

The edge prior is computed inside, by `fastseg.ops.canny`, on the image as it was before normalisation, whose mean and
standard deviation the model knows (`preprocessing`); so it exports. It carries no gradient. `edge_prior`, an argument
of `forward`, takes its place. The authors' code gives Canny the normalised image, cast to bytes that wrap around.

Deviations: strides round up at every size. `align_corners=True` is the authors' choice inside the network; theirs
resizes the logits to the image without, ours with: one option holds for all. Where the authors hand out
edge probabilities and put them through a sigmoid again in the loss, the auxiliary output here is logits.

Parameters at 19 classes, part by part. The shape stream has 103,016 (blocks 73,984, 18,560, 4,672; reductions 2,080,
528, 136; gated convolutions 2,248, 616, 184; classifier 8), the fusion of edges and prior 2, the gates' sides a weight
for each channel of their maps and a bias. ASPP, its edge branch, its 1x1 convolution, the fine map's and the head make
up the rest. WideResNet-38: 137,278,125, which is the authors' 137,278,190 but for a side on mod1 that they build
and never run (65). ResNet-50 40,523,949, ResNet-101 59,516,077; with `stem="deep"` 19,232 more, and then as many as
the port without its ImageNet classifier, 40,543,181 and 59,535,309. Multiply-adds at 512x1024: 419.4 G, 574.5 G (with
the deep stem 421.9 G, 577.0 G), WideResNet-38 1510.5 G.

Training needs a total batch of 2 or more: a batch norm of the pyramid sees one value per image.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.layers.aspp import ASPP
from fastseg.layers.conv import ConvBNAct
from fastseg.layers.resize import resize
from fastseg.models.arguments import require_at_least
from fastseg.models.backbones.resnet import BasicBlock, ResNet, resnet50, resnet101
from fastseg.models.backbones.wide_resnet import WideResNet, wide_resnet38
from fastseg.models.registry import MODELS
from fastseg.ops.canny import canny
from fastseg.ops.normalize import denormalize_images
from fastseg.types import SegModel, SegOutput

GATED_CHANNELS = (32, 16, 8)  # of the shape stream in its three gated convolutions
CONTEXT_CHANNELS = 256
FINE_CHANNELS = 48


class GatedConvolution(nn.Module):
    """1x1 convolution of a map whose pixels are weighted by 1 to 2, as the map itself and one channel more ask for.

    Shapes: map (N,C,H,W), side (N,1,H,W) -> (N,C,H,W). Source: section 3.1; norms and widths are the authors' code's.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.BatchNorm2d(channels + 1),
            nn.Conv2d(channels + 1, channels + 1, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels + 1, 1, 1),
            nn.BatchNorm2d(1),
            nn.Sigmoid(),
        )
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor, side: Tensor) -> Tensor:
        alpha = self.gate(torch.cat((x, side), 1))
        return self.conv(x * (alpha + 1))


class ShapeStream(nn.Module):
    """Edge logits at the size of the image, from an early map and three deeper ones (figure 2, lower half).

    `sides` first: it leaves one channel of each deeper map at its own size, so that the maps need not be kept.
    """

    def __init__(
        self, in_channels: int, side_channels: Sequence[int], edge_channels: int, *, align_corners: bool
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        widths = (in_channels, *GATED_CHANNELS)
        self.side_convs = nn.ModuleList(nn.Conv2d(channels, 1, 1) for channels in side_channels)
        self.blocks = nn.ModuleList(BasicBlock(width, width) for width in widths[:-1])
        self.reductions = nn.ModuleList(nn.Conv2d(*pair, 1) for pair in itertools.pairwise(widths))
        self.gated_convs = nn.ModuleList(GatedConvolution(width) for width in widths[1:])
        self.classifier = nn.Conv2d(widths[-1], edge_channels, 1, bias=False)

    def sides(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of the regular stream -> (N,1,h,w) of each."""
        return [conv(x) for conv, x in zip(self.side_convs, maps, strict=True)]

    def forward(self, start: Tensor, sides: Sequence[Tensor], *, like: Tensor) -> Tensor:
        """Early map (N,C,h,w), sides, images (N,C,H,W) -> edge logits (N,1 or K,H,W)."""
        x = resize(start, like=like, align_corners=self.align_corners)
        for block, reduce, gated, side in zip(self.blocks, self.reductions, self.gated_convs, sides, strict=True):
            x = reduce(block(x))
            x = gated(x, resize(side, like=x, align_corners=self.align_corners))
        return self.classifier(x)


class GatedSCNN(SegModel):
    """Gated-SCNN over a ResNet or WideResNet of output stride 8; logits at the stride of the fine map.

    The module's docstring tells which maps go where. With `aux=True` the edge logits (N,1,H,W) are the auxiliary output
    'edge', with `class_edges` (N,K,H,W). Raises ValueError for fewer classes than 1.
    """

    def __init__(
        self,
        backbone: ResNet | WideResNet,
        num_classes: int,
        *,
        aux: bool,
        class_edges: bool,
        align_corners: bool,
    ) -> None:
        super().__init__()
        require_at_least(1, num_classes=num_classes)
        self.num_classes = num_classes
        self.align_corners = align_corners
        self.backbone = backbone
        *_, fine, gate1, gate2, gate3 = (info.channels for info in backbone.feature_info)
        start = backbone.bn1.num_features if isinstance(backbone, ResNet) else backbone.feature_info[0].channels
        self.shape_stream = ShapeStream(
            start, (gate1, gate2, gate3), num_classes if class_edges else 1, align_corners=align_corners
        )
        self.edge_fusion = nn.Conv2d(2, 1, 1, bias=False)
        self.aspp = ASPP(gate3, CONTEXT_CHANNELS)
        self.edge_branch = ConvBNAct(1, CONTEXT_CHANNELS)
        self.context = nn.Conv2d(self.aspp.out_channels + CONTEXT_CHANNELS, CONTEXT_CHANNELS, 1, bias=False)
        self.fine = nn.Conv2d(fine, FINE_CHANNELS, 1, bias=False)
        self.head = nn.Sequential(
            ConvBNAct(FINE_CHANNELS + CONTEXT_CHANNELS, CONTEXT_CHANNELS, 3),
            ConvBNAct(CONTEXT_CHANNELS, CONTEXT_CHANNELS, 3),
            nn.Conv2d(CONTEXT_CHANNELS, num_classes, 1, bias=False),
        )
        self.aux_heads = nn.ModuleDict()
        if aux:
            self.aux_losses = {"edge": "edge_cross_entropy"}
            self.aux_heads["edge"] = nn.Identity()  # the map is there in any case

    def forward(self, images: Tensor, edge_prior: Tensor | None = None) -> SegOutput:
        """Normalised images (N,C,H,W) -> logits at the network's stride, and edge logits in training.

        `edge_prior` (N,1,H,W) in 0..1 is computed from the images unless given. Raises ValueError for another shape,
        and without it for images that have not three channels.
        """
        prior = self._edge_prior(images) if edge_prior is None else _checked(edge_prior, images)
        start, fine, gating = self._regular_stream(images)
        # what is wanted of the large maps, which at inference make room for the next ones then
        sides, fine, branches = self.shape_stream.sides(gating), self.fine(fine), self.aspp(gating[-1])
        del gating
        edge_logits = self.shape_stream(start, sides, like=images)
        del start
        edges = edge_logits.sigmoid().amax(1, keepdim=True)  # with `class_edges`, of any class
        edges = self.edge_fusion(torch.cat((edges, prior.to(edges.dtype)), 1)).sigmoid()
        edges = resize(edges, like=branches, align_corners=self.align_corners)
        context = self.context(torch.cat((branches, self.edge_branch(edges)), 1))
        logits = self.head(torch.cat((fine, resize(context, like=fine, align_corners=self.align_corners)), 1))
        aux = {name: head(edge_logits) for name, head in self.aux_heads.items()} if self.training else {}
        return SegOutput(logits, aux)

    def predict_edges(self, images: Tensor) -> Tensor:
        """Normalised images (N,C,H,W) -> probabilities (N,1,H,W), with `class_edges` (N,K,H,W), of being on an edge.

        The edge prior has no part in them: it joins behind the shape stream.
        """
        start, fine, gating = self._regular_stream(images)
        sides = self.shape_stream.sides(gating)
        del fine, gating  # of the full size, few can be alive at a time
        return self.shape_stream(start, sides, like=images).sigmoid()

    def _regular_stream(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The map that the shape stream starts from, the fine map, and the three of the gates."""
        backbone = self.backbone
        if isinstance(backbone, WideResNet):
            start, fine, *gating = backbone(images)
            return start, fine, gating
        start = F.relu(backbone.bn1(backbone.conv1(images)), inplace=True)
        fine = backbone.layer1(backbone.maxpool(start))
        gating, x = [], fine
        for stage in (backbone.layer2, backbone.layer3, backbone.layer4):
            x = stage(x)
            gating.append(x)
        return start, fine, gating

    def _edge_prior(self, images: Tensor) -> Tensor:
        """Canny edges (N,1,H,W) of the images as they were before normalisation."""
        if images.shape[1] != 3:
            raise ValueError(
                f"the edge prior is computed from images of 3 channels and these have {images.shape[1]}; give "
                "edge_prior (N,1,H,W), 0 to 1"
            )
        return canny(denormalize_images(images.detach(), self.preprocessing))


def _checked(edge_prior: Tensor, images: Tensor) -> Tensor:
    expected = (images.shape[0], 1, *images.shape[2:])
    if tuple(edge_prior.shape) != expected:
        raise ValueError(
            f"edge_prior has shape {tuple(edge_prior.shape)}; for these images it must be {expected}: one map of 0 "
            "to 1 for each image, at its size"
        )
    return edge_prior


@MODELS.register
def gscnn_r50(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    backbone_weights: str | None = None,
    class_edges: bool = False,
    stem: str = "plain",
    contract_dilation: bool = True,
    align_corners: bool = True,
) -> SegModel:
    """Gated-SCNN with ResNet-50 (arXiv 1907.05740; regular stream of its ablation).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/4),ceil(W/4)). The model
    takes a second input, `edge_prior` (N,1,H,W) in 0..1, which it computes itself for images of three channels.
    Auxiliary output with `aux=True`: 'edge', logits (N,1,H,W) of being on an edge between classes, weighted 20 by the
    authors; with `class_edges` (N,num_classes,H,W), the edges of each class. `backbone_weights`: a file's path, or
    'imagenet', which needs `stem='plain'`; 'deep' is three 3x3 convolutions of 32, 32 and 64 channels.
    `contract_dilation` halves the dilation of the first block of a dilated stage, as torchvision does. `align_corners`
    holds for every resize inside and for that of the logits to the image; True is the authors' choice inside.
    Raises ValueError for an unknown stem, for 'imagenet' with another stem, and for classes or channels below 1;
    CheckpointError for weights that cannot be had or do not fit.
    """
    backbone = resnet50(
        in_channels, output_stride=8, stem=stem, contract_dilation=contract_dilation, weights=backbone_weights
    )
    return GatedSCNN(backbone, num_classes, aux=aux, class_edges=class_edges, align_corners=align_corners)


@MODELS.register
def gscnn_r101(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    backbone_weights: str | None = None,
    class_edges: bool = False,
    stem: str = "plain",
    contract_dilation: bool = True,
    align_corners: bool = True,
) -> SegModel:
    """Gated-SCNN with ResNet-101 (arXiv 1907.05740; regular stream of its ablation).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/4),ceil(W/4)). Auxiliary
    output with `aux=True`: 'edge', logits (N,1,H,W), with `class_edges` (N,num_classes,H,W). The input `edge_prior`,
    options, weights and errors are explained at `gscnn_r50`.
    """
    backbone = resnet101(
        in_channels, output_stride=8, stem=stem, contract_dilation=contract_dilation, weights=backbone_weights
    )
    return GatedSCNN(backbone, num_classes, aux=aux, class_edges=class_edges, align_corners=align_corners)


@MODELS.register
def gscnn_wrn38(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    backbone_weights: str | None = None,
    class_edges: bool = False,
    width: float = 1.0,
    align_corners: bool = True,
) -> SegModel:
    """Gated-SCNN with WideResNet-38, the authors' network (arXiv 1907.05740).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/2),ceil(W/2)). Further
    input and auxiliary output as `gscnn_r50`. `backbone_weights` is the path of a file; `width` scales the channels of
    the regular stream. Raises ValueError for classes or channels below 1 and for a width that leaves a module without
    channels; CheckpointError for weights that cannot be had or do not fit.
    """
    backbone = wide_resnet38(in_channels, output_stride=8, width=width, weights=backbone_weights)
    return GatedSCNN(backbone, num_classes, aux=aux, class_edges=class_edges, align_corners=align_corners)
