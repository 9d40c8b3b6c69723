"""Arguments out of their range are refused by name before a network is built."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fastseg.models import BACKBONES, HEADS, MODELS, create_backbone, create_head, create_model
from fastseg.models.arguments import require_at_least, require_fraction
from fastseg.types import FeatureInfo

INFO = (FeatureInfo(8, 8), FeatureInfo(16, 16), FeatureInfo(24, 32))


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("argument", ["num_classes", "in_channels"])
@pytest.mark.parametrize("name", MODELS.names())
def test_every_network_refuses_fewer_than_one(name: str, argument: str, value: int) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=f"^{argument} is {value}; give 1 or more$"):
        create_model(name, **{argument: value})


@pytest.mark.parametrize("name", BACKBONES.names())
def test_every_backbone_refuses_images_without_channels(name: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=r"^in_channels is 0; give 1 or more$"):
        create_backbone(name, in_channels=0)


@pytest.mark.parametrize("name", HEADS.names())
def test_every_head_refuses_to_tell_no_classes_apart(name: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=r"^num_classes is 0; give 1 or more$"):
        create_head(name, INFO, 0)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("bisenet_x39", {"head_channels": 0}, "head_channels is 0; give 1 or more"),
        ("bisenet_x39", {"aux_channels": 0}, "aux_channels is 0; give 1 or more"),
        ("bisenet_r18", {"fusion_reduction": 0}, "fusion_reduction is 0; give 1 or more"),
        ("dfanet_b", {"decoder_channels": 0}, "decoder_channels is 0; give 1 or more"),
        ("espnet", {"p": 0}, "p is 0; give 1 or more"),
        ("espnet_c", {"q": -1}, "q is -1; give 1 or more"),
        ("msfnet", {"channels": 0}, "channels is 0; give 1 or more"),
        ("pspnet_r18", {"stem_channels": 1}, "stem_channels is 1; give 2 or more"),
        ("pspnet_r50", {"stem_channels": 0}, "stem_channels is 0; give 2 or more"),
        ("pspnet_r101", {"stem_channels": 0, "stem": "plain"}, "stem_channels is 0; give 1 or more"),
        ("swiftnet_r18", {"channels": 0}, "channels is 0; give 1 or more"),
        ("swiftnet_r18_pyramid", {"channels": -3}, "channels is -3; give 1 or more"),
        ("encoder_decoder", {"head_args": {"channels": 0}}, "channels is 0; give 1 or more"),
        ("encoder_decoder", {"head": "psp", "head_args": {"channels": 0}}, "channels is 0; give 1 or more"),
        (
            "encoder_decoder",
            {"head": "dfseg", "head_args": {"lateral_channels": [8, 0, 8]}},
            "lateral_channels is 0; give 1 or more",
        ),
        (
            "encoder_decoder",
            {"head": "dfseg", "head_args": {"node_channels": [8, 0]}},
            "node_channels is 0; give 1 or more",
        ),
        ("encoder_decoder", {"head_args": {"dropout": 1.5}}, "dropout is 1.5; give 0 to 1"),
        ("encoder_decoder", {"head": "psp", "head_args": {"dropout": -1.0}}, "dropout is -1.0; give 0 to 1"),
        ("encoder_decoder", {"backbone_args": {"width": 0.0}}, "width is 0.0; give 1/64 or more"),
        ("encoder_decoder", {"backbone_args": {"width": 1 / 65}}, r"width is 0\.01\d*; give 1/64 or more"),
    ],
)
def test_widths_and_depths_out_of_range_are_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=f"^{message}"):
        create_model(name, **arguments)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("bisenet_x39", {"head_channels": 1, "fusion_reduction": 1000}),  # the gate keeps one channel
        ("pspnet_r18", {"stem_channels": 2}),
        ("encoder_decoder", {"backbone_args": {"width": 1 / 64}}),  # a map of eight channels under FCN
    ],
)
def test_the_smallest_widths_run(name: str, arguments: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=1, **arguments).train()
        assert model(torch.zeros(2, 3, 64, 64)).logits.shape[:2] == (2, 1)


def test_the_first_value_below_the_minimum_is_named() -> None:
    require_at_least(1, a=1, b=2)
    with pytest.raises(ValueError, match=r"^b is 1; give 2 or more$"):
        require_at_least(2, a=2, b=1, c=0)


def test_the_first_value_that_is_no_fraction_is_named() -> None:
    require_fraction(a=0, b=1.0, c=0.5)
    with pytest.raises(ValueError, match=r"^b is nan; give 0 to 1$"):
        require_fraction(a=0, b=float("nan"), c=-1)
