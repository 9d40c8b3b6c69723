"""`fastseg data check`: exit codes, the last line, and a JSON file that holds everything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastseg.cli import main
from trees.pairs import SIZE, read, truncate, write, write_pairs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_pairs(tmp_path)
    text = f"data: {{name: camvid, root: {tmp_path}}}\naugment: {{crop: [8, 12]}}\n"
    (tmp_path / "garden.yaml").write_text(text)
    return tmp_path


def run(root: Path, *arguments: str) -> int:
    return main(["data", "check", str(root / "garden.yaml"), *arguments])


def spoil(root: Path, name: str) -> None:
    label = read(root / name)
    label[0, :2] = 77
    write(root / name, label)


def test_sound_data_end_with_zero(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 errors, 0 warnings"


def test_warnings_alone_end_with_zero(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(root / "train/0.png", np.full((*SIZE, 3), 9, np.uint8))
    write(root / "valannot/0.png", np.full(SIZE, 11, np.uint8))
    assert run(root) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "0 errors, 2 warnings"
    assert "warning: images of one colour (1)" in out


def test_errors_end_with_one_and_a_list(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truncate(root / "train/2.png")
    spoil(root, "trainannot/0.png")
    spoil(root, "valannot/1.png")
    assert run(root) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "3 errors, 0 warnings"
    for words in ("train/2.png", "trainannot/0.png has values {77: 2 px}", "valannot/1.png has values {77: 2 px}"):
        assert words in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data.name=camvit"], "did you mean 'camvid'"),
        (["--splits", "train", "tes"], "camvid has no split 'tes'; did you mean 'test'"),
        (["data.root=/nowhere"], "data.root=/nowhere does not exist"),
        (["data.name=pascal_context", "data.args.classes=61"], "has no 61 classes"),
        (["--workers", "0"], "--workers is 0"),
        (["--split", "val"], "--splits"),
        (["augment.crop=[0,1]"], "augment.crop"),
    ],
)
def test_a_request_that_cannot_be_met_ends_with_two_and_one_line(
    root: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(root, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_configuration_that_does_not_exist_ends_with_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(tmp_path / "no.yaml")]) == 2
    assert "no.yaml does not exist" in capsys.readouterr().err
    assert main(["data", "check", "data.root=/x"]) == 2
    assert "first argument is the configuration file" in capsys.readouterr().err


def test_the_json_file_holds_every_finding_and_count(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(root, {"train": 30, "val": 2})
    for index in range(24):
        spoil(root, f"trainannot/{index}.png")
    write(root / "train/29.png", np.zeros((*SIZE, 3), np.uint8))
    assert run(root, "--json", str(root / "report.json"), "data.train_split=train+val") == 1
    assert capsys.readouterr().out.count("{77: 2 px}") == 20
    report = json.loads((root / "report.json").read_text())
    assert (report["errors"], report["warnings"]) == (24, 1)
    findings = report["findings"]
    assert [finding["kind"] for finding in findings] == ["label"] * 24 + ["constant", "joined"]
    assert [finding["level"] for finding in findings] == ["error"] * 24 + ["warning", "note"]
    assert {finding["file"] for finding in findings[:24]} == {str(root / f"trainannot/{i}.png") for i in range(24)}
    assert all("{77: 2 px}" in finding["message"] for finding in findings[:24])
    train = report["splits"]["train"]
    assert (train["images"], train["readable"], train["sizes"]) == (30, 6, {"20x12": 6})
    assert train["classes"]["road"] == {"pixels": 120, "images": 6}
    assert (train["pixels"], train["ignored_pixels"]) == (1440, 120)


def test_an_existing_file_is_replaced_only_when_asked(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = root / "report.json"
    target.write_text("mine")
    assert run(root, "--json", str(target)) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert run(root, "--json", str(target), "--overwrite") == 0
    assert json.loads(target.read_text())["errors"] == 0


def test_other_splits_can_be_asked_for(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(root, "testannot/0.png")
    assert run(root) == 0
    assert run(root, "--splits", "val", "test") == 1
    assert "  test: " in capsys.readouterr().out
