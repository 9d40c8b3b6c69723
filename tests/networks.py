"""Every registered network as tests want it: few classes, narrow where it is large, norms that have seen images."""

from __future__ import annotations

import torch
from torch import nn

from fastseg.models import MODELS, create_model
from fastseg.models.backbones.resnet import BasicBlock, Bottleneck
from fastseg.models.backbones.xception import XceptionBlock
from fastseg.types import SegModel

NAMES = MODELS.names()
NUM_CLASSES = 7
# the same code as with ResNet-50, which is not slow, and twice the time
SLOW = ("fastfcn_r101_deeplabv3", "fastfcn_r101_encnet", "fastfcn_r101_psp", "gscnn_r101")
NARROW = {"gscnn_wrn38": {"width": 0.125}}  # at full width it takes minutes


def untrained(name: str, *, aux: bool = False, seed: int = 0) -> SegModel:
    torch.manual_seed(seed)
    arguments = {"aux": aux} if "aux" in MODELS.arguments(name) else {}
    return create_model(name, num_classes=NUM_CLASSES, **arguments, **NARROW.get(name, {}))


def build(name: str, *, aux: bool = False, seed: int = 0) -> SegModel:
    """The model with few classes, in eval mode. Its batch norms have seen a batch, so that logits vary over the image,
    and their weights differ from the defaults, which would hide a swapped or missing norm."""
    model = untrained(name, aux=aux, seed=seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            module.momentum = 1.0  # of what it saw last
    for block in model.modules():  # last norms small, as training leaves them: 33 large ones magnify rounding
        if isinstance(block, Bottleneck):
            nn.init.uniform_(block.bn3.weight, 0.15, 0.35)
        elif isinstance(block, BasicBlock):
            nn.init.uniform_(block.bn2.weight, 0.15, 0.35)
        elif isinstance(block, XceptionBlock):
            nn.init.uniform_(block.conv3.pointwise.bn.weight, 0.15, 0.35)
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 96, 128))
    return model.eval()
