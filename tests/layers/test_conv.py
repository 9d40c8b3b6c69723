"""Convolution blocks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.layers.conv import BNActConv, ConvBNAct


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
