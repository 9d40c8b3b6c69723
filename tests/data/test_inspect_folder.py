"""Folders that nobody has described: which files are pairs, what stands in the labels, and what cannot be used."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastseg.config import load_config
from fastseg.data.ade20k import ADE20K
from fastseg.data.dataset import FileDataset
from fastseg.data.folder_yaml import configuration, report, scalar
from fastseg.data.inspect_folder import Inspection, inspect_folder
from fastseg.data.known_colours import KNOWN, known_names
from fastseg.data.known_layouts import LAYOUTS, KnownLayout
from fastseg.engine.build import build_split
from fastseg.errors import DataError, FastsegError, MissingFileError
from trees import scene
from trees.cityscapes import write_cityscapes
from trees.folder import VOC_COLOURS, colours, palette, values, write_pairs, write_segnet


def entries(found: Inspection) -> dict[str, dict[str, str]]:
    return found.layout.splits


def names(found: Inspection) -> dict[str, str]:
    """What every value or colour is taken for, as the configuration spells them."""
    return {str(key): name for key, name in written(found).items()}


def written(found: Inspection) -> dict[Any, str]:
    args = yaml.safe_load(configuration(found, "mine"))["data"]["args"]
    assert isinstance(args["classes"], dict)
    return args["classes"]


def loaded(found: Inspection, file: Path, split: str = "train") -> FileDataset:
    """What the configuration that is written says, read like any other."""
    file.write_text(configuration(found, "mine"))
    dataset = build_split(load_config(file), split)
    assert isinstance(dataset, FileDataset)
    return dataset


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (
            {"train": ("train/{}.png", "trainannot/{}.png"), "val": ("val/{}.png", "valannot/{}.png")},
            {"train": {"images": "train", "labels": "trainannot"}, "val": {"images": "val", "labels": "valannot"}},
        ),
        (
            {
                "train": ("images/training/{}.jpg", "annotations/training/{}.png"),
                "val": ("images/validation/{}.jpg", "annotations/validation/{}.png"),
            },
            {
                "train": {"images": "images/training", "labels": "annotations/training"},
                "val": {"images": "images/validation", "labels": "annotations/validation"},
            },
        ),
        (
            {"train": ("train/img/{}.jpg", "train/gt/{}.png"), "test": ("test/img/{}.jpg", "test/gt/{}.png")},
            {
                "train": {"images": "train/img", "labels": "train/gt"},
                "test": {"images": "test/img", "labels": "test/gt"},
            },
        ),
        ({"": ("{}.jpg", "{}.png")}, {"train": {"images": "*.jpg", "labels": "*.png"}}),
        ({"": ("{}.png", "{}_mask.png")}, {"train": {"images": "*.png", "labels": "*_mask.png"}}),
        ({"": ("p/{}.png", "p/{}_L.png")}, {"train": {"images": "p/*.png", "labels": "p/*_L.png"}}),
        ({"": ("p/img_{}.png", "p/gt_{}.png")}, {"train": {"images": "p/img_*.png", "labels": "p/gt_*.png"}}),
        (
            {
                "a": ("rgb/ulm/{}_left.png", "gt/ulm/{}_gt_ids.png"),
                "b": ("rgb/bonn/{}_left.png", "gt/bonn/{}_gt_ids.png"),
            },
            {"train": {"images": "rgb/**/*_left.png", "labels": "gt/**/*_gt_ids.png"}},
        ),
        (
            {"a": ("s1/cam/{}.png", "s1/seg/{}.png"), "b": ("s2/cam/{}.png", "s2/seg/{}.png")},
            {"train": {"images": "**/cam/*.png", "labels": "**/seg/*.png"}},
        ),
        ({"": ("val/{}.jpg", "val_labels/{}.png")}, {"train": {"images": "val", "labels": "val_labels"}}),
    ],
)
def test_pairs_and_splits_are_found(
    tmp_path: Path, pairs: dict[str, tuple[str, str]], expected: dict[str, dict[str, str]]
) -> None:
    total = 0
    for split, (images, labels) in pairs.items():
        write_pairs(tmp_path, images, labels, [f"{split}{n:03}_000019" for n in (0, 1, 10, 100)])
        total += 4
    found = inspect_folder(tmp_path, limit=1)
    assert entries(found) == expected
    assert found.pairs == total
    assert not any(each.images_alone or each.labels_alone for each in found.layout.pairs.values())


def test_labels_of_the_same_name_in_every_split_stay_with_their_split(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write_pairs(tmp_path, f"{split}/{{}}.jpg", f"{split}annot/{{}}.png", ["0001", "0002"])
    found = inspect_folder(tmp_path, limit=1)
    assert entries(found) == {split: {"images": split, "labels": f"{split}annot"} for split in ("train", "val", "test")}


def test_many_sequences_with_the_same_names_keep_their_pairs_and_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for sequence in range(20):
            write_pairs(tmp_path, f"{split}/{sequence}/cam/{{}}.png", f"{split}/{sequence}/seg/{{}}.png", "12")
    found = inspect_folder(tmp_path, limit=1)
    assert entries(found) == {
        split: {"images": f"{split}/**/cam/*.png", "labels": f"{split}/**/seg/*.png"} for split in ("train", "val")
    }
    assert found.pairs == 80


def test_lists_divide_a_folder_without_splits(tmp_path: Path) -> None:
    write_pairs(tmp_path, "JPEGImages/{}.jpg", "SegmentationClass/{}.png", ["a_1", "a_2", "a_3"], paint=palette)
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a_1\na_3\n")
    (lists / "val.txt").write_text("a_2\n")
    (lists / "test.txt").write_text("b_1\n")  # images that are not here
    found = inspect_folder(tmp_path)
    assert {split: list(pairs.samples) for split, pairs in found.layout.pairs.items()} == {
        "train": ["a_1", "a_3"],
        "val": ["a_2"],
    }
    assert len(loaded(found, tmp_path / "mine.yaml", "val")) == 1


def test_classes_are_preferred_to_instances_and_to_paintings(tmp_path: Path) -> None:
    write_pairs(tmp_path, "img/{}.png", "gt/{}_labelIds.png")
    write_pairs(tmp_path, "img/{}.png", "gt/{}_color.png", paint=colours)
    write_pairs(tmp_path, "img/{}.png", "gt/{}_instanceIds.png")
    assert entries(inspect_folder(tmp_path))["train"]["labels"] == "gt/*_labelIds.png"


def test_the_many_label_files_of_cityscapes_are_told_apart(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    assert entries(inspect_folder(tmp_path))["train"] == {
        "images": "leftImg8bit/train/**/*_leftImg8bit.png",
        "labels": "gtFine/train/**/*_gtFine_labelIds.png",
    }


def test_files_without_partner_are_reported_and_left_out(tmp_path: Path) -> None:
    write_segnet(tmp_path)
    (tmp_path / "trainannot/train_b.png").unlink()
    found = inspect_folder(tmp_path)
    assert "1 file without label: train/train_b.png" in report(found)
    assert len(loaded(found, tmp_path / "mine.yaml")) == 3


def test_files_that_cannot_be_used_are_listed_and_left_out(tmp_path: Path) -> None:
    write_segnet(tmp_path)
    (tmp_path / "train/train_a.png").write_bytes(b"<html>")
    data = (tmp_path / "trainannot/train_b.png").read_bytes()
    (tmp_path / "trainannot/train_b.png").write_bytes(data[: len(data) // 2])
    save(tmp_path / "trainannot/train_c.png", np.zeros((7, 9), np.uint8))
    found = inspect_folder(tmp_path)
    text = report(found)
    assert "cannot be used (3)" in text
    assert "train/train_a.png (6 bytes) is no image" in text
    assert "trainannot/train_b.png (" in text
    assert "trainannot/train_c.png is 9x7, but its image is 64x48" in text
    dataset = loaded(found, tmp_path / "mine.yaml")
    assert [dataset.sample_name(index) for index in range(len(dataset))] == ["train_d.png"]


def test_a_split_of_which_nothing_can_be_used_is_left_out(tmp_path: Path) -> None:
    write_segnet(tmp_path)
    for name in "abcd":
        (tmp_path / f"val/val_{name}.png").write_bytes(b"")
    found = inspect_folder(tmp_path)
    assert list(entries(found)) == ["train"]
    assert "split val left out: none of its 4 pairs can be used" in report(found)
    assert len(loaded(found, tmp_path / "mine.yaml", "val")) == 1  # held back


def test_values_are_counted_in_pixels_and_files(tmp_path: Path) -> None:
    for name, value in (("a", 0), ("b", 0), ("c", 7)):
        write_pairs(tmp_path, "i/{}.jpg", "l/{}.png", [name])
        save(tmp_path / f"l/{name}.png", np.full((48, 64), value, np.uint8))
    tally = inspect_folder(tmp_path).survey.tally
    assert tally.pixels == {0: 2 * 48 * 64, 7: 48 * 64}
    assert tally.files == {0: 2, 7: 1}


def test_a_limit_reads_fewer_and_says_so(tmp_path: Path) -> None:
    write_segnet(tmp_path)
    found = inspect_folder(tmp_path, limit=2)
    assert sum(found.survey.sizes.values()) == 2
    assert "of which 2 were read" in report(found)
    assert "only 2 labels were read" in configuration(found, "mine")
    with pytest.raises(DataError, match="limit is 0"):
        inspect_folder(tmp_path, limit=0)


def test_progress_is_told_of_every_pair(tmp_path: Path) -> None:
    write_segnet(tmp_path)
    told: list[tuple[int, int]] = []
    inspect_folder(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(n, 8) for n in range(1, 9)]


def camvid(root: Path, *, size: tuple[int, int] = (360, 480), name: str = "0001TP_00669{}.png") -> None:
    for split in ("train", "val"):
        write_pairs(root, f"{split}/{name}", f"{split}annot/{name}", "0", size=size)


def test_the_layout_of_a_known_data_set_is_named_and_lends_its_names(tmp_path: Path) -> None:
    camvid(tmp_path)
    found = inspect_folder(tmp_path)
    assert "this looks like CamVid (SegNet): `data.name=camvid11_480" in report(found)
    assert names(found)["0"] == "sky"
    assert names(found)["11"] == "ignore"
    assert re.search("11: ignore .*; void in CamVid", configuration(found, "mine"))


def own_values(root: Path) -> None:
    camvid(root)
    save(root / "trainannot/0001TP_006690.png", np.full((360, 480), 77, np.uint8))


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda root: camvid(root, size=(48, 64)), "its images are 480x360, and here are some of 64x48"),
        (lambda root: camvid(root, name="x{}.png"), "its label files are not called as x0.png is"),
        (own_values, "its label files have no value 77"),
    ],
)
def test_folders_called_like_camvids_do_not_make_camvid(
    tmp_path: Path, write: Callable[[Path], None], reason: str
) -> None:
    write(tmp_path)
    found = inspect_folder(tmp_path)
    assert set(names(found).values()) == {f"class_{value}" for value in names(found)}
    told = f"the folders are called as those of CamVid (SegNet), but {reason}"
    assert told in report(found)
    assert told in configuration(found, "mine")


@pytest.mark.parametrize(("name", "is_ade"), [("ADE_train_0000000{}", True), ("x{}", False)])
def test_folders_called_like_ade20ks_do_not_make_ade20k(tmp_path: Path, name: str, is_ade: bool) -> None:
    write_pairs(tmp_path, f"images/training/{name}.jpg", f"annotations/training/{name}.png", "12")
    found = names(inspect_folder(tmp_path))
    assert found["0"] == ("ignore" if is_ade else "class_0")
    assert found["7"] == ("road" if is_ade else "class_7")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 7, 18, 255], {"0": "road", "7": "traffic sign", "18": "bicycle", "255": "ignore"}),
        ([0, 7, 18, 33], {"0": "ignore", "7": "road", "18": "ignore", "33": "bicycle"}),
        ([0, 7, 18], {"0": "class_0", "7": "class_7", "18": "class_18"}),
        ([0, 7, 33, 255], {"0": "class_0", "7": "class_7", "33": "class_33", "255": "ignore"}),
    ],
    ids=["train ids", "official ids", "neither", "both"],
)
@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_the_pixels_say_which_ids_of_cityscapes_these_are(
    tmp_path: Path, values: list[int], expected: dict[str, str], kind: str
) -> None:
    write_cityscapes(tmp_path, kinds=(kind,))
    for file in tmp_path.glob(f"gtFine/*/*/*_{kind}.png"):
        save(file, np.array(values, np.uint8).repeat(64 // len(values) + 1)[None, :64].repeat(32, 0))
    found = inspect_folder(tmp_path)
    assert names(found) == expected
    told = "the values do not say which of its label files these are (19-33: labelIds, 255: labelTrainIds; never both)"
    assert (told in configuration(found, "mine")) == ("class_0" in expected.values())
    assert (told in report(found)) == ("class_0" in expected.values())


def test_label_files_of_another_kind_are_not_those_of_cityscapes(tmp_path: Path) -> None:
    """IDD has its folders and 255, and other classes."""
    place = "{}/train/0/{{}}_{}.png"
    images, labels = place.format("leftImg8bit", "leftImg8bit"), place.format("gtFine", "gtFine_labellevel1Ids")
    write_pairs(tmp_path, images, labels, paint=lambda classes: Image.fromarray(np.where(classes > 6, 255, classes)))
    found = inspect_folder(tmp_path)
    assert names(found)["0"] == "class_0"
    assert "_gtFine_labellevel1Ids.png is" in report(found)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout.tables], ids=lambda layout: layout.adapter)
def test_no_value_of_a_known_layout_is_void_by_the_names_of_its_folders(layout: KnownLayout) -> None:
    values = {value for table in layout.tables.values() for value in table}
    assert layout.names(values, ["mine.png"], [(64, 48)])[0] == {}


def test_known_layouts_are_told_from_their_folders_alone(tmp_path: Path) -> None:
    for file in ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"):
        (tmp_path / file).touch()
    with pytest.raises(DataError, match=r"looks like Cityscapes, zipped, .*data\.name=cityscapes"):
        inspect_folder(tmp_path)


@pytest.mark.parametrize(("paint", "one", "void"), [(colours, "#800000", "#e0e0c0"), (palette, "1", "255")])
def test_colours_of_a_known_data_set_have_names(tmp_path: Path, paint: Any, one: str, void: str) -> None:
    write_pairs(tmp_path, "i/2007_00000{}.jpg", "l/2007_00000{}.png", "0123", paint=paint)
    found = inspect_folder(tmp_path)
    assert found.survey.coloured == (paint is colours)
    assert names(found)[one] == "aeroplane"
    assert names(found)[void] == "ignore"
    assert "void in PASCAL VOC" in configuration(found, "mine")


def test_colours_that_tools_number_any_classes_with_lend_no_names(tmp_path: Path) -> None:
    """labelme and others write masks in VOC's colours, whatever the classes are."""
    write_pairs(tmp_path, "i/{}.jpg", "l/{}.png", paint=colours)
    found = inspect_folder(tmp_path)
    assert sorted(names(found).values()) == sorted(f"class_{n}" for n in range(len(found.meanings.rows)))
    text = configuration(found, "mine")
    assert "; in PASCAL VOC, aeroplane\n" in text
    assert "; in PASCAL VOC, void: write ignore if it is\n" in text


