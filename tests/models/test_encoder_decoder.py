"""Every backbone under every head."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastseg.errors import UnknownNameError
from fastseg.models import BACKBONES, HEADS, create_backbone, create_head, create_model
from fastseg.models.encoder_decoder import EncoderDecoder
from fastseg.types import FeatureInfo

PRODUCT = [(backbone, head) for backbone in BACKBONES.names() for head in HEADS.names()]


@pytest.mark.parametrize(("backbone", "head"), PRODUCT, ids=lambda name: name)
def test_every_backbone_goes_under_every_head(backbone: str, head: str) -> None:
    with torch.device("meta"):
        model = create_model("encoder_decoder", backbone=backbone, head=head, num_classes=11, aux=True)
        strides = {info.stride for info in create_backbone(backbone).feature_info}
        for size in ((1, 1), (65, 97)):
            assert model.eval().predict_logits(torch.zeros(1, 3, *size)).shape == (1, 11, *size)
        logits, aux = model.train()(torch.zeros(2, 3, 256, 512))
    assert list(aux) == ["auxiliary"]
    assert all(x.shape[:2] == (2, 11) for x in (logits, aux["auxiliary"]))
    assert 256 / logits.shape[2] in strides
    assert logits.shape[3] == 2 * logits.shape[2]


@pytest.mark.parametrize("backbone", [name for name in BACKBONES.names() if name != "resnet101"])
@pytest.mark.parametrize("head", HEADS.names())
def test_a_gradient_reaches_the_backbone_and_the_head(backbone: str, head: str) -> None:
    torch.manual_seed(0)
    narrow = {"width": 0.125} if backbone == "wide_resnet38" else {}  # else it takes seconds
    model = create_model("encoder_decoder", backbone=backbone, backbone_args=narrow, head=head, num_classes=3).train()
    model(torch.randn(2, 3, 64, 64)).logits.square().sum().backward()
    reached = {key.split(".")[0] for key, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"backbone", "head"}


def test_arguments_reach_backbone_and_head() -> None:
    model = create_model(
        "encoder_decoder",
        backbone="resnet18",
        head="fcn",
        in_channels=4,
        backbone_args={"output_stride": 8},
        head_args={"channels": 24},
        num_classes=5,
    )
    assert isinstance(model, EncoderDecoder)
    assert model.head.classifier.in_channels == 24  # type: ignore[union-attr]
    assert model(torch.randn(2, 4, 64, 96)).logits.shape == (2, 5, 8, 12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet81"}, "unknown backbone 'resnet81'; did you mean 'resnet18'"),
        ({"head": "fcm"}, "unknown head 'fcm'; did you mean 'fcn'"),
        ({"backbone_args": {"output_strid": 8}}, "has no argument 'output_strid'; did you mean 'output_stride'"),
        ({"head_args": {"chanels": 8}}, "has no argument 'chanels'; did you mean 'channels'"),
    ],
)
def test_wrong_names_are_refused_with_the_right_spelling(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        create_model("encoder_decoder", **arguments)


def test_weights_among_the_backbones_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="'imagenet'; give them as backbone_weights"):
        create_model("encoder_decoder", backbone_args={"weights": "imagenet"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone_args": {"in_channels": 4}}, "backbone_args has in_channels=4; give it as the model's own argument"),
        (
            {"head": "psp", "head_args": {"align_corners": True}},
            "head_args has align_corners=True; give it as the model's own argument align_corners",
        ),
    ],
)
def test_arguments_of_the_model_are_refused_among_those_of_its_parts(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("encoder_decoder", **arguments)


def test_the_models_alignment_reaches_the_head() -> None:
    with torch.device("meta"):
        model = create_model("encoder_decoder", head="psp", align_corners=True)
    assert model.head.pyramid.align_corners  # type: ignore[union-attr]


def test_a_head_that_alignment_cannot_change_goes_with_either() -> None:
    with torch.device("meta"):
        model = create_model("encoder_decoder", head="deeplabv3", align_corners=True).eval()
        assert model.align_corners
        assert model(torch.zeros(1, 3, 64, 64)).logits.shape == (1, 19, 2, 2)


@pytest.mark.parametrize(("channels", "expected"), [(1, 1), (3, 1), (4, 1), (8, 2)])
def test_the_fcn_head_keeps_a_channel_on_narrow_maps(channels: int, expected: int) -> None:
    head = create_head("fcn", (FeatureInfo(channels, 8),), 5)
    assert head.classifier.in_channels == expected  # type: ignore[union-attr]
    assert head([torch.randn(2, channels, 3, 4)]).shape == (2, 5, 3, 4)


def test_a_backbone_without_imagenet_weights_names_those_that_have_them() -> None:
    with pytest.raises(ValueError, match=r"'df1' has no ImageNet weights to load.*resnet18.*timm:<name>"):
        create_model("encoder_decoder", backbone="df1", backbone_weights="imagenet")


def test_the_auxiliary_head_stands_on_the_map_before_the_last() -> None:
    model = create_model("encoder_decoder", backbone="resnet18", num_classes=5, aux=True).train()
    output = model(torch.randn(2, 3, 64, 96))
    assert output.logits.shape == (2, 5, 2, 3)
    assert output.aux["auxiliary"].shape == (2, 5, 4, 6)
