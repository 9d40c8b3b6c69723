"""ResNet backbones: torchvision's names and numbers, strides, dilation, stems, ImageNet weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from fastseg.errors import CheckpointError, MissingFileError
from fastseg.models import ResNet, create_backbone
from fastseg.models.backbones import pretrained

NAMES = ("resnet18", "resnet34", "resnet50", "resnet101")
IMAGES = torch.randn(1, 3, 65, 97, generator=torch.Generator().manual_seed(0))


def reference(name: str, **arguments: Any) -> nn.Module:
    """torchvision's network with batch norms that differ from their defaults."""
    torch.manual_seed(0)
    network = getattr(torchvision.models, name)(**arguments)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
    return network.eval()


def maps_of(network: nn.Module, images: Tensor) -> list[Tensor]:
    stages = torchvision.models._utils.IntermediateLayerGetter(network, {f"layer{i}": str(i) for i in (1, 2, 3, 4)})
    return list(stages(images).values())


def resnet(name: str, **arguments: Any) -> ResNet:
    backbone = create_backbone(name, **arguments)
    assert isinstance(backbone, ResNet)
    return backbone.eval()


@pytest.fixture
def imagenet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """torchvision's cache of downloads holds a resnet18; nothing is fetched."""
    network = reference("resnet18")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(network.state_dict(), tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    return network


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)().state_dict()
        ours = create_backbone(name).state_dict()
    expected = {key: value.shape for key, value in theirs.items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in ours.items()} == expected


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("resnet18", {}, {}),
        ("resnet50", {}, {}),
        ("resnet50", {"output_stride": 16}, {"replace_stride_with_dilation": [False, False, True]}),
        ("resnet50", {"output_stride": 8}, {"replace_stride_with_dilation": [False, True, True]}),
    ],
)
def test_maps_equal_torchvisions(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    network = reference(name, **theirs).double()
    backbone = resnet(name, **ours).double()
    backbone.load_state_dict({key: value for key, value in network.state_dict().items() if not key.startswith("fc.")})
    with torch.no_grad():
        for mine, expected in zip(backbone(IMAGES.double()), maps_of(network, IMAGES.double()), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("output_stride", "strides"), [(32, (4, 8, 16, 32)), (16, (4, 8, 16, 16)), (8, (4, 8, 8, 8))])
@pytest.mark.parametrize("size", [(1, 1), (65, 97), (64, 96)])
def test_maps_are_as_declared(name: str, output_stride: int, strides: tuple[int, ...], size: tuple[int, int]) -> None:
    with torch.device("meta"):
        backbone = create_backbone(name, output_stride=output_stride, stem="deep", width=0.5).eval()
        maps = backbone(torch.zeros(1, 3, *size))
    assert tuple(info.stride for info in backbone.feature_info) == strides
    for x, info in zip(maps, backbone.feature_info, strict=True):
        assert x.shape == (1, info.channels, -(-size[0] // info.stride), -(-size[1] // info.stride))
    wide = 512 if name in ("resnet18", "resnet34") else 2048
    assert backbone.feature_info[-1].channels == wide // 2


def test_contracted_dilation_is_half_in_the_first_block_of_a_stage() -> None:
    def dilations(contract: bool) -> list[tuple[int, int]]:
        with torch.device("meta"):
            backbone = create_backbone("resnet50", output_stride=8, contract_dilation=contract)
        assert isinstance(backbone, ResNet)
        stages = (backbone.layer2, backbone.layer3, backbone.layer4)
        return [tuple(block.conv2.dilation[0] for block in list(stage)[:2]) for stage in stages]  # type: ignore[misc,union-attr,index]

    assert dilations(True) == [(1, 1), (1, 2), (2, 4)]
    assert dilations(False) == [(1, 1), (2, 2), (4, 4)]


def test_the_deep_stem_is_three_convolutions() -> None:
    with torch.device("meta"):
        backbone = create_backbone("resnet50", stem="deep", stem_channels=128)
    assert isinstance(backbone, ResNet)
    widths = [m.out_channels for m in backbone.conv1.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [64, 64, 128]  # PSPNet's authors


def test_preactivation_is_what_the_last_relu_gets() -> None:
    torch.manual_seed(0)
    after, before = resnet("resnet18"), resnet("resnet18", preactivation=True)
    before.load_state_dict(after.state_dict())
    with torch.no_grad():
        sums = before(IMAGES)
        assert all((x < 0).any() for x in sums)
        for x, expected in zip(sums, after(IMAGES), strict=True):
            assert torch.equal(x.relu(), expected)


def test_imagenet_weights_come_from_torchvisions_cache(imagenet_file: nn.Module) -> None:
    backbone = resnet("resnet18", weights="imagenet")
    with torch.no_grad():
        for mine, expected in zip(backbone(IMAGES), maps_of(imagenet_file, IMAGES), strict=True):
            torch.testing.assert_close(mine, expected)


def test_torchvision_is_asked_to_check_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def download(self: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        asked.update(kwargs, url=self.url)
        return dict(reference("resnet34").state_dict())

    monkeypatch.setattr(torchvision.models.ResNet34_Weights, "get_state_dict", download)
    resnet("resnet34", weights="imagenet")
    assert asked["check_hash"] is True
    assert "resnet34" in asked["url"]


@pytest.mark.parametrize("problem", [OSError("no route to host"), RuntimeError("invalid hash value")])
def test_a_failed_download_says_what_to_do(problem: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        raise problem

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", download)
    with pytest.raises(CheckpointError, match=f"{problem}.*backbone_weights=null"):
        create_backbone("resnet18", weights="imagenet")


@pytest.mark.parametrize(
    ("arguments", "differing"),
    [
        ({"stem": "deep"}, "stem is 'deep', the weights need 'plain'"),
        ({"width": 0.5}, "width is 0.5, the weights need 1.0"),
        ({"in_channels": 4}, "in_channels is 4, the weights need 3"),
        (
            {"stem_channels": 128, "in_channels": 4},
            "stem_channels is 128, the weights need 64; in_channels is 4, they need 3",
        ),
    ],
)
def test_imagenet_weights_are_refused_for_another_form_by_what_differs(
    arguments: dict[str, Any], differing: str
) -> None:
    with pytest.raises(ValueError, match=rf"torchvision's resnet50, which has another form: {differing}\. Change that"):
        create_backbone("resnet50", weights="imagenet", **arguments)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_of_any_form_load_from_a_file(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = resnet("resnet18", stem="deep", width=0.5)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": source.state_dict() | {"fc.weight": torch.zeros(1)}}, path)
    else:
        save_file(source.state_dict(), path)
    loaded = resnet("resnet18", stem="deep", width=0.5, weights=str(path))
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), source.parameters(), strict=True))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    torch.save(resnet("resnet34").state_dict(), tmp_path / "r34.pth")
    with pytest.raises(CheckpointError, match=r"r34\.pth do not fit ResNet: .*layer1\.2"):
        create_backbone("resnet18", weights=str(tmp_path / "r34.pth"))
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"broken\.pth cannot be read"):
        create_backbone("resnet18", weights=str(tmp_path / "broken.pth"))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="no table of tensors"):
        create_backbone("resnet18", weights=str(tmp_path / "list.pth"))
    with pytest.raises(MissingFileError, match=r"absent\.pth do not exist; give 'imagenet' or the path of a file"):
        create_backbone("resnet18", weights="absent.pth")
    with pytest.raises(MissingFileError, match=r"absent\.pth do not exist; give the path of a file"):
        pretrained.read_pretrained("wide_resnet38", "absent.pth")
    with pytest.raises(ValueError, match="'imagnet'; allowed: 'imagenet'"):
        pretrained.read_pretrained("resnet18", "imagnet")


@pytest.mark.parametrize(
    ("arguments", "message"), [({"output_stride": 4}, "allowed: 8, 16, 32"), ({"stem": "depp"}, "'plain'.*'deep'")]
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_backbone("resnet18", **arguments)
