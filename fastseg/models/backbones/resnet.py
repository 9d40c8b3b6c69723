"""ResNet: He, Zhang, Ren, Sun, CVPR 2016, arXiv 1512.03385, in the forms that segmentation networks use.

State dict names are torchvision's (without its classifier `fc`), so its ImageNet weights load. Options:

- `output_stride` 16 or 8 exchanges the strides of the last one or two stages for dilation (DeepLab, PSPNet).
- `contract_dilation` gives the first block of a dilated stage half of its dilation, as torchvision, PyTorch-Encoding
  and mmsegmentation have it; False dilates all blocks alike, as PSPNet's authors do.
- `dilations` are those of the four stages, in place of the ones that `output_stride` calls for: (1, 1, 2, 4) at stride
  32 is mmsegmentation's backbone of FastFCN, whose stages keep their strides and are dilated all the same.
- `stem="deep"` is three 3x3 convolutions in place of the 7x7: 64, 64, 128 channels in PSPNet's code, 32, 32, 64 in
  mmsegmentation's V1c.
- `width` scales the stages (ICNet's half-width network).
- `preactivation` hands out the sum of a stage's last block before its ReLU (SwiftNet's skip connections).

The stride of a bottleneck stands in its 3x3 convolution (torchvision, "V1.5"). A dilated basic block dilates its first
convolution only, as in mmsegmentation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.layers.init import kaiming_convolutions
from fastseg.models.arguments import require_at_least
from fastseg.models.backbones.pretrained import IMAGENET, load_pretrained
from fastseg.models.registry import BACKBONES
from fastseg.types import Backbone, FeatureInfo

STAGE_WIDTHS = (64, 128, 256, 512)


class _Block(nn.Module):
    """A residual block: `preactivation` is the sum of both paths, `forward` its ReLU."""

    expansion: int

    def __init__(self, in_channels: int, channels: int, *, stride: int) -> None:
        super().__init__()
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels * self.expansion:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels * self.expansion, 1, stride, bias=False),
                nn.BatchNorm2d(channels * self.expansion),
            )

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def preactivation(self, x: Tensor) -> Tensor:
        return self.residual(x) + (x if self.downsample is None else self.downsample(x))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.preactivation(x), inplace=True)


class BasicBlock(_Block):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(in_channels, channels, stride=stride)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, dilation, dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def residual(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.bn2(self.conv2(x))


class Bottleneck(_Block):
    """1x1 reduction, 3x3 with the stride, 1x1 expansion to four times the width."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(in_channels, channels, stride=stride)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * self.expansion)

    def residual(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return self.bn3(self.conv3(x))


ARCHITECTURES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {  # table 1
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(Backbone):
    """ResNet without its classifier: images (N,C,H,W) -> four maps. The module's docstring explains the arguments.

    Networks that run the stages one by one (ICNet) call `stem_features` and `layer1` to `layer4` themselves.
    Raises ValueError for an argument out of its range, CheckpointError for weights that cannot be had or do not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        in_channels: int = 3,
        output_stride: int = 32,
        stem: str = "plain",
        stem_channels: int = 64,
        width: float = 1.0,
        contract_dilation: bool = True,
        dilations: Sequence[int] | None = None,
        preactivation: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride is {output_stride}; allowed: 8, 16, 32")
        if stem not in ("plain", "deep"):
            raise ValueError(f"stem is {stem!r}; allowed: 'plain' (one 7x7 convolution), 'deep' (three 3x3)")
        require_at_least(1, in_channels=in_channels)
        require_at_least(2 if stem == "deep" else 1, stem_channels=stem_channels)
        if dilations is not None and (len(dilations) != len(STAGE_WIDTHS) or min(dilations) < 1):
            raise ValueError(f"dilations are {tuple(dilations)}; give one of 1 or more for each of the four stages")
        if not STAGE_WIDTHS[0] * width >= 1:
            raise ValueError(f"width is {width}; give 1/{STAGE_WIDTHS[0]} or more, so that every stage has a channel")
        if weights == IMAGENET:
            _require_torchvisions_form(
                name, stem=stem, stem_channels=stem_channels, width=width, in_channels=in_channels
            )
        block, depths = ARCHITECTURES[name]
        self._returns_preactivation = preactivation
        self.conv1 = _stem(in_channels, stem_channels, deep=stem == "deep")
        self.bn1 = nn.BatchNorm2d(stem_channels)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels, stride, dilation = stem_channels, 4, 1
        stages, info = [], []
        for index, (depth, stage_width) in enumerate(zip(depths, STAGE_WIDTHS, strict=True)):
            step = 2 if index > 0 and stride < output_stride else 1
            stride *= step
            if dilations is not None:
                dilation = dilations[index]
            elif index > 0 and step == 1:
                dilation *= 2
            first_dilation = dilation // 2 if contract_dilation and dilation > 1 else dilation
            planes = int(stage_width * width)
            blocks = [block(channels, planes, stride=step, dilation=first_dilation)]
            channels = planes * block.expansion
            blocks += [block(channels, planes, dilation=dilation) for _ in range(depth - 1)]
            stages.append(nn.Sequential(*blocks))
            info.append(FeatureInfo(channels, stride))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.feature_info = tuple(info)
        kaiming_convolutions(self)
        if weights is not None:
            load_pretrained(self, name, weights)

    def stem_features(self, images: Tensor) -> Tensor:
        """Images (N,C,H,W) -> (N,stem_channels,ceil(H/4),ceil(W/4))."""
        return self.maxpool(F.relu(self.bn1(self.conv1(images)), inplace=True))

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stem_features(images)
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            if self._returns_preactivation:
                maps.append(stage[-1].preactivation(stage[:-1](x)))  # type: ignore[operator]
                x = F.relu(maps[-1])  # not in place: the map goes out as it is
            else:
                x = stage(x)
                maps.append(x)
        return maps


def _require_torchvisions_form(name: str, **given: object) -> None:
    needed = {"stem": "plain", "stem_channels": 64, "width": 1.0, "in_channels": 3}
    differing = [key for key, value in given.items() if value != needed[key]]
    if differing:
        clauses = [
            f"{key} is {given[key]!r}, {'they need' if i else 'the weights need'} {needed[key]!r}"
            for i, key in enumerate(differing)
        ]
        raise ValueError(
            f"weights 'imagenet' are torchvision's {name}, which has another form: {'; '.join(clauses)}. Change that, "
            "or give no weights, or a file with weights of this form"
        )


def _stem(in_channels: int, channels: int, *, deep: bool) -> nn.Module:
    if not deep:
        return nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
    return nn.Sequential(
        nn.Conv2d(in_channels, channels // 2, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels // 2),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels // 2, channels // 2, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels // 2),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels // 2, channels, 3, padding=1, bias=False),
    )


@BACKBONES.register
def resnet18(
    in_channels: int = 3,
    output_stride: int = 32,
    stem: str = "plain",
    stem_channels: int = 64,
    width: float = 1.0,
    contract_dilation: bool = True,
    dilations: Sequence[int] | None = None,
    preactivation: bool = False,
    weights: str | None = None,
) -> ResNet:
    """ResNet-18; maps of 64, 128, 256, 512 channels at strides 4, 8, 16, 32 (no more than `output_stride`)."""
    return ResNet(
        "resnet18",
        in_channels=in_channels,
        output_stride=output_stride,
        stem=stem,
        stem_channels=stem_channels,
        width=width,
        contract_dilation=contract_dilation,
        dilations=dilations,
        preactivation=preactivation,
        weights=weights,
    )


@BACKBONES.register
def resnet34(
    in_channels: int = 3,
    output_stride: int = 32,
    stem: str = "plain",
    stem_channels: int = 64,
    width: float = 1.0,
    contract_dilation: bool = True,
    dilations: Sequence[int] | None = None,
    preactivation: bool = False,
    weights: str | None = None,
) -> ResNet:
    """ResNet-34; maps of 64, 128, 256, 512 channels at strides 4, 8, 16, 32 (no more than `output_stride`)."""
    return ResNet(
        "resnet34",
        in_channels=in_channels,
        output_stride=output_stride,
        stem=stem,
        stem_channels=stem_channels,
        width=width,
        contract_dilation=contract_dilation,
        dilations=dilations,
        preactivation=preactivation,
        weights=weights,
    )


@BACKBONES.register
def resnet50(
    in_channels: int = 3,
    output_stride: int = 32,
    stem: str = "plain",
    stem_channels: int = 64,
    width: float = 1.0,
    contract_dilation: bool = True,
    dilations: Sequence[int] | None = None,
    preactivation: bool = False,
    weights: str | None = None,
) -> ResNet:
    """ResNet-50; maps of 256, 512, 1024, 2048 channels at strides 4, 8, 16, 32 (no more than `output_stride`)."""
    return ResNet(
        "resnet50",
        in_channels=in_channels,
        output_stride=output_stride,
        stem=stem,
        stem_channels=stem_channels,
        width=width,
        contract_dilation=contract_dilation,
        dilations=dilations,
        preactivation=preactivation,
        weights=weights,
    )


@BACKBONES.register
def resnet101(
    in_channels: int = 3,
    output_stride: int = 32,
    stem: str = "plain",
    stem_channels: int = 64,
    width: float = 1.0,
    contract_dilation: bool = True,
    dilations: Sequence[int] | None = None,
    preactivation: bool = False,
    weights: str | None = None,
) -> ResNet:
    """ResNet-101; maps of 256, 512, 1024, 2048 channels at strides 4, 8, 16, 32 (no more than `output_stride`)."""
    return ResNet(
        "resnet101",
        in_channels=in_channels,
        output_stride=output_stride,
        stem=stem,
        stem_channels=stem_channels,
        width=width,
        contract_dilation=contract_dilation,
        dilations=dilations,
        preactivation=preactivation,
        weights=weights,
    )
