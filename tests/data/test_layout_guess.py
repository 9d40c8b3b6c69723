"""Which files are the labels where there are several kinds, none, or names that no pattern can hold."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastseg.data.folder_yaml import report
from fastseg.data.inspect_folder import inspect_folder
from fastseg.errors import DataError
from trees.folder import colours, values, write_pairs, write_segnet


@pytest.mark.parametrize("order", [("human", "machine"), ("machine", "human")])
def test_ids_are_preferred_to_paintings_and_the_others_are_named(tmp_path: Path, order: tuple[str, str]) -> None:
    """As Supervisely exports them."""
    for kind in order:
        paint = colours if kind == "human" else values
        write_pairs(tmp_path, "ds/img/{}.jpg", f"ds/masks_{kind}/{{}}.jpg.png", paint=paint)
    found = inspect_folder(tmp_path)
    assert found.layout.splits["train"]["labels"] == "ds/masks_machine/*.jpg.png"
    assert "not used: 4 other label files for the same images: masks_human/*.jpg.png" in report(found)


def test_labels_of_one_kind_leave_nothing_unused(tmp_path: Path) -> None:
    write_pairs(tmp_path, "img/x_{}_a.jpg", "gt/x_{}_a.png")
    assert "not used" not in report(inspect_folder(tmp_path))


def test_a_star_in_the_name_of_a_folder_is_explained(tmp_path: Path) -> None:
    write_pairs(tmp_path, "im/{}.jpg", "la*bel/{}.png")
    with pytest.raises(DataError, match=r"4 pairs of im and la\*bel, which no pattern describes; .* \* .*rename it"):
        inspect_folder(tmp_path)
    write_pairs(tmp_path, "other/im/{}.jpg", "other/gt/{}.png", "efgh")
    assert inspect_folder(tmp_path).layout.splits["train"]["labels"] == "other/gt"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("a.json", r"1 \.json lie there, such as a\.json: polygons of labelme"),
        ("annotations/instances_train.json", "COCO's polygons"),
        ("labels/a.mat", r"1 \.mat lie there"),
    ],
)
def test_labels_that_are_no_images_are_named(tmp_path: Path, file: str, message: str) -> None:
    write_pairs(tmp_path, "i/{}.jpg", "l/{}.png")
    shutil.rmtree(tmp_path / "l")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).touch()
    with pytest.raises(DataError, match=message):
        inspect_folder(tmp_path)


def test_labels_beside_the_folder_are_named(tmp_path: Path) -> None:
    write_segnet(tmp_path / "mine")
    for other in ("trainings_day", "labelme"):
        (tmp_path / "mine" / other).mkdir()
    with pytest.raises(DataError, match=r"equal\. \.\./trainannot lies beside it: give the folder") as told:
        inspect_folder(tmp_path / "mine/train")
    assert "labelme" not in str(told.value)


def test_instance_maps_are_called_so(tmp_path: Path) -> None:
    ids = (np.arange(96 * 128).reshape(96, 128) // 30 * 37).astype(np.uint16)  # nowhere 2x2 alike
    write_pairs(tmp_path, "i/{}.jpg", "l/{}.png", paint=lambda classes: Image.fromarray(ids), size=(96, 128))
    refusal = inspect_folder(tmp_path).refusal
    assert "they look like ids of single objects" in refusal
    assert "anti-aliasing" not in refusal
