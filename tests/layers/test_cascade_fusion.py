"""Cascade feature fusion joins a coarse and a fine map, and hands out what auxiliary classifiers read."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastseg.layers.cascade_fusion import CascadeFeatureFusion


def with_statistics(module: CascadeFeatureFusion) -> CascadeFeatureFusion:
    for norm in (module.low.bn, module.high.bn):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
        nn.init.uniform_(norm.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return module.eval()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("activation", [False, True])
def test_the_fused_map_is_the_relu_of_the_sum_of_both_convolutions(activation: bool, align_corners: bool) -> None:
    torch.manual_seed(0)
    fusion = with_statistics(CascadeFeatureFusion(6, 3, 4, activation=activation, align_corners=align_corners))
    low, high = torch.randn(2, 6, 5, 7), torch.randn(2, 3, 9, 14)
    with torch.no_grad():
        fused, resized, refined = fusion(low, high)
        upsampled = F.interpolate(low, size=(9, 14), mode="bilinear", align_corners=align_corners)
        sides = []
        for block, x in ((fusion.low, upsampled), (fusion.high, high)):
            dilation = block.conv.dilation[0]
            padding = dilation * (block.conv.kernel_size[0] // 2)
            x = block.bn(F.conv2d(x, block.conv.weight, padding=padding, dilation=dilation))
            sides.append(x.relu() if activation else x)
    torch.testing.assert_close(resized, upsampled)
    torch.testing.assert_close(refined, sides[0])
    torch.testing.assert_close(fused, (sides[0] + sides[1]).relu())
    assert bool((refined < 0).any()) is not activation


def test_the_coarse_map_goes_through_3x3_of_dilation_2_and_the_fine_one_through_1x1() -> None:
    fusion = CascadeFeatureFusion(256, 64, 128)
    assert (fusion.low.conv.kernel_size, fusion.low.conv.dilation) == ((3, 3), (2, 2))
    assert (fusion.high.conv.kernel_size, fusion.high.conv.dilation) == ((1, 1), (1, 1))
    assert sum(p.numel() for p in fusion.parameters()) == 9 * 256 * 128 + 64 * 128 + 4 * 128


@pytest.mark.parametrize("sizes", [((1, 1), (1, 1)), ((1, 2), (2, 3)), ((9, 5), (5, 9))], ids=str)
def test_all_three_maps_have_the_size_of_the_fine_one(sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    low, high = sizes
    maps = CascadeFeatureFusion(6, 3, 4).eval()(torch.randn(1, 6, *low), torch.randn(1, 3, *high))
    assert [x.shape for x in maps] == [(1, 4, *high), (1, 6, *high), (1, 4, *high)]


def test_the_maps_given_and_the_maps_for_guidance_are_left_alone() -> None:
    low, high = torch.randn(2, 6, 5, 5), torch.randn(2, 3, 5, 5)
    before = low.clone(), high.clone()
    _, resized, refined = CascadeFeatureFusion(6, 3, 4)(low, high)
    assert torch.equal(low, before[0])
    assert torch.equal(high, before[1])
    assert torch.equal(resized, low)
    assert bool((refined < 0).any()), "the ReLU of the sum does not write into it"
