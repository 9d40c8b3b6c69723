"""The user's own folder: pairs by pattern, one table from value to class, and mistakes that say how to mend them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fastseg.config import Config, config_differences, dump_config, load_config
from fastseg.data import notes
from fastseg.data.class_table import ClassTable, numbered_colour, parse_colour
from fastseg.data.coding import unpacked
from fastseg.data.dataset import DATASETS, FileDataset, build_dataset
from fastseg.data.folder import folder
from fastseg.data.pairing import files_below, find_pairs, held_back
from fastseg.engine.build import build_split
from fastseg.errors import ConfigError, DataError, FastsegError, LabelError, MissingFileError, printable
from fastseg.types import IGNORE_INDEX
from trees.folder import write_pairs, write_segnet

CLASSES = {**{value: f"class_{value}" for value in range(10)}, 11: "ignore"}
FLAT = {"train": {"images": "train", "labels": "trainannot"}}
ANYTHING = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def build(root: Path, splits: Any = FLAT, split: str = "train", classes: Any = CLASSES, **rest: Any) -> FileDataset:
    dataset = folder(str(root), split, splits, classes, **rest)
    assert isinstance(dataset, FileDataset)
    return dataset


def names(dataset: FileDataset) -> list[str]:
    return [dataset.sample_name(index) for index in range(len(dataset))]


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")


def write_label(root: Path, pixels: np.ndarray) -> FileDataset:
    """One pair with this label; what reads it is made by the caller."""
    save(root / "train/x.png", np.zeros((*pixels.shape[:2], 3), np.uint8))
    save(root / "trainannot/x.png", pixels)
    return build(root)


def test_a_configuration_describes_a_data_set_in_ten_lines(tmp_path: Path) -> None:
    write_segnet(tmp_path)
    (tmp_path / "mine.yaml").write_text(f"""\
model: {{name: fast_scnn}}
data:
  name: folder
  root: {tmp_path}
  args:
    splits:
      train: {{images: train, labels: trainannot}}
      val: {{images: val, labels: valannot}}
    classes: {{0: sky, 1: a, 2: b, 3: c, 4: d, 5: e, 6: f, 7: g, 8: h, 9: i, 11: ignore}}
    colours: {{sky: '#808080'}}
