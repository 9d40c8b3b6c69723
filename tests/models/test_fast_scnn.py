"""Fast-SCNN's published facts: parameters, work, strides, auxiliary outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fastseg.models import FastSCNN, create_model

MMSEGMENTATION = {
    "pyramid_fuse_kernel": 3,
    "fusion_dilation": 1,
    "fusion_bias": False,
    "classifier_activation": False,
}


def parameters(**arguments: Any) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in create_model("fast_scnn", **arguments).parameters())


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({}, 1_138_051),
        ({"num_classes": 19, "fusion_dilation": 1}, 1_138_051),
        ({"stem_activation": True, "align_corners": True, "dropout": 0.5}, 1_138_051),
        ({"pyramid_fuse_kernel": 3}, 1_138_051 + 262_144),
        ({"fusion_bias": False}, 1_138_051 - 256),
        (MMSEGMENTATION, 1_399_939),
        ({"aux": True}, 1_138_051 + 56_678),
        ({"num_classes": 11}, 1_138_051 - 8 * 129),
        ({"in_channels": 4}, 1_138_051 + 9 * 32),
    ],
)
def test_parameters(arguments: dict[str, Any], count: int) -> None:
    assert parameters(**arguments) == count


@pytest.mark.parametrize("aux", [False, True])
@pytest.mark.parametrize(("size", "convolutions"), [((512, 1024), 1_677_565_952), ((1024, 2048), 6_709_649_408)])
def test_multiply_adds_in_eval(size: tuple[int, int], convolutions: int, aux: bool) -> None:
    with torch.device("meta"):
        model = create_model("fast_scnn", aux=aux).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, *size))
    counts = {str(operator): flops for operator, flops in counter.get_flop_counts()["Global"].items()}
    assert counts["aten.convolution"] == 2 * convolutions
    # pooling is two matrix products, so it is counted too: less than a thousandth
    assert counter.get_total_flops() / 2 == pytest.approx(convolutions, rel=1e-3)
    published = {512: 1.68e9, 1024: 6.71e9}[size[0]]
    assert counter.get_total_flops() / 2 == pytest.approx(published, rel=5e-3)


def feature_maps(model: FastSCNN, images: Tensor) -> dict[str, Tensor]:
    maps: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, inputs, output: maps.update({name: output})

    handles = [
        module.register_forward_hook(keep(name))
        for name, module in model.named_modules()
        if name.count(".") <= 1 and not isinstance(module, FastSCNN)
    ]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return maps


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (90, 120), (33, 31)])
def test_strides_and_channels_of_the_stages_round_up(size: tuple[int, int]) -> None:
    model = create_model("fast_scnn", num_classes=5)
    assert isinstance(model, FastSCNN)
    maps = feature_maps(model.eval(), torch.randn(1, 3, *size))
    stages = {
        "learning_to_downsample.conv": (32, 2),
        "learning_to_downsample.dsconv1": (48, 4),
        "learning_to_downsample.dsconv2": (64, 8),
        "global_feature_extractor.bottleneck1": (64, 16),
        "global_feature_extractor.bottleneck2": (96, 32),
        "global_feature_extractor.bottleneck3": (128, 32),
        "global_feature_extractor.pyramid": (128, 32),
        "feature_fusion": (128, 8),
        "classifier": (5, 8),
    }
    for name, (channels, stride) in stages.items():
        assert maps[name].shape == (1, channels, -(-size[0] // stride), -(-size[1] // stride)), name


def test_auxiliary_outputs_are_detail_at_8_and_context_at_32() -> None:
    model = create_model("fast_scnn", num_classes=5, aux=True).train()
    assert model.aux_names == ("detail", "context")
    output = model(torch.randn(2, 3, 65, 97))
    assert list(output.aux) == ["detail", "context"]
    assert output.aux["detail"].shape == (2, 5, 9, 13)
    assert output.aux["context"].shape == (2, 5, 3, 4)
    assert output.logits.shape == (2, 5, 9, 13)


def test_fusion_dilation_is_that_of_its_depthwise_convolution() -> None:
    for dilation in (4, 1):
        model = create_model("fast_scnn", fusion_dilation=dilation)
        assert isinstance(model, FastSCNN)
        conv = model.feature_fusion.depthwise.conv
        assert (conv.dilation, conv.padding, conv.groups) == ((dilation, dilation), (dilation, dilation), 128)
    default = create_model("fast_scnn")
    assert isinstance(default, FastSCNN)
    assert default.feature_fusion.depthwise.conv.dilation == (4, 4)


def test_stem_activation_adds_two_relus_to_the_stem() -> None:
    counts = []
    for activation in (False, True):
        model = create_model("fast_scnn", stem_activation=activation)
        assert isinstance(model, FastSCNN)
        counts.append(sum(isinstance(m, nn.ReLU) for m in model.learning_to_downsample.modules()))
    assert counts == [3, 5]


def test_classifier_activation_is_a_relu_within_each_separable_convolution() -> None:
    counts = []
    for activation in (True, False):
        model = create_model("fast_scnn", classifier_activation=activation)
        assert isinstance(model, FastSCNN)
        counts.append(sum(isinstance(m, nn.ReLU) for m in model.classifier.modules()))
    assert counts == [4, 2]


def test_alignment_changes_logits_and_is_kept_for_the_final_upsampling() -> None:
    torch.manual_seed(0)
    one, other = (create_model("fast_scnn", align_corners=aligned, dropout=0.0) for aligned in (False, True))
    other.load_state_dict(one.state_dict())
    images = torch.randn(2, 3, 72, 104)  # two in training mode: batch statistics make the logits vary over the image
    assert not torch.allclose(one(images).logits, other(images).logits)
    assert (one.align_corners, other.align_corners) == (False, True)


def test_another_pyramid_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pyramid_fuse_kernel is 5; allowed: 1 .* or 3"):
        create_model("fast_scnn", pyramid_fuse_kernel=5)


MODEL = create_model("fast_scnn", num_classes=2).eval()


@given(st.integers(1, 130), st.integers(1, 130))
@settings(max_examples=25, deadline=None)
def test_any_size_from_one_pixel_up(height: int, width: int) -> None:
    with torch.no_grad():
        images = torch.ones(1, 3, height, width)
        logits = MODEL(images).logits
        assert logits.shape == (1, 2, -(-height // 8), -(-width // 8))
        assert logits.isfinite().all()
        assert MODEL.predict_logits(images).shape == (1, 2, height, width)


@pytest.mark.parametrize("size", [(1, 1), (8, 1), (37, 53), (64, 96)])
def test_a_batch_of_two_trains_at_any_size(size: tuple[int, int]) -> None:
    model = create_model("fast_scnn", num_classes=2, aux=True).train()
    output = model(torch.randn(2, 3, *size))
    (output.logits.sum() + sum(x.sum() for x in output.aux.values())).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
