"""The convolution of deployed networks is torch's, with or without ReLU, in every memory layout and at every size."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fastseg.deploy.conv import InferenceConv2d


def inference_conv(conv: nn.Conv2d, activation: str | None) -> InferenceConv2d:
    new = InferenceConv2d.of(conv.requires_grad_(False))
    new.activation = activation
    return new


@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 17), st.integers(1, 17)),
    kernel=st.sampled_from([1, 2, 3, 7]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    depthwise=st.booleans(),
    bias=st.booleans(),
    activation=st.sampled_from(["relu", None]),
    channels_last=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_it_is_the_plain_convolution(
    size: tuple[int, int, int],
    kernel: int,
    stride: int,
    dilation: int,
    depthwise: bool,
    bias: bool,
    activation: str | None,
    channels_last: bool,
) -> None:
    conv = nn.Conv2d(16, 16, kernel, stride, kernel, dilation, 16 if depthwise else 1, bias)
    x = torch.randn(size[0], 16, *size[1:])
    if channels_last:
        conv, x = conv.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    fast = inference_conv(conv, activation)
    with torch.inference_mode():
        expected = conv(x)
        for _ in range(2):  # the first call lays weights out, the second uses them
            result = fast(x)
            # sums of 784 products of float32, in any order
            torch.testing.assert_close(result, F.relu(expected) if activation else expected, rtol=1e-5, atol=1e-5)


def test_weights_that_change_are_laid_out_anew() -> None:
    fast = inference_conv(nn.Conv2d(8, 8, 3), None)
    x = torch.randn(1, 8, 9, 9)
    with torch.inference_mode():
        before = fast(x)
        copied = copy.deepcopy(fast)
        fast.load_state_dict({key: 2 * value for key, value in fast.state_dict().items()})
        torch.testing.assert_close(fast(x), 2 * before)
        torch.testing.assert_close(fast.double()(x.double()).float(), 2 * before)
        assert torch.equal(copied(x), before)


def test_it_can_be_stored() -> None:
    fast = inference_conv(nn.Conv2d(8, 8, 3), "relu")
    x, buffer = torch.randn(1, 8, 9, 9), io.BytesIO()
    with torch.inference_mode():
        expected = fast(x)
        torch.save(fast, buffer)
        buffer.seek(0)
        assert torch.equal(torch.load(buffer, weights_only=False)(x), expected)


def test_gradients_go_through_it() -> None:
    fast = inference_conv(nn.Conv2d(8, 8, 3), "relu")
    x = torch.randn(1, 8, 9, 9, requires_grad=True)
    fast(x).sum().backward()
    assert x.grad is not None
    assert x.grad.count_nonzero() > 0


def test_it_exports_as_plain_operations() -> None:
    fast = inference_conv(nn.Conv2d(8, 8, 3), "relu")
    x = torch.randn(1, 8, 9, 9)
    program = torch.export.export(nn.Sequential(fast).eval(), (x,))
    operations = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("mkldnn" in operation for operation in operations)
    torch.testing.assert_close(program.module()(x), fast(x))


def test_maps_of_another_precision_are_converted() -> None:
    fast = inference_conv(nn.Conv2d(8, 8, 3), None).bfloat16()
    assert fast(torch.randn(1, 8, 9, 9)).dtype == torch.bfloat16


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("width", [1, 2])
def test_bfloat16_is_not_used_for_narrow_maps(autocast: bool, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = inference_conv(nn.Conv2d(64, 8, 3, stride=2, padding=1), None)
    x = torch.randn(1, 64, 9, width)
    exact = fast(x)
    used = []
    plain = nn.Conv2d._conv_forward

    def conv_forward(self: nn.Conv2d, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        used.append((x.dtype, torch.is_autocast_enabled("cpu")))
        return plain(self, x, weight, bias)

    monkeypatch.setattr(nn.Conv2d, "_conv_forward", conv_forward)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        result = fast(x) if autocast else fast.bfloat16()(x.bfloat16())
    assert used == [(torch.float32, False)]
    assert result.dtype == torch.bfloat16
    assert (result - exact).abs().max() < 0.02 * exact.abs().max()


def test_another_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="activation is 'gelu'; allowed: 'relu' or None"):
        InferenceConv2d(1, 1, 1, activation="gelu")


def test_weights_loaded_without_a_trace_of_it_are_laid_out_anew() -> None:
    with torch.inference_mode():  # tensors of which nobody counts the changes
        fast = inference_conv(nn.Conv2d(8, 8, 3), None)
        x = torch.randn(1, 8, 9, 9)
        before = fast(x)
        fast.load_state_dict({key: 2 * value for key, value in fast.state_dict().items()})
        torch.testing.assert_close(fast(x), 2 * before)


@pytest.mark.parametrize(
    ("conv", "x"),
    [
        pytest.param(nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), (2, 8, 9, 9), id="mirrored border"),
        pytest.param(nn.Conv2d(8, 8, 3, padding="same"), (2, 8, 9, 9), id="padding by name"),
        pytest.param(nn.Conv2d(8, 8, 3, padding=1), (8, 9, 9), id="one image"),
    ],
)
def test_what_onednn_cannot_is_left_to_the_plain_functions(conv: nn.Conv2d, x: tuple[int, ...]) -> None:
    images = torch.randn(x)
    with torch.inference_mode():
        torch.testing.assert_close(inference_conv(conv, "relu")(images), F.relu(conv(images)))


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:FutureWarning")
def test_a_tracer_sees_a_convolution() -> None:
    fast = inference_conv(nn.Conv2d(8, 8, 3), "relu")
    traced = torch.jit.trace(fast, torch.randn(1, 8, 9, 9))
    assert "_convolution(" in str(traced.inlined_graph)
