"""DFANet: parameters and work of our reading, strides of the three networks, attention, decoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from descriptions import Weights, assert_same, uneven, upsample
from fastseg.models import DFANet, create_model


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("dfanet_a", {}, 1_831_051),
        ("dfanet_a", {"stride_position": "first"}, 1_831_051),
        ("dfanet_a", {"preactivation": False, "attention_activation": "relu"}, 1_831_051),
        ("dfanet_a", {"num_classes": 11}, 1_831_051 - 8 * 33),
        ("dfanet_a", {"in_channels": 4}, 1_831_051 + 9 * 8),
        # six reductions (three of 48, three of 192 channels), one fusion and the classifier grow with their width
        ("dfanet_a", {"decoder_channels": 33}, 1_831_051 + 3 * 50 + 3 * 194 + (33 * 33 - 32 * 32 + 2) + 19),
        ("dfanet_b", {}, 1_099_883),
        ("dfanet_b", {"stride_position": "first"}, 1_099_883),
    ],
)
def test_parameters(name: str, arguments: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in create_model(name, **arguments).parameters()) == count


def test_two_thirds_of_the_parameters_are_the_attentions() -> None:
    with torch.device("meta"):
        model = create_model("dfanet_a")
    assert isinstance(model, DFANet)
    assert sum(p.numel() for p in model.attention.parameters()) == 1_156_152


@pytest.mark.parametrize(
    ("name", "position", "size", "expected"),
    [
        ("dfanet_a", "last", (1024, 1024), 3.668e9),
        ("dfanet_a", "last", (512, 1024), 1.835e9),
        ("dfanet_a", "first", (1024, 1024), 2.884e9),
        ("dfanet_a", "first", (512, 1024), 1.443e9),
        ("dfanet_b", "last", (1024, 1024), 1.933e9),
        ("dfanet_b", "first", (1024, 1024), 1.518e9),
    ],
)
def test_multiply_adds_in_eval(name: str, position: str, size: tuple[int, int], expected: float) -> None:
    with torch.device("meta"):
        model = create_model(name, stride_position=position).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, *size))
    assert counter.get_total_flops() / 2 == pytest.approx(expected, rel=1e-3)


def small(**arguments: Any) -> DFANet:
    torch.manual_seed(0)
    model = create_model("dfanet_b", num_classes=5, **arguments)
    assert isinstance(model, DFANet)
    return model


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (1, 1)], ids=str)
def test_each_network_works_at_half_the_size_of_the_one_before(size: tuple[int, int]) -> None:
    model = small().eval()
    shapes: dict[int, list[tuple[int, ...]]] = {}
    for index, network in enumerate(model.backbone):
        network.register_forward_hook(
            lambda _, inputs, maps, index=index: shapes.update({index: [tuple(x.shape) for x in maps]})
        )
    with torch.no_grad():
        logits = model(torch.randn(1, 3, *size)).logits
    for index, finest in enumerate((4, 8, 16)):
        expected = [
            (1, channels, -(-size[0] // stride), -(-size[1] // stride))
            for channels, stride in ((32, finest), (64, finest * 2), (128, finest * 4))
        ]
        assert shapes[index] == expected
    assert logits.shape == (1, 5, -(-size[0] // 4), -(-size[1] // 4))


def test_stages_read_their_predecessor_joined_with_the_network_before() -> None:
    with torch.device("meta"):
        model = create_model("dfanet_a")
    assert isinstance(model, DFANet)
    networks: Any = model.backbone
    first, *further = networks
    widths = [[stage[0].conv1.depthwise.conv.in_channels for stage in (n.enc2, n.enc3, n.enc4)] for n in further]
    assert [stage[0].conv1.depthwise.conv.in_channels for stage in (first.enc2, first.enc3, first.enc4)] == [8, 48, 96]
    assert widths == [[48 + 192, 96 + 48, 192 + 96]] * 2


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
def test_attention_weighs_each_channel_by_the_classified_mean(activation: str) -> None:
    attention: Any = small(attention_activation=activation).attention[0].eval()
    x = torch.randn(2, 128, 3, 5)
    with torch.no_grad():
        scores = attention.fc(x.mean((2, 3))) @ attention.conv.conv.weight[:, :, 0, 0].T / (1 + 1e-5) ** 0.5
        expected = x * getattr(torch, activation)(scores)[:, :, None, None]
        torch.testing.assert_close(attention(x), expected)


def test_the_decoder_adds_the_finest_maps_then_the_outputs() -> None:
    decoder = small().decoder.eval()
    details = [torch.randn(1, 32, size, size) for size in (8, 4, 2)]
    outputs = [torch.randn(1, 128, size, size) for size in (2, 1, 1)]

    def at_8(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(x, size=(8, 8), mode="bilinear", align_corners=False)

    with torch.no_grad():
        fine = sum(at_8(reduce(x)) for reduce, x in zip(decoder.details, details, strict=True))
        coarse = sum(at_8(reduce(x)) for reduce, x in zip(decoder.outputs, outputs, strict=True))
        expected = decoder.classifier(decoder.fuse(fine) + coarse)
        torch.testing.assert_close(decoder(details, outputs), expected)


@pytest.mark.parametrize(
    "arguments", [{"preactivation": False}, {"stride_position": "first"}, {"align_corners": True}], ids=str
)
def test_options_keep_the_names_of_weights_and_change_the_logits(arguments: dict[str, Any]) -> None:
    one, other = small().train(), small(**arguments).train()  # batch statistics: logits vary over the image
    other.load_state_dict(one.state_dict())
    images = torch.randn(2, 3, 72, 104)
    assert not torch.allclose(one(images).logits, other(images).logits, rtol=0.05, atol=0.05)


def test_a_batch_of_one_cannot_train_since_norms_follow_the_mean_over_the_map() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        small().train()(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attention_activation": "tanh"}, r"attention_activation is 'tanh'; allowed: 'sigmoid', 'relu'"),
        ({"stride_position": "middle"}, r"stride_position is 'middle'; allowed: 'last' .* or 'first'"),
    ],
)
def test_unknown_options_are_refused(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**arguments)


def stage_by_its_description(weights: Weights, name: str, x: Tensor, blocks: int) -> Tensor:
    """Blocks of three separable convolutions; the last convolution of the first block halves the map."""
    for block in range(blocks):
        prefix, stride = f"{name}.{block}", 2 if block == 0 else 1
        inner = F.relu(x)
        for number in (1, 2, 3):
            step = stride if number == 3 else 1
            inner = weights.conv_norm(f"{prefix}.conv{number}.depthwise", inner, stride=step)
            inner = weights.conv_norm(f"{prefix}.conv{number}.pointwise", inner)
            if number < 3:
                inner = F.relu(inner)
        x = inner + (weights.conv_norm(f"{prefix}.shortcut", x, stride=2) if block == 0 else x)
    return x


def attention_by_its_description(weights: Weights, name: str, x: Tensor) -> Tensor:
    classes = F.linear(F.adaptive_avg_pool2d(x, 1).flatten(1), weights[f"{name}.fc.weight"], weights[f"{name}.fc.bias"])
    return x * torch.sigmoid(weights.conv_norm(f"{name}.conv", classes[..., None, None]))


def network_by_its_description(weights: Weights, images: Tensor) -> Tensor:
    """Figures 2 and 3 of the paper: three Xceptions A in a row, each joined to the one before, and the decoder."""
    x = weights.conv_norm_relu("backbone.0.conv", images, stride=2)
    details: list[Tensor] = []
    outputs: list[Tensor] = []
    earlier: tuple[Tensor, Tensor, Tensor] | None = None
    for number in range(3):
        name = f"backbone.{number}"
        if earlier is not None:  # the attended output of the network before, upsampled by four, joins its finest map
            x = torch.cat([earlier[0], upsample(outputs[-1], earlier[0])], 1)
        enc2 = x = stage_by_its_description(weights, f"{name}.enc2", x, 4)
        enc3 = x = stage_by_its_description(
            weights, f"{name}.enc3", x if earlier is None else torch.cat([earlier[1], x], 1), 6
        )
        enc4 = stage_by_its_description(
            weights, f"{name}.enc4", x if earlier is None else torch.cat([earlier[2], x], 1), 4
        )
        earlier = (enc2, enc3, enc4)
        details.append(enc2)
        outputs.append(attention_by_its_description(weights, f"attention.{number}", enc4))
    detail, context = (
        sum(
            (
                upsample(weights.conv_norm_relu(f"decoder.{part}.{number}", x), details[0])
                for number, x in enumerate(maps)
            ),
            torch.zeros(()),
        )
        for part, maps in (("details", details), ("outputs", outputs))
    )
    return weights.conv("decoder.classifier", weights.conv_norm_relu("decoder.fuse", detail) + context)


@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_the_network_is_its_description(size: tuple[int, int]) -> None:
    model = create_model("dfanet_a", num_classes=5)
    uneven(model)
    weights, images = Weights(model), torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = network_by_its_description(weights, images)
        assert_same(model(images).logits, expected)
    assert not weights.unread