def test_a_colour_of_two_classes_names_none(tmp_path: Path) -> None:
    shared = ADE20K.palette[ADE20K.class_names.index("road")]
    assert shared == ADE20K.palette[ADE20K.class_names.index("skyscraper")]
    own = np.array([*ADE20K.palette[:6], *[shared] * 250], np.uint8)
    write_pairs(tmp_path, "i/{}.jpg", "l/{}.png", paint=lambda classes: Image.fromarray(own[classes]))
    found = inspect_folder(tmp_path)
    assert "building" in names(found).values()
    assert names(found)["#8c8c8c"] == "class_0"
    assert "; in ADE20K, road or skyscraper\n" in configuration(found, "mine")


def test_unknown_colours_are_numbered_and_black_is_asked_about(tmp_path: Path) -> None:
    write_pairs(tmp_path, "i/{}.jpg", "l/{}.png", paint=lambda classes: Image.fromarray(VOC_COLOURS[classes] // 3))
    found = inspect_folder(tmp_path)
    assert names(found)["#000000"] == "class_0"
    assert "black is often void" in configuration(found, "mine")


def test_palettes_that_differ_from_file_to_file_count_by_colour(tmp_path: Path) -> None:
    def shuffled(classes: np.ndarray) -> Image.Image:
        order = np.random.default_rng(int(classes.sum())).permutation(256).astype(np.uint8)
        picture = Image.fromarray(order[classes])
        table = np.zeros((256, 3), np.uint8)
        table[order] = VOC_COLOURS
        picture.putpalette(table.tobytes())
        return picture

    write_pairs(tmp_path, "i/{}.jpg", "l/{}.png", paint=shuffled)
    found = inspect_folder(tmp_path)
    assert found.survey.coloured
    assert "palettes differ from file to file" in report(found)
    wanted = np.unique(np.concatenate([scene(index, 48, 64)[1].ravel() for index in range(4)]))
    assert len(found.meanings.rows) == len(wanted)
    dataset = loaded(found, tmp_path / "mine.yaml")
    assert {int(value) for value in np.unique(dataset.load(0)[1])} <= {*range(len(wanted)), 255}


def test_255_is_void_unless_0_is_all_there_is_beside_it(tmp_path: Path) -> None:
    def with_void(classes: np.ndarray) -> Image.Image:
        return Image.fromarray(np.where(classes > 4, 255, classes % 2).astype(np.uint8))

    write_pairs(
        tmp_path / "three", "i/{}.jpg", "l/{}.png", paint=lambda c: Image.fromarray(np.where(c > 4, 255, c % 2))
    )
    write_pairs(
        tmp_path / "two", "i/{}.jpg", "l/{}.png", paint=lambda c: Image.fromarray(((c > 2) * 255).astype(np.uint8))
    )
    assert names(inspect_folder(tmp_path / "three")) == {"0": "class_0", "1": "class_1", "255": "ignore"}
    assert names(inspect_folder(tmp_path / "two")) == {"0": "class_0", "255": "class_255"}


def test_nothing_is_called_void_without_a_reason(tmp_path: Path) -> None:
    write_pairs(tmp_path, "i/{}.jpg", "l/{}.png")
    found = inspect_folder(tmp_path)
    assert "ignore" not in names(found).values()
    assert "none is known to be void" in configuration(found, "mine")


def test_grey_masks_in_colour_files_are_classes_by_their_grey(tmp_path: Path) -> None:
    def grey(classes: np.ndarray) -> Image.Image:
        return Image.fromarray((classes % 10 * 20).astype(np.uint8)).convert("RGB")

    write_pairs(tmp_path, "i/{}.jpg", "l/{}.png", paint=grey)
    assert names(inspect_folder(tmp_path))["#3c3c3c"] == "class_60"


def test_jpeg_labels_are_explained_and_get_no_table(tmp_path: Path) -> None:
    write_pairs(tmp_path, "i/{}.png", "l/{}.jpg", paint=colours, size=(96, 128))
    found = inspect_folder(tmp_path)
    assert "4 of 4 labels are JPEG files, which change values near borders" in found.refusal
    assert not found.meanings.rows


@pytest.mark.parametrize("paint", [values, colours])
def test_smoothed_labels_are_explained_and_get_no_table(tmp_path: Path, paint: Any) -> None:
    def smooth(classes: np.ndarray) -> Image.Image:
        picture = paint(classes * np.uint8(20) if paint is values else classes)
        return picture.resize((100, 80), Image.Resampling.BICUBIC).resize((128, 96), Image.Resampling.BICUBIC)

    write_pairs(tmp_path, "i/{}.png", "l/{}.png", paint=smooth, size=(96, 128))
    found = inspect_folder(tmp_path)
    assert "of them occur along borders only: they are mixtures" in found.refusal
    assert not found.meanings.rows


def test_ids_of_single_objects_are_no_classes(tmp_path: Path) -> None:
    blocks = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32).repeat(4, 0).repeat(4, 1)
    write_pairs(tmp_path, "i/{}.png", "l/{}.png", paint=lambda classes: Image.fromarray(blocks), size=(96, 128))
    refusal = inspect_folder(tmp_path).refusal
    assert "768 values up to 767, more than the 254 classes that can be told apart: they look like ids" in refusal


def test_an_empty_folder_says_what_an_image_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"hold no image \(1 files\); they contain: notes\.txt; accepted"):
        inspect_folder(tmp_path)


