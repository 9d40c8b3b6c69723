"""What a deployed network does with images, and what `deploy` refuses."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.deploy.fold import fold_norms
from fastseg.errors import ConfigError
from fastseg.ops import normalize_images, upsample_argmax
from fastseg.types import Preprocessing, SegModel, SegOutput, WeightsInfo
from networks import build
from toys import INFO


@pytest.fixture(scope="module")
def model() -> SegModel:
    return build("fast_scnn")


def pictures(height: int, width: int, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_images_go_through_what_the_weights_say(model: SegModel, order: str, scale: float) -> None:
    preprocessing = Preprocessing((0.1, 0.2, 0.3), (0.5, 0.25, 0.125), order, scale)
    info = WeightsInfo("fast_scnn", "test", "", "", INFO, preprocessing)
    model = copy.deepcopy(model)
    model.weights_info = replace(info, dataset=replace(INFO, class_names=tuple("abcdefg")))
    deployed = model.deploy()
    images = pictures(41, 63, 2)
    with torch.inference_mode():
        expected = model(normalize_images(images, preprocessing)).logits
        logits = deployed(images)
        labels = deployed.labels(images)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert torch.equal(labels, upsample_argmax(logits, (41, 63)))
    assert deployed.weights_info == model.weights_info


def test_a_scale_that_is_given_takes_the_place_of_the_weights(model: SegModel) -> None:
    assert model.deploy().inputs(pictures(40, 60), scale=0.5).shape == (1, 3, 20, 30)


def test_a_deployed_network_can_be_deployed(model: SegModel) -> None:
    once = model.deploy()
    twice = once.network.deploy()
    with torch.inference_mode():
        assert torch.equal(twice(pictures(33, 65)), once(pictures(33, 65)))


def test_a_norm_that_is_folded_wrongly_shows(model: SegModel) -> None:
    images = pictures(64, 96)
    with torch.inference_mode():
        expected = model.deploy()(images)
    for name, tensor in (("running_mean", 1.01), ("running_var", 1.02), ("weight", 1.01), ("bias", 1.01)):
        wrong = copy.deepcopy(model)
        norm = next(module for module in wrong.modules() if isinstance(module, nn.BatchNorm2d))
        getattr(norm, name).data.mul_(tensor)
        with torch.inference_mode():
            difference = (wrong.deploy()(images) - expected).abs().max() / expected.abs().max()
        assert difference > 1e-4, name


def test_an_unknown_precision_is_refused(model: SegModel) -> None:
    with pytest.raises(ConfigError, match="unknown precision 'fp23'; did you mean 'fp32'"):
        model.deploy(precision="fp23")


def test_float16_on_a_cpu_runs_under_autocast(model: SegModel) -> None:
    deployed = model.deploy(precision="fp16")
    assert deployed.input_dtype is None
    with torch.inference_mode():
        expected, logits = model.deploy()(pictures(33, 65)), deployed(pictures(33, 65))
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().mean() < 0.02 * expected.abs().mean()  # 11 bits


@pytest.mark.parametrize("size", [(256, 32), (64, 40), (64, 16), (7, 1)], ids=str)
def test_bfloat16_is_right_for_narrow_images(size: tuple[int, int]) -> None:
    """oneDNN 3.13 answers with what lay in memory for maps of one or two columns, on some processors."""
    model = build("swiftnet_r18")
    images = pictures(*size)
    with torch.inference_mode():
        expected = model(normalize_images(images, model.preprocessing)).logits
        for _ in range(3):
            logits = model.deploy(precision="bf16")(images)
            assert (logits - expected).abs().mean() < 0.1 * expected.abs().mean()


class EdgesOfTheImage(SegModel):
    """Looks at the image by something else than a convolution, too."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.aux_heads = nn.ModuleDict()
        self.conv = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, images: Tensor) -> SegOutput:
        levels = (images * 1000).round().sum(1, keepdim=True)
        return SegOutput(self.conv(images) + levels, {})


