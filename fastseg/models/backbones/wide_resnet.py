"""WideResNet-38: Wu, Shen, van den Hengel, "Wider or Deeper", arXiv 1611.10080, model A2, as Gated-SCNN uses it.

Pre-activation residual units in seven modules, named as in the published code. With output stride 8:

| module   | units, channels                               | stride | dilation | dropout |
|----------|-----------------------------------------------|--------|----------|---------|
| mod1     | one 3x3 convolution, 64                       | 1      |          |         |
| mod2     | max pool; 3 of 3x3, 3x3: 128, 128             | 2      | 1        |         |
| mod3     | max pool; 3 of 3x3, 3x3: 256, 256             | 4      | 1        |         |
| mod4     | 6 of 3x3, 3x3: 512, 512; the first strided    | 8      | 1        |         |
| mod5     | 3 of 3x3, 3x3: 512, 1024                      | 8      | 2        |         |
| mod6     | 1 of 1x1, 3x3, 1x1: 512, 1024, 2048           | 8      | 4        | 0.3     |
| mod7     | 1 of 1x1, 3x3, 1x1: 1024, 2048, 4096          | 8      | 4        | 0.5     |

A unit adds its path to the map that it gets, or, where channels or stride change, to a 1x1 projection of that map's
activation, which both share. All 3x3 convolutions of a module are dilated alike, and dropout leaves out whole channels
before a path's last convolution: so in the form of in-place ABN's authors (mapillary/inplace_abn, BSD-3-Clause). Both
that form and the paper's end with a norm, ReLU and a classifier, which Gated-SCNN leaves out: its official network has
137,278,190 parameters, and they add up without that norm.

Weights are drawn as for ResNet; there are none to load by name, only from a file.

Parameters: 105,062,720; 1042 GMAC at 512x1024 (590 at output stride 16, 517 at 32).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.layers.init import kaiming_convolutions
from fastseg.models.arguments import require_at_least
from fastseg.models.backbones.pretrained import IMAGENET, load_pretrained
from fastseg.models.registry import BACKBONES
from fastseg.types import Backbone, FeatureInfo

STEM_CHANNELS = 64


class Stage(NamedTuple):
    """Equal units in a row: see `ResidualUnit` for `channels`."""

    units: int
    channels: tuple[int, ...]
    dropout: float = 0.0


STAGES = {  # by module; mod1 is one convolution
    2: Stage(3, (128, 128)),
    3: Stage(3, (256, 256)),
    4: Stage(6, (512, 512)),
    5: Stage(3, (512, 1024)),
    6: Stage(1, (512, 1024, 2048), 0.3),
    7: Stage(1, (1024, 2048, 4096), 0.5),
}
POOLED = (2, 3)  # a max pool halves the map before these modules; from mod4 on, the first convolution's stride does
KEPT = 7  # mod7 keeps the size of mod6 in every form


class PointwiseConv(nn.Conv2d):
    """1x1 convolution without bias of every `step`-th row and column.

    In two steps instead of by the convolution's stride, for the reason that `ConvBNAct` states.
    """

    def __init__(self, in_channels: int, out_channels: int, *, step: int = 1) -> None:
        super().__init__(in_channels, out_channels, 1, bias=False)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[..., :: self.step, :: self.step])


class ResidualUnit(nn.Module):
    """Norm, ReLU, convolution, two or three times, plus the shortcut; nothing follows the sum.

    Two `channels` make two 3x3 convolutions, three make a bottleneck: 1x1, 3x3, 1x1. The first convolution has the
    stride. (N,in,h,w) -> (N,channels[-1],ceil(h/stride),ceil(w/stride)).
    """

    def __init__(
        self, in_channels: int, channels: Sequence[int], *, stride: int = 1, dilation: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        first, second, *third = channels
        self.projection: nn.Module | None = None
        if stride != 1 or in_channels != channels[-1]:
            self.projection = PointwiseConv(in_channels, channels[-1], step=stride)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1: nn.Module
        if third:
            self.conv1 = PointwiseConv(in_channels, first, step=stride)
        else:
            self.conv1 = nn.Conv2d(in_channels, first, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, 1, dilation, dilation, bias=False)
        self.bn3 = nn.BatchNorm2d(second) if third else None
        self.conv3 = PointwiseConv(second, *third) if third else None
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor) -> Tensor:
        # one name for all maps of the path, so that each is freed as soon as the next one is there; in place are only
        # ReLUs of a norm's output and the sum into a convolution's, never the map given, which may be handed out
        path = F.relu(self.bn1(x), inplace=True)
        shortcut = x if self.projection is None else self.projection(path)
        path = self.conv1(path)
        path = F.relu(self.bn2(path), inplace=True)
        if self.bn3 is not None and self.conv3 is not None:
            path = self.conv2(path)
            path = F.relu(self.bn3(path), inplace=True)
            path = self.conv3(self.dropout(path))
        else:
            path = self.conv2(self.dropout(path))
        return path.add_(shortcut)


class WideResNet(Backbone):
    """WideResNet-38 (A2) without its last norm and classifier: images (N,C,H,W) -> maps of mod1, 2, 3, 4 and 7.

    Every map is a sum (mod1: a convolution) before any norm or ReLU. `output_stride` 32 and 16 put strides into mod5
    and mod6, or mod5 alone, in place of the dilation; `width` scales all channels. State dict names: `mod1.weight`,
    then `mod<m>.<unit>.` followed by bn1, conv1, bn2, conv2, bn3, conv3 and projection.
    Raises ValueError for an argument out of its range, CheckpointError for weights that do not fit.
    """

    def __init__(
        self, *, in_channels: int = 3, output_stride: int = 8, width: float = 1.0, weights: str | None = None
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is {output_stride}; allowed: 8, 16, 32")
        require_at_least(1, in_channels=in_channels)
        if not STEM_CHANNELS * width >= 1:
            raise ValueError(f"width is {width}; give 1/{STEM_CHANNELS} or more, so that every module has a channel")
        if weights == IMAGENET:
            raise ValueError(
                "weights 'imagenet' are torchvision's, which has no WideResNet-38; give the path of a .safetensors or "
                ".pth file, or no weights"
            )

        channels, stride, dilation = int(STEM_CHANNELS * width), 1, 1
        self.mod1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        info, modules = {1: FeatureInfo(channels, stride)}, []
        for index, stage in STAGES.items():
            step = 1
            if index != KEPT and stride < output_stride:
                stride *= 2
                step = 1 if index in POOLED else 2
            elif index != KEPT:
                dilation *= 2
            planes = [int(planes * width) for planes in stage.channels]
            units = []
            for position in range(stage.units):
                first = step if position == 0 else 1
                units.append(ResidualUnit(channels, planes, stride=first, dilation=dilation, dropout=stage.dropout))
                channels = planes[-1]
            modules.append(nn.Sequential(*units))
            info[index] = FeatureInfo(channels, stride)
        self.pool2 = nn.MaxPool2d(3, stride=2, padding=1)
        self.pool3 = nn.MaxPool2d(3, stride=2, padding=1)
        self.mod2, self.mod3, self.mod4, self.mod5, self.mod6, self.mod7 = modules
        self.feature_info = tuple(info[index] for index in (1, 2, 3, 4, 7))
        kaiming_convolutions(self)
        if weights is not None:
            load_pretrained(self, "wide_resnet38", weights)

    def forward(self, images: Tensor) -> list[Tensor]:
        mod1 = self.mod1(images)
        mod2 = self.mod2(self.pool2(mod1))
        mod3 = self.mod3(self.pool3(mod2))
        mod4 = self.mod4(mod3)
        mod7 = self.mod7(self.mod6(self.mod5(mod4)))
        return [mod1, mod2, mod3, mod4, mod7]


@BACKBONES.register
def wide_resnet38(
    in_channels: int = 3, output_stride: int = 8, width: float = 1.0, weights: str | None = None
) -> WideResNet:
    """WideResNet-38 (A2); maps of 64, 128, 256, 512, 4096 channels at strides 1, 2, 4, 8 and `output_stride`.

    `width` scales the channels, such as 0.125; `weights` is the path of a file, for none are published by name.
    """
    return WideResNet(in_channels=in_channels, output_stride=output_stride, width=width, weights=weights)
