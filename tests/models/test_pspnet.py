"""PSPNet's published facts: parameters, work, strides, dilation; and its head on any map."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from descriptions import Weights, assert_same, uneven, upsample
from fastseg.models import PSPHead, PSPNet, create_head, create_model
from fastseg.models.backbones.resnet import Bottleneck
from fastseg.types import FeatureInfo

AUX_R50 = 9 * 1024 * 256 + 2 * 256 + 257 * 19


def network(name: str = "pspnet_r18", **arguments: Any) -> PSPNet:
    torch.manual_seed(0)
    model = create_model(name, **arguments)
    assert isinstance(model, PSPNet)
    return model


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("pspnet_r50", {"aux": True}, 49_080_038),  # semseg, model/pspnet.py, with its auxiliary head
        ("pspnet_r101", {"aux": True}, 68_072_166),
        ("pspnet_r50", {}, 49_080_038 - 2_364_691),
        ("pspnet_r101", {}, 68_072_166 - 2_364_691),
        ("pspnet_r50", {"aux": True, "stem_channels": 64}, 48_975_494),  # mmsegmentation, pspnet_r50-d8
        ("pspnet_r18", {"aux": True}, 12_790_086),  # pspnet_r18-d8
        ("pspnet_r18", {}, 12_790_086 - 148_819),
        ("pspnet_r50", {"contract_dilation": True, "align_corners": False, "dropout": 0.5}, 46_715_347),
        ("pspnet_r50", {"num_classes": 11}, 46_715_347 - 8 * 513),
        ("pspnet_r50", {"in_channels": 4}, 46_715_347 + 9 * 64),
    ],
)
def test_parameters(name: str, arguments: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in create_model(name, **arguments).parameters()) == count


def test_the_auxiliary_head_has_the_parameters_of_the_authors() -> None:
    assert AUX_R50 == 2_364_691
    with torch.device("meta"):
        heads = network("pspnet_r50", aux=True).aux_heads
    assert sum(p.numel() for p in heads.parameters()) == AUX_R50


@pytest.mark.parametrize(("name", "published"), [("pspnet_r50", 376.6e9), ("pspnet_r101", 535.4e9)])
def test_multiply_adds_in_eval(name: str, published: float) -> None:
    with torch.device("meta"):
        model = create_model(name, aux=True).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 513, 1025))
    assert counter.get_total_flops() / 2 == pytest.approx(published, rel=2e-3)


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 31), (1, 1)], ids=str)
def test_logits_and_auxiliary_logits_stand_at_stride_8_rounded_up(size: tuple[int, int]) -> None:
    model = network(num_classes=5, aux=True)
    expected = (2, 5, -(-size[0] // 8), -(-size[1] // 8))
    assert model.aux_names == ("layer3",)
    output = model.train()(torch.randn(2, 3, *size))
    assert (output.logits.shape, output.aux["layer3"].shape) == (expected, expected)
    assert model.eval()(torch.randn(2, 3, *size)).logits.shape == expected


@pytest.mark.parametrize(("contract", "first"), [(False, (2, 4)), (True, (1, 2))])
def test_dilation_of_the_first_and_the_other_blocks(contract: bool, first: tuple[int, int]) -> None:
    with torch.device("meta"):
        backbone = network("pspnet_r50", contract_dilation=contract).backbone
    for stage, head, rest in ((backbone.layer3, first[0], 2), (backbone.layer4, first[1], 4)):
        blocks = [block for block in stage if isinstance(block, Bottleneck)]
        assert [block.conv2.dilation[0] for block in blocks] == [head] + [rest] * (len(blocks) - 1)
        assert all(block.conv2.stride == (1, 1) for block in blocks)


def test_the_stem_is_deep_and_of_128_channels_or_plain_and_of_64() -> None:
    with torch.device("meta"):
        deep = network("pspnet_r50").backbone.conv1
        plain = network("pspnet_r50", stem="plain").backbone.conv1
    assert isinstance(deep, nn.Sequential)
    assert [part.out_channels for part in deep if isinstance(part, nn.Conv2d)] == [64, 64, 128]
    assert isinstance(plain, nn.Conv2d)
    assert (plain.kernel_size, plain.out_channels) == ((7, 7), 64)


@pytest.mark.parametrize("name", ["pspnet_r18", "pspnet_r50", "pspnet_r101"])
def test_imagenet_weights_are_refused_for_the_deep_stem(name: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="stem is 'deep', the weights need 'plain'"):
        create_model(name, backbone_weights="imagenet")


def test_alignment_changes_logits_and_is_kept_for_the_final_upsampling() -> None:
    one, other = (network(num_classes=5, align_corners=aligned, dropout=0.0) for aligned in (False, True))
    images = torch.randn(2, 3, 72, 104)  # two in training mode: batch statistics make the logits vary over the image
    assert not torch.allclose(one(images).logits, other(images).logits)
    assert (one.align_corners, other.align_corners) == (False, True)


def test_the_head_is_the_papers_figure() -> None:
    torch.manual_seed(0)
    head = create_head("psp", [FeatureInfo(8, 4), FeatureInfo(16, 8)], 5, align_corners=True)
    assert isinstance(head, PSPHead)
    x = torch.randn(2, 16, 9, 13)
    pyramid = head.pyramid
    with torch.no_grad():
        logits = head.eval()([torch.randn(2, 8, 18, 26), x])
        maps = [x]
        for bins, branch in zip((1, 2, 3, 6), pyramid.branches, strict=True):
            pooled = branch(F.adaptive_avg_pool2d(x, bins))
            assert pooled.shape == (2, 4, bins, bins)
            maps.append(F.interpolate(pooled, size=(9, 13), mode="bilinear", align_corners=True))
        expected = head.classifier(pyramid.fuse(torch.cat(maps, 1)))
    assert pyramid.fuse.conv.kernel_size == (3, 3)
    assert pyramid.fuse.conv.out_channels == 4
    torch.testing.assert_close(logits, expected)


def test_the_heads_options_are_its_width_its_grids_and_its_dropout() -> None:
    head = create_head("psp", [FeatureInfo(24, 16)], 5, channels=10, bins=(1, 4), dropout=0.3)
    assert isinstance(head, PSPHead)
    assert head.pyramid.bins == (1, 4)
    assert head.classifier.in_channels == 10
    assert [branch.conv.out_channels for branch in head.pyramid.branches] == [12, 12]  # type: ignore[union-attr]
    assert [m.p for m in head.modules() if isinstance(m, nn.Dropout2d)] == [0.3]
    assert head([torch.randn(2, 24, 7, 5)]).shape == (2, 5, 7, 5)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_head_goes_on_maps_of_few_channels(channels: int) -> None:
    head = create_head("psp", [FeatureInfo(channels, 8)], 5)
    assert head([torch.randn(2, channels, 3, 4)]).shape == (2, 5, 3, 4)


def network_by_its_description(weights: Weights, images: Tensor) -> dict[str, Tensor]:
    """ResNet-18 of stride 8 with a deep stem, all blocks of a dilated stage alike, and figure 3 of the paper."""

    def conv_norm(name: str, number: int, x: Tensor, *, stride: int = 1, dilation: int = 1) -> Tensor:
        x = weights.conv(f"{name}.conv{number}", x, stride=stride, dilation=dilation)
        return weights.norm(f"{name}.bn{number}", x)

    x = F.relu(weights.norm("backbone.conv1.1", weights.conv("backbone.conv1.0", images, stride=2)))
    x = F.relu(weights.norm("backbone.conv1.4", weights.conv("backbone.conv1.3", x)))
    x = F.relu(weights.norm("backbone.bn1", weights.conv("backbone.conv1.6", x)))
    x = F.max_pool2d(x, 3, 2, 1)
    maps = []
    for stage, first_stride, dilation in ((1, 1, 1), (2, 2, 1), (3, 1, 2), (4, 1, 4)):
        for block in range(2):
            name, stride = f"backbone.layer{stage}.{block}", first_stride if block == 0 else 1
            inner = F.relu(conv_norm(name, 1, x, stride=stride, dilation=dilation))
            inner = conv_norm(name, 2, inner)
            if block == 0 and stage > 1:
                x = weights.norm(f"{name}.downsample.1", weights.conv(f"{name}.downsample.0", x, stride=stride))
            x = F.relu(inner + x)
        maps.append(x)
    pooled = [x]
    for place, bins in enumerate((1, 2, 3, 6)):
        branch = weights.conv_norm_relu(f"head.pyramid.branches.{place}", F.adaptive_avg_pool2d(x, bins))
        pooled.append(upsample(branch, x, align_corners=True))
    fused = weights.conv_norm_relu("head.pyramid.fuse", torch.cat(pooled, 1))
    hidden = weights.conv_norm_relu("aux_heads.layer3.conv", maps[2])
    return {
        "logits": weights.conv("head.classifier", fused),
        "layer3": weights.conv("aux_heads.layer3.classifier", hidden),
    }


@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_the_network_and_its_auxiliary_head_are_their_description(size: tuple[int, int]) -> None:
    model = network(num_classes=5, aux=True)
    uneven(model)
    model.training = True  # auxiliary outputs, while norms and dropout stay in eval mode
    weights, images = Weights(model), torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = network_by_its_description(weights, images)
        output = model(images)
    assert_same({"logits": output.logits, **output.aux}, expected)
    assert not weights.unread
