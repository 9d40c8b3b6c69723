"""PASCAL-Context as PNG label maps and lists, on folders made here; the real one is read when it is present."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fastseg.data.coding import INVALID
from fastseg.data.dataset import DATASETS, FileDataset, build_dataset
from fastseg.data.pascal_context import CODINGS, INFOS, LISTS, pascal_context
from fastseg.errors import DataError, LabelError, MissingFileError
from fastseg.types import IGNORE_INDEX

REAL = Path(os.environ.get("FASTSEG_PASCAL_CONTEXT", "data/VOCdevkit/VOC2010"))
ROWS = {"train": ("2008_000008", "2008_000002"), "val": ("2008_000003",)}


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_sample(root: Path, name: str, raw: np.ndarray, folder: str = "SegmentationClassContext") -> None:
    save(root / "JPEGImages" / f"{name}.jpg", np.full((*raw.shape, 3), 90, np.uint8))
    save(root / folder / f"{name}.png", raw)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / LISTS).mkdir(parents=True)
    for split, names in ROWS.items():
        (tmp_path / LISTS / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            write_sample(tmp_path, name, np.full((4, 6), 1, np.uint8))
    save(tmp_path / "JPEGImages/2007_000001.jpg", np.zeros((4, 6, 3), np.uint8))  # VOC has more images than lists
    return tmp_path


def test_it_is_registered_with_59_classes_and_with_60() -> None:
    assert DATASETS.get("pascal_context") is pascal_context
    for classes, info in INFOS.items():
        assert info.num_classes == len(set(info.class_names)) == len(set(info.palette)) == classes
    assert INFOS[60].class_names == ("background", *INFOS[59].class_names)
    assert INFOS[60].palette[1:] == INFOS[59].palette


def test_names_are_in_their_alphabetical_order_and_colours_those_of_voc() -> None:
    info = INFOS[59]
    assert list(info.class_names) == sorted(info.class_names)
    rows = dict(zip(info.official_ids, zip(info.class_names, info.palette, strict=True), strict=True))
    # the development kit's colour map, where 15 and 20 are PASCAL VOC's person and tvmonitor
    assert [rows[value][1] for value in (1, 2, 3)] == [(128, 0, 0), (0, 128, 0), (128, 128, 0)]
    assert rows[15][1] == (192, 128, 128)
    assert rows[20][1] == (0, 64, 128)
    assert INFOS[60].palette[0] == (0, 0, 0)
    assert (rows[1][0], rows[37][0], rows[59][0]) == ("aeroplane", "person", "wood")


def test_a_list_chooses_the_samples_and_their_order(root: Path) -> None:
    dataset = pascal_context(str(root), "train")
    assert isinstance(dataset, FileDataset)
    assert [dataset.sample_name(i) for i in range(len(dataset))] == ["2008_000008.jpg", "2008_000002.jpg"]
    assert [sample.label.name for sample in dataset.samples] == ["2008_000008.png", "2008_000002.png"]
    assert len(build_dataset("pascal_context", "train+val", root=str(root))) == 3


def test_a_list_makes_a_split_of_its_own(root: Path) -> None:
    (root / LISTS / "mini.txt").write_text("2008_000003\r\n\r\n")
    assert len(pascal_context(str(root), "mini")) == 1


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.lists(st.integers(0, 59), min_size=24, max_size=24))
def test_the_background_is_ignored_with_59_classes_and_the_first_with_60(root: Path, raw: list[int]) -> None:
    values = np.array(raw, np.uint8).reshape(4, 6)
    write_sample(root, "2008_000003", values)
    with_59, with_60 = (pascal_context(str(root), "val", classes=classes).load(0)[1] for classes in (59, 60))
    assert np.array_equal(with_60, values)
    assert np.array_equal(with_59, np.where(values == 0, IGNORE_INDEX, values.astype(int) - 1))


@pytest.mark.parametrize("classes", [59, 60])
def test_every_other_value_is_refused_but_255(classes: int) -> None:
    assert (CODINGS[classes].table[60:255] == INVALID).all()
    assert CODINGS[classes].table[255] == IGNORE_INDEX


@pytest.mark.parametrize("classes", [59, 60])
def test_another_value_is_refused_with_its_file(root: Path, classes: int) -> None:
    write_sample(root, "2008_000003", np.full((4, 6), 60, np.uint8))
    with pytest.raises(LabelError, match=r"2008_000003\.png has values \{60: 24 px\}.*allowed are 0-59, 255"):
        pascal_context(str(root), "val", classes=classes).load(0)


def test_another_number_of_classes_is_refused(root: Path) -> None:
    with pytest.raises(DataError, match=r"no 33 classes \(data\.args\.classes\); allowed: 59, 60"):
        pascal_context(str(root), "val", classes=33)


def test_labels_may_stand_in_another_folder(root: Path) -> None:
    write_sample(root, "2008_000003", np.full((4, 6), 5, np.uint8), folder="Context59")
    label = pascal_context(str(root), "val", labels="Context59").load(0)[1]
    assert (label == INFOS[59].class_names.index("bench")).all()


def test_a_misspelt_root_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"does not exist.*JPEGImages/, SegmentationClassContext/, ImageSets/"):
        pascal_context(str(tmp_path / "VOC"), "train")


@pytest.mark.parametrize("folder", ["JPEGImages", "SegmentationClassContext", LISTS])
def test_a_missing_folder_is_named_with_what_is_beside_it(root: Path, folder: str) -> None:
    (root / folder).rename((root / folder).with_name("moved"))
    with pytest.raises(MissingFileError, match=rf"{folder} does not exist; .*contains: .*moved/"):
        pascal_context(str(root), "val")


def test_a_missing_list_says_how_to_make_it(root: Path) -> None:
    (root / LISTS / "val.txt").unlink()
    with pytest.raises(MissingFileError, match=r"val\.txt does not exist; .*contains: train\.txt; make the lists with"):
        pascal_context(str(root), "val")


@pytest.mark.parametrize("split", ["vall", "", "../train", "test", "val.txt"])
def test_an_unknown_split_offers_the_known_ones(root: Path, split: str) -> None:
    with pytest.raises(DataError, match=r"pascal_context has no split .*allowed: train, val"):
        pascal_context(str(root), split)


def test_listed_files_that_do_not_exist_are_named_with_their_line(root: Path) -> None:
    (root / "SegmentationClassContext/2008_000002.png").unlink()
    with pytest.raises(MissingFileError, match=r"1 files named by .*train\.txt \(2 rows\).*line 2: .*2008_000002\.png"):
        pascal_context(str(root), "train")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("", r"0 samples found in .*val\.txt"),
        ("JPEGImages/a.jpg SegmentationClassContext/a.png\n", r"val\.txt line 1 has 2 columns .*name of one image"),
    ],
)
def test_a_list_of_another_form_is_refused(root: Path, rows: str, message: str) -> None:
    (root / LISTS / "val.txt").write_text(rows)
    with pytest.raises(DataError, match=message):
        pascal_context(str(root), "val")


def test_the_real_data_set_has_its_published_sizes_and_a_sky_over_the_grass() -> None:
    if not (REAL / LISTS).is_dir():
        pytest.skip(f"PASCAL-Context is not at {REAL}; set FASTSEG_PASCAL_CONTEXT=/path/to/VOC2010 to run this")
    val = pascal_context(str(REAL), "val")
    assert (len(pascal_context(str(REAL), "train")), len(val)) == (4_998, 5_105)
    rows: dict[str, list[float]] = {"sky": [], "grass": []}
    for index in range(50):
        label = val.load(index)[1]
        for name, found in rows.items():
            at = np.nonzero(label == val.info.class_names.index(name))[0] / len(label)
            found.extend(at[:: max(1, len(at) // 100)])
    assert np.mean(rows["sky"]) < np.mean(rows["grass"])
