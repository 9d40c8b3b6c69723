"""ADE20K in the layout of the scene parsing benchmark, on folders made here; the real one is read when present."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastseg.data.ade20k import ADE20K, CODING, ade20k
from fastseg.data.coding import INVALID
from fastseg.data.dataset import DATASETS, build_dataset
from fastseg.errors import DataError, LabelError, MissingFileError
from fastseg.types import IGNORE_INDEX
from trees.ade20k import CLASSES, write_ade20k, write_full, write_test_release

REAL = Path(os.environ.get("FASTSEG_ADE20K", "data/ADEChallengeData2016"))
STEMS = {"training": ("ADE_train_00000002", "ADE_train_00000001"), "validation": ("ADE_val_00000001",)}


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_sample(root: Path, folder: str, stem: str, raw: int = 1) -> None:
    save(root / "images" / folder / f"{stem}.jpg", np.full((4, 6, 3), 90, np.uint8))
    save(root / "annotations" / folder / f"{stem}.png", np.full((4, 6), raw, np.uint8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder, stems in STEMS.items():
        for stem in stems:
            write_sample(tmp_path, folder, stem)
    return tmp_path


def test_it_is_registered_and_has_150_classes() -> None:
    assert DATASETS.get("ade20k") is ade20k
    assert ADE20K.num_classes == len(set(ADE20K.class_names)) == len(ADE20K.palette) == len(ADE20K.official_ids) == 150


def test_names_ids_and_colours_are_those_of_the_release() -> None:
    """Rows of objectInfo150.txt and color150.mat, from the beginning, the middle and the end."""
    rows = dict(zip(ADE20K.official_ids, zip(ADE20K.class_names, ADE20K.palette, strict=True), strict=True))
    assert rows[1] == ("wall", (120, 120, 120))
    assert rows[8] == ("bed", (204, 5, 255))
    assert rows[13] == ("person", (150, 5, 61))
    assert rows[45] == ("chest of drawers", (6, 51, 255))
    assert rows[87] == ("awning", (0, 255, 61))
    assert rows[150] == ("flag", (92, 0, 255))
    # the one colour that the release gives twice
    assert len(set(ADE20K.palette)) == 149
    assert rows[7] == ("road", (140, 140, 140))
    assert rows[49] == ("skyscraper", (140, 140, 140))


def test_a_split_reads_the_folder_of_its_longer_name(root: Path) -> None:
    train, val = ade20k(str(root), "train"), ade20k(str(root), "val")
    assert [train.sample_name(i) for i in range(len(train))] == ["ADE_train_00000001.jpg", "ADE_train_00000002.jpg"]
    assert [val.sample_name(i) for i in range(len(val))] == ["ADE_val_00000001.jpg"]
    assert len(build_dataset("ade20k", "train+val", root=str(root))) == 3


def test_an_image_and_its_classes_are_loaded(root: Path) -> None:
    write_sample(root, "validation", "ADE_val_00000001", raw=7)
    image, label = ade20k(str(root), "val").load(0)
    assert image.shape == (4, 6, 3)
    assert image.dtype == label.dtype == np.uint8
    assert (label == ADE20K.class_names.index("road")).all()


def test_every_raw_value_is_a_class_or_ignored_or_refused() -> None:
    assert CODING.table[1:151].tolist() == list(range(150))
    assert CODING.table[[0, 255]].tolist() == [IGNORE_INDEX, IGNORE_INDEX]
    assert (CODING.table[151:255] == INVALID).all()


def test_another_value_is_refused_with_its_file(root: Path) -> None:
    write_sample(root, "validation", "ADE_val_00000001", raw=151)
    with pytest.raises(LabelError, match=r"ADE_val_00000001\.png has values \{151: 24 px\}.*allowed are 0-150, 255"):
        ade20k(str(root), "val").load(0)


def test_a_misspelt_root_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(
        MissingFileError, match=r"does not exist.*images/training/, annotations/training/.*data\.root=/path/to/ade20k"
    ):
        ade20k(str(tmp_path / "ADE"), "train")


@pytest.mark.parametrize("kind", ["images", "annotations"])
def test_a_missing_folder_is_named_with_what_is_beside_it(root: Path, kind: str) -> None:
    (root / kind / "validation").rename(root / kind / "moved")
    with pytest.raises(MissingFileError, match=rf"{kind}/validation does not exist; .*contains: moved/"):
        ade20k(str(root), "val")


@pytest.mark.parametrize("split", ["training", "validation", "tets", "", "../train"])
def test_another_split_offers_the_known_ones(root: Path, split: str) -> None:
    with pytest.raises(DataError, match=r"ade20k has no split .*allowed: train, val"):
        ade20k(str(root), split)


def test_an_image_without_label_is_named(root: Path) -> None:
    (root / "annotations/training/ADE_train_00000002.png").unlink()
    with pytest.raises(MissingFileError, match=r"1 of 2 files have no label .*annotations/training: .*train_00000002"):
        ade20k(str(root), "train")


def test_the_layout_of_the_release_gives_the_classes_of_its_pictures(tmp_path: Path) -> None:
    dataset = ade20k(str(write_ade20k(tmp_path)), "train")
    names = {
        "ignored" if value == IGNORE_INDEX else ADE20K.class_names[value]
        for index in range(len(dataset))
        for value in np.unique(dataset.load(index)[1])
    }
    assert {"ignored", "road", "sky"} <= names <= {"ignored", *CLASSES.values()}
    assert dataset.load(0)[1].shape == (33, 47)


def test_a_grey_image_of_an_odd_size_is_read(root: Path) -> None:
    """Some of the release's photographs are grey JPEG files."""
    Image.fromarray(np.full((5, 7), 90, np.uint8)).save(root / "images/validation/ADE_val_00000001.jpg")
    save(root / "annotations/validation/ADE_val_00000001.png", np.full((5, 7), 1, np.uint8))
    image, label = ade20k(str(root), "val").load(0)
    assert (image.shape, label.shape) == ((5, 7, 3), (5, 7))


