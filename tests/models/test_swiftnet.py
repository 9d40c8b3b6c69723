"""SwiftNet's published facts: parameters, work, strides, what the decoder takes, and the pyramid's levels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fastseg.errors import CheckpointError
from fastseg.layers.norm import GlooBatchNorm2d, convert_norm
from fastseg.models import EncoderDecoder, SwiftNetHead, SwiftNetPyramid, create_head, create_model
from fastseg.models.backbones.resnet import BasicBlock, ResNet
from fastseg.types import FeatureInfo, SegModel

NAMES = ("swiftnet_r18", "swiftnet_r18_pyramid")
COUNTS = {"swiftnet_r18": 11_797_071, "swiftnet_r18_pyramid": 12_056_275}  # 19 classes
WORK = {"swiftnet_r18": (25.9e9, 103.6e9), "swiftnet_r18_pyramid": (32.0e9, 128.2e9)}  # 512x1024, 1024x2048
BLEND = 256 + 9 * 128 * 128  # batch norm and 3x3 convolution


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def uneven(model: nn.Module) -> None:
    """Give batch norms weights and statistics that differ from one another."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


def pyramid_model(num_classes: int = 5) -> SwiftNetPyramid:
    torch.manual_seed(0)
    model = create_model("swiftnet_r18_pyramid", num_classes=num_classes)
    assert isinstance(model, SwiftNetPyramid)
    return model


@pytest.fixture(scope="module")
def pyramid() -> SwiftNetPyramid:
    """In eval mode and float64, every batch norm different; tests leave it as it is."""
    model = pyramid_model().eval().double()
    uneven(model)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_parameters(name: str) -> None:
    with torch.device("meta"):
        assert parameters(create_model(name)) == COUNTS[name]
        assert parameters(create_model(name, num_classes=11)) == COUNTS[name] - 8 * 129
        assert parameters(create_model(name, in_channels=4)) == COUNTS[name] + 49 * 64


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("place", "size"), [(0, (512, 1024)), (1, (1024, 2048))])
def test_multiply_adds_and_logits_at_stride_4(name: str, place: int, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        model = create_model(name).eval()
        with FlopCounterMode(display=False) as counter:
            logits = model(torch.zeros(1, 3, *size)).logits
    assert counter.get_total_flops() / 2 == pytest.approx(WORK[name][place], rel=5e-3)
    assert logits.shape == (1, 19, size[0] // 4, size[1] // 4)


def single_scale_by_its_description(model: EncoderDecoder, images: Tensor) -> Tensor:
    """Logits of section 3 of the paper, written with torch alone around the model's weights."""
    resnet, head = model.backbone, model.head
    assert isinstance(resnet, ResNet)
    assert isinstance(head, SwiftNetHead)

    def norm_relu_conv(x: Tensor, part: nn.Module) -> Tensor:
        assert isinstance(part.bn, nn.BatchNorm2d)
        assert isinstance(part.conv, nn.Conv2d)
        return part.conv(torch.relu(part.bn(x)))

    x, sums = resnet.maxpool(torch.relu(resnet.bn1(resnet.conv1(images)))), []
    for stage in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
        for block in stage:
            assert isinstance(block, BasicBlock)
            shortcut = x if block.downsample is None else block.downsample(x)
            total = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x))))) + shortcut
            x = torch.relu(total)
        sums.append(total)  # before the ReLU
    pyramid = head.pyramid
    x = norm_relu_conv(sums[3], pyramid.bottleneck)
    pooled = [x]
    for rows, branch in zip((8, 4, 2), pyramid.branches, strict=True):
        columns = max(1, round(rows * x.shape[3] / x.shape[2]))
        small = norm_relu_conv(F.adaptive_avg_pool2d(x, (rows, columns)), branch)
        pooled.append(F.interpolate(small, size=x.shape[2:], mode="bilinear"))
    x = norm_relu_conv(torch.cat(pooled, 1), pyramid.fuse)
    for place in (2, 1, 0):
        skip = norm_relu_conv(sums[place], head.laterals[place])
        x = F.interpolate(x, size=skip.shape[2:], mode="bilinear") + skip
        x = norm_relu_conv(x, head.upsampling.units[place].blend)  # type: ignore[arg-type]
    return norm_relu_conv(x, head.classifier)


