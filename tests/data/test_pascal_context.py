"""PASCAL-Context as PNG label maps and as .mat files, on folders made here; the real one is read when it is present."""

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
from fastseg.data.pascal_context import CLASS_NAMES, CLASSES, CODINGS, INFOS, LISTS, pascal_context
from fastseg.errors import DataError, ImageReadError, LabelError, MissingFileError
from fastseg.types import IGNORE_INDEX
from trees.pascal_context import POLE, UNKNOWN, matlab_file, write_mat, write_png

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


# --- the authors' .mat files


# sorted, as the literature lists them: _mapping in zhanghang1989/PyTorch-Encoding and mmsegmentation
# fmt: off
NUMBERS = sorted([
    2, 259, 260, 415, 324, 9, 258, 144, 18, 19, 22, 23, 397, 25, 284, 158, 159, 416, 33, 162, 420, 454, 295, 296, 427,
    44, 45, 46, 308, 59, 440, 445, 31, 232, 65, 354, 424, 68, 326, 72, 458, 34, 207, 80, 355, 85, 347, 220, 349, 360,
    98, 187, 104, 105, 366, 189, 368, 113, 115,
])
# fmt: on


def write_map(root: Path, numbers: np.ndarray, name: str = "2008_000003") -> None:
    (root / "trainval" / f"{name}.mat").write_bytes(matlab_file({"LabelMap": numbers}))
    save(root / "JPEGImages" / f"{name}.jpg", np.zeros((*numbers.shape, 3), np.uint8))


@pytest.fixture
def mat(tmp_path: Path) -> Path:
    return write_mat(tmp_path / "mat")


def test_the_59_have_the_numbers_of_the_literature_in_the_order_of_their_names() -> None:
    assert list(CLASSES.values()) == NUMBERS


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("classes", [59, 60])
def test_both_layouts_of_one_picture_give_the_same_classes(
    tmp_path: Path, classes: int, compressed: bool, names: bool
) -> None:
    write_png(tmp_path / "png")
    write_mat(tmp_path / "mat", names=names, compressed=compressed)
    for split in ("train", "val"):
        ours = pascal_context(str(tmp_path / "mat"), split, classes=classes)
        other = pascal_context(str(tmp_path / "png"), split, classes=classes)
        assert ours.info == other.info
        assert [ours.sample_name(i) for i in range(len(ours))] == [other.sample_name(i) for i in range(len(other))]
        for index in range(len(ours)):
            image, label = ours.load(index)
            assert image.shape == (33, 47, 3)
            assert np.array_equal(label, other.load(index)[1])
            assert len(np.unique(label)) > 4


def test_every_number_of_the_459_is_its_class_or_background(mat: Path) -> None:
    write_map(mat, np.arange(460, dtype=np.uint16).reshape(20, 23))
    with_59, with_60 = (pascal_context(str(mat), "val", classes=classes).load(0)[1].ravel() for classes in (59, 60))
    assert [int(np.flatnonzero(with_60 == index)[0]) for index in range(1, 60)] == NUMBERS
    assert np.array_equal(with_60 == 0, with_59 == IGNORE_INDEX)
    assert np.array_equal(with_59[NUMBERS], np.arange(59))
    assert with_60[[0, POLE, UNKNOWN]].tolist() == [0, 0, 0]


@pytest.mark.parametrize("value", [460, 461, 65535])
def test_a_number_beyond_the_459_is_refused_with_its_file(mat: Path, value: int) -> None:
    write_map(mat, np.array([[2, value]], np.uint16))
    with pytest.raises(LabelError, match=rf"2008_000003\.mat has values \{{{value}: 1 px\}}.*allowed are 0-459"):
        pascal_context(str(mat), "val").load(0)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (np.array([[2.0, 1.5]]), "LabelMap holds fractions"),
        (np.array([[2.0, np.nan]]), "LabelMap holds fractions"),
        (np.array([[2, -1]], np.int16), r"LabelMap has values -1\.\.2; allowed are 0-459"),
        (np.array([[2, 70_000]], np.int32), r"LabelMap has values 2\.\.70000; allowed are 0-459"),
    ],
)
def test_what_is_no_number_of_a_label_is_refused_with_its_file(mat: Path, numbers: np.ndarray, message: str) -> None:
    write_map(mat, numbers)
    with pytest.raises(LabelError, match=rf"2008_000003\.mat: {message}"):
        pascal_context(str(mat), "val").load(0)


def test_whole_doubles_are_numbers_too(mat: Path) -> None:
    write_map(mat, np.array([[2.0, 458.0]]))
    assert pascal_context(str(mat), "val").load(0)[1].tolist() == [[0, 58]]


def test_numbers_are_those_of_labels_txt_where_it_lies_beside(mat: Path) -> None:
    rows = (mat / "labels.txt").read_text().replace("44: building", "44: other")
    (mat / "labels.txt").write_text(rows.replace("303: other 303", "303: building"))
    write_map(mat, np.array([[44, 303]], np.uint16))
    building = CLASS_NAMES.index("building")
    assert pascal_context(str(mat), "val").load(0)[1].tolist() == [[IGNORE_INDEX, building]]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("labels.txt", "44: building", "44: house", r"labels\.txt gives no number in 1-459 to building"),
        ("labels.txt", "44: building", "444444: building", r"labels\.txt gives no number in 1-459 to building"),
        (
            "labels.txt",
            "44: building",
            "44 building",
            r"labels\.txt line 44 is '44 building'; allowed is '23: bicycle'",
        ),
        ("59_labels.txt", "building", "house", r"59_labels\.txt does not name .*59 classes: building; house differ"),
    ],
)
def test_label_lists_of_other_classes_are_refused(mat: Path, file: str, old: str, new: str, message: str) -> None:
    (mat / file).write_text((mat / file).read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        pascal_context(str(mat), "val")


@pytest.mark.parametrize("inside", ["VOC2010", "VOCdevkit/VOC2010"])
def test_images_may_lie_below_the_folder_of_the_labels(tmp_path: Path, mat: Path, inside: str) -> None:
    root = tmp_path / "context"
    (root / inside).parent.mkdir(parents=True)
    mat.rename(root / inside)
    for name in ("trainval", "labels.txt", "59_labels.txt"):
        (root / inside / name).rename(root / name)
    assert len(pascal_context(str(root), "train")) == 2


def test_png_maps_go_before_mat_files_unless_asked(mat: Path) -> None:
    (mat / "SegmentationClassContext").mkdir()
    for name in ("2008_000002", "2008_000008", "2008_000003"):
        save(mat / "SegmentationClassContext" / f"{name}.png", np.full((33, 47), 7, np.uint8))
    assert set(np.unique(pascal_context(str(mat), "val").load(0)[1])) == {6}
    assert len(np.unique(pascal_context(str(mat), "val", labels="trainval").load(0)[1])) > 4


def test_vocs_lists_of_objects_are_no_splits(mat: Path) -> None:
    with pytest.raises(DataError, match=r"no split 'car_train'; .*allowed: train, val"):
        pascal_context(str(mat), "car_train")


def test_a_damaged_mat_file_is_named(mat: Path) -> None:
    path = mat / "trainval/2008_000003.mat"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageReadError, match=r"2008_000003\.mat \(200 bytes\) is damaged or incomplete"):
        pascal_context(str(mat), "val").load(0)


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