def test_images_stay_exact_where_a_network_counts_their_levels() -> None:
    torch.manual_seed(0)
    model = EdgesOfTheImage()
    deployed = model.deploy(precision="bf16")
    assert deployed.input_dtype == torch.float32
    images = pictures(8, 8)
    with torch.inference_mode():
        expected = model(deployed.inputs(images)).logits
        assert (deployed(images) - expected).abs().max() < 0.05  # of thousands


class Mixed(SegModel):
    """Multiplies matrices of its own with maps, which torch refuses for different precisions."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.aux_heads = nn.ModuleDict()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.mixing = nn.Parameter(torch.randn(2, 4))

    def forward(self, images: Tensor) -> SegOutput:
        x = self.conv(images)
        return SegOutput(torch.matmul(self.mixing, x.flatten(2)).unflatten(2, x.shape[2:]), {})


def test_autocast_serves_networks_that_mix_precisions() -> None:
    deployed = Mixed().deploy(precision="bf16")
    assert deployed.input_dtype is None
    assert deployed(pictures(8, 8)).shape == (1, 2, 8, 8)


class Branches(nn.Module):
    """Norms that may not be folded: their convolution's result goes elsewhere, too, or their convolution is shared."""

    def __init__(self, case: str) -> None:
        super().__init__()
        self.case = case
        self.conv, self.other = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.norm, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = self.conv(x)
        if self.case == "added again":
            return self.norm(y) + y
        if self.case == "handed out":
            return self.norm(y), y
        if self.case == "a view":
            return self.norm(y[..., ::2])
        if self.case == "changed in place":
            return self.norm(y.add_(1))
        if self.case == "two norms":
            return self.norm(y) + self.norm2(self.conv(x))
        if self.case == "two convolutions":
            return self.norm(y) + self.norm(self.other(x))
        if self.case == "weights read":
            return self.norm(y) * self.norm.weight.sum()
        if self.case == "resized, but not always":
            return self.norm(y if x.shape[-1] == 96 else nn.functional.max_pool2d(y, 2))
        return self.norm(y)


@pytest.mark.parametrize(
    ("case", "left"),
    [
        ("plain", 1),
        ("added again", 2),
        ("handed out", 2),
        ("a view", 2),
        ("changed in place", 2),
        ("two norms", 2),
        ("two convolutions", 2),
        ("weights read", 2),
        ("resized, but not always", 2),
    ],
)
def test_a_norm_is_folded_only_where_nothing_else_sees_the_map(case: str, left: int) -> None:
    network = Branches(case).eval().requires_grad_(False)
    for norm in (network.norm, network.norm2):
        nn.init.uniform_(norm.weight, 0.5, 2)
        norm.running_mean.uniform_(-1, 1)  # type: ignore[union-attr]
    x = torch.randn(2, 3, 8, 12)
    expected = network(x)
    fold_norms(network)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == left
    torch.testing.assert_close(network(x), expected)


class OtherNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Standardised(nn.Conv2d):
    """A convolution with weights that are computed from its own."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight - self.weight.mean(), self.bias, padding=1)


class Unbiased(nn.Conv2d):
    """A convolution that leaves its bias out."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, None, padding=1)


@pytest.mark.parametrize(
    ("conv", "norm"),
    [
        pytest.param(nn.Conv2d(3, 4, 3), OtherNorm(4), id="a norm that does more"),
        pytest.param(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), id="statistics of the batch"),
        pytest.param(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).train(), id="a norm in training"),
        pytest.param(Standardised(3, 4, 3), nn.BatchNorm2d(4), id="computed weights"),
        pytest.param(Unbiased(3, 4, 3), nn.BatchNorm2d(4), id="a bias that is not used"),
    ],
)
def test_what_is_not_the_plain_pair_is_not_folded(conv: nn.Module, norm: nn.Module) -> None:
    network = nn.Sequential(conv, norm).requires_grad_(False)
    fold_norms(network)
    assert list(network) == [conv, norm]
