"""Label files that do not go with the others: values that strayed into one, and another coding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastseg.config import load_config
from fastseg.data.camvid_colours import LABELS as CAMVID_LABELS
from fastseg.data.folder_yaml import configuration, report
from fastseg.data.inspect_folder import Inspection, inspect_folder
from fastseg.engine.build import build_split
from trees.folder import colours, palette, values, write_binary, write_pairs


def taken(found: Inspection) -> dict[int, str]:
    return {meaning.code: meaning.name for meaning in found.meanings.rows}


def images(found: Inspection) -> list[str]:
    return list(found.layout.pairs["train"].samples)


def paint_over(file: Path, value: int, pixels: int) -> None:
    label = np.array(Image.open(file))
    label.reshape(-1)[:pixels] = value
    Image.fromarray(label).save(file)


def test_stray_values_leave_a_binary_mask_binary_and_their_file_out(tmp_path: Path) -> None:
    write_binary(tmp_path, strays=3)
    found = inspect_folder(tmp_path)
    assert taken(found) == {0: "class_0", 255: "class_255"}
    assert images(found) == list("abcef")
    assert "128 is taken for a mistake: 3 pixels in l/d.png" in report(found)
    assert "l/d.png holds 128, a stray" in report(found)
    text = configuration(found, "mine")
    assert "# 128: a mistake? 3 pixels in l/d.png, which exclude leaves out; if not, give it a line here" in text
    (tmp_path / "mine.yaml").write_text(text)
    config = load_config(tmp_path / "mine.yaml")
    assert config.data.args["classes"] == {0: "class_0", 255: "class_255"}
    assert config.data.args["exclude"] == ["i/d.jpg"]
    assert "- i/d.jpg  # l/d.png holds 128, a stray" in text
    for split in ("train", "val"):
        dataset = build_split(config, split)
        for index in range(len(dataset)):
            dataset.load(index)


def test_a_single_file_with_stray_values_is_kept_and_its_foreground_too(tmp_path: Path) -> None:
    write_binary(tmp_path, "a", strays=3)
    found = inspect_folder(tmp_path)
    assert taken(found) == {0: "class_0", 128: "class_128", 255: "class_255"}
    assert "very few pixels: a mistake?" in report(found)


def test_a_small_object_in_one_file_is_a_class(tmp_path: Path) -> None:
    write_binary(tmp_path)
    paint_over(tmp_path / "l/b.png", 77, 400)
    assert taken(inspect_folder(tmp_path))[77] == "class_77"


def test_rare_values_in_many_files_are_classes(tmp_path: Path) -> None:
    write_binary(tmp_path)
    for value, name in ((70, "a"), (71, "b"), (72, "c")):
        paint_over(tmp_path / f"l/{name}.png", value, 3)
    found = inspect_folder(tmp_path)
    assert set(taken(found)) == {0, 70, 71, 72, 255}
    assert images(found) == list("abcdef")


def test_a_rare_class_of_a_known_data_set_is_no_mistake(tmp_path: Path) -> None:
    own = np.array([colour for _, colour, _ in CAMVID_LABELS][:12], np.uint8)
    write_pairs(
        *(tmp_path, "i/{}.png", "l/{}.png", "abcdef"),
        paint=lambda classes: Image.fromarray(own[np.minimum(classes, 9)]),
        size=(160, 240),
    )
    label = np.array(Image.open(tmp_path / "l/b.png"))
    label[0, :3] = own[11]
    Image.fromarray(label).save(tmp_path / "l/b.png")
    found = inspect_folder(tmp_path)
    assert found.meanings.source == "the colours of CamVid"
    assert images(found) == list("abcdef")


@pytest.mark.parametrize(
    "other", [colours, lambda classes: values(classes).convert("RGB")], ids=["colours", "grey in colour"]
)
def test_one_colour_file_among_values_is_left_out_and_named(
    tmp_path: Path, other: Callable[[np.ndarray], Image.Image]
) -> None:
    write_pairs(tmp_path, "i/{}.png", "l/{}.png", "abcde")
    write_pairs(tmp_path, "i/{}.png", "l/{}.png", "c", paint=other)
    found = inspect_folder(tmp_path)
    assert not found.survey.coloured
    assert images(found) == list("abde")
    assert "l/c.png holds colours (mode RGB), as 1 of 5 label files do, and the others hold values" in report(found)
    assert "      - i/c.png  # l/c.png holds colours" in configuration(found, "mine")


def test_one_file_of_values_among_colours_is_left_out_and_named(tmp_path: Path) -> None:
    write_pairs(tmp_path, "i/{}.png", "l/{}.png", "abcde", paint=colours)
    write_pairs(tmp_path, "i/{}.png", "l/{}.png", "c")
    found = inspect_folder(tmp_path)
    assert found.survey.coloured
    assert images(found) == list("abde")
    assert "l/c.png holds values (mode L), as 1 of 5 label files do, and the others hold colours" in report(found)


def test_palettes_go_with_colours(tmp_path: Path) -> None:
    write_pairs(tmp_path, "i/{}.png", "l/{}.png", "abcde", paint=palette)
    write_pairs(tmp_path, "i/{}.png", "l/{}.png", "c", paint=colours)
    found = inspect_folder(tmp_path)
    assert found.survey.coloured
    assert images(found) == list("abcde")
