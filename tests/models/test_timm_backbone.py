"""Backbones of timm, where it is installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fastseg.errors import CheckpointError, MissingPackageError, UnknownNameError
from fastseg.models import create_backbone, create_model

needs_timm = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm is not installed (pip install 'fastseg-zoo[timm]')"
)
NAME = "timm:mobilenetv3_small_050"


@needs_timm
@pytest.mark.parametrize("name", [NAME, "timm:resnet18", "timm:tf_efficientnet_b0", "timm:convnext_atto"])
@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_maps_are_as_declared_at_every_size(name: str, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        backbone = create_backbone(name).eval()
        maps = backbone(torch.zeros(1, 3, *size))
    for x, info in zip(maps, backbone.feature_info, strict=True):
        assert x.shape == (1, info.channels, -(-size[0] // info.stride), -(-size[1] // info.stride))


@needs_timm
def test_output_stride_and_input_channels_reach_timm() -> None:
    with torch.device("meta"):
        backbone = create_backbone(NAME, in_channels=4, output_stride=8)
        assert backbone.feature_info[-1].stride == 8
        assert backbone(torch.zeros(1, 4, 64, 64))[-1].shape[-2:] == (8, 8)


@needs_timm
def test_it_goes_under_a_head() -> None:
    model = create_model("encoder_decoder", backbone=NAME, head="fcn", num_classes=4).eval()
    with torch.no_grad():
        assert model.predict_logits(torch.randn(1, 3, 65, 97)).shape == (1, 4, 65, 97)


@needs_timm
def test_weights_load_from_a_file_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    source = create_backbone(NAME)
    torch.save({key.removeprefix("features."): value for key, value in source.state_dict().items()}, tmp_path / "w.pth")
    loaded = create_backbone(NAME, weights=str(tmp_path / "w.pth"))
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), source.parameters(), strict=True))
    with pytest.raises(CheckpointError, match=r"w\.pth do not fit"):
        create_backbone("timm:resnet18", weights=str(tmp_path / "w.pth"))


@needs_timm
def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    original = timm.create_model

    def offline(name: str, **kwargs: Any) -> Any:
        if kwargs["pretrained"]:
            raise OSError("no route to host")
        return original(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(CheckpointError, match=r"cannot be fetched: no route to host.*backbone_weights=null"):
        create_backbone(NAME, weights="imagenet")


@needs_timm
def test_wrong_names_and_arguments_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'mobilenetv3_small_100'"):
        create_backbone("timm:mobilnetv3_small_100")
    with pytest.raises(UnknownNameError, match="unexpected keyword argument 'width'; it takes"):
        create_backbone(NAME, width=2)
    with pytest.raises(ValueError, match="'vit_tiny_patch16_224' is no backbone for images of any size"):
        create_backbone("timm:vit_tiny_patch16_224")


def test_without_timm_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'fastseg-zoo\[timm\]'"):
        create_backbone(NAME)
