"""`fastseg submit cityscapes` predicts, checks and packs, or checks alone."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastseg.cli import main
from fastseg.data.cityscapes import CITYSCAPES
from fastseg.data.road_scenes import ROAD_SCENES
from fastseg.models import create_model
from fastseg.types import DatasetInfo, WeightsInfo
from fastseg.weights import save_weights
from trees.cityscapes import write_cityscapes

BASES = ["berlin_000000_000019", "berlin_000001_000019"]
COMMAND = ["submit", "cityscapes"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cityscapes(tmp_path_factory.mktemp("cityscapes"), size=(16, 24), splits=("test", "val"))


def untrained(folder: Path, dataset: DatasetInfo) -> Path:
    model = create_model("fast_scnn", num_classes=dataset.num_classes)
    info = WeightsInfo(model="fast_scnn", name="untrained", file="", sha256="", dataset=dataset)
    return save_weights(folder / f"{dataset.name}.safetensors", model.state_dict(), info)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("weights"), CITYSCAPES)


def test_results_are_packed_and_pass_the_check(
    root: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.zip"
    here = [*COMMAND, "--root", str(root), "--partial"]
    assert main([*here, "--weights", str(weights), "--device", "cpu", "--flip", "--out", str(out)]) == 0
    assert f"wrote {out}: 2 results of cityscapes test, all checked" in capsys.readouterr().out
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == [f"{base}_pred_labelIds.png" for base in BASES]
    assert main([*here, "--check", str(out)]) == 0
    assert capsys.readouterr().out == "2 results for 2 images: no faults\n"


def test_the_check_lists_every_fault_and_exits_with_1(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.full((16, 24), 5, np.uint8)).save(tmp_path / f"{BASES[1]}.png")
    assert main([*COMMAND, "--root", str(root), "--partial", "--check", str(tmp_path)]) == 1
    first, second, last = capsys.readouterr().out.splitlines()
    assert first == f"{BASES[0]}: no result; a file {BASES[0]}*.png is expected"
    assert second.startswith(f"{tmp_path / BASES[1]}.png: has values {{5: 384 px}} that are no class")
    assert last == "1 result for 2 images: 2 faults"


def test_an_archive_is_only_replaced_when_asked(root: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.zip"
    out.write_text("mine")
    arguments = [*COMMAND, "--root", str(root), "--partial", "--weights", str(weights), "--out", str(out)]
    assert main([*arguments, "--device", "cpu"]) == 2
    assert out.read_text() == "mine"
    assert main([*arguments, "--device", "cpu", "--overwrite"]) == 0
    assert zipfile.is_zipfile(out)


def test_weights_of_another_data_set_are_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = untrained(tmp_path, ROAD_SCENES)
    out = tmp_path / "a.zip"
    arguments = [*COMMAND, "--root", str(root), "--partial", "--weights", str(other), "--out", str(out)]
    assert main([*arguments, "--device", "cpu"]) == 2
    assert "the model predicts 10 classes and cityscapes has 19; use weights trained on" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["--root"]),
        (["--root", "R", "--partial"], ["name the weights to submit with --weights"]),
        (["--root", "R", "--weights", "a.pt"], ["2 images in test", "1525", "--partial"]),
        (["--root", "R", "--weights", "a.pt", "--split", "val"], ["2 images in val", "500"]),
        (["--root", "R", "--check", "x", "--weights", "a.pt"], ["--check x predicts nothing", "--weights a.pt"]),
        (["--root", "R", "--check", "x", "--out", "b.zip"], ["--check x predicts nothing", "--out b.zip"]),
        (["--root", "R", "--check", "nowhere", "--partial"], ["nowhere does not exist"]),
        (["--root", "R", "--check", "nowhere"], ["nowhere does not exist"]),  # before the images are counted
        (["--root", "R", "--weights", "a.pt", "--split", "train"], ["'train'", "allowed: test, val"]),
        (["--root", "R", "--weights", "a.pt", "--split", "tset"], ["'tset'", "did you mean 'test'"]),
        (["--root", "nowhere", "--weights", "a.pt"], ["nowhere", "does not exist"]),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], said: list[str], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, *(str(root) if word == "R" else word for word in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fastseg: error: ")
    assert error.count("\n") == 1
    assert all(text in error for text in said), error
