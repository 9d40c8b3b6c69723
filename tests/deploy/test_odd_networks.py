"""Networks that users build: what `deploy` must not fold, and what kernels must not read."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.deploy.row_bands import use_row_bands
from fastseg.layers.separable import InvertedResidual
from fastseg.models import create_model
from fastseg.ops import normalize_images, upsample_argmax
from fastseg.types import Preprocessing, SegModel, SegOutput


class Small(SegModel):
    """Convolution, norm and ReLU, then a classifier; subclasses differ in one thing."""

    def __init__(self) -> None:
        super().__init__()
        self.num_classes = 4
        self.aux_heads = nn.ModuleDict()
        self.conv: nn.Module = nn.Conv2d(3, 8, 3, padding=1)
        self.norm: nn.Module = nn.BatchNorm2d(8)
        self.classifier = nn.Conv2d(8, 4, 1)
        assert isinstance(self.norm, nn.BatchNorm2d)
        nn.init.normal_(self.norm.bias)
        nn.init.uniform_(self.norm.weight, 0.5, 2)

    def forward(self, images: Tensor) -> SegOutput:
        return SegOutput(self.classifier(self.norm(self.conv(images))), {})


class NormWithReLU(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class ConvWithoutItsBias(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, None, padding=1)


class OwnNorm(Small):
    def __init__(self) -> None:
        super().__init__()
        self.norm = NormWithReLU(8)
        nn.init.normal_(self.norm.bias)


class OwnConv(Small):
    def __init__(self) -> None:
        super().__init__()
        self.conv = ConvWithoutItsBias(3, 8, 3, padding=1, bias=False)


class PartsInAList(Small):
    def __init__(self) -> None:
        super().__init__()
        self.steps = [self.conv, self.norm]

    def forward(self, images: Tensor) -> SegOutput:
        x = images
        for step in self.steps:
            x = step(x)
        return SegOutput(self.classifier(x), {})


class Hooked(Small):
    def __init__(self) -> None:
        super().__init__()
        self.conv.register_forward_hook(lambda module, args, result: result.abs())


class ClassifierFirst(Small):
    def __init__(self) -> None:
        super().__init__()
        conv, norm = self.conv, self.norm
        del self.conv, self.norm
        self.conv, self.norm = conv, norm


@pytest.mark.parametrize("kind", [Small, OwnNorm, OwnConv, PartsInAList, Hooked, ClassifierFirst])
def test_any_network_gives_its_own_logits(kind: type[Small]) -> None:
    model = kind().eval()
    images = torch.rand(1, 3, 30, 40)
    with torch.no_grad():
        assert torch.allclose(model.deploy().logits(images), model(images).logits, atol=1e-5)


class Negated(InvertedResidual):
    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x)


class WithBlock(Small):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.norm = block


def test_a_block_with_its_own_forward_is_not_fused_as_the_one_it_derives_from() -> None:
    model = WithBlock(Negated(8, 8, stride=1)).eval()
    images = torch.rand(1, 3, 30, 40)
    with torch.no_grad():
        assert torch.allclose(model.deploy().logits(images), model(images).logits, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_are_refused_as_by_a_plain_convolution(channels: int) -> None:
    deployed = create_model("fast_scnn", num_classes=3).deploy()
    with torch.no_grad(), pytest.raises(RuntimeError):
        deployed.logits(torch.rand(1, channels, 64, 64))


def test_weights_changed_in_place_are_laid_out_anew() -> None:
    deployed = create_model("fast_scnn", num_classes=3).deploy()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        deployed.logits(images)
        for parameter in deployed.parameters():
            parameter.mul_(0.9)
        assert torch.equal(deployed.logits(images), copy.deepcopy(deployed).logits(images))


class Gate(nn.Module):
    """Squeeze and excitation: every pixel depends on all others."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


@pytest.mark.parametrize(
    "stage",
    [
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), Gate()),
        nn.Sequential(nn.Conv2d(3, 8, 2, 2), nn.Conv2d(8, 8, 2, 2)),  # strides round down
    ],
    ids=["a gate", "rounding down"],
)
def test_a_stage_that_bands_would_change_is_left_whole(stage: nn.Module) -> None:
    holder = nn.Sequential(stage)
    use_row_bands(holder)
    assert not [module for module in holder.modules() if type(module).__name__ == "RowBands"]


@pytest.fixture
def _meta_by_default() -> Any:
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.mark.usefixtures("_meta_by_default")
def test_kernels_write_to_the_processors_memory_whatever_the_default_device() -> None:
    logits = torch.zeros(1, 3, 4, 5, device="cpu")
    assert upsample_argmax(logits, (8, 9)).device.type == "cpu"
    images = torch.zeros(1, 4, 5, 3, dtype=torch.uint8, device="cpu")
    assert normalize_images(images, Preprocessing()).device.type == "cpu"


def test_images_of_four_channels_are_not_read_as_three() -> None:
    with pytest.raises(RuntimeError):
        normalize_images(torch.zeros(1, 4, 5, 4, dtype=torch.uint8), Preprocessing())
