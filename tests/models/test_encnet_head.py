"""EncNet's head: the encoding by its definition, the gate, the norm over codes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from descriptions import Weights, assert_same, uneven
from fastseg.layers.norm import GlooBatchNorm2d, convert_norm
from fastseg.models import EncNetHead, create_head
from fastseg.models.heads.encnet import ContextEncoding, Encoding
from fastseg.types import FeatureInfo


def head(in_channels: int = 24, **options: Any) -> EncNetHead:
    torch.manual_seed(0)
    built = create_head("encnet", [FeatureInfo(8, 4), FeatureInfo(in_channels, 8)], 5, **options)
    assert isinstance(built, EncNetHead)
    return built


def codes_by_their_definition(x: Tensor, codewords: Tensor, scale: Tensor) -> Tensor:
    """Equations 1 and 2 of the paper, with all residuals of all pixels to all codewords at once."""
    residuals = x.flatten(2).transpose(1, 2)[:, :, None] - codewords
    assignments = (scale * residuals.square().sum(3)).softmax(2)
    return (assignments[..., None] * residuals).sum(1)


def encoding(channels: int = 16, codewords: int = 6, *, offset: float = 0.0) -> tuple[Encoding, Tensor]:
    """A dictionary around `offset`, and pixels near its words, so that assignments are neither equal nor certain."""
    torch.manual_seed(0)
    module = Encoding(channels, codewords)
    with torch.no_grad():
        module.codewords.normal_(offset, 0.3)
        nearest = module.codewords[torch.randint(codewords, (2, 9, 13))].permute(0, 3, 1, 2)
    return module, nearest + 0.3 * torch.randn(2, channels, 9, 13)


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_codes_are_sums_of_residuals_by_soft_assignment(offset: float) -> None:
    module, x = encoding(offset=offset)
    module, x = module.double(), x.double()
    with torch.no_grad():
        codes = module(x)
        assert_same(codes, codes_by_their_definition(x, module.codewords, module.scale))
    assert codes.shape == (2, 6, 16)


def test_float32_loses_no_digits_where_codewords_lie_far_from_zero_and_close_together() -> None:
    module, x = encoding(offset=100.0)
    with torch.no_grad():
        exact = codes_by_their_definition(x.double(), module.codewords.double(), module.scale.double())
        codes = module(x).double()
    # |x|^2 - 2 x d + |d|^2 about zero is off by a hundredth of the codes here, sums of residuals by some 1e-7
    torch.testing.assert_close(codes, exact, rtol=0, atol=1e-5 * float(exact.abs().max()))


def test_autocast_leaves_the_encoding_in_float32() -> None:
    module, x = encoding()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        codes, low = module(x), module(x.bfloat16())
    with torch.no_grad():
        assert torch.equal(codes, module(x))
        assert torch.equal(low, module(x.bfloat16().float()))  # and leaves it in float32


def test_codes_beyond_float16_do_not_reach_the_map_of_mixed_precision() -> None:
    torch.manual_seed(0)
    module = ContextEncoding(8, 4)
    with torch.no_grad():
        module.conv.bn.bias.fill_(4)  # 32768 pixels of some 4 each: a sum of twice float16's largest number
        module.encoding.scale.copy_(torch.tensor([0.0, -9, -9, -9]))  # all of them belong to the first word
        x = torch.rand(2, 8, 128, 256).half()
        assert module.encoding(module.conv(x.float())).abs().max() > torch.finfo(torch.float16).max
        _, exact = module(x.float())
        with torch.autocast("cpu", torch.float16):
            gated, encoded = module(x)
    assert (gated.dtype, encoded.dtype) == (torch.float16, torch.float16)
    assert gated.isfinite().all()
    # normed codes are near 1, and so is what float16's 11 digits in the convolution before them may change: 2 ** -11
    torch.testing.assert_close(encoded.float(), exact, rtol=0, atol=0.01)


def test_a_head_in_bfloat16_as_a_whole_stays_there() -> None:
    logits, encoded = head().bfloat16().eval().with_encoding([torch.randn(1, 24, 5, 6).bfloat16()])
    assert (logits.dtype, encoded.dtype) == (torch.bfloat16, torch.bfloat16)


class LargestTensor(TorchDispatchMode):
    """Numbers in the largest tensor that any operator returns."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numbers = max(self.numbers, result.numel())
        return result