def test_images_without_labels_say_what_a_pair_is(tmp_path: Path) -> None:
    write_segnet(tmp_path)
    shutil.rmtree(tmp_path / "trainannot")
    shutil.rmtree(tmp_path / "valannot")
    with pytest.raises(DataError, match=r"8 image files and no pair of image and label: .*x\.jpg and x_mask\.png"):
        inspect_folder(tmp_path)


def test_two_cameras_are_no_image_and_label(tmp_path: Path) -> None:
    write_pairs(tmp_path, "left/{}.png", "labels/{}.png")
    shutil.rmtree(tmp_path / "labels")
    (tmp_path / "right").mkdir()
    for number, name in enumerate("abcd"):
        save(tmp_path / f"right/{name}.png", scene(number + 4, 48, 64)[0])
    with pytest.raises(DataError, match="8 image files and no pair"):
        inspect_folder(tmp_path)


def test_a_folder_that_does_not_exist_names_what_is_near(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(MissingFileError, match=r"does not exist; the nearest existing parent .*contains: mine/"):
        inspect_folder(tmp_path / "mime")


def test_names_that_no_configuration_can_hold_are_refused(tmp_path: Path) -> None:
    for name in ("caf\udce9", "${oc.env:HOME}"):
        with pytest.raises(DataError, match="rename it"):
            scalar(name)


@settings(max_examples=300)
@given(text=st.text(min_size=1).filter(lambda text: "${" not in text and text.isprintable()))
def test_what_is_quoted_reads_back(text: str) -> None:
    assert yaml.safe_load(f"a: {{b: {scalar(text)}, c: 1}}") == {"a": {"b": text, "c": 1}}


def test_the_crop_is_no_larger_than_the_smallest_image(tmp_path: Path) -> None:
    write_pairs(tmp_path, "i/{}.png", "l/{}.png", ["a", "b"], size=(96, 160))
    write_pairs(tmp_path, "i/{}.png", "l/{}.png", ["c"], size=(70, 200))
    (tmp_path / "mine.yaml").write_text(configuration(inspect_folder(tmp_path), "mine"))
    assert load_config(tmp_path / "mine.yaml").augment.crop == (64, 160)


def test_no_known_colours_are_two_things_at_once() -> None:
    for title, table in KNOWN.items():
        telling = [colour for colour in table if colour not in ((0, 0, 0), (255, 255, 255))]
        assert known_names(telling) is not None, title
        assert known_names(telling)[0] == title  # type: ignore[index]
    assert known_names([(128, 64, 128), (0, 0, 0)]) is None  # one alone may be a coincidence
    # CamVid's building, tree, sky and car are VOC's aeroplane, bird, bus and dog
    assert known_names([(128, 0, 0), (128, 128, 0), (128, 128, 128), (64, 0, 128)]) is None


def test_any_folder_is_described_or_refused(tmp_path: Path) -> None:
    """Files of hostile names and contents beside each other."""
    for name in ("a\nb", "ü x", "-rf", "*", "a.b.c", "caf\udce9"):
        write_pairs(tmp_path, "i/{}.png", "l/{}_m.png", [name])
    (tmp_path / "i/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "l/broken_m.png").write_bytes(b"")
    found = inspect_folder(tmp_path)
    assert found.pairs == 6
    assert all(line.isprintable() for line in report(found).splitlines())
    try:
        assert len(loaded(found, tmp_path / "mine.yaml")) == 5  # of six, one is held back
    except FastsegError as error:
        pytest.fail(str(error))
