"""FastFCN's published facts: parameters, work, strides, dilation; what its arguments change; its auxiliary outputs."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from descriptions import Weights, assert_same, uneven, upsample
from fastseg.layers.jpu import JPU
from fastseg.models import (
    DeepLabV3Head,
    EncNetHead,
    FastFCN,
    PSPHead,
    ResNet,
    create_backbone,
    create_model,
    encnet,
    resnet50,
)
from fastseg.models.backbones.resnet import Bottleneck
from fastseg.types import FeatureInfo

NAMES = tuple(f"fastfcn_{size}_{head}" for size in ("r50", "r101") for head in ("encnet", "deeplabv3", "psp"))
JPUS = ("jpu", "jpu_x", None)
FC = 2048 * 1000 + 1000  # ImageNet's classifier, which the authors' backbone keeps
AUX = 9 * 1024 * 256 + 2 * 256 + 257 * 19
SE = 513 * 19
# a dilated network's head without its classifier: EncNet's, DeepLabV3's and PSPNet's on 2048 channels
ENCNET = 9 * 2048 * 512 + 512 * 512 + 4 * 512 + 32 * 512 + 3 * 32 + 513 * 512
DEEPLABV3 = (29 * 2048 + 5 * 256 + 9 * 256) * 256 + 7 * 2 * 256
PSP = 4 * (2048 * 512 + 2 * 512) + 9 * 4096 * 512 + 2 * 512
PSPNET_R50, PSPNET_R101 = 46_715_347, 65_707_475  # semseg, without the auxiliary head


@functools.cache
def on_meta(name: str = "fastfcn_r50_encnet", **arguments: Any) -> FastFCN:
    with torch.device("meta"):
        model = create_model(name, **arguments)
    assert isinstance(model, FastFCN)
    return model


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        # counted on wuhuikai/FastFCN with its auxiliary head and its unused classifier
        ("fastfcn_r50_encnet", {"aux": True}, 49_392_449 - FC),
        ("fastfcn_r101_encnet", {"aux": True}, 68_384_577 - FC),
        ("fastfcn_r50_deeplabv3", {"aux": True}, 63_911_374 - FC),
        ("fastfcn_r101_deeplabv3", {"aux": True}, 82_903_502 - FC),
        ("fastfcn_r50_psp", {"aux": True}, 70_864_590 - FC),
        ("fastfcn_r101_psp", {"aux": True}, 89_856_718 - FC),
        ("fastfcn_r50_encnet", {"aux": True, "jpu": "jpu_x"}, 49_376_065 - FC),
        ("fastfcn_r50_deeplabv3", {"aux": True, "jpu": "jpu_x"}, 63_894_990 - FC),
        ("fastfcn_r50_psp", {"aux": True, "jpu": "jpu_x"}, 70_848_206 - FC),
        # at inference: theirs count the classifier of classes present, which runs in training only
        ("fastfcn_r50_encnet", {}, 44_978_758 - SE),
        ("fastfcn_r101_encnet", {}, 63_970_886 - SE),
        ("fastfcn_r50_deeplabv3", {}, 59_497_683),
        ("fastfcn_r101_deeplabv3", {}, 78_489_811),
        ("fastfcn_r50_psp", {}, 66_450_899),
        ("fastfcn_r101_psp", {}, 85_443_027),
        # dilated backbones: PSPNet's, and the same with the other heads
        ("fastfcn_r50_psp", {"jpu": None}, PSPNET_R50),
        ("fastfcn_r101_psp", {"jpu": None}, PSPNET_R101),
        ("fastfcn_r50_encnet", {"jpu": None}, PSPNET_R50 - PSP + ENCNET),
        ("fastfcn_r101_encnet", {"jpu": None}, PSPNET_R101 - PSP + ENCNET),
        ("fastfcn_r50_deeplabv3", {"jpu": None}, PSPNET_R50 - PSP - 513 * 19 + DEEPLABV3 + 257 * 19),
        # mmsegmentation's fastfcn_r50-d32_jpu_{psp,enc,aspp} and {encnet,deeplabv3}_r50-d8, with auxiliary heads
        ("fastfcn_r50_psp", {"aux": True, "mmseg": True}, 68_711_046),
        ("fastfcn_r50_encnet", {"aux": True, "mmseg": True}, 55_627_513),
        ("fastfcn_r50_deeplabv3", {"aux": True, "mmseg": True}, 87_848_582),
        ("fastfcn_r50_encnet", {"aux": True, "mmseg": True, "jpu": None}, 35_891_961),
        ("fastfcn_r50_deeplabv3", {"aux": True, "mmseg": True, "jpu": None}, 68_113_030),
        ("fastfcn_r50_psp", {"num_classes": 11}, 66_450_899 - 8 * 513),
        ("fastfcn_r50_psp", {"in_channels": 4}, 66_450_899 + 9 * 64),
    ],
)
def test_parameters(name: str, arguments: dict[str, Any], expected: int) -> None:
    assert count(on_meta(name, **arguments)) == expected


def test_the_auxiliary_heads_have_the_parameters_of_the_authors() -> None:
    assert AUX == 2_364_691
    heads = on_meta(aux=True).aux_heads
    assert {name: count(head) for name, head in heads.items()} == {"layer3": AUX, "se": SE}


@pytest.mark.parametrize(
    ("name", "jpu", "published"),
    [
        ("fastfcn_r50_encnet", "jpu", 132.6),
        ("fastfcn_r101_encnet", "jpu", 171.4),
        ("fastfcn_r50_deeplabv3", "jpu", 249.6),
        ("fastfcn_r101_deeplabv3", "jpu", 288.4),
        ("fastfcn_r50_psp", "jpu", 276.5),
        ("fastfcn_r101_psp", "jpu", 315.3),
        ("fastfcn_r50_encnet", "jpu_x", 147.0),
        ("fastfcn_r50_deeplabv3", "jpu_x", 264.0),
        ("fastfcn_r50_psp", "jpu_x", 290.9),
    ],
)
def test_multiply_adds_in_eval(name: str, jpu: str, published: float) -> None:
    model = on_meta(name, jpu=jpu, aux=True).eval()
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 512, 1024))
    auxiliary = (9 * 1024 * 256 + 256 * 19) * 32 * 64  # the reference runs it in eval too
    # it pools and encodes by operators that are not counted, which here are matrix products
    assert counter.get_total_flops() / 2 + auxiliary == pytest.approx(published * 1e9, rel=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_builds_its_backbone_and_its_head(name: str) -> None:
    model = on_meta(name)
    _, size, head = name.split("_")
    assert len(model.backbone.layer3) == {"r50": 6, "r101": 23}[size]
    assert isinstance(model.head, {"encnet": EncNetHead, "deeplabv3": DeepLabV3Head, "psp": PSPHead}[head])


@pytest.mark.parametrize("jpu", JPUS)
@pytest.mark.parametrize("name", [name for name in NAMES if "r50" in name])
@pytest.mark.parametrize("size", [(64, 96), (65, 97), (1, 1)], ids=str)
def test_logits_stand_at_stride_8_rounded_up_with_and_without_jpu(
    name: str, jpu: str | None, size: tuple[int, int]
) -> None:
    model = on_meta(name, num_classes=5, aux=True, jpu=jpu)
    images = torch.zeros(2, 3, *size, device="meta")
    stride = 16 if jpu else 8  # of the third stage
    output = model.train()(images)
    assert output.logits.shape == (2, 5, -(-size[0] // 8), -(-size[1] // 8))
    assert output.aux["layer3"].shape == (2, 5, -(-size[0] // stride), -(-size[1] // stride))
    assert model.eval()(images).logits.shape == output.logits.shape


def strides_and_dilations(backbone: ResNet) -> list[tuple[int, int, set[int]]]:
    """For each stage: its stride, the dilation of its first block, and those of the others."""
    stages = []
    for stage in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
        first, *rest = [block.conv2 for block in stage if isinstance(block, Bottleneck)]
        assert all(conv.stride == (1, 1) for conv in rest)
        stages.append((first.stride[0], first.dilation[0], {conv.dilation[0] for conv in rest}))
    return stages


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("arguments", "last_stages"),
    [
        ({}, [(2, 1, {1}), (2, 1, {1})]),
        ({"jpu": "jpu_x"}, [(2, 1, {1}), (2, 1, {1})]),
        ({"jpu": None}, [(1, 1, {2}), (1, 2, {4})]),
        ({"mmseg": True}, [(2, 1, {2}), (2, 2, {4})]),
        ({"mmseg": True, "jpu": None}, [(1, 1, {2}), (1, 2, {4})]),
    ],
    ids=str,
)
def test_the_backbone_is_strided_or_dilated_and_in_mmsegmentations_form_both(
    name: str, arguments: dict[str, Any], last_stages: list[tuple[int, int, set[int]]]
) -> None:
    assert strides_and_dilations(on_meta(name, **arguments).backbone) == [(1, 1, {1}), (2, 1, {1}), *last_stages]


@pytest.mark.parametrize("dilations", [(1, 1, 2), (1, 1, 2, 0), (1, 1, 1, 2, 4)])
def test_a_backbone_takes_one_dilation_for_each_stage(dilations: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"give one of 1 or more for each of the four stages"):
        create_backbone("resnet18", dilations=dilations)


def test_encnets_head_begins_with_a_1x1_convolution_after_a_jpu_only() -> None:
    sizes = {jpu: on_meta(jpu=jpu).head.conv.conv.kernel_size for jpu in JPUS}  # type: ignore[union-attr]
    assert sizes == {"jpu": (1, 1), "jpu_x": (1, 1), None: (3, 3)}
    assert on_meta(mmseg=True).head.conv.conv.kernel_size == (3, 3)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "channels", "aligned"),
    [
        ({}, 128, True),
        ({"stem": "plain"}, 64, True),
        ({"mmseg": True}, 64, False),
        ({"mmseg": True, "stem_channels": 128, "align_corners": True}, 128, True),
        ({"stem_channels": 32, "align_corners": False}, 32, False),
    ],
    ids=str,
)
def test_stem_and_alignment_follow_the_form_unless_given(
    arguments: dict[str, Any], channels: int, aligned: bool
) -> None:
    model = on_meta("fastfcn_r50_psp", **arguments)
    assert model.backbone.bn1.num_features == channels
    assert model.align_corners is aligned
    assert model.jpu is not None
    assert model.jpu.align_corners is aligned
    assert model.head.pyramid.align_corners is aligned  # type: ignore[union-attr]


@pytest.mark.parametrize("jpu", ["jpu", "jpu_x"])
def test_alignment_reaches_every_resize_inside(jpu: str) -> None:
    model = on_meta("fastfcn_r50_psp", jpu=jpu)
    flags = [m.align_corners for m in model.modules() if hasattr(m, "align_corners")]
    assert len(flags) == {"jpu": 3, "jpu_x": 4}[jpu]  # the network, its pyramid, and one or two joints
    assert all(flags)


def test_dropout_reaches_every_classifier() -> None:
    model = on_meta("fastfcn_r50_deeplabv3", aux=True, dropout=0.25)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout2d)] == [0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"jpu": "None"},
            r"jpu is 'None'; allowed: 'jpu', 'jpu_x', or None \(null in YAML and on the command line\) for",
        ),
        ({"dropout": 1.5}, "^dropout is 1.5; give 0 to 1$"),
        ({"jpu": "jpu_x", "mmseg": True}, "mmsegmentation has no JPU_X; give jpu='jpu', or leave mmseg out"),
        ({"stem": "shallow"}, "stem is 'shallow'; allowed: 'plain'"),
        ({"stem_channels": 0}, "stem_channels is 0; give 2 or more"),
        ({"num_classes": 0}, "num_classes is 0; give 1 or more"),
        ({"backbone_weights": "imagenet"}, "stem is 'deep', the weights need 'plain'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", NAMES)
def test_arguments_out_of_their_range_are_refused(name: str, arguments: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        create_model(name, **arguments)


@pytest.mark.parametrize("name", NAMES)
def test_only_encnets_encoding_is_trained_and_by_the_loss_of_classes_present(name: str) -> None:
    model, encnet = on_meta(name, aux=True), name.endswith("encnet")
    assert model.aux_names == (("layer3", "se") if encnet else ("layer3",))
    assert dict(model.aux_losses) == ({"se": "class_presence"} if encnet else {})
    assert not on_meta(name).aux_losses


@pytest.mark.parametrize("size", [(64, 96), (33, 31)], ids=str)
def test_each_image_has_one_logit_per_class_for_its_presence_in_training_only(size: tuple[int, int]) -> None:
    model = on_meta(num_classes=5, aux=True)
    images = torch.zeros(2, 3, *size, device="meta")
    assert model.train()(images).aux["se"].shape == (2, 5, 1, 1)
    assert model.eval()(images).aux == {}


def network_by_its_description(weights: Weights, images: Tensor) -> dict[str, Tensor]:
    """ResNet-50 of stride 32 with a deep stem, figures 2 and 4 of the paper, and EncNet's head."""
    x = F.relu(weights.norm("backbone.conv1.1", weights.conv("backbone.conv1.0", images, stride=2)))
    x = F.relu(weights.norm("backbone.conv1.4", weights.conv("backbone.conv1.3", x)))
    x = F.relu(weights.norm("backbone.bn1", weights.conv("backbone.conv1.6", x)))
    x = F.max_pool2d(x, 3, 2, 1)
    maps = []
    for stage, blocks in ((1, 3), (2, 4), (3, 6), (4, 3)):
        for block in range(blocks):
            name, stride = f"backbone.layer{stage}.{block}", 2 if block == 0 and stage > 1 else 1
            inner = x
            for number, step in ((1, 1), (2, stride), (3, 1)):
                inner = weights.norm(f"{name}.bn{number}", weights.conv(f"{name}.conv{number}", inner, stride=step))
                inner = F.relu(inner) if number < 3 else inner
            if block == 0:
                x = weights.norm(f"{name}.downsample.1", weights.conv(f"{name}.downsample.0", x, stride=stride))
            x = F.relu(inner + x)
        maps.append(x)
    reduced = [weights.conv_norm_relu(f"jpu.reductions.{i}", x) for i, x in enumerate(maps[1:])]
    joined = torch.cat([upsample(x, maps[1], align_corners=True) for x in reduced], 1)
    dilated = []
    for i, dilation in enumerate((1, 2, 4, 8)):
        inner = weights.conv_norm(f"jpu.dilated.{i}.depthwise", joined, dilation=dilation)
        dilated.append(weights.conv_norm_relu(f"jpu.dilated.{i}.pointwise", inner))
    x = weights.conv_norm_relu("head.conv", torch.cat(dilated, 1))
    pixels = weights.conv_norm_relu("head.context.conv", x).flatten(2).transpose(1, 2)
    residuals = pixels[:, :, None] - weights["head.context.encoding.codewords"]
    assignments = (weights["head.context.encoding.scale"] * residuals.square().sum(3)).softmax(2)
    codes = (assignments[..., None] * residuals).sum(1)
    scene = F.relu(weights.norm("head.context.norm", codes)).mean(1)[..., None, None]
    gated = F.relu(x + x * weights.conv("head.context.gate", scene).sigmoid())
    hidden = weights.conv_norm_relu("aux_heads.layer3.conv", maps[2])
    return {
        "logits": weights.conv("head.classifier", gated),
        "layer3": weights.conv("aux_heads.layer3.classifier", hidden),
        "se": weights.conv("aux_heads.se", scene),
    }


@pytest.mark.parametrize("size", [(64, 96), (65, 97)], ids=str)
def test_the_network_and_its_auxiliary_heads_are_their_description(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    backbone = resnet50(stem="deep", stem_channels=16, width=0.125)  # narrow, for speed
    jpu = JPU([stage.channels for stage in backbone.feature_info[1:]], width=8, align_corners=True)
    head = encnet([FeatureInfo(jpu.out_channels, 8)], 5, codewords=4, kernel_size=1)
    assert isinstance(head, EncNetHead)
    model = FastFCN(backbone, jpu, head, 5, aux=True, dropout=0.1, align_corners=True)
    uneven(model)
    with torch.no_grad():
        head.context.encoding.scale.mul_(0.1)  # small: pixels belong to several codewords
    model.training = True  # auxiliary outputs, while norms and dropout stay in eval mode
    weights, images = Weights(model), torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = network_by_its_description(weights, images)
        output = model(images)
    assert_same({"logits": output.logits, **output.aux}, expected)
    assert not weights.unread
