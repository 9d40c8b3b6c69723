"""DeepLabV3's head: the pyramid fused in the authors' and in mmsegmentation's way."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from descriptions import Weights, assert_same, uneven, upsample
from fastseg.models import DeepLabV3Head, create_head
from fastseg.types import FeatureInfo


def head(in_channels: int = 12, **options: Any) -> DeepLabV3Head:
    torch.manual_seed(0)
    built = create_head("deeplabv3", [FeatureInfo(8, 4), FeatureInfo(in_channels, 8)], 5, **options)
    assert isinstance(built, DeepLabV3Head)
    return built


def head_by_its_description(weights: Weights, x: Tensor, *, rates: tuple[int, ...], projection: bool) -> Tensor:
    image = weights.conv_norm_relu("pyramid.image", x.mean((2, 3), keepdim=True))
    branches = [weights.conv_norm_relu("pyramid.pointwise", x)]
    branches += [weights.conv_norm_relu(f"pyramid.dilated.{i}", x, dilation=rate) for i, rate in enumerate(rates)]
    x = torch.cat([*branches, upsample(image, x)], 1)
    if projection:
        x = weights.conv_norm_relu("projection.0", x)
    return weights.conv("classifier", weights.conv_norm_relu("conv", x))


@pytest.mark.parametrize("projection", [True, False])
def test_the_head_is_its_description(projection: bool) -> None:
    rates = (2, 3, 5)
    module = head(channels=6, rates=rates, projection=projection)
    uneven(module)
    weights, x = Weights(module), torch.randn(2, 12, 13, 17, dtype=torch.float64)
    with torch.no_grad():
        assert_same(module([x[:, :8], x]), head_by_its_description(weights, x, rates=rates, projection=projection))
    assert not weights.unread


def test_parameters_are_those_of_the_authors() -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in create_head("deeplabv3", [FeatureInfo(2048, 8)], 19).parameters())
        plain = create_head("deeplabv3", [FeatureInfo(2048, 8)], 19, channels=512, projection=False)
    pyramid = (1 + 3 * 9 + 1) * 2048
    assert count == (pyramid + 5 * 256 + 9 * 256) * 256 + 7 * 2 * 256 + 257 * 19
    # mmsegmentation's deeplabv3_r50-d8
    assert sum(p.numel() for p in plain.parameters()) == (pyramid + 9 * 5 * 512) * 512 + 6 * 2 * 512 + 513 * 19


def test_dilations_and_dropouts_are_those_of_the_authors_by_default() -> None:
    with torch.device("meta"):
        module = head()
    dilations = [m.dilation[0] for m in module.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert dilations == [12, 24, 36, 1]
    assert [m.p for m in module.modules() if isinstance(m, nn.Dropout2d)] == [0.5, 0.1]


def test_its_options_are_its_width_its_rates_and_its_dropouts() -> None:
    module = head(channels=10, rates=(2, 4), projection_dropout=0.2, dropout=0.3)
    assert module.classifier.in_channels == 10
    assert [m.p for m in module.modules() if isinstance(m, nn.Dropout2d)] == [0.2, 0.3]
    assert module([torch.randn(2, 12, 7, 5)]).shape == (2, 5, 7, 5)
    assert [m.p for m in head(projection=False).modules() if isinstance(m, nn.Dropout2d)] == [0.1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels is 0"),
        ({"rates": (0, 12, 18)}, r"rates are \(0, 12, 18\); each must be 1 or more"),
        ({"dropout": 1.5}, "^dropout is 1.5; give 0 to 1$"),
        ({"projection_dropout": -0.1}, "^projection_dropout is -0.1; give 0 to 1$"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head(**options)


def test_dilations_larger_than_the_map_see_its_padding() -> None:
    with torch.no_grad():
        module = head(channels=4).eval()
        assert module([torch.randn(1, 12, 3, 4)]).isfinite().all()
        branch, x = module.pyramid.dilated[0], torch.randn(1, 12, 3, 4)
        centre = F.conv2d(x, branch.conv.weight[:, :, 1:2, 1:2])  # type: ignore[union-attr, index]
        torch.testing.assert_close(branch.conv(x), centre)  # type: ignore[operator]
