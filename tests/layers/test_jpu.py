"""Joint pyramid upsampling: both forms by their description, their sizes and their parameters."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from descriptions import Weights, assert_same, uneven, upsample
from fastseg.layers.jpu import JPU, JPUX

FORMS = (JPU, JPUX)
CHANNELS = (6, 10, 14)
WIDTH = 128  # the least of JPU_X
# JPU: three reductions; four times depthwise 3x3, norm, pointwise 1x1, norm
REDUCTIONS = 9 * (512 + 1024 + 2048) * 512 + 3 * 2 * 512
PARAMETERS = REDUCTIONS + 4 * ((9 + 2) * 1536 + 1536 * 512 + 2 * 512)


def maps(height: int = 12, width: int = 20, images: int = 1) -> list[Tensor]:
    """Of strides 4, 8, 16 and 32 of an image, in float64; the first one is nothing to a JPU."""
    torch.manual_seed(1)
    sizes = [(-(-height // step), -(-width // step)) for step in (1, 2, 4)]
    fine = torch.randn(images, 3, 2 * height, 2 * width, dtype=torch.float64)
    return [
        fine,
        *(torch.randn(images, c, *size, dtype=torch.float64) for c, size in zip(CHANNELS, sizes, strict=True)),
    ]


def group_norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    """32 groups of channels, each brought to mean 0 and variance 1 in each image; then scale and shift by channel."""
    groups = x.reshape(x.shape[0], 32, -1)
    mean, variance = groups.mean(2, keepdim=True), groups.var(2, unbiased=False, keepdim=True)
    normed = ((groups - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
    return normed * weights[f"{name}.weight"][:, None, None] + weights[f"{name}.bias"][:, None, None]


def jpu_by_its_description(weights: Weights, features: list[Tensor], *, align_corners: bool) -> Tensor:
    reduced = [weights.conv_norm_relu(f"reductions.{i}", x) for i, x in enumerate(features[1:])]
    joined = torch.cat([upsample(x, features[1], align_corners=align_corners) for x in reduced], 1)
    branches = []
    for i, dilation in enumerate((1, 2, 4, 8)):
        inner = weights.conv_norm(f"dilated.{i}.depthwise", joined, dilation=dilation)
        branches.append(weights.conv_norm_relu(f"dilated.{i}.pointwise", inner))
    return torch.cat(branches, 1)


def jpu_x_by_its_description(weights: Weights, features: list[Tensor], *, align_corners: bool) -> Tensor:
    x = features[1]
    for name, coarse, dilation in (("first", features[2], 1), ("second", features[3], 2)):
        fine = weights.conv_norm_relu(f"{name}.fine", x)
        coarse = upsample(weights.conv_norm_relu(f"{name}.coarse", coarse), fine, align_corners=align_corners)
        joined, parts = torch.cat([fine, coarse], 1), [coarse]
        for i in range(3):
            branch = f"{name}.dilated.{i}"
            inner = group_norm(weights, f"{branch}.1", weights.conv(f"{branch}.0", joined, dilation=dilation * 2**i))
            parts.append(F.relu(group_norm(weights, f"{branch}.3", weights.conv(f"{branch}.2", inner))))
        x = torch.cat(parts, 1)
    return x


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(12, 20), (13, 21)], ids=str)
@pytest.mark.parametrize(
    ("form", "description"), [(JPU, jpu_by_its_description), (JPUX, jpu_x_by_its_description)], ids=["jpu", "jpu_x"]
)
def test_it_is_its_description(form: type, description: object, size: tuple[int, int], align_corners: bool) -> None:
    module = form(CHANNELS, width=WIDTH, align_corners=align_corners)
    uneven(module)
    weights, features = Weights(module), maps(*size, images=2)
    with torch.no_grad():
        expected = description(weights, features, align_corners=align_corners)  # type: ignore[operator]
        assert_same(module(features), expected)
    assert not weights.unread


def test_parameters() -> None:
    with torch.device("meta"):
        count, other = (sum(p.numel() for p in form((512, 1024, 2048)).parameters()) for form in FORMS)
    assert count == PARAMETERS
    assert other == PARAMETERS - 16_384  # counted on the authors' code


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20))
def test_the_result_has_the_size_of_the_finest_of_the_three_maps(form: type, height: int, width: int) -> None:
    module = form(CHANNELS, width=WIDTH).double().eval()
    with torch.no_grad():
        assert module(maps(height, width)).shape == (1, module.out_channels, height, width)
    assert module.out_channels == 4 * WIDTH


@pytest.mark.parametrize("form", FORMS)
def test_one_exported_program_serves_all_sizes(form: type) -> None:
    module = form(CHANNELS, width=WIDTH).double().eval()
    dynamic = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        program = torch.export.export(module, (maps(),), dynamic_shapes=([dynamic] * 4,)).module()
        for size in ((12, 20), (17, 9)):
            torch.testing.assert_close(program(maps(*size)), module(maps(*size)))


@pytest.mark.parametrize("form", FORMS)
def test_a_gradient_reaches_every_parameter(form: type) -> None:
    module = form(CHANNELS, width=WIDTH).double()
    module(maps(images=2)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())
