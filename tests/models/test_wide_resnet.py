"""WideResNet-38: parameters to the last one, maps, and where strides, dilation, shortcuts and dropout stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from descriptions import Weights, assert_same, uneven
from fastseg.errors import CheckpointError
from fastseg.models import WideResNet, create_backbone, create_model
from fastseg.models.backbones.wide_resnet import ResidualUnit
from fastseg.types import FeatureInfo

UNITS = {2: 3, 3: 3, 4: 6, 5: 3, 6: 1, 7: 1}
CHANNELS = (64, 128, 256, 512, 4096)
DILATIONS = {  # of mod2 to mod7, by output stride
    8: (1, 1, 1, 2, 4, 4),
    16: (1, 1, 1, 1, 2, 2),
    32: (1, 1, 1, 1, 1, 1),
}
STRIDES = {8: (1, 1, 2, 1, 1, 1), 16: (1, 1, 2, 2, 1, 1), 32: (1, 1, 2, 2, 2, 1)}  # of their first convolutions


def narrow(**arguments: Any) -> WideResNet:
    """An eighth of the width: 1.6 million parameters."""
    torch.manual_seed(0)
    backbone = create_backbone("wide_resnet38", width=0.125, **arguments)
    assert isinstance(backbone, WideResNet)
    return backbone.eval()


def modules(backbone: WideResNet) -> list[list[ResidualUnit]]:
    """The units of mod2 to mod7."""
    stages = (getattr(backbone, f"mod{index}") for index in UNITS)
    return [[unit for unit in stage if isinstance(unit, ResidualUnit)] for stage in stages]


def unit_parameters(inputs: int, *channels: int) -> int:
    """Norms, convolutions without bias, and a projection where channels change."""
    kernels = (9, 9) if len(channels) == 2 else (1, 9, 1)
    widths = (inputs, *channels)
    path = sum(2 * a + k * a * b for k, a, b in zip(kernels, widths[:-1], channels, strict=True))
    return path + (inputs * channels[-1] if inputs != channels[-1] else 0)


BACKBONE_PARAMETERS = sum(
    (
        9 * 3 * 64,
        unit_parameters(64, 128, 128) + 2 * unit_parameters(128, 128, 128),
        unit_parameters(128, 256, 256) + 2 * unit_parameters(256, 256, 256),
        unit_parameters(256, 512, 512) + 5 * unit_parameters(512, 512, 512),
        unit_parameters(512, 512, 1024) + 2 * unit_parameters(1024, 512, 1024),
        unit_parameters(1024, 512, 1024, 2048),
        unit_parameters(2048, 1024, 2048, 4096),
    )
)


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_parameters(output_stride: int) -> None:
    with torch.device("meta"):
        backbone = create_backbone("wide_resnet38", output_stride=output_stride)
    assert sum(p.numel() for p in backbone.parameters()) == BACKBONE_PARAMETERS == 105_062_720


def test_the_official_gated_scnn_adds_up_without_a_last_norm() -> None:
    """Its 137,278,190 parameters at 19 classes leave no room for 2 * 4096 of a norm after mod7."""
    side_outputs = sum(channels + 1 for channels in (64, 256, 512, 4096))  # the first is never used
    blocks = sum(2 * (9 * c * c + 2 * c) for c in (64, 32, 16))  # of the shape stream, without projections
    reductions = sum(c * (c // 2) + c // 2 for c in (64, 32, 16))
    # norm, 1x1 with bias, 1x1 to one channel with bias, norm, 1x1 without bias
    gates = sum(2 * (c + 1) + (c + 1) ** 2 + (c + 1) + (c + 2) + 2 + c * c for c in (32, 16, 8))
    edge = 8 + 2  # to one channel; fusion with the image's edges
    assert (side_outputs, blocks + reductions + gates + edge) == (4932, 103_018)
    pyramid = 256 * (4096 + 3 * 9 * 4096 + 4096 + 1) + 6 * 2 * 256  # 1x1, three 3x3, image pooling, edges; norms
    decoder = 6 * 256 * 256 + 128 * 48 + 9 * (256 + 48) * 256 + 2 * 256 + 9 * 256 * 256 + 2 * 256 + 256 * 19
    assert BACKBONE_PARAMETERS + side_outputs + blocks + reductions + gates + edge + pyramid + decoder == 137_278_190


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (31, 17), (2, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_maps_have_the_declared_channels_and_strides_rounded_up(output_stride: int, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        backbone = create_backbone("wide_resnet38", output_stride=output_stride).eval()
        maps = backbone(torch.zeros(1, 3, *size))
    strides = (1, 2, 4, 8, output_stride)
    assert backbone.feature_info == tuple(map(FeatureInfo, CHANNELS, strides))
    expected = [(1, c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip(CHANNELS, strides, strict=True)]
    assert [tuple(x.shape) for x in maps] == expected


@pytest.mark.parametrize("width", [1 / 64, 0.125, 0.5])
def test_width_scales_every_map(width: float) -> None:
    with torch.device("meta"):
        backbone = create_backbone("wide_resnet38", width=width).eval()
        maps = backbone(torch.zeros(1, 3, 33, 33))
    assert [x.shape[1] for x in maps] == [int(c * width) for c in CHANNELS]
    assert [info.channels for info in backbone.feature_info] == [int(c * width) for c in CHANNELS]


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_every_unit_of_a_module_is_dilated_alike_and_the_first_has_the_stride(output_stride: int) -> None:
    backbone = narrow(output_stride=output_stride)
    assert [len(units) for units in modules(backbone)] == list(UNITS.values())
    for units, dilation, stride in zip(
        modules(backbone), DILATIONS[output_stride], STRIDES[output_stride], strict=True
    ):
        wide = [conv for unit in units for conv in (unit.conv1, unit.conv2) if conv.kernel_size == (3, 3)]
        assert {conv.dilation for conv in wide} == {(dilation, dilation)}
        x = torch.zeros(1, units[0].bn1.num_features, 9, 9)
        sizes = []
        for unit in units:
            sizes.append(x.shape[-1])
            x = unit(x)
        assert [*sizes[1:], x.shape[-1]] == [-(-9 // stride)] * len(units)


def described(w: Weights, images: Tensor, output_stride: int) -> list[Tensor]:
    """The network from the tables above, in torch.nn.functional."""
    x = w.conv("mod1", images)
    maps = {1: x}
    for (index, units), dilation, first_stride in zip(
        UNITS.items(), DILATIONS[output_stride], STRIDES[output_stride], strict=True
    ):
        if index in (2, 3):
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        for position in range(units):
            name = f"mod{index}.{position}"
            stride = first_stride if position == 0 else 1
            activated = F.relu(w.norm(f"{name}.bn1", x))
            inner = w.conv(f"{name}.conv1", activated, stride=stride, dilation=dilation if index < 6 else 1)
            inner = w.conv(f"{name}.conv2", F.relu(w.norm(f"{name}.bn2", inner)), dilation=dilation)
            if index >= 6:
                inner = w.conv(f"{name}.conv3", F.relu(w.norm(f"{name}.bn3", inner)))
            # the first unit of every module changes the channels
            x = inner + (w.conv(f"{name}.projection", activated, stride=stride) if position == 0 else x)
        maps[index] = x
    return [maps[index] for index in (1, 2, 3, 4, 7)]


@pytest.mark.parametrize("output_stride", [8, 16, 32])
def test_maps_are_those_of_the_description(output_stride: int) -> None:
    backbone = narrow(output_stride=output_stride)
    uneven(backbone)
    images = torch.randn(2, 3, 45, 70, dtype=torch.float64)
    weights = Weights(backbone)
    with torch.no_grad():
        maps = backbone(images)
        for actual, expected in zip(maps, described(weights, images, output_stride), strict=True):
            assert_same(actual, expected)
    assert weights.unread == set()
    assert all(x.std() > 0.1 for x in maps)  # none has faded away


def silent(unit: ResidualUnit) -> ResidualUnit:
    """The unit with a path that adds nothing."""
    last = unit.conv2 if unit.conv3 is None else unit.conv3
    nn.init.zeros_(last.weight)
    return unit.eval()


@pytest.mark.parametrize("channels", [(8, 8), (4, 6, 8)], ids=str)
def test_where_shapes_stay_the_shortcut_is_the_map_as_it_came(channels: tuple[int, ...]) -> None:
    unit = silent(ResidualUnit(8, channels))
    x = torch.randn(2, 8, 5, 7)
    assert unit.projection is None
    assert torch.equal(unit(x), x)


@pytest.mark.parametrize(
    ("channels", "stride"), [((6, 12), 1), ((6, 12), 2), ((8, 8), 2), ((4, 6, 12), 1), ((4, 6, 12), 2), ((4, 6, 8), 2)]
)
def test_where_shapes_change_the_shortcut_projects_the_activation(channels: tuple[int, ...], stride: int) -> None:
    unit = silent(ResidualUnit(8, channels, stride=stride))
    nn.init.normal_(unit.bn1.bias)
    x = torch.randn(2, 8, 5, 7)
    assert isinstance(unit.projection, nn.Conv2d)
    expected = F.conv2d(F.relu(unit.bn1(x)), unit.projection.weight, stride=stride)
    torch.testing.assert_close(unit(x), expected)


def test_the_maps_are_not_overwritten_by_later_modules() -> None:
    backbone = narrow()
    images = torch.randn(1, 3, 33, 34)
    before = images.clone()
    with torch.no_grad():
        copies, x = [], images
        for index in range(1, 8):
            x = getattr(backbone, f"pool{index}", nn.Identity())(x)
            x = getattr(backbone, f"mod{index}")(x)
            if index in (1, 2, 3, 4, 7):
                copies.append(x.clone())
        for actual, expected in zip(backbone(images), copies, strict=True):
            assert torch.equal(actual, expected)
    assert torch.equal(images, before)


def test_a_gradient_reaches_every_parameter_from_the_last_map() -> None:
    backbone = narrow()  # eval: the norms of a batch would hide that nothing but them is reached
    backbone(torch.randn(2, 3, 64, 64))[-1].square().mean().backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_dropout_stands_in_the_bottlenecks_alone() -> None:
    rates = [[unit.dropout.p for unit in units] for units in modules(narrow())]
    assert rates == [[0.0] * 3, [0.0] * 3, [0.0] * 6, [0.0] * 3, [0.3], [0.5]]


@pytest.mark.parametrize("channels", [(64, 64), (64, 64, 64)], ids=str)
def test_dropout_leaves_out_whole_channels_of_what_the_last_convolution_reads(channels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    unit = ResidualUnit(64, channels, dropout=0.5)
    last, norm = (unit.conv2, unit.bn2) if unit.bn3 is None or unit.conv3 is None else (unit.conv3, unit.bn3)
    nn.init.constant_(norm.bias, 9.0)  # ReLU leaves nothing out
    seen: list[Tensor] = []
    last.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    unit.train()(torch.randn(2, 64, 4, 4))
    unit.eval()(torch.randn(2, 64, 4, 4))
    training, evaluation = seen
    left_out = (training == 0).flatten(2)
    assert torch.equal(left_out.all(2), left_out.any(2))
    assert 0.3 < left_out.all(2).float().mean() < 0.7  # 128 draws at one half: 4.5 standard deviations either way
    assert evaluation.all()


def test_another_output_stride_takes_the_same_weights() -> None:
    states = [narrow(output_stride=output_stride).state_dict() for output_stride in (8, 32)]
    assert [{key: x.shape for key, x in state.items()} for state in states] == [
        {key: x.shape for key, x in states[0].items()}
    ] * 2


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_load_from_a_file(suffix: str, tmp_path: Path) -> None:
    source = narrow()
    uneven(source)
    state = {key: x.float() if x.is_floating_point() else x for key, x in source.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    loaded = narrow(weights=str(path)).state_dict()
    assert all(torch.equal(loaded[key], x) for key, x in state.items())
    with pytest.raises(CheckpointError, match="do not fit WideResNet"):
        create_backbone("wide_resnet38", width=0.25, weights=str(path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_stride": 4}, "output_stride is 4; allowed: 8, 16, 32"),
        ({"width": 1 / 65}, r"width is 0\.01\d*; give 1/64 or more"),
        ({"width": float("nan")}, "width is nan; give 1/64 or more"),
        ({"weights": "imagenet"}, "torchvision's, which has no WideResNet-38; give the path"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        create_backbone("wide_resnet38", **arguments)


def test_a_network_on_it_predicts_and_starts_from_a_file(tmp_path: Path) -> None:
    save_file(narrow().state_dict(), tmp_path / "weights.safetensors")
    model = create_model(
        "encoder_decoder",
        num_classes=3,
        backbone="wide_resnet38",
        backbone_args={"width": 0.125},
        backbone_weights=str(tmp_path / "weights.safetensors"),
    ).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 65, 97)).logits.shape == (1, 3, 9, 13)
