"""ESPNet: Mehta, Rastegari, Caspi, Shapiro, Hajishirzi, ECCV 2018, arXiv 1803.06815.

ESP blocks reduce a map by a 1x1 convolution, look at it through parallel dilated 3x3 convolutions and add their
results up step by step before they are concatenated. ESPNet-C (figure 4c) is the encoder with a classifier at stride
8; ESPNet (figure 4d) adds a decoder of learned 2x2 upsamplings, which ends at the size of the image.

From the authors' code (github.com/sacmehta/ESPNet, MIT), where the paper is silent: batch norm with eps 0.001 and one
PReLU slope per channel, no norm inside a block; the image enters again at strides 2 and 4 by 3x3 average pooling; the
decoder's blocks have no identity connection. One choice is open, and an argument decides:

- `skip_channels=16`: the decoder's last fusion takes the output of the first convolution, as in `test/Model.py` and in
  the authors' weights for Cityscapes; 19 takes it after the image is concatenated and normalised, as in
  `train/Model.py` and in their weights for CamVid.

Deviations: each upsampling is cut to the size of the map it meets, so that any height and width from 1 up works; where
both are divisible by 8, nothing is cut and the network is the authors'. A block of fewer than five channels, which the
decoder has below five classes, leaves out the branches that would be empty.

Parameters at 19 classes: 201,029 (p=2, q=3), 362,949 (p=2, q=8); at 20 classes, the authors' count for Cityscapes with
its background: 202,649 (q=3), 267,417 (q=5), 364,569 (q=8), and ESPNet-C 187,529, 252,297, 349,449.
"""

from __future__ import annotations

from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.models.arguments import require_at_least
from fastseg.models.registry import MODELS
from fastseg.types import SegModel, SegOutput

DILATIONS = (1, 2, 4, 8, 16)
LEVEL1_CHANNELS = 16
_NORM_EPS = 1e-3


class NormAct(nn.Sequential):
    """Batch norm and PReLU with a slope per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=_NORM_EPS)
        self.act = nn.PReLU(channels)


class ConvNormAct(nn.Sequential):
    """3x3 convolution without bias, batch norm, PReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=_NORM_EPS)
        self.act = nn.PReLU(out_channels)