def test_no_tensor_holds_the_residuals_of_every_pixel_to_every_codeword() -> None:
    module, x = encoding()
    x.requires_grad_()
    with LargestTensor() as largest:
        module(x).sum().backward()
    assert largest.numbers == x.numel()


def test_the_dictionary_begins_as_the_authors_does() -> None:
    torch.manual_seed(0)
    module = Encoding(512, 32)
    bound = (32 * 512) ** -0.5
    assert -bound <= module.codewords.min() < -0.99 * bound
    assert 0.99 * bound < module.codewords.max() <= bound
    assert -1 <= module.scale.min() < -0.8 < -0.2 < module.scale.max() <= 0


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_the_head_is_its_description(kernel_size: int) -> None:
    module = head(channels=10, codewords=4, kernel_size=kernel_size)
    uneven(module)
    with torch.no_grad():
        module.context.encoding.scale.mul_(0.1)  # small: pixels belong to several codewords
    weights, x = Weights(module), torch.randn(2, 24, 9, 13, dtype=torch.float64)
    with torch.no_grad():
        reduced = weights.conv_norm_relu("conv", x)
        codes = codes_by_their_definition(
            weights.conv_norm_relu("context.conv", reduced),
            weights["context.encoding.codewords"],
            weights["context.encoding.scale"],
        )
        mean, variance, weight, bias = (
            weights[f"context.norm.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        normed = F.batch_norm(codes, mean, variance, weight, bias, eps=1e-5)  # a code is a channel
        scene = F.relu(normed).mean(1)
        gate = F.linear(scene, weights["context.gate.weight"][:, :, 0, 0], weights["context.gate.bias"]).sigmoid()
        expected = weights.conv("classifier", F.relu(reduced + reduced * gate[:, :, None, None]))
        logits, encoded = module.with_encoding([x[:, :8], x])
        assert_same({"logits": logits, "encoding": encoded}, {"logits": expected, "encoding": scene[..., None, None]})
        assert_same(module([x]), logits)
    assert not weights.unread


def test_parameters_are_those_of_the_authors() -> None:
    with torch.device("meta"):
        module = create_head("encnet", [FeatureInfo(2048, 8)], 19)
    convolutions = 9 * 2048 * 512 + 512 * 512 + 2 * 2 * 512
    context = 32 * 512 + 32 + 2 * 32 + 513 * 512
    assert sum(p.numel() for p in module.parameters()) == convolutions + context + 513 * 19


def test_the_norm_over_codes_is_one_that_training_synchronises() -> None:
    module = head(channels=10, codewords=4, dropout=0.0)
    assert type(module.context.norm) is nn.BatchNorm2d
    assert module.context.norm.num_features == 4
    converted = convert_norm(copy.deepcopy(module), "gloo")
    assert isinstance(converted.context.norm, GlooBatchNorm2d)
    x = [torch.randn(2, 24, 6, 7)]
    torch.testing.assert_close(converted(x), module(x), rtol=1e-4, atol=1e-5)


def test_a_training_step_takes_a_single_image() -> None:
    module = head().train()
    module([torch.randn(1, 24, 5, 6)]).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_its_options_are_its_width_its_codewords_and_its_dropout() -> None:
    module = head(channels=12, codewords=7, kernel_size=1, dropout=0.3)
    assert module.channels == module.classifier.in_channels == 12
    assert module.context.encoding.codewords.shape == (7, 12)
    assert module.conv.conv.kernel_size == (1, 1)
    assert [m.p for m in module.modules() if isinstance(m, nn.Dropout2d)] == [0.3]
    assert head().channels == 6  # a quarter of the map's
    assert head().conv.conv.kernel_size == (3, 3)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_head_goes_on_maps_of_few_channels(channels: int) -> None:
    assert head(channels)([torch.randn(2, channels, 3, 4)]).shape == (2, 5, 3, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_size": 5}, r"kernel_size is 5; allowed: 1 \(after a JPU\) or 3"),
        ({"codewords": 0}, "codewords is 0; give 1 or more"),
        ({"channels": 0}, "channels is 0; give 1 or more"),
        ({"dropout": 2.0}, "^dropout is 2.0; give 0 to 1$"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        head(**options)
