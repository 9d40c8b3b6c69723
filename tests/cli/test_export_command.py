"""`fastseg export`: what it prints, refuses and returns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastseg.cli import main
from fastseg.engine import export as module
from fastseg.engine.export import LabelProgram
from toys import NearestColor, save_image, tree


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and a network that is exported quickly under every name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fastseg.weights.load_model", lambda *args, **kwargs: NearestColor().eval())
    return tmp_path


def test_a_file_appears_under_the_networks_name_and_predicts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--to", "torch"]) == 0
    out = capsys.readouterr().out
    assert out.count(" x ") >= 5, "a line for each of five sizes"
    assert "100.000 %" in out
    assert "wrote nearest.pt2" in out
    save_image(here / "picture.png")
    assert main(["predict", "picture.png", "--model", "nearest.pt2", "--save", "ids"]) == 0


def test_the_format_follows_from_the_output(here: Path) -> None:
    assert main(["export", "--out", "sub/net.pt2"]) == 0
    assert [path.name for path in (here / "sub").iterdir()] == ["net.pt2"]


def test_the_command_to_try_can_be_pasted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--out", "my net.pt2"]) == 0
    assert "try it: fastseg predict IMAGE --model 'my net.pt2'" in capsys.readouterr().out


def test_a_file_of_other_labels_is_exit_code_1_and_no_file(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Wrong(LabelProgram):
        def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            return torch.zeros_like(images[..., 0])

    monkeypatch.setattr(module, "LabelProgram", Wrong)
    assert main(["export", "--to", "torch"]) == 1
    assert "does not do what nearest does, and was removed" in capsys.readouterr().err
    assert not tree(here)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to write: --to onnx, openvino, torch, or --out FILE"),
        (["--to", "onx"], "unknown format 'onx' for --to; did you mean 'onnx'?"),
        (["--out", "net.safetensors"], "--out net.safetensors has the suffix '.safetensors'"),
        (["--to", "onnx", "--out", "net.xml"], "--to onnx writes .onnx files; --out is net.xml"),
        (["--to", "onnx", "--int8"], "--int8 needs images of yours: --data"),
        (["--to", "onnx", "--data", "camvid"], "--data is for --int8"),
        (["--to", "onnx", "--split", "val"], "--split is for --int8"),
        (["--to", "onnx", "--calibration-split", "val"], "--calibration-split is for --int8"),
        (["--to", "torch", "--model", "a.onnx"], "a.onnx is an exported file already; give the weights file"),
        (["--to", "torch", "sub/a.pt2"], "sub/a.pt2 is an exported file already"),
        (["--to", "openvino", "--int8", "--fp16", "--data", "x"], "--int8 and --fp16 exclude each other"),
        (["--to", "onnx", "--calibration-images", "0"], "--calibration-images is 0; give 1 or more"),
        (["a.safetensors", "--weights", "b", "--to", "onnx"], "weights were given twice"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fastseg: error: ")
    assert message in error
    assert not tree(here)
