"""What `deploy` keeps of every registered network, and what it leaves out."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from fastseg.deploy import DeployedModel
from fastseg.deploy.conv import InferenceConv2d
from fastseg.types import Preprocessing, SegModel
from networks import NAMES, SLOW, build

SIZES = ((64, 96), (49, 31), (1, 1))
# Norms that cannot be folded, by network; every other has none left. In ESPNet they follow sums and concatenations, in
# WideResNet and Gated-SCNN's gates they stand before the convolution, EncNet's is over codes and not over a map, and
# the image pyramid's convolutions serve three norms each.
NORMS_LEFT = {
    "espnet": 18,
    "espnet_c": 15,
    "fastfcn_r50_encnet": 1,
    "fastfcn_r101_encnet": 1,
    "gscnn_r50": 3,
    "gscnn_r101": 3,
    "gscnn_wrn38": 20,
    "swiftnet_r18": 11,
    "swiftnet_r18_pyramid": 56,
}
# built from the same parts as another network that is not slow
LARGE = {
    *SLOW,
    "bisenet_r18",
    "dfanet_a",
    "dfseg_df2_1",
    "dfseg_df2_2",
    "espnet_c",
    "gscnn_r50",
    "icnet_r18",
    "icnet_r50",
}
LARGE |= {"pspnet_r18", "pspnet_r50", "pspnet_r101", *(name for name in NAMES if name.startswith("fastfcn"))}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in NAMES],
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str) -> SegModel:
    return build(name, aux=True)


@pytest.fixture(scope="module")
def deployed(model: SegModel) -> DeployedModel:
    """Shared by tests that leave it as it is."""
    return model.deploy()


def pictures(height: int, width: int, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def logits_of(model: SegModel, images: Tensor, dtype: torch.dtype) -> Tensor:
    """What the network itself, which must be of this precision, says of uint8 images."""
    with torch.inference_mode():
        return model(normalised(images, model.preprocessing).to(dtype)).logits.double()


def normalised(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """uint8 images (N,H,W,3) -> (N,3,H,W), written out in float64."""
    x = images.flip(-1) if preprocessing.channel_order == "bgr" else images
    mean, std = (torch.tensor(values, dtype=torch.float64) * 255 for values in (preprocessing.mean, preprocessing.std))
    return ((x.double() - mean) / std).permute(0, 3, 1, 2)


def counted(network: nn.Module, *types: type[nn.Module]) -> int:
    return sum(isinstance(module, types) for module in network.modules())


def test_a_deployed_network_says_the_same(model: SegModel, deployed: DeployedModel) -> None:
    exact = copy.deepcopy(model).double()
    for size in SIZES:
        images = pictures(*size)
        expected, plain = logits_of(exact, images, torch.float64), logits_of(model, images, torch.float32)
        with torch.inference_mode():
            logits = deployed(images).double()
        # one part in 100,000 of the logits, or as much as float32 itself rounds, twice, where networks are deep
        rounding = (plain - expected).abs().max()
        assert (logits - expected).abs().max() < 1e-5 * expected.abs().max() + 2 * rounding


def test_folding_is_exact_apart_from_rounding(model: SegModel) -> None:
    exact = copy.deepcopy(model).double()
    network = exact.deploy().network
    x = torch.randn(2, 3, 33, 47, dtype=torch.float64)
    with torch.inference_mode():
        expected, logits = exact(x).logits, network(x).logits
    assert (logits - expected).abs().max() < 1e-11 * expected.abs().max()


def test_the_network_given_stays_as_it_is(model: SegModel) -> None:
    before = {key: value.clone() for key, value in model.state_dict().items()}
    aux, training = model.aux_names, model.training
    model.deploy()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert (model.aux_names, model.training) == (aux, training)
    assert all(p.requires_grad for p in model.parameters())
    assert counted(model, InferenceConv2d) == 0


def test_only_what_predicts_is_left(name: str, deployed: DeployedModel) -> None:
    network = deployed.network
    assert network.aux_names == ()
    assert counted(network, _DropoutNd) == 0
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert counted(network, nn.BatchNorm2d) == NORMS_LEFT.get(name, 0)
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_a_copy_and_a_stored_one_say_the_same(deployed: DeployedModel) -> None:
    images = pictures(33, 65)
    with torch.inference_mode():
        expected = deployed(images)
        assert torch.equal(copy.deepcopy(deployed)(images), expected)
        assert torch.equal(pickle.loads(pickle.dumps(deployed))(images), expected)


def test_bfloat16_stays_near_float32(model: SegModel) -> None:
    deployed = model.deploy(precision="bf16")
    assert deployed.input_dtype is not None, "this network now needs autocast, which converts weights at every call"
    for size in SIZES:
        images = pictures(*size)
        expected = logits_of(model, images, torch.float32)
        with torch.inference_mode():
            logits = deployed(images)
        assert logits.dtype == torch.float32
        # about a tenth of the logits after thirty layers of 8 bits each; unrelated logits differ by one
        assert (logits - expected).abs().mean() < 0.2 * expected.abs().mean()
