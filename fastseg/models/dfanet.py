"""DFANet: Li, Xiong, Fan, Sun, CVPR 2019, arXiv 1904.02216.

Three light Xceptions in series. Sub-network aggregation: the attended output of one, upsampled fourfold and joined with
its finest map, feeds the next. Sub-stage aggregation: every further stage of the next reads its predecessor's map
joined with the same stage's map of the network before. The decoder adds the finest maps of all three, then their
outputs, at stride 4.

The authors published no code. Stages and channels are those of section 3.3; layer details that it leaves open follow
the public implementation in Tramac/awesome-semantic-segmentation-pytorch (Apache-2.0), with these open choices:

- `stride_position="last"`: which separable convolution of a block halves the map (see `backbones/xception.py`).
- `preactivation=True`: ReLU before each separable convolution (Chollet's Xception, Tramac's code) or after each and
  after the sum. Through 42 blocks in series, errors grow less with it: at random weights, rounding in float32 reaches
  about 0.1 % of the logits with True, 0.5 % with False.
- `attention_activation="sigmoid"`: the fully connected attention is the mean over the map, a linear layer to ImageNet's
  1000 classes, 1x1 convolution, batch norm, and this; the paper names none. 'relu' is Tramac's; three unbounded gates
  in series can blow up on images unlike those that the norms have seen.
- `decoder_channels=32`: the decoder's 1x1 convolutions.

Deviations: everything is resized to the finer map, so any size works, although the second and third network reach
strides 32 and 64; logits stay at stride 4. The attention's batch norm sees one value per image and channel: training
needs a total batch of 2 or more. `align_corners` is False by default and holds for every resize.

Parameters at 19 classes: A 1,831,051, of which 1,156,152 are the three attentions; B 1,099,883. (Published: 7.8 M and
4.8 M, near their sizes in megabytes as float32.) Multiply-adds at 1024x1024 and 512x1024: A 3.67 and 1.83 G, with
`stride_position="first"` 2.88 and 1.44 G, where the paper says 3.4 and 1.7; B 1.93 and 0.97 G, "first" 1.52 and 0.76 G,
where the paper says 2.1 at 1024x1024.

Do not expect the published accuracy. The paper has 71.3 mIoU on Cityscapes' test set (A, 1024x1024) and 70.3 at
512x1024, from a backbone pretrained on ImageNet, whose weights are not public. Reproductions stay far below:
65.28 on the validation set (zh320/realtime-semantic-segmentation-pytorch), 59.1 (LikeLy-Journey/SegmenTron, issue 37),
53.8 (Tramac/awesome-semantic-segmentation-pytorch, issue 33), about 40 to 51 (huaifeng1993/DFANet, issue 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastseg.layers.conv import ConvBNAct
from fastseg.layers.resize import resize
from fastseg.models.arguments import require_at_least
from fastseg.models.backbones.xception import Xception, xception_a, xception_b, xception_stages
from fastseg.models.registry import MODELS
from fastseg.types import SegModel, SegOutput

IMAGENET_CLASSES = 1000
ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}


class AggregatedXception(nn.Module):
    """A further Xception: the previous one's maps and attended output -> enc2, enc3, enc4 at half the size each.

    `channels` are those of enc2, enc3, enc4, of this network and the one before.
    """

    def __init__(
        self, channels: Sequence[int], *, stride_position: str, preactivation: bool, align_corners: bool
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        enc2, enc3, enc4 = channels
        in_channels = (enc2 + enc4, enc3 + enc2, enc4 + enc3)
        self.enc2, self.enc3, self.enc4 = xception_stages(
            in_channels, channels, stride_position=stride_position, preactivation=preactivation
        )

    def forward(self, previous: Sequence[Tensor], attended: Tensor) -> list[Tensor]:
        previous2, previous3, previous4 = previous
        upsampled = resize(attended, like=previous2, align_corners=self.align_corners)
        enc2 = self.enc2(torch.cat((previous2, upsampled), 1))
        enc3 = self.enc3(torch.cat((previous3, enc2), 1))
        enc4 = self.enc4(torch.cat((previous4, enc3), 1))
        return [enc2, enc3, enc4]


class FullyConnectedAttention(nn.Module):
    """Weigh channels by what the whole map would be classified as (section 3.3). Shapes: (N,C,h,w) -> (N,C,h,w)."""

    def __init__(self, channels: int, *, activation: str) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"attention_activation is {activation!r}; allowed: {', '.join(map(repr, ACTIVATIONS))}")
        self.fc = nn.Linear(channels, IMAGENET_CLASSES)
        self.conv = ConvBNAct(IMAGENET_CLASSES, channels, activation=False)
        self.act = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        classes = self.fc(x.mean((2, 3)))
        return x * self.act(self.conv(classes[:, :, None, None]))


class Decoder(nn.Module):
    """Finest maps and attended outputs of all networks -> logits at the size of the finest map of all (section 3.3)."""

    def __init__(
        self, detail_channels: int, output_channels: int, num_classes: int, *, channels: int, align_corners: bool
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.details = nn.ModuleList(ConvBNAct(detail_channels, channels) for _ in range(3))
        self.outputs = nn.ModuleList(ConvBNAct(output_channels, channels) for _ in range(3))
        self.fuse = ConvBNAct(channels, channels)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, details: Sequence[Tensor], outputs: Sequence[Tensor]) -> Tensor:
        fused = self.fuse(self._sum(self.details, details, like=details[0]))
        return self.classifier(fused + self._sum(self.outputs, outputs, like=details[0]))

    def _sum(self, reductions: nn.ModuleList, maps: Sequence[Tensor], like: Tensor) -> Tensor:
        reduced = (reduce(x) for reduce, x in zip(reductions, maps, strict=True))
        one, two, three = (resize(x, like=like, align_corners=self.align_corners) for x in reduced)
        return one + two + three


class DFANet(SegModel):
    """DFANet over a backbone with maps enc2, enc3, enc4; logits at stride 4. See the module for the arguments."""

    def __init__(
        self,
        backbone: Xception,
        num_classes: int,
        *,
        stride_position: str,
        preactivation: bool,
        attention_activation: str,
        decoder_channels: int,
        align_corners: bool,
    ) -> None:
        super().__init__()
        require_at_least(1, num_classes=num_classes, decoder_channels=decoder_channels)
        self.num_classes = num_classes
        self.align_corners = align_corners
        self.aux_heads = nn.ModuleDict()
        enc2, enc3, enc4 = (info.channels for info in backbone.feature_info)
        further = [
            AggregatedXception(
                (enc2, enc3, enc4),
                stride_position=stride_position,
                preactivation=preactivation,
                align_corners=align_corners,
            )
            for _ in range(2)
        ]
        self.backbone = nn.ModuleList([backbone, *further])
        self.attention = nn.ModuleList(FullyConnectedAttention(enc4, activation=attention_activation) for _ in range(3))
        self.decoder = Decoder(enc2, enc4, num_classes, channels=decoder_channels, align_corners=align_corners)

    def forward(self, images: Tensor) -> SegOutput:
        maps1 = self.backbone[0](images)
        output1 = self.attention[0](maps1[-1])
        maps2 = self.backbone[1](maps1, output1)
        output2 = self.attention[1](maps2[-1])
        maps3 = self.backbone[2](maps2, output2)
        output3 = self.attention[2](maps3[-1])
        logits = self.decoder([maps1[0], maps2[0], maps3[0]], [output1, output2, output3])
        return SegOutput(logits, {})


@MODELS.register
def dfanet_a(
    num_classes: int = 19,
    in_channels: int = 3,
    stride_position: str = "last",
    preactivation: bool = True,
    attention_activation: str = "sigmoid",
    decoder_channels: int = 32,
    align_corners: bool = False,
) -> SegModel:
    """DFANet A: three networks of Xception A's widths (arXiv 1904.02216, section 3).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/4),ceil(W/4)).
    Published 71.3 mIoU on Cityscapes' test set; the best reproduction known has 65.28 (see the module).
    Raises ValueError for an unknown `stride_position` ('last', 'first') or `attention_activation` ('sigmoid', 'relu').
    """
    return DFANet(
        xception_a(in_channels, stride_position, preactivation),
        num_classes,
        stride_position=stride_position,
        preactivation=preactivation,
        attention_activation=attention_activation,
        decoder_channels=decoder_channels,
        align_corners=align_corners,
    )


@MODELS.register
def dfanet_b(
    num_classes: int = 19,
    in_channels: int = 3,
    stride_position: str = "last",
    preactivation: bool = True,
    attention_activation: str = "sigmoid",
    decoder_channels: int = 32,
    align_corners: bool = False,
) -> SegModel:
    """DFANet B: three networks of Xception B's widths (arXiv 1904.02216, section 3).

    Shapes: images (N,in_channels,H,W), any H and W from 1 up -> logits (N,num_classes,ceil(H/4),ceil(W/4)).
    The caveat of A holds. Raises ValueError as `dfanet_a`.
    """
    return DFANet(
        xception_b(in_channels, stride_position, preactivation),
        num_classes,
        stride_position=stride_position,
        preactivation=preactivation,
        attention_activation=attention_activation,
        decoder_channels=decoder_channels,
        align_corners=align_corners,
    )
