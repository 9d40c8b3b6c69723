"""BiSeNet's published facts: parameters, work, strides, auxiliary outputs, and the forms of other implementations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from descriptions import Weights, assert_same, uneven, upsample
from fastseg.models import BiSeNet, create_model

MMSEGMENTATION = {
    "head_channels": 256,
    "aux_channels": 64,
    "fusion_gate": "conv_bn_relu",
    "context_upsampling": "nearest",
    "dropout": 0.1,
    "align_corners": False,
}


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("bisenet_x39", {}, 1_541_963),  # TorchSeg's cityscapes.bisenet.X39.speed, without and with auxiliary heads
        ("bisenet_x39", {"aux": True}, 1_842_289),
        ("bisenet_r18", {}, 12_894_163),  # R18.speed
        ("bisenet_r18", {"aux": True}, 13_194_489),
        ("bisenet_r18", {"aux": True, "aux_channels": 256}, 12_894_163 + 2 * (300_326 - 19)),  # R18: but for the biases
        ("bisenet_r18", MMSEGMENTATION, 13_275_539),
        ("bisenet_r18", {"fusion_reduction": 4}, 12_894_163 - 2 * 256 * 192),
        ("bisenet_x39", {"num_classes": 11}, 1_541_963 - 8 * 65),
        ("bisenet_x39", {"in_channels": 4}, 1_541_963 + 49 * 64 + 9 * 8),
    ],
)
def test_parameters(name: str, arguments: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in create_model(name, **arguments).parameters()) == count


@pytest.mark.parametrize(
    ("name", "size", "published"),
    [
        ("bisenet_x39", (512, 1024), 6.94e9),
        ("bisenet_x39", (1024, 2048), 27.8e9),
        ("bisenet_r18", (512, 1024), 25.9e9),
        ("bisenet_r18", (1024, 2048), 103.7e9),
    ],
)
def test_multiply_adds_in_eval(name: str, size: tuple[int, int], published: float) -> None:
    with torch.device("meta"):
        model = create_model(name, aux=True).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, *size))
    assert counter.get_total_flops() / 2 == pytest.approx(published, rel=2e-3)


def small(name: str = "bisenet_x39", **arguments: Any) -> BiSeNet:
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, **arguments)
    assert isinstance(model, BiSeNet)
    return model


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 31), (1, 1)], ids=str)
def test_logits_stand_at_stride_8_rounded_up(size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = small().eval()(torch.randn(1, 3, *size)).logits
    assert logits.shape == (1, 5, -(-size[0] // 8), -(-size[1] // 8))


def test_auxiliary_outputs_are_the_context_at_16_and_at_8() -> None:
    model = small(aux=True).train()
    assert model.aux_names == ("context16", "context8")
    output = model(torch.randn(2, 3, 65, 97))
    assert list(output.aux) == ["context16", "context8"]
    assert output.aux["context16"].shape == (2, 5, 5, 7)
    assert output.aux["context8"].shape == (2, 5, 9, 13)


def test_the_context_is_the_refined_sum_of_attention_and_mean() -> None:
    model = small().eval()
    path = model.context_path
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        _, stride8, stride16, stride32 = model.backbone(images)
        context16, context8 = path(stride8, stride16, stride32)
        tail = path.global_context(nn.functional.adaptive_avg_pool2d(stride32, 1))
        up = nn.functional.interpolate(
            path.attention32(stride32) + tail, size=(4, 4), mode="bilinear", align_corners=True
        )
        torch.testing.assert_close(context16, path.refine32(up))
        up = nn.functional.interpolate(
            path.attention16(stride16) + context16, size=(8, 8), mode="bilinear", align_corners=True
        )
        torch.testing.assert_close(context8, path.refine16(up))


@pytest.mark.parametrize(
    ("arguments", "changed"), [({"align_corners": False}, True), ({"context_upsampling": "nearest"}, True), ({}, False)]
)
def test_upsampling_and_alignment_change_the_logits(arguments: dict[str, Any], changed: bool) -> None:
    one, other = small().train(), small(**arguments).train()  # batch statistics: logits vary over the image
    other.load_state_dict(one.state_dict())
    images = torch.randn(2, 3, 72, 104)
    assert torch.allclose(one(images).logits, other(images).logits) is not changed
    assert other.align_corners is arguments.get("align_corners", True)


def test_with_nearest_upsampling_alignment_is_for_the_final_resize_only() -> None:
    one, other = (small(context_upsampling="nearest", align_corners=aligned).eval() for aligned in (False, True))
    other.load_state_dict(one.state_dict())
    images = torch.randn(1, 3, 72, 104)
    with torch.no_grad():
        assert torch.equal(one(images).logits, other(images).logits)
        assert not torch.allclose(one.predict_logits(images), other.predict_logits(images))


def test_the_backbone_has_its_own_attribute_and_the_paths_share_nothing_with_it() -> None:
    for name, channels in (("bisenet_x39", 256), ("bisenet_r18", 512)):
        with torch.device("meta"):
            model = create_model(name)
        assert isinstance(model, BiSeNet)
        assert model.backbone.feature_info[-1].channels == channels
        assert model.backbone.feature_info[-1].stride == 32


def test_dropout_stands_before_each_classifier() -> None:
    model = small(aux=True, dropout=0.3)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout2d)] == [0.3] * 3


def test_a_batch_of_one_cannot_train_since_norms_follow_the_mean_over_the_map() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        small().train()(torch.randn(1, 3, 64, 64))


def test_another_upsampling_is_refused() -> None:
    with pytest.raises(ValueError, match=r"context_upsampling is 'bicubic'; allowed: 'bilinear' .* or 'nearest'"):
        small(context_upsampling="bicubic")


def separable(weights: Weights, name: str, x: Tensor, stride: int) -> Tensor:
    """Separable convolution of Xception39: no norm between its two, no ReLU behind."""
    return weights.conv_norm(f"{name}.pointwise", weights.conv(f"{name}.depthwise", x, stride=stride))


def xception39_by_its_description(weights: Weights, images: Tensor) -> list[Tensor]:
    """Maps at strides 8, 16, 32."""
    x = F.max_pool2d(weights.conv_norm_relu("backbone.conv", images, stride=2), 3, 2, 1)
    maps = []
    for stage, blocks in ((1, 4), (2, 8), (3, 4)):
        for block in range(blocks):
            name, stride = f"backbone.stage{stage}.{block}", 2 if block == 0 else 1
            inner = F.relu(separable(weights, f"{name}.conv1", x, stride))
            inner = F.relu(separable(weights, f"{name}.conv2", inner, 1))
            inner = separable(weights, f"{name}.conv3", inner, 1)
            x = F.relu(inner + (separable(weights, f"{name}.shortcut", x, 2) if block == 0 else x))
        maps.append(x)
    return maps


def network_by_its_description(weights: Weights, images: Tensor) -> dict[str, Tensor]:
    """Figure 2 of the paper with the authors' refinements; logits of the head and of both auxiliary heads."""

    def mean(x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, 1)

    def refined_attention(name: str, x: Tensor) -> Tensor:
        x = weights.conv_norm_relu(f"context_path.{name}.conv", x)
        return x * torch.sigmoid(weights.conv_norm(f"context_path.{name}.gate.0", mean(x)))

    def head(name: str, x: Tensor) -> Tensor:
        return weights.conv(f"{name}.classifier", weights.conv_norm_relu(f"{name}.conv", x))

    detail = images
    for number in (1, 2, 3):
        detail = weights.conv_norm_relu(f"spatial_path.conv{number}", detail, stride=2)
    detail = weights.conv_norm_relu("spatial_path.conv4", detail)
    stride8, stride16, stride32 = xception39_by_its_description(weights, images)
    tail = weights.conv_norm_relu("context_path.global_context", mean(stride32))
    context = upsample(refined_attention("attention32", stride32) + tail, stride16, align_corners=True)
    context16 = weights.conv_norm_relu("context_path.refine32", context)
    context = upsample(refined_attention("attention16", stride16) + context16, stride8, align_corners=True)
    context8 = weights.conv_norm_relu("context_path.refine16", context)
    fused = weights.conv_norm_relu("fusion.conv", torch.cat([detail, context8], 1))
    gate = weights.conv("fusion.gate.2", F.relu(weights.conv("fusion.gate.0", mean(fused))))
    return {
        "logits": head("head", fused + fused * torch.sigmoid(gate)),
        "context16": head("aux_heads.context16", context16),
        "context8": head("aux_heads.context8", context8),
    }


@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_the_network_and_its_auxiliary_heads_are_their_description(size: tuple[int, int]) -> None:
    model = create_model("bisenet_x39", num_classes=5, aux=True)
    uneven(model)
    model.training = True  # auxiliary outputs, while all norms stay in eval mode
    weights, images = Weights(model), torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = network_by_its_description(weights, images)
        output = model(images)
    assert_same({"logits": output.logits, **output.aux}, expected)
    assert not weights.unread
