"""Convolution blocks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from descriptions import Weights, assert_same, uneven
from fastseg.layers.conv import BNActConv, ConvBNAct, DepthwiseSeparableConv


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    kernel=st.sampled_from([1, 3, 5, 7]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_sizes_round_up(size: tuple[int, int], kernel: int, stride: int, dilation: int) -> None:
    block = ConvBNAct(2, 4, kernel, stride=stride, dilation=dilation).eval()
    assert block(torch.zeros(1, 2, *size)).shape == (1, 4, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("in_channels", [3, 8, 16])
def test_a_pointwise_convolution_with_a_stride_is_that_convolution(
    in_channels: int, layout: torch.memory_format
) -> None:
    """Its backward pass in channels_last memory crashes in oneDNN 3.13 when it is left to one convolution."""
    torch.manual_seed(0)
    block = ConvBNAct(in_channels, 48, stride=2, activation=False).to(memory_format=layout).eval()
    x = torch.randn(2, in_channels, 45, 60).contiguous(memory_format=layout).requires_grad_()
    factors = torch.randn(2, 48, 23, 30)
    (block(x) * factors).sum().backward()

    exact = x.detach().double().contiguous().requires_grad_()
    weight = block.conv.weight.detach().double().contiguous().requires_grad_()
    (F.conv2d(exact, weight, stride=2) / (1 + block.bn.eps) ** 0.5 * factors).sum().backward()
    assert x.grad is not None
    assert exact.grad is not None
    assert block.conv.weight.grad is not None
    assert weight.grad is not None
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(block.conv.weight.grad.double(), weight.grad, rtol=1e-3, atol=1e-2)


def test_the_preactivation_block_leaves_its_input_alone() -> None:
    x = torch.randn(2, 3, 5, 7)
    before = x.clone()
    BNActConv(3, 4, 3, momentum=0.005)(x)
    assert torch.equal(x, before)


SIZES = [(12, 16), (13, 17)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "groups", "bias"),
    [(3, 1, 1, 1, False), (3, 2, 1, 1, False), (3, 1, 2, 1, False), (3, 2, 1, 4, False), (1, 2, 1, 1, True)],
)
@pytest.mark.parametrize("activation", [True, False])
def test_a_block_is_convolution_then_norm_then_relu_unless_told(
    activation: bool, kernel: int, stride: int, dilation: int, groups: int, bias: bool, size: tuple[int, int]
) -> None:
    block = ConvBNAct(4, 8, kernel, stride=stride, dilation=dilation, groups=groups, bias=bias, activation=activation)
    uneven(block)
    state, x = block.state_dict(), torch.randn(2, 4, *size, dtype=torch.float64)
    padding = dilation * (kernel // 2)
    expected = F.conv2d(
        x, state["conv.weight"], state["conv.bias"] if bias else None, stride, padding, dilation, groups
    )
    mean, variance, weight, bias_of_norm = (
        state[f"bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    expected = F.batch_norm(expected, mean, variance, weight, bias_of_norm)
    with torch.no_grad():
        assert_same(block(x), F.relu(expected) if activation else expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
def test_the_preactivation_block_is_norm_then_relu_then_convolution(
    bias: bool, kernel: int, size: tuple[int, int]
) -> None:
    block = BNActConv(4, 8, kernel, bias=bias)
    uneven(block)
    state, x = block.state_dict(), torch.randn(2, 4, *size, dtype=torch.float64)
    mean, variance, weight, bias_of_norm = (
        state[f"bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    expected = F.relu(F.batch_norm(x, mean, variance, weight, bias_of_norm))
    expected = F.conv2d(expected, state["conv.weight"], state["conv.bias"] if bias else None, padding=kernel // 2)
    with torch.no_grad():
        assert_same(block(x), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("depthwise_activation", [True, False])
def test_a_separable_convolution_has_a_relu_between_its_two_unless_told(
    depthwise_activation: bool, stride: int, size: tuple[int, int]
) -> None:
    block = DepthwiseSeparableConv(4, 8, stride=stride, depthwise_activation=depthwise_activation)
    uneven(block)
    weights, x = Weights(block), torch.randn(2, 4, *size, dtype=torch.float64)
    expected = weights.conv_norm("depthwise", x, stride=stride)
    if depthwise_activation:
        expected = F.relu(expected)
    expected = weights.conv_norm_relu("pointwise", expected)
    assert not weights.unread
    with torch.no_grad():
        assert_same(block(x), expected)
