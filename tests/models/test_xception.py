"""The small Xceptions: parameters, maps, and where stride and ReLU stand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fastseg.models import create_backbone, create_model
from fastseg.models.backbones.xception import SeparableConv, XceptionBlock
from fastseg.types import FeatureInfo

MAPS = {
    "xception39": ((8, 4), (64, 8), (128, 16), (256, 32)),
    "xception_a": ((48, 4), (96, 8), (192, 16)),
    "xception_b": ((32, 4), (64, 8), (128, 16)),
}


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("xception39", {}, 299_448),
        ("xception39", {"in_channels": 4}, 299_448 + 9 * 8),
        ("xception_a", {}, 165_248),
        ("xception_a", {"stride_position": "first", "preactivation": False}, 165_248),
        ("xception_b", {}, 80_064),
        ("xception_b", {"in_channels": 1}, 80_064 - 2 * 9 * 8),
    ],
)
def test_parameters(name: str, arguments: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in create_backbone(name, **arguments).parameters()) == count


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (31, 17), (1, 1)], ids=str)
@pytest.mark.parametrize("name", MAPS)
def test_maps_have_the_declared_channels_and_strides_rounded_up(name: str, size: tuple[int, int]) -> None:
    backbone = create_backbone(name).eval()
    assert backbone.feature_info == tuple(FeatureInfo(*pair) for pair in MAPS[name])
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, *size))
    expected = [(1, channels, -(-size[0] // stride), -(-size[1] // stride)) for channels, stride in MAPS[name]]
    assert [tuple(x.shape) for x in maps] == expected


@pytest.mark.parametrize("name", MAPS)
def test_they_work_under_any_head(name: str) -> None:
    model = create_model("encoder_decoder", num_classes=3, backbone=name, head="fcn").eval()
    stride = MAPS[name][-1][1]
    with torch.no_grad():
        assert model(torch.randn(1, 3, 65, 97)).logits.shape == (1, 3, -(-65 // stride), -(-97 // stride))


def depths(backbone: nn.Module) -> list[int]:
    stages = [child for child in backbone.children() if isinstance(child, nn.Sequential)]
    return [len(stage) for stage in stages if isinstance(stage[0], XceptionBlock)]


def test_depths_are_those_of_the_papers() -> None:
    assert depths(create_backbone("xception39")) == [4, 8, 4]
    assert depths(create_backbone("xception_a")) == depths(create_backbone("xception_b")) == [4, 6, 4]


def strides(block: nn.Module) -> list[int]:
    convolutions = [conv for module in block.children() if isinstance(module, SeparableConv) for conv in [module[0]]]
    return [(conv if isinstance(conv, nn.Conv2d) else conv[0]).stride[0] for conv in convolutions]  # type: ignore[index]


def test_the_stride_stands_first_in_xception39_and_where_told_in_the_others() -> None:
    blocks = [module for module in create_backbone("xception39").modules() if isinstance(module, XceptionBlock)]
    assert strides(blocks[0]) == [2, 1, 1, 2]  # three convolutions and the shortcut
    assert strides(blocks[1]) == [1, 1, 1]
    for position, expected in (("last", [1, 1, 2]), ("first", [2, 1, 1])):
        backbone = create_backbone("xception_a", stride_position=position)
        blocks = [module for module in backbone.modules() if isinstance(module, XceptionBlock)]
        assert strides(blocks[0]) == expected
        assert strides(blocks[1]) == [1, 1, 1]


def test_preactivation_leaves_the_sum_without_relu() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32)
    for preactivation in (True, False):
        maps = create_backbone("xception_b", preactivation=preactivation)(images)
        assert [bool((x < 0).any()) for x in maps] == [preactivation] * 3
    assert all((x >= 0).all() for x in create_backbone("xception39")(images))


def test_the_order_of_relu_is_that_of_the_formulas() -> None:
    x = torch.randn(1, 8, 5, 5)
    for preactivation in (True, False):
        block = XceptionBlock(8, 2, depthwise_norm=True, preactivation=preactivation).eval()
        with torch.no_grad():
            residual = block.conv3(block.conv2(block.conv1(x.relu() if preactivation else x)))
            expected = residual + x if preactivation else (residual + x).relu()
            torch.testing.assert_close(block(x), expected)


def test_the_maps_are_not_overwritten_by_later_stages() -> None:
    backbone = create_backbone("xception_a").eval()
    images = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        enc2 = backbone.enc2(backbone.conv(images))  # type: ignore[operator]
        assert torch.equal(backbone(images)[0], enc2)


def test_another_stride_position_is_refused() -> None:
    with pytest.raises(ValueError, match=r"stride_position is 'middle'; allowed: 'last' .* or 'first'"):
        create_backbone("xception_a", stride_position="middle")
