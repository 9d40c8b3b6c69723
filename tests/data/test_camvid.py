"""CamVid in SegNet's layout, on folders made here; the real data set is read when it is present."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastseg.data.camvid import CAMVID, CODING, camvid
from fastseg.data.coding import INVALID
from fastseg.data.dataset import DATASETS, FileDataset, build_dataset
from fastseg.errors import DataError, LabelError, MissingFileError

REAL = Path(os.environ.get("FASTSEG_CAMVID", "data/CamVid"))


def write_pair(root: Path, split: str, stem: str, value: int = 3, suffix: str = ".png") -> None:
    for folder in (split, f"{split}annot"):
        (root / folder).mkdir(exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), 90, np.uint8)).save(root / split / f"{stem}{suffix}")
    Image.fromarray(np.full((6, 8), value, np.uint8)).save(root / f"{split}annot" / f"{stem}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, stems in {"train": "abc", "val": "d", "test": "ef"}.items():
        for stem in stems:
            write_pair(tmp_path, split, stem)
    return tmp_path


def names(root: Path, split: str) -> list[str]:
    dataset = camvid(str(root), split)
    return [dataset.sample_name(i) for i in range(len(dataset))]


def test_it_is_registered_and_has_eleven_classes() -> None:
    assert DATASETS.get("camvid") is camvid
    assert CAMVID.num_classes == len(CAMVID.palette) == len(set(CAMVID.palette)) == 11
    assert CAMVID.class_names[3] == "road"


def test_folders_alone_are_enough(root: Path) -> None:
    assert names(root, "train") == ["a.png", "b.png", "c.png"]
    image, label = camvid(str(root), "val").load(0)
    assert image.shape == (6, 8, 3)
    assert image.dtype == label.dtype == np.uint8
    assert (label == 3).all()


def test_jpeg_images_pair_with_png_labels(root: Path) -> None:
    write_pair(root, "val", "z", suffix=".jpg")
    assert names(root, "val") == ["d.png", "z.jpg"]


@pytest.mark.parametrize(
    "row",
    [
        "train/{0}.png trainannot/{0}.png",
        "/SegNet/CamVid/train/{0}.png /SegNet/CamVid/trainannot/{0}.png",
        "{root}/train/{0}.png,{root}/trainannot/{0}.png",
        "train/{0}.png",
        "{0}.png",
    ],
)
def test_a_list_chooses_the_samples_and_their_order(root: Path, row: str) -> None:
    (root / "train.txt").write_text("\r\n".join(row.format(stem, root=root) for stem in "ca"))
    dataset = camvid(str(root), "train")
    assert isinstance(dataset, FileDataset)
    assert names(root, "train") == ["c.png", "a.png"]
    assert [Path(str(sample.label)).relative_to(root).as_posix() for sample in dataset.samples] == [
        "trainannot/c.png",
        "trainannot/a.png",
    ]


def test_a_list_makes_a_split_of_its_own(root: Path) -> None:
    (root / "small.txt").write_text("train/a.png\nval/d.png\n")
    assert names(root, "small") == ["a.png", "d.png"]


def test_splits_join_with_a_plus(root: Path) -> None:
    assert len(build_dataset("camvid", "train+val", root=str(root))) == 4


def test_a_listed_image_without_label_is_missing(root: Path) -> None:
    (root / "train.txt").write_text("train/a.png\ntrain/b.png\n")
    (root / "trainannot" / "b.png").unlink()
    with pytest.raises(MissingFileError, match=r"1 files named by .*line 2: the label of train/b\.png"):
        camvid(str(root), "train")


@pytest.mark.parametrize("value", range(256))
def test_every_label_value_is_a_class_or_void_or_refused(value: int, tmp_path: Path) -> None:
    expected = value if value < 11 else 255 if value in (11, 255) else None
    if expected is not None:
        assert CODING.table[value] == expected
        return
    assert CODING.table[value] == INVALID
    if value in (12, 254):
        write_pair(tmp_path, "val", "x", value)
        with pytest.raises(LabelError, match=rf"x\.png has values \{{{value}: 48 px\}}.*allowed are 0-11, 255"):
            camvid(str(tmp_path), "val").load(0)


def test_a_misspelt_root_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"does not exist.*train/, trainannot/.*data\.root="):
        camvid(str(tmp_path / "CamVd"), "train")


@pytest.mark.parametrize("folder", ["train", "trainannot"])
def test_a_missing_folder_is_named(root: Path, folder: str) -> None:
    (root / folder).rename(root / "moved")
    with pytest.raises(MissingFileError, match=rf"{folder}/? .*exists?; .*contains: .*moved/"):
        camvid(str(root), "train")


@pytest.mark.parametrize("split", ["trian", "", "../train", "trainannot", "."])
def test_an_unknown_split_offers_the_known_ones(root: Path, split: str) -> None:
    with pytest.raises(DataError, match="has no split") as caught:
        camvid(str(root), split)
    assert "'train'" in str(caught.value) or "allowed: test, train, val" in str(caught.value)


def test_folders_without_pairs_say_what_was_searched(root: Path) -> None:
    (root / "valannot" / "d.png").rename(root / "valannot" / "d_L.png")
    with pytest.raises(DataError, match=r"0 samples found under .*val/\*\{\.png,\.jpg,\.jpeg\}"):
        camvid(str(root), "val")


def test_the_real_data_set_has_its_published_sizes_and_a_blue_sky_over_the_road() -> None:
    if not (REAL / "train").is_dir():
        pytest.skip(f"CamVid is not at {REAL}; set FASTSEG_CAMVID=/path/to/CamVid to run this")
    assert {split: len(camvid(str(REAL), split)) for split in ("train", "val", "test")} == {
        "train": 367,
        "val": 101,
        "test": 233,
    }
    dataset = camvid(str(REAL), "val")
    image, label = dataset.load(0)
    assert image.shape == (360, 480, 3)
    assert set(np.unique(label)) <= {*range(11), 255}
    # the ids mean what the names say: sky is bright and high, road is low
    sky, road = label == CAMVID.class_names.index("sky"), label == CAMVID.class_names.index("road")
    assert image[sky].mean() > image[road].mean()
    assert np.nonzero(sky)[0].mean() < np.nonzero(road)[0].mean()