class ESPBlock(nn.Module):
    """Efficient spatial pyramid (figure 1): reduce, split, transform, merge.

    `stride=2` reduces by a 3x3 convolution and halves the map (rounding up); `residual` adds the input.
    Shapes: (N,in,h,w) -> (N,out,ceil(h/stride),ceil(w/stride)).
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        width = max(1, out_channels // len(DILATIONS))
        dilated = min(len(DILATIONS) - 1, out_channels - 1)
        widths = (out_channels - dilated * width, *[width] * dilated)  # the undilated branch takes the rest
        kernel_size = 1 if stride == 1 else 3
        self.reduce = nn.Conv2d(in_channels, width, kernel_size, stride, padding=kernel_size // 2, bias=False)
        self.branches = nn.ModuleList(
            nn.Conv2d(width, channels, 3, padding=dilation, dilation=dilation, bias=False)
            for channels, dilation in zip(widths, DILATIONS, strict=False)
        )
        self.norm = NormAct(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        undilated, *dilated = [branch(reduced) for branch in self.branches]
        merged = torch.cat([undilated, *accumulate(dilated)], 1)  # sums of all smaller dilations, against gridding
        return self.norm(x + merged if self.residual else merged)


class ESPNetEncoder(nn.Module):
    """Images (N,in,H,W) -> the maps `level1`, `level1_image` (stride 2), `level2` (4) and logits (N,K,h,w) at stride 8.

    `p` and `q` are the numbers of blocks at strides 4 and 8.
    """

    def __init__(self, num_classes: int, *, in_channels: int, p: int, q: int) -> None:
        super().__init__()
        require_at_least(1, num_classes=num_classes, in_channels=in_channels, p=p, q=q)
        level1_image, level2, level3 = LEVEL1_CHANNELS + in_channels, 64, 128
        self.level2_channels = 2 * level2 + in_channels
        self.image_pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.level1 = ConvNormAct(in_channels, LEVEL1_CHANNELS, stride=2)
        self.level1_norm = NormAct(level1_image)
        self.level2_down = ESPBlock(level1_image, level2, stride=2)
        self.level2 = nn.Sequential(*(ESPBlock(level2, level2, residual=True) for _ in range(p)))
        self.level2_norm = NormAct(self.level2_channels)
        self.level3_down = ESPBlock(self.level2_channels, level3, stride=2)
        self.level3 = nn.Sequential(*(ESPBlock(level3, level3, residual=True) for _ in range(q)))
        self.level3_norm = NormAct(2 * level3)
        self.classifier = nn.Conv2d(2 * level3, num_classes, 1, bias=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        image_half = self.image_pool(images)
        image_quarter = self.image_pool(image_half)
        level1 = self.level1(images)
        level1_image = self.level1_norm(torch.cat([level1, image_half], 1))
        down = self.level2_down(level1_image)
        level2 = self.level2_norm(torch.cat([self.level2(down), down, image_quarter], 1))
        down = self.level3_down(level2)
        level3 = self.level3_norm(torch.cat([down, self.level3(down)], 1))
        return level1, level1_image, level2, self.classifier(level3)


class ESPNetC(SegModel):
    """ESPNet-C: the encoder alone; logits at stride 8. See `espnet_c` for the arguments."""

    def __init__(self, num_classes: int, *, in_channels: int, p: int, q: int, align_corners: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.align_corners = align_corners
        self.aux_heads = nn.ModuleDict()
        self.encoder = ESPNetEncoder(num_classes, in_channels=in_channels, p=p, q=q)

    def forward(self, images: Tensor) -> SegOutput:
        *_, logits = self.encoder(images)
        return SegOutput(logits, {})


class ESPNet(SegModel):
    """ESPNet: encoder and light decoder; logits at the image's size. See `espnet` for the arguments."""

    def __init__(self, num_classes: int, *, in_channels: int, p: int, q: int, skip_channels: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.aux_heads = nn.ModuleDict()
        self.skip_with_image = skip_channels != LEVEL1_CHANNELS
        self.encoder = ESPNetEncoder(num_classes, in_channels=in_channels, p=p, q=q)
        self.level3_norm = nn.BatchNorm2d(num_classes, eps=_NORM_EPS)
        self.level3_up = _upsample(num_classes)
        self.level2_project = nn.Conv2d(self.encoder.level2_channels, num_classes, 1, bias=False)
        self.level2_norm = NormAct(2 * num_classes)
        self.level2_fuse = ESPBlock(2 * num_classes, num_classes)
        self.level2_up = _upsample(num_classes)
        self.level2_up_norm = NormAct(num_classes)
        self.level1_fuse = ConvNormAct(num_classes + skip_channels, num_classes)
        self.classifier = _upsample(num_classes)

    def forward(self, images: Tensor) -> SegOutput:
        level1, level1_image, level2, logits = self.encoder(images)
        x = _cut(self.level3_up(self.level3_norm(logits)), like=level2)
        x = self.level2_fuse(self.level2_norm(torch.cat([self.level2_project(level2), x], 1)))
        x = _cut(self.level2_up_norm(self.level2_up(x)), like=level1)
        x = self.level1_fuse(torch.cat([x, level1_image if self.skip_with_image else level1], 1))
        return SegOutput(_cut(self.classifier(x), like=images), {})


def _upsample(channels: int) -> nn.ConvTranspose2d:
    """Twice the size, learned: every pixel becomes 2x2."""
    return nn.ConvTranspose2d(channels, channels, 2, stride=2, bias=False)


def _cut(x: Tensor, *, like: Tensor) -> Tensor:
    """Without the last row or column where the finer map has an odd size. Strides round up, so there is no gap."""
    height, width = like.shape[-2:]
    if torch.compiler.is_exporting():
        # a view's strides would tie the exported program to sizes of which nothing is cut; padding by -1 copies
        return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
    return x[..., :height, :width]


@MODELS.register
def espnet_c(
    num_classes: int = 19, in_channels: int = 3, p: int = 2, q: int = 8, align_corners: bool = True
) -> SegModel:
    """ESPNet-C, ESPNet's encoder with a classifier (arXiv 1803.06815, figure 4c); p and q are its depths.

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/8),ceil(W/8)).
    `align_corners` is True by default: so did PyTorch enlarge when the authors' code was written. Raises ValueError for
    p or q below 1.
    """
    return ESPNetC(num_classes, in_channels=in_channels, p=p, q=q, align_corners=align_corners)


@MODELS.register
def espnet(
    num_classes: int = 19, in_channels: int = 3, p: int = 2, q: int = 8, skip_channels: int = LEVEL1_CHANNELS
) -> SegModel:
    """ESPNet (arXiv 1803.06815, figure 4d); p and q are the depths of its encoder at strides 4 and 8.

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,H,W). The encoder's tensors have
    the names of `espnet_c`, which the authors train first. `skip_channels` is 16, or 16 + in_channels (19) with the
    image. Raises ValueError for any other, and for p or q below 1.
    """
    with_image = LEVEL1_CHANNELS + in_channels
    if skip_channels not in (LEVEL1_CHANNELS, with_image):
        raise ValueError(
            f"skip_channels is {skip_channels}; allowed: {LEVEL1_CHANNELS} (first convolution, authors' test/Model.py) "
            f"or {with_image} (with the image, train/Model.py)"
        )
    return ESPNet(num_classes, in_channels=in_channels, p=p, q=q, skip_channels=skip_channels)