""")
    config = load_config(tmp_path / "mine.yaml")
    dataset = build_split(config, config.data.val_split)
    assert [dataset.sample_name(index) for index in range(len(dataset))] == [f"val_{n}.png" for n in "abcd"]
    assert dataset.info.class_names == ("sky", *"abcdefghi")
    assert dataset.info.palette[0] == (128, 128, 128)
    image, label = dataset.load(0)
    assert image.shape == (48, 64, 3)
    assert set(np.unique(label)) <= {*range(10), IGNORE_INDEX}


@pytest.mark.parametrize(
    ("images", "labels", "entry"),
    [
        ("train/{}.png", "trainannot/{}.png", {"images": "train", "labels": "trainannot"}),
        ("images/train/city/{}.jpg", "labels/train/city/{}.png", {"images": "images/train", "labels": "labels/train"}),
        ("{}.jpg", "{}.png", {"images": "*.jpg", "labels": "*.png"}),
        ("{}.png", "{}_L.png", {"images": "*.png", "labels": "*_L.png"}),
        ("{}.jpg", "{}_mask.png", {"images": "*", "labels": "*_mask"}),
        ("p/img_{}.png", "p/gt_{}.png", {"images": "p/img_*.png", "labels": "p/gt_*.png"}),
        (
            "rgb/ulm/{}_leftImg8bit.png",
            "gt/ulm/{}_gtFine_labelIds.png",
            {"images": "rgb/**/*_leftImg8bit.png", "labels": "gt/**/*_gtFine_labelIds.png"},
        ),
        ("s1/cam/{}.png", "s1/seg/{}.png", {"images": "**/cam/*.png", "labels": "**/seg/*.png"}),
        ("{}/img.png", "{}/label.png", {"images": "*/img.png", "labels": "*/label.png"}),
        ("train/{}.JPG", "trainannot/{}.PNG", {"images": "train/*.jpg", "labels": "trainannot/*.png"}),
        ("a [1]/{}.png", "b+c/{}.png", {"images": "a [1]", "labels": "b+c"}),
    ],
)
def test_pairs_are_found_wherever_they_are(tmp_path: Path, images: str, labels: str, entry: dict[str, str]) -> None:
    write_pairs(tmp_path, images, labels, ["a", "a_b", "c d"])
    samples = build(tmp_path, {"train": entry}).samples
    found = {(str(each.image), str(each.label)) for each in samples}
    assert found == {
        tuple(str(tmp_path / path.replace("{}", name)) for path in (images, labels)) for name in ("a", "a_b", "c d")
    }


def test_a_split_may_be_outside_the_root(tmp_path: Path) -> None:
    write_segnet(tmp_path / "elsewhere")
    (tmp_path / "root").mkdir()
    place = tmp_path / "elsewhere"
    entry = {"images": str(place / "train"), "labels": str(place / "trainannot")}
    assert len(build(tmp_path / "root", {"train": entry})) == 4


def test_folders_that_link_to_each_other_are_read_once(tmp_path: Path) -> None:
    write_segnet(tmp_path)
    (tmp_path / "train/again").symlink_to(tmp_path / "train", target_is_directory=True)
    assert len(build(tmp_path)) == 4


def test_hidden_files_are_left_alone(tmp_path: Path) -> None:
    write_segnet(tmp_path)
    (tmp_path / "train/._train_a.png").touch()
    (tmp_path / "train/.cache").mkdir()
    (tmp_path / "train/.cache/x.png").touch()
    assert len(build(tmp_path)) == 4


def test_one_pattern_for_both_is_refused(tmp_path: Path) -> None:
    write_segnet(tmp_path)
    with pytest.raises(ConfigError, match=r"splits\.train: .*match the same 4 files; write what tells them apart"):
        build(tmp_path, {"train": {"images": "train", "labels": "train"}})


def test_two_images_of_one_label_are_refused(tmp_path: Path) -> None:
    write_segnet(tmp_path)
    write_pairs(tmp_path, "train/{}.jpg", "trainannot/{}.png", ["train_a"])
    with pytest.raises(DataError, match=r"train_a\.png and .*train_a\.jpg are both 'train_a' .*ambiguous"):
        build(tmp_path)


def test_no_pair_at_all_shows_names_of_both_kinds(tmp_path: Path) -> None:
    write_pairs(tmp_path, "i/{}.jpg", "l/{}_x.png")
    with pytest.raises(
        DataError, match=r"'i' matches 4 images, 'l' 4 labels.*i/a\.jpg and .*l/a_x\.png; `fastseg data"
    ):
        build(tmp_path, {"train": {"images": "i", "labels": "l"}})


@pytest.mark.parametrize(("gone", "kind"), [("trainannot", "label"), ("train", "image")])
def test_a_file_without_partner_is_named_or_left_out(tmp_path: Path, gone: str, kind: str) -> None:
    write_segnet(tmp_path)
    (tmp_path / gone / "train_b.png").unlink()
    with pytest.raises(MissingFileError, match=rf"1 of 4 files have no {kind} .*train_b\.png; .*unpaired=skip"):
        build(tmp_path)
    assert names(build(tmp_path, unpaired="skip")) == ["train_a.png", "train_c.png", "train_d.png"]


def test_images_can_be_excluded(tmp_path: Path) -> None:
    write_segnet(tmp_path)
    assert names(build(tmp_path, exclude=["train/train_b.png"])) == ["train_a.png", "train_c.png", "train_d.png"]
    with pytest.raises(DataError, match=r"exclude names all 4 samples of split 'train'"):
        build(tmp_path, exclude=[f"train/train_{n}.png" for n in "abcd"])


def test_a_list_names_pairs(tmp_path: Path) -> None:
    write_segnet(tmp_path)
    (tmp_path / "few.txt").write_text("train/train_d.png trainannot/train_d.png\n")
    assert names(build(tmp_path, {"train": {"list": "few.txt"}})) == ["train_d.png"]


@pytest.mark.parametrize("row", ["train_d", "train_d.png", "train/train_d.png", "/old/disk/train/train_d.png"])
def test_a_list_names_files_of_the_folders(tmp_path: Path, row: str) -> None:
    write_segnet(tmp_path)
    (tmp_path / "few.txt").write_text(f"{row}\r\n\r\ntrain_a\r\n")
    assert names(build(tmp_path, {"train": {**FLAT["train"], "list": "few.txt"}})) == ["train_d.png", "train_a.png"]


def test_a_row_that_names_nothing_is_refused(tmp_path: Path) -> None:
    write_segnet(tmp_path)
    (tmp_path / "few.txt").write_text("train_a\ntrain_z\n")
    with pytest.raises(MissingFileError, match=r"1 of 2 rows of .*few\.txt name no pair .*line 2: train_z"):
        build(tmp_path, {"train": {**FLAT["train"], "list": "few.txt"}})


def test_a_share_is_held_back_and_stays_when_files_come(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2), np.uint8)
    for number in range(60):
        save(tmp_path / f"train/{number}.png", pixels)
        save(tmp_path / f"trainannot/{number}.png", pixels)
    train, val = (set(names(build(tmp_path, split=split, val_share=0.2))) for split in ("train", "val"))
    assert not train & val
    assert len(train | val) == 60
    assert 4 <= len(val) <= 20  # 12 are expected; six standard deviations of 3.1 would leave 0 to 30
    for number in range(60, 80):
        save(tmp_path / f"train/{number}.png", pixels)
        save(tmp_path / f"trainannot/{number}.png", pixels)
    more_train, more_val = (set(names(build(tmp_path, split=split, val_share=0.2))) for split in ("train", "val"))
    assert train <= more_train
    assert val <= more_val


def write_numbered(root: Path, *, folder: str = ".", count: int = 40) -> None:
    """A tree with the list all.txt, which calls the images of `folder`."""
    rows = []
    for number in range(count):
        save(root / f"in/i/{number}.png", np.zeros((2, 2, 3), np.uint8))
        save(root / f"in/l/{number}.png", np.zeros((2, 2), np.uint8))
        rows.append(f"{folder}/in/i/{number}.png {folder}/in/l/{number}.png\n")
    (root / "all.txt").write_text("".join(rows))


def test_what_a_list_holds_back_is_the_same_wherever_the_root_is_and_however_it_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_numbered(tmp_path / "a")
    write_numbered(tmp_path / "moved/b")
    write_numbered(tmp_path / "c", folder=str(tmp_path / "c"))  # whose list has absolute paths
    write_numbered(tmp_path / "d", folder="in/..")
    (tmp_path / "link").symlink_to(tmp_path / "c", target_is_directory=True)
    monkeypatch.chdir(tmp_path / "a")

    def val(root: Path) -> list[str]:
        return names(build(root, {"train": {"list": "all.txt"}}, "val", val_share=0.3))

    first = val(tmp_path / "a")
    assert 2 <= len(first) <= 22  # 12 are expected, with a standard deviation of 2.9
    for root in (Path(), Path("../a"), tmp_path / "moved/b", tmp_path / "c", tmp_path / "link", tmp_path / "d"):
        assert val(root) == first, root


def test_images_outside_the_root_are_held_back_by_their_folders_name_and_theirs(tmp_path: Path) -> None:
    for disk in ("one", "two"):
        write_numbered(tmp_path / disk)
        write_numbered(tmp_path / disk / "lists", folder=str(tmp_path / disk))
    splits = {"train": {"list": "all.txt"}}
    parts = [names(build(tmp_path / disk / "lists", splits, "val", val_share=0.3)) for disk in ("one", "two")]
    assert parts[0] == parts[1]
    assert 2 <= len(parts[0]) <= 22


def test_rows_that_come_twice_count_twice_and_are_never_in_both_parts(tmp_path: Path) -> None:
    write_numbered(tmp_path)
    (tmp_path / "all.txt").write_text((tmp_path / "all.txt").read_text() * 2)
    of_list = {"list": "all.txt"}
    for entry in (of_list, {"images": "in/i", "labels": "in/l", **of_list}):
        assert len(build(tmp_path, {"train": entry})) == 80
        train, val = (names(build(tmp_path, {"train": entry}, split, val_share=0.3)) for split in ("train", "val"))
        assert len(train) + len(val) == 80
        assert not set(train) & set(val)


@pytest.mark.parametrize("folders", [{}, {"images": "in/i", "labels": "in/l"}])
def test_one_image_with_two_labels_is_refused(tmp_path: Path, folders: dict[str, str]) -> None:
    write_numbered(tmp_path)
    (tmp_path / "all.txt").write_text("in/i/0.png in/l/0.png\n\nin/i/1.png in/l/1.png\n./in/i/0.png in/l/1.png\n")
    with pytest.raises(DataError, match=r"all\.txt lines 1 and 4 give .*i/0\.png two labels, .*l/0\.png and .*l/1\."):
        build(tmp_path, {"train": {**folders, "list": "all.txt"}})


def test_images_of_a_list_are_excluded_by_their_path_from_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_numbered(tmp_path, folder=str(tmp_path), count=3)
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path, Path()):
        dataset = build(root, {"train": {"list": "all.txt"}}, exclude=["in/i/1.png"])
        assert names(dataset) == ["0.png", "2.png"]


def test_one_image_that_comes_twice_cannot_be_divided(tmp_path: Path) -> None:
    write_numbered(tmp_path, count=1)
    (tmp_path / "all.txt").write_text((tmp_path / "all.txt").read_text() * 2)
    with pytest.raises(DataError, match="1 sample cannot be divided by val_share"):
        build(tmp_path, {"train": {"list": "all.txt"}}, val_share=0.5)


@ANYTHING
@given(there=st.sets(st.integers(0, 199), min_size=60))
def test_whether_a_file_is_held_back_depends_on_its_name_alone(there: set[int]) -> None:
    of_all = held_back([str(number) for number in range(200)], 0.3)
    assert held_back([str(number) for number in there], 0.3) == of_all & {str(number) for number in there}


@pytest.mark.parametrize("share", [0.0001, 0.9999])
def test_neither_part_of_a_division_is_empty(tmp_path: Path, share: float) -> None:
    write_segnet(tmp_path)
    parts = [names(build(tmp_path, split=split, val_share=share)) for split in ("train", "val")]
    assert all(parts)
    assert sorted(parts[0] + parts[1]) == names(build(tmp_path))


def test_one_image_cannot_be_divided(tmp_path: Path) -> None:
    write_pairs(tmp_path, "train/{}.png", "trainannot/{}.png", ["a"])
    with pytest.raises(DataError, match="1 sample cannot be divided by val_share"):
        build(tmp_path, split="val", val_share=0.5)


def test_classes_are_in_order_of_appearance_and_values_may_share_one(tmp_path: Path) -> None:
    dataset = write_label(tmp_path, np.zeros((1, 1), np.uint8))
    dataset = build(tmp_path, classes={7: "car", 0: "ignore", 3: "road", 9: "car"})
    assert dataset.info.class_names == ("car", "road")
    assert dataset.info.official_ids == (7, 3)
    save(tmp_path / "trainannot/x.png", np.array([[7, 9, 3, 0]], np.uint8))
    save(tmp_path / "train/x.png", np.zeros((1, 4, 3), np.uint8))
    assert dataset.load(0)[1].tolist() == [[0, 0, 1, 255]]


NAMES = st.sampled_from(["sky", "road", "car", "é ü", "ignore", "no"])


@ANYTHING
@given(classes=st.dictionaries(st.integers(0, 255), NAMES, min_size=1), wide=st.booleans())
def test_every_value_is_its_class_or_ignored_or_refused(tmp_path: Path, classes: dict[int, str], wide: bool) -> None:
    if set(classes.values()) == {"ignore"}:
        with pytest.raises(ConfigError, match=r"ignores every value .*name one class"):
            ClassTable.parse(classes)
        return
    if wide:
        classes = {**classes, 40_000: "sky"}
    write_label(tmp_path, np.zeros((1, 1), np.uint8))
    dataset = build(tmp_path, classes=classes)
    order = list(dict.fromkeys(name for name in classes.values() if name != "ignore"))
    assert dataset.info.class_names == tuple(order)
    raw = np.arange(256, dtype=np.uint16 if wide else np.uint8)[None]  # as the coding reads them
    for value in range(256):
        file = tmp_path / "trainannot/x.png"
        if value in classes:
            label = dataset.coding.decode(raw[:, value : value + 1], file)  # type: ignore[attr-defined]
            wanted = classes[value]
            assert label.tolist() == [[IGNORE_INDEX if wanted == "ignore" else order.index(wanted)]]
        else:
            with pytest.raises(LabelError, match=rf"x\.png has values \{{{value}: 1 px\}} .*data\.args\.classes"):
                dataset.coding.decode(raw[:, value : value + 1], file)  # type: ignore[attr-defined]


COLOURS = st.integers(0, 0xFFFFFF)


@ANYTHING
@given(classes=st.dictionaries(COLOURS, NAMES, min_size=1), other=COLOURS)
def test_every_colour_is_its_class_or_ignored_or_refused(tmp_path: Path, classes: dict[int, str], other: int) -> None:
    classes = {**classes, 1: "sky"}
    write_label(tmp_path, np.array([[unpacked(code) for code in classes]], np.uint8))
    spelt = {
        f"#{code:06x}" if place % 2 else ",".join(map(str, unpacked(code))): name
        for place, (code, name) in enumerate(classes.items())
    }
    dataset = build(tmp_path, classes=spelt)
    order = list(dataset.info.class_names)
    wanted = [IGNORE_INDEX if name == "ignore" else order.index(name) for name in classes.values()]
    assert dataset.load(0)[1].tolist() == [wanted]
    if other not in classes:
        write_label(tmp_path, np.array([[unpacked(other)]], np.uint8))
        with pytest.raises(LabelError, match=r"x\.png has colours .*: 1 px\}"):
            dataset.load(0)


def test_a_class_has_its_first_colour_or_the_one_that_is_given() -> None:
    table = ClassTable.parse({"#010203": "a", "#040506": "b", "#070809": "a"}, {"b": "9, 8, 7"})
    assert table.palette() == ((1, 2, 3), (9, 8, 7))
    assert len(set(ClassTable.parse({n: f"c{n}" for n in range(254)}).palette())) == 254


def test_values_above_255_are_read_from_16_bit_files(tmp_path: Path) -> None:
    write_label(tmp_path, np.array([[300, 2]], np.uint16))
    dataset = build(tmp_path, classes={300: "far", 2: "ignore"})
    assert dataset.load(0)[1].tolist() == [[0, 255]]


def test_a_colour_mask_is_no_map_of_values(tmp_path: Path) -> None:
    write_label(tmp_path, np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(LabelError, match="3-channel label"):
        build(tmp_path, classes={0: "a"}).load(0)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({}, r"data\.args\.classes is \{\}; it is a table"),
        (["sky"], r"classes is \['sky'\]; it is a table"),
        ({0: "ignore", 1: "ignore"}, r"ignores every value \(2\); name one class"),
        ({value: str(value) + "x" for value in range(255)}, "more than 254 classes"),
        ({0: "a", "#ff0000": "b"}, r"the value 0 and the colour '#ff0000'; a data set is coded by one"),
        ({-1: "a"}, r"the key -1; allowed are label values 0 to 65535, or colours '#rrggbb'"),
        ({65536: "a"}, "the key 65536"),
        ({True: "a"}, "the key True"),
        ({1.5: "a"}, r"the key 1\.5"),
        ({"#ff00": "a"}, "the key '#ff00'"),
        ({"256,0,0": "a"}, "the key '256,0,0'"),
        ({11: "a", "11": "b"}, "'11' twice, in two spellings"),
        ({0: True}, r"0 is mapped to True; it takes a name in quotes"),
        ({0: 3}, "0 is mapped to 3"),
        ({0: " "}, "0 is mapped to ' '"),
        ({0: "a", 1: "Ignore"}, "1 is mapped to 'Ignore'; write ignore"),
    ],
)
def test_a_table_that_cannot_be_meant_says_what_to_write(classes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClassTable.parse(classes)


@pytest.mark.parametrize(
    ("colours", "message"),
    [
        ({"sky": "#80808"}, r"colours\.sky is '#80808'; a colour is written '#rrggbb' or 'r,g,b'"),
        ({"sky": 5}, r"colours\.sky is 5"),
        ({"Sky": "#808080"}, r"'Sky' is no class .*did you mean 'sky'"),
        ({"class_10": "#808080"}, r"'class_10' is no class .*renamed or ignored\? Change its line in colours, too"),
        (["#808080"], r"data\.args\.colours is \['#808080'\]"),
    ],
)
def test_colours_that_fit_no_class_are_refused(colours: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClassTable.parse({0: "sky"}, colours)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"splits": {}}, r"data\.args\.splits is \{\}; it is a table of splits"),
        ({"splits": {"train": "train"}}, r"splits\.train is 'train'; it takes images, labels, list"),
        ({"splits": {"train": {}}}, r"splits\.train has nothing; it needs both images and labels, or a list"),
        ({"splits": {"train": {"images": "train"}}}, r"splits\.train has images; it needs both"),
        ({"splits": {"train": {"image": "a", "labels": "b"}}}, r"no key 'image'; did you mean 'images'"),
        ({"splits": {"train": {"images": 3, "labels": "b"}}}, r"splits\.train\.images is 3; it takes a folder"),
        ({"splits": {"train": {"images": "trian", "labels": "b"}}}, r"trian does not exist; .*contains: .*train/"),
        ({"splits": {"train": {"images": "train/train_a.png", "labels": "b"}}}, "is one file; name its folder"),
        ({"splits": {"train": {"list": "no.txt"}}}, r"the list .*no\.txt does not exist"),
        ({"split": "test"}, r"no split 'test'; .*train"),
        ({"val_share": 1.0}, r"val_share is 1\.0; allowed: 0 \(none\) up to below 1"),
        ({"val_share": "a"}, "val_share is 'a'"),
        ({"val_share": 0.1, "splits": {**FLAT, "val": FLAT["train"]}}, r"makes the split 'val' of 'train'"),
        ({"unpaired": "skipp"}, r"unpaired is 'skipp'; did you mean 'skip'"),
        ({"exclude": "train/a.png"}, r"exclude is 'train/a\.png'; it takes a list"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    write_segnet(tmp_path)
    with pytest.raises(FastsegError, match=message):
        build(tmp_path, **arguments)


def test_an_argument_that_does_not_exist_offers_the_right_one(tmp_path: Path) -> None:
    with pytest.raises(FastsegError, match="did you mean 'classes'"):
        build_dataset("folder", "train", root=str(tmp_path), args={"splits": FLAT, "class": CLASSES})


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("nothere.png", r"exclude names 1 of 1 files that do not exist below .*: nothere\.png; .*correct or remove"),
        ("train/train_aa.png", r"did you mean 'train/train_a\.png'"),
        ("train_a.png", r"did you mean 'train/train_a\.png'"),
    ],
)
def test_what_exclude_names_must_be_there(tmp_path: Path, gone: str, message: str) -> None:
    write_segnet(tmp_path)
    with pytest.raises(MissingFileError, match=message):
        build(tmp_path, exclude=[gone])


def test_exclude_may_name_images_of_other_splits_and_of_any_name(tmp_path: Path) -> None:
    write_segnet(tmp_path)
    odd = "train/caf\udce9.png"
    shutil.copy(tmp_path / "train/train_a.png", tmp_path / odd)
    shutil.copy(tmp_path / "trainannot/train_a.png", tmp_path / f"trainannot/{Path(odd).name}")
    both = {**FLAT, "val": {"images": "val", "labels": "valannot"}}
    for split in ("train", "val"):
        dataset = build(tmp_path, both, split, exclude=["train/train_a.png", printable(odd), "val/val_b.png"])
        assert names(dataset) == [f"{split}_{letter}.png" for letter in ("bcd" if split == "train" else "acd")]


@pytest.mark.parametrize("name", ["void", "Void", "ignored", "unlabeled", "don't care"])
def test_a_class_called_like_void_is_a_class_and_a_warning(
    name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes, "_said", set())
    for _ in range(2):  # splits
        assert ClassTable.parse({0: "sky", 11: name}).names == ("sky", name)
    ClassTable.parse({0: "sky", 255: "ignore", 3: "background"})
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"11: {name}, which is trained as a class like others; if its pixels should not count, write ignore" in (
        caplog.text
    )


def test_its_name_is_the_folders_and_never_that_of_a_known_data_set(tmp_path: Path) -> None:
    write_segnet(tmp_path / "mine")
    write_segnet(tmp_path / "camvid")
    assert build(tmp_path / "mine").info.name == "mine"
    assert build(tmp_path / "mine", name="garden").info.name == "garden"
    assert build(tmp_path / "camvid").info.name not in DATASETS


@pytest.mark.parametrize("classes", [{0: "sky", 11: "ignore"}, {"0": "sky", "11": "ignore"}, {"#0000ff": "sky"}])
def test_its_description_survives_a_round_trip(tmp_path: Path, classes: Mapping[Any, str]) -> None:
    config = Config()
    config.data.name = "folder"
    config.data.args = {"splits": FLAT, "classes": dict(classes), "colours": {"sky": "#808080"}, "val_share": 0.1}
    (tmp_path / "config.yaml").write_text(dump_config(config))
    again = load_config(tmp_path / "config.yaml")
    assert again.data.args == config.data.args
    assert config_differences(asdict(config), {**asdict(again), "source": config.source}) == []


# what a file system takes: no '/', no NUL, not hidden, 255 bytes in all
RAW_NAMES = st.binary(min_size=1, max_size=40).filter(lambda raw: not {0, 47} & set(raw) and raw[:1] not in b". ")


@ANYTHING
@given(raw=RAW_NAMES)
def test_files_of_any_name_make_pairs(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    root = tmp_path_factory.mktemp("names")
    name = os.fsdecode(raw)
    picture = np.zeros((2, 2, 3), np.uint8)
    save(root / f"i/{name}.png", picture)
    save(root / f"l/{name}_mask.png", picture[..., 0])
    dataset = build(root, {"train": {"images": "i", "labels": "l/*_mask.png"}})
    assert len(dataset) == 1
    assert dataset.load(0)[1].tolist() == [[0, 0], [0, 0]]
    assert list(find_pairs(root, "i", "l/*_mask.png").samples) == [name]
    assert sorted(files_below(root)) == sorted([f"i/{name}.png", f"l/{name}_mask.png"])


def is_inside(text: str) -> bool:  # not the whole disk of whoever runs this
    return ".." not in text and not text.startswith("/")


@ANYTHING
@given(text=(st.text(max_size=12) | st.text("train/.*[]?\\-_ *", max_size=16)).filter(is_inside))
def test_any_pattern_finds_files_or_is_refused(tmp_path: Path, text: str) -> None:
    if not (tmp_path / "train").exists():
        write_segnet(tmp_path)
    try:
        samples = build(tmp_path, {"train": {"images": text, "labels": "trainannot"}}).samples
    except FastsegError:
        return
    assert all(Path(str(sample.image)).is_file() for sample in samples)


def test_the_numbered_colours_are_those_of_pascal_voc() -> None:
    # the first ones of VOCdevkit's table, and void
    table = {
        0: "#000000",
        1: "#800000",
        2: "#008000",
        3: "#808000",
        4: "#000080",
        7: "#808080",
        8: "#400000",
        255: "#e0e0c0",
    }
    assert {index: numbered_colour(index) for index in table} == {i: parse_colour(text) for i, text in table.items()}
    assert len({numbered_colour(index) for index in range(256)}) == 256
