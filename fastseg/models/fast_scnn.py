"""Fast-SCNN: Poudel, Liwicki, Cipolla, BMVC 2019, arXiv 1902.04502.

A learning-to-downsample stem shared by two branches: its stride-8 map is the detail branch, and inverted residuals
with pyramid pooling at stride 32 are the context branch; one fusion, one light classifier at stride 8 (table 1).

Where the paper is silent or implementations differ, an argument decides:

- `pyramid_fuse_kernel=1`: 1x1 fusion after the pyramid (1.14 M parameters, next to the paper's 1.11 M); 3 adds
  262,144 weights, the form of mmsegmentation.
- `fusion_dilation=4`: dilation of the fusion's depthwise convolution as in the paper's table 3; 1 is the form of
  Tramac's and mmsegmentation's code. Parameters are the same.
- `fusion_bias=True`: the fusion's two 1x1 convolutions have a bias before their norm (Tramac's form); False drops
  these 256 parameters (mmsegmentation's).
- `stem_activation=False`: no ReLU between depthwise and pointwise convolution in the stem, as the paper's text has it;
  True is Tramac's form.
- `classifier_activation=True`: the same ReLU in the classifier (Tramac's form); False is mmsegmentation's.

mmsegmentation's `fast_scnn` is `fast_scnn(pyramid_fuse_kernel=3, fusion_dilation=1, fusion_bias=False,
classifier_activation=False)`.

Deviations: strides round up at every size (padding 1 everywhere, resizing to the finer map), so any height and width
from 1 up works. `align_corners` (False by default, True in Tramac's code) holds for the pyramid, the fusion and the
final upsampling.

Parameters: 1,138,051 at 19 classes without auxiliary heads, with the defaults and with either `fusion_dilation` and
`stem_activation` (Tramac's topology, count for count: the two 1x1 convolutions of the fusion keep their bias);
1,400,195 with `pyramid_fuse_kernel=3`; 1,399,939 in mmsegmentation's form; the auxiliary heads add 56,678.
"""

from __future__ import annotations

from torch import Tensor, nn

from fastseg.layers.conv import ConvBNAct, DepthwiseSeparableConv
from fastseg.layers.pyramid_pooling import PyramidPooling
from fastseg.layers.separable import InvertedResidual, SeparableFeatureFusion
from fastseg.models.arguments import require_at_least
from fastseg.models.heads.fcn import FCNHead
from fastseg.models.registry import MODELS
from fastseg.types import SegModel, SegOutput


class LearningToDownsample(nn.Sequential):
    """Images (N,C,H,W) -> shallow features (N,64,ceil(H/8),ceil(W/8))."""

    def __init__(self, in_channels: int, *, depthwise_activation: bool) -> None:
        super().__init__()
        self.conv = ConvBNAct(in_channels, 32, 3, stride=2)
        self.dsconv1 = DepthwiseSeparableConv(32, 48, stride=2, depthwise_activation=depthwise_activation)
        self.dsconv2 = DepthwiseSeparableConv(48, 64, stride=2, depthwise_activation=depthwise_activation)


def _stage(in_channels: int, out_channels: int, *, stride: int, blocks: int = 3) -> nn.Sequential:
    first = InvertedResidual(in_channels, out_channels, stride=stride)
    rest = [InvertedResidual(out_channels, out_channels, stride=1) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)


class GlobalFeatureExtractor(nn.Sequential):
    """Features at stride 8 (N,64,h,w) -> context at stride 32 (N,128,ceil(h/4),ceil(w/4)). Table 1: t=6, n=3."""

    def __init__(self, *, pyramid_fuse_kernel: int, align_corners: bool) -> None:
        super().__init__()
        self.bottleneck1 = _stage(64, 64, stride=2)
        self.bottleneck2 = _stage(64, 96, stride=2)
        self.bottleneck3 = _stage(96, 128, stride=1)
        self.pyramid = PyramidPooling(128, 128, fuse_kernel_size=pyramid_fuse_kernel, align_corners=align_corners)


class Classifier(nn.Sequential):
    """Two separable convolutions, dropout, 1x1 classifier: (N,128,h,w) -> logits (N,K,h,w)."""

    def __init__(self, num_classes: int, *, depthwise_activation: bool, dropout: float) -> None:
        super().__init__()
        self.dsconv1 = DepthwiseSeparableConv(128, 128, depthwise_activation=depthwise_activation)
        self.dsconv2 = DepthwiseSeparableConv(128, 128, depthwise_activation=depthwise_activation)
        self.dropout = nn.Dropout(dropout)
        self.conv = nn.Conv2d(128, num_classes, 1)


class FastSCNN(SegModel):
    """Fast-SCNN; logits at stride 8. See `fast_scnn` for the arguments."""

    def __init__(
        self,
        num_classes: int,
        *,
        in_channels: int,
        aux: bool,
        pyramid_fuse_kernel: int,
        fusion_dilation: int,
        stem_activation: bool,
        fusion_bias: bool,
        classifier_activation: bool,
        dropout: float,
        align_corners: bool,
    ) -> None:
        super().__init__()
        require_at_least(1, num_classes=num_classes, in_channels=in_channels)
        self.num_classes = num_classes
        self.align_corners = align_corners
        self.learning_to_downsample = LearningToDownsample(in_channels, depthwise_activation=stem_activation)
        self.global_feature_extractor = GlobalFeatureExtractor(
            pyramid_fuse_kernel=pyramid_fuse_kernel, align_corners=align_corners
        )
        self.feature_fusion = SeparableFeatureFusion(
            64, 128, 128, dilation=fusion_dilation, bias=fusion_bias, align_corners=align_corners
        )
        self.classifier = Classifier(num_classes, depthwise_activation=classifier_activation, dropout=dropout)
        self.aux_heads = nn.ModuleDict()
        if aux:
            self.aux_heads["detail"] = FCNHead(64, num_classes, channels=32, dropout=dropout)
            self.aux_heads["context"] = FCNHead(128, num_classes, channels=32, dropout=dropout)

    def forward(self, images: Tensor) -> SegOutput:
        detail = self.learning_to_downsample(images)
        context = self.global_feature_extractor(detail)
        logits = self.classifier(self.feature_fusion(detail, context))
        maps = {"detail": detail, "context": context}
        aux = {name: head([maps[name]]) for name, head in self.aux_heads.items()} if self.training else {}
        return SegOutput(logits, aux)


@MODELS.register
def fast_scnn(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    pyramid_fuse_kernel: int = 1,
    fusion_dilation: int = 4,
    stem_activation: bool = False,
    dropout: float = 0.1,
    align_corners: bool = False,
    fusion_bias: bool = True,
    classifier_activation: bool = True,
) -> SegModel:
    """Fast-SCNN (arXiv 1902.04502, tables 1 and 3).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/8),ceil(W/8)).
    Auxiliary outputs with `aux=True`: 'detail' (stride 8, after learning-to-downsample) and 'context' (stride 32,
    after the pyramid), both weighted 0.4 in the usual recipes.
    """
    if pyramid_fuse_kernel not in (1, 3):
        raise ValueError(f"pyramid_fuse_kernel is {pyramid_fuse_kernel}; allowed: 1 (paper, Tramac) or 3 (mmseg)")
    return FastSCNN(
        num_classes,
        in_channels=in_channels,
        aux=aux,
        pyramid_fuse_kernel=pyramid_fuse_kernel,
        fusion_dilation=fusion_dilation,
        stem_activation=stem_activation,
        fusion_bias=fusion_bias,
        classifier_activation=classifier_activation,
        dropout=dropout,
        align_corners=align_corners,
    )
