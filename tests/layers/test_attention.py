"""Channel attention: what the gates compute, and their forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fastseg.layers.attention import AttentionRefinement, FeatureFusion


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("size", [(1, 1), (5, 7)])
def test_refinement_weighs_each_channel_by_a_gate_from_its_mean(size: tuple[int, int]) -> None:
    module: Any = AttentionRefinement(6, 4).eval()
    nn.init.normal_(module.gate[0].bn.bias)
    x = torch.randn(2, 6, *size)
    with torch.no_grad():
        inner, refined = module.conv(x), module(x)
        scores = module.gate[0].conv.weight[:, :, 0, 0] @ inner.mean((2, 3)).T / (1 + 1e-5) ** 0.5
        gate = torch.sigmoid(scores + module.gate[0].bn.bias[:, None]).T
    torch.testing.assert_close(refined, inner * gate[:, :, None, None])


def test_parameters_of_the_refinement() -> None:
    assert parameters(AttentionRefinement(256, 128)) == 256 * 128 * 9 + 2 * 128 + 128 * 128 + 2 * 128


def test_fusion_adds_the_gated_map_to_itself() -> None:
    module: Any = FeatureFusion(5, 4, reduction=2).eval()
    detail, context = torch.randn(2, 2, 3, 7), torch.randn(2, 3, 3, 7)
    reduce, relu, expand, _ = module.gate
    assert isinstance(relu, nn.ReLU)
    assert reduce.weight.shape[:2] == (2, 4)
    with torch.no_grad():
        inner = module.conv(torch.cat((detail, context), 1))
        mean = inner.mean((2, 3))
        gate = torch.sigmoid((mean @ reduce.weight[:, :, 0, 0].T).relu() @ expand.weight[:, :, 0, 0].T)
        fused = module(detail, context)
    torch.testing.assert_close(fused, inner * (1 + gate[:, :, None, None]))


@pytest.mark.parametrize(
    ("arguments", "gate"),
    [
        ({}, 2 * 256 * 256),
        ({"reduction": 4}, 2 * 256 * 64),
        ({"gate": "conv_bn"}, 256 * 256 + 2 * 256),
        ({"gate": "conv_bn_relu"}, 256 * 256 + 2 * 256),
    ],
)
def test_parameters_of_the_fusion(arguments: dict[str, Any], gate: int) -> None:
    module = FeatureFusion(256, 256, **arguments)
    assert parameters(module) == 256 * 256 + 2 * 256 + gate


def test_only_mmsegmentations_gate_has_a_relu_so_it_never_falls_below_a_half() -> None:
    torch.manual_seed(0)
    lowest = {}
    for gate in ("conv_bn", "conv_bn_relu"):
        module: Any = FeatureFusion(8, 8, gate=gate).eval()
        nn.init.normal_(module.gate[0].conv.weight)
        with torch.no_grad():
            lowest[gate] = module.gate(torch.randn(16, 8, 1, 1)).min().item()
    assert lowest["conv_bn"] < 0.3
    assert lowest["conv_bn_relu"] == 0.5


def test_another_gate_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gate is 'softmax'; allowed: 'two_convs', 'conv_bn', 'conv_bn_relu'"):
        FeatureFusion(8, 8, gate="softmax")
