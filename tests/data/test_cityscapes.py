"""Cityscapes in its official layout, on folders made here; the real data set is read when it is present."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fastseg.data.cityscapes import CITYSCAPES, CODINGS, cityscapes
from fastseg.data.dataset import DATASETS, FileDataset, build_dataset
from fastseg.errors import DataError, LabelError, MissingFileError

REAL = Path(os.environ.get("FASTSEG_CITYSCAPES", "data/cityscapes"))
SPLITS = {"train": ("aachen", "bochum"), "val": ("munster",), "test": ("berlin",)}


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_sample(root: Path, split: str, name: str, raw: int = 26, kind: str = "labelIds") -> None:
    city = name.partition("_")[0]
    save(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", np.full((4, 8, 3), 90, np.uint8))
    save(root / "gtFine" / split / city / f"{name}_gtFine_{kind}.png", np.full((4, 8), raw, np.uint8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, cities in SPLITS.items():
        for city in cities:
            for frame in (1, 0):
                write_sample(tmp_path, split, f"{city}_00000{frame}_000019")
    return tmp_path


def label_file(root: Path, name: str = "munster_000000_000019", kind: str = "labelIds") -> Path:
    return root / "gtFine/val/munster" / f"{name}_gtFine_{kind}.png"


def test_it_is_registered_and_has_nineteen_classes() -> None:
    assert DATASETS.get("cityscapes") is cityscapes
    assert CITYSCAPES.num_classes == len(CITYSCAPES.palette) == len(set(CITYSCAPES.palette)) == 19
    assert len(set(CITYSCAPES.official_ids)) == 19
    # spot checks against helpers/labels.py of cityscapesScripts
    table = dict(
        zip(CITYSCAPES.class_names, zip(CITYSCAPES.official_ids, CITYSCAPES.palette, strict=True), strict=True)
    )
    assert table["road"] == (7, (128, 64, 128))
    assert table["traffic light"] == (19, (250, 170, 30))
    assert table["car"] == (26, (0, 0, 142))
    assert table["bicycle"] == (33, (119, 11, 32))


def test_samples_are_found_city_by_city_in_order(root: Path) -> None:
    dataset = cityscapes(str(root), "train")
    assert [dataset.sample_name(i) for i in range(len(dataset))] == [
        f"{city}_00000{frame}_000019_leftImg8bit.png" for city in ("aachen", "bochum") for frame in (0, 1)
    ]
    assert isinstance(dataset, FileDataset)
    for sample in dataset.samples:
        assert sample.label.name == sample.image.name.replace("_leftImg8bit", "_gtFine_labelIds")
        assert Path(str(sample.label)).parent.name == Path(str(sample.image)).parent.name


def test_splits_join_with_a_plus(root: Path) -> None:
    assert len(build_dataset("cityscapes", "train+val", root=str(root))) == 6


def test_an_image_and_its_classes_are_loaded(root: Path) -> None:
    image, label = cityscapes(str(root), "val").load(0)
    assert image.shape == (4, 8, 3)
    assert image.dtype == label.dtype == np.uint8
    assert (label == CITYSCAPES.class_names.index("car")).all()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.lists(st.integers(0, 33), min_size=32, max_size=32))
def test_both_kinds_of_label_files_give_the_same_classes(root: Path, raw: list[int]) -> None:
    ids = np.array(raw, np.uint8).reshape(4, 8)
    train_ids = np.full((4, 8), 255, np.uint8)
    for train_id, official in enumerate(CITYSCAPES.official_ids):
        train_ids[ids == official] = train_id
    for name in ("munster_000000_000019", "munster_000001_000019"):
        save(label_file(root, name), ids)
        save(label_file(root, name, "labelTrainIds"), train_ids)
    loaded = [cityscapes(str(root), "val", labels=kind).load(0)[1] for kind in CODINGS]
    assert np.array_equal(loaded[0], loaded[1])
    assert np.array_equal(loaded[0], train_ids)


@pytest.mark.parametrize(
    ("kind", "raw", "allowed"),
    [("labelIds", 34, "0-33"), ("labelIds", 254, "0-33"), ("labelTrainIds", 34, "0-18, 255")],
)
def test_another_value_is_refused_with_its_file(root: Path, kind: str, raw: int, allowed: str) -> None:
    for frame in (0, 1):
        write_sample(root, "val", f"munster_00000{frame}_000019", raw, kind)
    with pytest.raises(LabelError, match=rf"_gtFine_{kind}\.png has values \{{{raw}: 32 px\}}.*allowed are {allowed}"):
        cityscapes(str(root), "val", labels=kind).load(0)


def test_another_kind_of_labels_offers_the_right_ones(root: Path) -> None:
    with pytest.raises(DataError, match=r"no labels 'labelids' \(data\.args\.labels\); did you mean 'labelIds'"):
        cityscapes(str(root), "val", labels="labelids")


def test_a_misspelt_root_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(
        MissingFileError, match=r"does not exist.*leftImg8bit/ \(or left.*\.zip\), gtFine/ .*data\.root="
    ):
        cityscapes(str(tmp_path / "citys"), "train")


@pytest.mark.parametrize("folder", ["leftImg8bit", "gtFine", "leftImg8bit/val", "gtFine/val"])
def test_a_missing_folder_is_named_with_what_is_beside_it(root: Path, folder: str) -> None:
    (root / folder).rename((root / folder).with_name("moved"))
    with pytest.raises(MissingFileError, match=rf"{folder} does not exist; .*contains: .*moved/"):
        cityscapes(str(root), "val")


@pytest.mark.parametrize("split", ["vall", "", "../val", ".", "val/munster", "Val"])
def test_an_unknown_split_offers_the_known_ones(root: Path, split: str) -> None:
    with pytest.raises(DataError, match=r"cityscapes has no split .*('val'|allowed: train, val)"):
        cityscapes(str(root), split)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(split=st.text(max_size=12) | st.text("trainvles./\\*~", max_size=8))
def test_any_split_is_read_from_inside_the_root_or_refused(root: Path, split: str) -> None:
    try:
        dataset = cityscapes(str(root), split)
    except DataError:
        assert split not in ("train", "val")
    else:
        assert isinstance(dataset, FileDataset)
        assert split in ("train", "val")
        assert all(
            root in Path(str(file)).parents for sample in dataset.samples for file in (sample.image, sample.label)
        )


def test_the_test_split_has_no_public_labels(root: Path) -> None:
    with pytest.raises(DataError, match=r"test images are not public .*score on val, or .*fastseg submit cityscapes"):
        cityscapes(str(root), "test")


def test_a_split_of_ones_own_is_read(root: Path) -> None:
    write_sample(root, "mini", "aachen_000000_000019")
    assert len(cityscapes(str(root), "mini")) == 1


def test_an_image_without_label_is_named(root: Path) -> None:
    label_file(root).unlink()
    with pytest.raises(
        MissingFileError, match=r"1 of 2 files have no label .*gtFine/val/\*/\*_gtFine_labelIds\.png: .*munster_000000_"
    ):
        cityscapes(str(root), "val")


def test_a_label_without_image_is_named(root: Path) -> None:
    (root / "leftImg8bit/val/munster/munster_000001_000019_leftImg8bit.png").unlink()
    with pytest.raises(MissingFileError, match=r"1 of 2 files have no image .*munster_000001_000019_gtFine_labelIds"):
        cityscapes(str(root), "val")


def test_the_same_name_in_another_city_is_no_partner(root: Path) -> None:
    elsewhere = root / "gtFine/val/bonn" / label_file(root).name
    elsewhere.parent.mkdir()
    label_file(root).rename(elsewhere)
    with pytest.raises(MissingFileError, match="1 of 2 files have no label"):
        cityscapes(str(root), "val")


def test_train_ids_that_were_never_made_say_how_to_make_them(root: Path) -> None:
    with pytest.raises(MissingFileError, match=r"csCreateTrainIdLabelImgs, or set data\.args\.labels=labelIds"):
        cityscapes(str(root), "val", labels="labelTrainIds")


def test_a_folder_without_images_says_what_was_searched(root: Path) -> None:
    for path in (root / "leftImg8bit/val/munster").iterdir():
        path.rename(path.with_suffix(".jpg"))
    with pytest.raises(DataError, match=r"0 samples found under .*val/\*/\*_leftImg8bit\.png; there is: mun"):
        cityscapes(str(root), "val")


def test_other_files_are_left_alone(root: Path) -> None:
    for ending in ("_gtFine_color.png", "_gtFine_instanceIds.png", "_gtFine_polygons.json"):
        label_file(root).with_name(f"munster_000000_000019{ending}").touch()
    (root / "gtFine/val/.DS_Store").touch()
    (root / "leftImg8bit/val/munster/._munster_000000_000019_leftImg8bit.png").touch()
    assert len(cityscapes(str(root), "val")) == 2


def test_the_real_data_set_has_its_published_sizes_and_a_sky_over_the_road() -> None:
    if not (REAL / "gtFine").is_dir():
        pytest.skip(f"Cityscapes is not at {REAL}; set FASTSEG_CITYSCAPES=/path/to/cityscapes to run this")
    assert {split: len(cityscapes(str(REAL), split)) for split in ("train", "val")} == {"train": 2975, "val": 500}
    image, label = cityscapes(str(REAL), "val").load(0)
    assert image.shape == (1024, 2048, 3)
    sky, road = (np.nonzero(label == CITYSCAPES.class_names.index(name))[0].mean() for name in ("sky", "road"))
    assert sky < road
