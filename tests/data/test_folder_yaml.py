"""The configuration that is written, and what its reader may change."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fastseg.config import load_config
from fastseg.data.folder_yaml import configuration, report
from fastseg.data.inspect_folder import inspect_folder
from fastseg.engine.build import build_split
from fastseg.types import is_placeholder
from trees.folder import palette, write_pairs, write_segnet


@pytest.mark.parametrize("line", ["11: ignore", "11: fence"])
def test_a_numbered_class_is_renamed_or_ignored_by_its_line(tmp_path: Path, line: str) -> None:
    write_pairs(tmp_path, "i/{}.jpg", "l/{}.png")
    text = configuration(inspect_folder(tmp_path), "mine")
    assert "11: class_11" in text
    (tmp_path / "mine.yaml").write_text(text.replace("11: class_11", line))
    dataset = build_split(load_config(tmp_path / "mine.yaml"), "train")
    assert "class_11" not in dataset.info.class_names


def test_classes_with_names_keep_their_colours(tmp_path: Path) -> None:
    write_pairs(tmp_path, "i/2007_00000{}.jpg", "l/2007_00000{}.png", "0123", paint=palette)
    (tmp_path / "mine.yaml").write_text(configuration(inspect_folder(tmp_path), "mine"))
    args = load_config(tmp_path / "mine.yaml").data.args
    assert args["colours"]["aeroplane"] == "#800000"


def test_numbered_classes_are_called_by_their_value(tmp_path: Path) -> None:
    write_pairs(tmp_path, "i/{}.jpg", "l/{}.png", paint=lambda c: Image.fromarray((c % 3 * 40).astype("uint8")))
    found = inspect_folder(tmp_path)
    assert {row.code: row.name for row in found.meanings.rows} == {0: "class_0", 40: "class_40", 80: "class_80"}
    assert all(is_placeholder(row.name) for row in found.meanings.rows)


def test_the_report_says_what_is_held_back(tmp_path: Path) -> None:
    write_pairs(tmp_path / "one", "i/{}.jpg", "l/{}.png")
    found = inspect_folder(tmp_path / "one")
    assert "val    10 % of train, held back by the names (val_share)" in report(found)
    assert "val_share: 0.1" in configuration(found, "mine")
    write_segnet(tmp_path / "two")
    assert "held back" not in report(inspect_folder(tmp_path / "two"))
