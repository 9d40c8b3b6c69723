"""`fastseg data inspect DIR`: what it writes trains, unedited; and `fastseg eval --data FILE.yaml`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from fastseg.cli import main
from fastseg.config import load_config
from trees.folder import colours, write_binary, write_pairs, write_segnet

TINY = [
    "schedule.iterations=2",
    "augment.crop=[32,64]",
    "data.workers=0",
    "data.cache=memory",
    "train.total_batch=2",
    "train.device=cpu",
    "train.log_every=1",
]

FOLDERS: dict[str, Callable[[Path], None]] = {
    "values in SegNet's layout": write_segnet,
    "colour masks": lambda root: write_pairs(root, "images/{}.jpg", "masks/{}.png", paint=colours),
    "one folder for both": lambda root: write_pairs(root, "{}.jpg", "{}_mask.png"),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder beside the data."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    return tmp_path


@pytest.mark.usefixtures("light_runs")
@pytest.mark.parametrize("kind", FOLDERS)
def test_what_it_writes_trains_unedited(here: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    FOLDERS[kind](here / "mine")
    assert main(["data", "inspect", str(here / "mine")]) == 0
    assert "wrote mine.yaml" in capsys.readouterr().out
    assert main(["train", "mine.yaml", *TINY]) == 0
    assert Path("runs/mine/config.yaml").is_file()


@pytest.mark.usefixtures("light_runs")
def test_a_run_is_scored_on_the_data_of_a_configuration(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_segnet(here / "mine")
    assert main(["data", "inspect", str(here / "mine")]) == 0
    assert main(["train", "mine.yaml", *TINY]) == 0
    capsys.readouterr()
    assert main(["eval", "runs/mine", "--data", "mine.yaml", "--split", "val", "--device", "cpu"]) == 0
    assert "mean IoU over 11 of 11 classes" in capsys.readouterr().out
    assert main(["eval", "runs/mine", "--split", "val"]) == 2
    assert "a data set of one's own, 'mine'; name it: --data FILE.yaml" in capsys.readouterr().err
    # the command line goes before the file
    assert main(["eval", "runs/mine", "--data", "mine.yaml", "--split", "val", "--root", str(here / "moved")]) == 2
    assert "moved does not exist" in capsys.readouterr().err
    assert main(["eval", "runs/mine", "--data", "mine.yaml", "--split", "val", "--data-args", "unpaired=no"]) == 2
    assert "data.args.unpaired is False" in capsys.readouterr().err


def test_the_file_it_writes_is_a_configuration_with_nothing_to_add(here: Path) -> None:
    write_segnet(here / "mine")
    assert main(["data", "inspect", str(here / "mine")]) == 0
    config = load_config("mine.yaml")
    assert config.data.name == "folder"
    assert config.data.root == str(here / "mine")
    assert config.augment.crop == (32, 64)
    assert config.run_dir == "runs/mine"


def test_a_report_has_pairs_sizes_modes_and_every_value_with_counts(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, value in (("train", 3), ("val", 7)):
        write_pairs(here / "mine", f"{split}/{{}}.png", f"{split}annot/{{}}.png", "ab")
        for name in "ab":
            Image.fromarray(np.full((48, 64), value, np.uint8)).save(here / f"mine/{split}annot/{name}.png")
    assert main(["data", "inspect", str(here / "mine")]) == 0
    text = re.sub(" +", " ", capsys.readouterr().out)
    for line in (
        "train 2 pairs: train with trainannot",
        "val 2 pairs: val with valannot",
        "64x48: 4 images",
        "labels: values; modes of the files: L (4)",
        "3 6144 50.00 % 2 class_3",
        "7 6144 50.00 % 2 class_7",
    ):
        assert line in text


def test_a_file_that_exists_is_replaced_only_when_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_segnet(here / "mine")
    Path("mine.yaml").write_text("mine")
    assert main(["data", "inspect", str(here / "mine")]) == 2
    assert "mine.yaml exists already; replace it with --overwrite" in capsys.readouterr().err
    assert Path("mine.yaml").read_text() == "mine"
    assert main(["data", "inspect", str(here / "mine"), "--overwrite"]) == 0
    assert "folder" in Path("mine.yaml").read_text()


def test_out_says_where_to_write(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_segnet(here / "mine")
    assert main(["data", "inspect", str(here / "mine"), "--out", "a/b.yml"]) == 0
    assert yaml.safe_load(Path("a/b.yml").read_text())["data"]["name"] == "folder"
    assert main(["data", "inspect", str(here / "mine"), "--out", "b.png"]) == 2
    assert "a configuration is a .yaml file" in capsys.readouterr().err


def test_unreadable_files_leave_exit_code_1(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_segnet(here / "mine")
    (here / "mine/train/train_a.png").write_bytes(b"")
    assert main(["data", "inspect", str(here / "mine")]) == 1
    assert "train/train_a.png (0 bytes) is no image" in capsys.readouterr().out
    assert Path("mine.yaml").is_file()


def test_labels_that_cannot_be_used_leave_a_report_and_no_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(here / "mine", "i/{}.png", "l/{}.jpg", paint=colours, size=(96, 128))
    assert main(["data", "inspect", str(here / "mine")]) == 2
    told = capsys.readouterr()
    assert "RGB JPEG (4)" in told.out
    assert "JPEG files, which change values near borders" in told.err
    assert not list(Path().iterdir())


@pytest.mark.parametrize("words", [["nowhere"], ["."], [".", "--limit", "0"]])
def test_what_cannot_be_met_is_one_line_and_exit_code_2(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert main(["data", "inspect", *words]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("fastseg: error: ")
    assert told.err.count("\n") == 1
    assert not list(Path().iterdir())


@pytest.mark.usefixtures("light_runs")
def test_a_stray_value_leaves_exit_code_1_and_what_is_written_trains(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_binary(here / "mine", strays=3)
    assert main(["data", "inspect", str(here / "mine")]) == 1
    assert "128 is taken for a mistake: 3 pixels in l/d.png" in capsys.readouterr().out
    assert main(["train", "mine.yaml", *TINY, "augment.crop=[64,64]"]) == 0


def test_a_folder_that_does_not_exist_is_called_what_the_user_gave(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "inspect", str(here / "mime")]) == 2
    told = capsys.readouterr().err
    assert "mime does not exist" in told
    assert "data.root" not in told