@pytest.mark.parametrize("size", [(64, 128), (67, 97)])
def test_the_single_scale_network_is_its_description(size: tuple[int, int]) -> None:
    model = create_model("swiftnet_r18", num_classes=5).eval().double()
    assert isinstance(model, EncoderDecoder)
    uneven(model)
    images = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(images).logits, single_scale_by_its_description(model, images))


@pytest.mark.parametrize("size", [(128, 256), (67, 97)])
def test_the_pyramid_network_is_its_description(pyramid: SwiftNetPyramid, size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    added: dict[int, Tensor] = {}  # stride -> sum over levels
    with torch.no_grad():
        for level in range(3):
            step = 2**level
            shrunk = images
            if level:
                wanted = (-(-size[0] // step), -(-size[1] // step))
                shrunk = F.interpolate(images, size=wanted, mode="bicubic")
            for stage, x in enumerate(pyramid.backbone(shrunk, level)):
                stride = 4 * 2**stage * step
                lateral = pyramid.laterals[stage](x)
                added[stride] = added[stride] + lateral if stride in added else lateral
        assert sorted(added) == [4, 8, 16, 32, 64, 128]
        x = added[128]
        for place, stride in ((4, 64), (3, 32), (2, 16), (1, 8), (0, 4)):
            blend = pyramid.upsampling.units[place].blend
            x = F.interpolate(x, size=added[stride].shape[2:], mode="bilinear") + added[stride]
            x = blend.conv(torch.relu(blend.bn(x)))  # type: ignore[operator, union-attr]
        expected = pyramid.classifier.conv(torch.relu(pyramid.classifier.bn(x)))
        torch.testing.assert_close(pyramid(images).logits, expected)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_level_is_a_resnet_with_the_norms_of_that_level(pyramid: SwiftNetPyramid, level: int) -> None:
    resnet = ResNet("resnet18", preactivation=True).eval().double()
    state = {}
    for key, value in pyramid.backbone.state_dict().items():
        parts = key.split(".")
        own = [i for i, part in enumerate(parts) if part in ("bn1", "bn2")]
        if own and parts[own[0] + 1] != str(level):
            continue
        state[".".join(part for i, part in enumerate(parts) if not own or i != own[0] + 1)] = value
    resnet.load_state_dict(state)
    images = torch.randn(1, 3, 65, 97, dtype=torch.float64)
    with torch.no_grad():
        for ours, expected in zip(pyramid.backbone(images, level), resnet(images), strict=True):
            torch.testing.assert_close(ours, expected)


def test_levels_share_all_convolutions_and_the_norms_of_shortcuts_only() -> None:
    with torch.device("meta"):
        single = {name for name, _ in ResNet("resnet18").named_modules()}
        backbone = create_model("swiftnet_r18_pyramid").backbone
        assert isinstance(backbone, nn.Module)
        norms = {name for name, module in backbone.named_modules() if isinstance(module, nn.BatchNorm2d)}
        convolutions = [name for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 20
    assert {name for name in norms if "downsample" in name} == {f"layer{i}.0.downsample.1" for i in (2, 3, 4)}
    leveled = {name for name in single if name.split(".")[-1] in ("bn1", "bn2")}
    assert len(leveled) == 17
    assert norms == {f"{name}.{level}" for name in leveled for level in range(3)} | {
        f"layer{i}.0.downsample.1" for i in (2, 3, 4)
    }


def test_in_training_every_level_moves_its_own_statistics() -> None:
    model = pyramid_model().train()
    model(torch.randn(2, 3, 64, 64))
    for norms in (model.backbone.bn1, model.backbone.layer4[1].bn2):
        assert isinstance(norms, nn.ModuleList)
        means = [norm.running_mean for norm in norms]
        assert all(isinstance(mean, Tensor) and mean.count_nonzero() > 0 for mean in means)
        assert not torch.equal(means[0], means[1])  # type: ignore[arg-type]
        assert not torch.equal(means[1], means[2])  # type: ignore[arg-type]


def test_norms_of_all_levels_are_exchanged_for_synchronised_ones() -> None:
    model = pyramid_model()
    count = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert count == 3 * 17 + 3 + 5 + 1
    convert_norm(model, "gloo")
    assert sum(isinstance(module, GlooBatchNorm2d) for module in model.modules()) == count


@pytest.mark.parametrize("name", NAMES)
def test_all_parameters_of_the_backbone_and_no_others_have_its_name(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
        backbone = sum(p.numel() for key, p in model.named_parameters() if key.startswith("backbone."))
    per_level = 2 * (7_680 + 128) if name == "swiftnet_r18_pyramid" else 0  # two more sets of norms
    assert backbone == 11_176_512 + per_level


@pytest.mark.parametrize("name", NAMES)
def test_imagenet_weights_of_torchvision_fill_the_backbone(name: str, tmp_path: Path) -> None:
    reference = torchvision.models.resnet18()
    uneven(reference)
    torch.save(reference.state_dict(), tmp_path / "resnet18.pth")
    model = create_model(name, num_classes=2, backbone_weights=str(tmp_path / "resnet18.pth"))
    state = model.state_dict()
    expected = {key: value for key, value in reference.state_dict().items() if not key.startswith("fc.")}
    for key, value in expected.items():
        *path, last = key.split(".")
        leveled = name == "swiftnet_r18_pyramid" and path[-1] in ("bn1", "bn2")
        for level in ("0.", "1.", "2.") if leveled else ("",):
            assert torch.equal(state[f"backbone.{'.'.join(path)}.{level}{last}"], value), key
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        create_model(name, backbone_weights=str(tmp_path / "other.pth"))


@pytest.mark.parametrize("strides", [(4,), (8, 8, 8), (2, 4, 8, 8, 32), (16, 32)], ids=str)
def test_the_decoder_goes_on_any_maps(strides: tuple[int, ...]) -> None:
    info = [FeatureInfo(3 + 2 * place, stride) for place, stride in enumerate(strides)]
    head = create_head("swiftnet", info, 4, channels=6).train()
    maps = [torch.randn(2, i.channels, -(-72 // i.stride), -(-104 // i.stride), requires_grad=True) for i in info]
    kept = [x.detach().clone() for x in maps]
    logits = head(maps)
    assert logits.shape == (2, 4, *maps[0].shape[2:])
    (logits * torch.randn_like(logits)).sum().backward()
    assert all(x.grad is not None and x.grad.count_nonzero() for x in maps)
    assert all(p.grad is not None for p in head.parameters())
    assert all(torch.equal(x, before) for x, before in zip(maps, kept, strict=True))


def test_the_decoder_stands_under_other_backbones_and_grows_by_a_unit_per_map() -> None:
    with torch.device("meta"):
        arguments = {"output_stride": 8}
        model = create_model("encoder_decoder", backbone="resnet50", head="swiftnet", backbone_args=arguments)
        assert model.eval()(torch.zeros(1, 3, 65, 97)).logits.shape == (1, 19, 17, 25)
        one, two = (create_head("swiftnet", [FeatureInfo(64, 4)] * count, 19) for count in (1, 2))
    assert parameters(two) - parameters(one) == (2 * 64 + 64 * 128) + BLEND


def test_the_width_of_the_decoder_is_an_argument() -> None:
    with torch.device("meta"):
        for name in NAMES:
            assert parameters(create_model(name, channels=64)) < COUNTS[name]
            assert create_model(name, channels=7).eval()(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 19, 8, 8)


def test_alignment_changes_logits_and_is_kept_for_the_final_upsampling() -> None:
    for name in NAMES:
        one, other = (create_model(name, num_classes=3, align_corners=aligned) for aligned in (False, True))
        other.load_state_dict(one.state_dict())
        images = torch.randn(2, 3, 72, 104)  # two in training mode: batch statistics make the logits vary
        assert not torch.allclose(one(images).logits, other(images).logits)
        assert (one.align_corners, other.align_corners) == (False, True)


SMALL: dict[str, SegModel] = {}


@pytest.mark.parametrize("name", NAMES)
@given(st.integers(1, 70), st.integers(1, 70))
@settings(max_examples=10, deadline=None)
def test_any_size_from_one_pixel_up(name: str, height: int, width: int) -> None:
    model = SMALL.setdefault(name, create_model(name, num_classes=2, channels=8).eval())
    with torch.no_grad():
        logits = model(torch.ones(1, 3, height, width)).logits
    assert logits.shape == (1, 2, -(-height // 4), -(-width // 4))
    assert logits.isfinite().all()
