"""Atrous spatial pyramid pooling: five views of one map, side by side."""

from __future__ import annotations

import torch

from descriptions import Weights, assert_same, uneven
from fastseg.layers.aspp import ASPP


def test_it_is_a_1x1_three_dilations_and_the_average_in_this_order() -> None:
    aspp = ASPP(5, 4, rates=(2, 3, 7))
    uneven(aspp)
    weights = Weights(aspp)
    x = torch.randn(2, 5, 9, 13, dtype=torch.float64)
    expected = [weights.conv_norm_relu("pointwise", x)]
    expected += [weights.conv_norm_relu(f"dilated.{i}", x, dilation=rate) for i, rate in enumerate((2, 3, 7))]
    expected.append(weights.conv_norm_relu("image", x.mean((2, 3), keepdim=True)).expand(-1, -1, 9, 13))
    with torch.no_grad():
        assert_same(aspp(x), torch.cat(expected, 1))
    assert not weights.unread


def test_it_says_how_many_channels_it_gives_at_any_size() -> None:
    aspp = ASPP(3, 2, rates=(1, 2)).eval()
    for size in ((1, 1), (1, 7), (5, 3)):
        assert aspp(torch.randn(1, 3, *size)).shape == (1, aspp.out_channels, *size) == (1, 8, *size)


def test_its_parameters_are_those_of_the_paper() -> None:
    """Table 5's rates at stride 8; 2048 channels to 256 in each branch, without a bias before the norms."""
    count = sum(parameter.numel() for parameter in ASPP(2048, 256).parameters())
    assert count == 2 * 2048 * 256 + 3 * 9 * 2048 * 256 + 5 * 2 * 256