@pytest.mark.parametrize("split", ["test", "testing"])
def test_the_test_images_have_no_labels(tmp_path: Path, split: str) -> None:
    with pytest.raises(DataError, match=r"labels of ade20k's test images are not public .*score on val"):
        ade20k(str(write_test_release(tmp_path)), split)


@pytest.mark.parametrize("year", [2021, 2016])
def test_the_full_data_set_is_refused_and_the_right_archive_named(tmp_path: Path, year: int) -> None:
    with pytest.raises(DataError, match=r"belongs to the full ADE20K, .*fetch ADEChallengeData2016\.zip"):
        ade20k(str(write_full(tmp_path, year=year)), "train")


def test_the_folder_above_the_full_data_set_is_recognised_too(tmp_path: Path) -> None:
    write_full(tmp_path / "ADE20K_2021_17_01")
    with pytest.raises(DataError, match=r"ADE20K_2021_17_01 belongs to the full ADE20K"):
        ade20k(str(tmp_path), "val")


def test_the_real_data_set_has_its_published_sizes_and_a_sky_over_the_floor() -> None:
    if not (REAL / "annotations").is_dir():
        pytest.skip(f"ADE20K is not at {REAL}; set FASTSEG_ADE20K=/path/to/ADEChallengeData2016 to run this")
    val = ade20k(str(REAL), "val")
    assert (len(ade20k(str(REAL), "train")), len(val)) == (20_210, 2_000)
    rows: dict[str, list[float]] = {"sky": [], "floor": []}
    for index in range(20):
        label = val.load(index)[1]
        for name, found in rows.items():
            at = np.nonzero(label == ADE20K.class_names.index(name))[0] / len(label)
            found.extend(at[:: max(1, len(at) // 100)])
    assert np.mean(rows["sky"]) < np.mean(rows["floor"])
