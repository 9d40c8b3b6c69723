"""The doctor: every fault by itself, all of them at once, and nothing where nothing is wrong."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fastseg.config import Config, DataPart
from fastseg.data.dataset import ConcatDataset, SegDataset
from fastseg.data.doctor import GLANCES, check, glance
from fastseg.data.findings import KINDS, Finding, Report
from fastseg.data.look import look_at
from fastseg.errors import ConfigError, DataError, MissingFileError
from fastseg.types import DatasetInfo
from trees.cityscapes import write_cityscapes
from trees.pairs import SIZE, config_for, read, truncate, write, write_pairs

INFO = DatasetInfo("garden", ("soil", "plant"), ((120, 80, 40), (40, 160, 60)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pairs(tmp_path)


def kinds(report: Report) -> list[tuple[str, str]]:
    return sorted((finding.kind, finding.split) for finding in report.findings)


def only(report: Report) -> Finding:
    (finding,) = report.findings
    return finding


def spoil_label(root: Path, name: str = "trainannot/1.png", value: int = 200) -> None:
    pixels = read(root / name)
    pixels[2, 3:6] = value
    write(root / name, pixels)


def shrink_label(root: Path) -> None:
    write(root / "valannot/0.png", read(root / "valannot/0.png")[:, :-1])


def remove_label(root: Path) -> None:
    (root / "trainannot/2.png").unlink()


def paint_label(root: Path) -> None:
    write(root / "trainannot/0.png", read(root / "train/0.png"))


def copy_into_val(root: Path) -> None:
    write(root / "val/1.png", read(root / "train/0.png"))


def copy_within_train(root: Path) -> None:
    write(root / "train/2.png", read(root / "train/0.png"))


def empty_image(root: Path) -> None:
    (root / "val/0.png").write_bytes(b"")


def blacken(root: Path, name: str = "train/1.png") -> None:
    write(root / name, np.zeros((*SIZE, 3), np.uint8))


def void_label(root: Path) -> None:
    write(root / "valannot/1.png", np.full(SIZE, 11, np.uint8))


FAULTS: dict[str, tuple[Callable[[Path], None], str, str, list[str]]] = {
    "truncated image": (lambda root: truncate(root / "train/0.png"), "image", "train", ["train/0.png", "damaged"]),
    "empty image": (empty_image, "image", "val", ["it is empty"]),
    "truncated label": (lambda root: truncate(root / "valannot/1.png"), "label", "val", ["valannot/1.png", "damaged"]),
    "undefined value": (spoil_label, "label", "train", ["trainannot/1.png", "{200: 3 px}", "0-11, 255"]),
    "colour label": (paint_label, "label", "train", ["trainannot/0.png", "3-channel label"]),
    "size": (shrink_label, "size", "val", ["valannot/0.png", "19x12", "20x12"]),
    "missing pair": (remove_label, "listing", "train", ["train/2.png", "1 of 3 files"]),
    "leak": (copy_into_val, "leak", "val", ["val/1.png shows the same picture as", "train/0.png"]),
    "copy": (copy_within_train, "duplicate", "train", ["train/2.png shows the same picture as", "train/0.png"]),
    "one colour": (blacken, "constant", "train", ["train/1.png", "(0, 0, 0)"]),
    "void": (void_label, "ignored", "val", ["valannot/1.png"]),
}


def test_a_sound_tree_has_no_finding_and_exact_counts(root: Path) -> None:
    report = check(config_for(root))
    assert report.findings == ()
    assert report.summary() == "0 errors, 0 warnings"
    train, val = report.splits
    assert (train.name, train.images, train.readable) == ("train", 3, 3)
    assert (val.name, val.images, val.readable) == ("val", 2, 2)
    assert train.sizes == {SIZE: 3}
    assert train.pixels[:11].tolist() == [60] * 11  # 240 pixels, twelve values, three images
    assert train.shown_in[:11].tolist() == [3] * 11
    assert train.pixels[255] == 60
    assert train.ignored_share == pytest.approx(1 / 12)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_the_one_finding(root: Path, fault: str) -> None:
    spoil, kind, split, words = FAULTS[fault]
    spoil(root)
    finding = only(check(config_for(root)))
    assert (finding.kind, finding.split) == (kind, split)
    for word in words:
        assert word in finding.message


def test_faults_at_once_are_all_reported(root: Path) -> None:
    write_pairs(root, {"train": 9, "val": 5})
    truncate(root / "train/0.png")
    truncate(root / "train/3.png")
    spoil_label(root, "trainannot/4.png", 33)
    spoil_label(root, "valannot/2.png", 12)
    shrink_label(root)
    write(root / "val/3.png", read(root / "train/5.png"))
    write(root / "train/7.png", read(root / "train/6.png"))
    blacken(root, "train/8.png")
    void_label(root)
    report = check(config_for(root))
    assert kinds(report) == [
        ("constant", "train"),
        ("duplicate", "train"),
        ("ignored", "val"),
        ("image", "train"),
        ("image", "train"),
        ("label", "train"),
        ("label", "val"),
        ("leak", "val"),
        ("size", "val"),
    ]
    assert report.summary() == "6 errors, 3 warnings"


def test_an_image_and_its_label_are_each_reported(root: Path) -> None:
    truncate(root / "train/1.png")
    spoil_label(root)
    assert kinds(check(config_for(root))) == [("image", "train"), ("label", "train")]


def test_a_split_that_cannot_be_listed_leaves_the_others_read(root: Path) -> None:
    remove_label(root)
    spoil_label(root, "valannot/0.png")
    report = check(config_for(root))
    assert kinds(report) == [("label", "val"), ("listing", "train")]
    assert [counts.name for counts in report.splits] == ["val"]


def test_a_split_that_was_not_read_says_so_and_what_to_do(root: Path) -> None:
    remove_label(root)
    assert only(check(config_for(root))).message.endswith("Nothing of it was read: mend this first, then check again")


def folder_config(root: Path) -> Config:
    config = config_for(root)
    config.data.name = "folder"
    config.data.args = {
        "splits": {split: {"images": split, "labels": f"{split}annot"} for split in ("train", "val")},
        "classes": {value: f"class {value}" for value in range(11)} | {11: "ignore"},
    }
    return config


def test_files_without_a_partner_hide_no_other_fault(root: Path) -> None:
    write_pairs(root, {"train": 6, "val": 4})
    remove_label(root)
    write(root / "valannot/orphan.png", read(root / "valannot/0.png"))
    truncate(root / "train/0.png")
    spoil_label(root)
    shrink_label(root)
    write(root / "val/1.png", read(root / "train/4.png"))
    report = check(folder_config(root))
    assert kinds(report) == [
        ("image", "train"),
        ("label", "train"),
        ("leak", "val"),
        ("listing", "train"),
        ("listing", "val"),
        ("size", "val"),
    ]
    assert [(counts.name, counts.images) for counts in report.splits] == [("train", 5), ("val", 4)]
    missing, orphan = (finding.message for finding in report.errors if finding.kind == "listing")
    assert "train/2.png" in missing
    assert "orphan.png" in orphan
    assert "Nothing of it was read" not in missing + orphan


def test_a_folder_that_is_not_there_is_not_skipped_as_unpaired(root: Path) -> None:
    config = folder_config(root)
    config.data.args["splits"]["val"]["labels"] = "nowhere"
    finding = only(check(config))
    assert (finding.kind, finding.split) == ("listing", "val")
    assert "Nothing of it was read" in finding.message


def test_a_root_that_does_not_exist_is_no_finding(root: Path) -> None:
    with pytest.raises(MissingFileError, match=r"^garden\.yaml: data: .*nearest existing parent"):
        check(config_for(root / "nowhere"))


def test_the_root_of_an_extra_part_that_does_not_exist_leaves_the_rest_read(root: Path) -> None:
    config = config_for(root)
    config.data.extra = [DataPart("camvid", str(root / "nowhere"))]
    report = check(config)
    assert kinds(report) == [("listing", "camvid train")]
    assert [counts.name for counts in report.splits] == ["train", "val"]


def test_a_picture_listed_twice_is_said_so(root: Path) -> None:
    (root / "train.txt").write_text("train/0.png\ntrain/1.png\ntrain/0.png\n")
    finding = only(check(config_for(root)))
    assert finding.kind == "duplicate"
    assert "train/0.png is listed twice" in finding.message


def test_a_file_in_the_lists_of_two_splits_is_a_leak(root: Path) -> None:
    (root / "val.txt").write_text("train/0.png\nval/1.png\n")
    finding = only(check(config_for(root)))
    assert (finding.kind, finding.split) == ("leak", "val")
    assert "train/0.png is in train as well" in finding.message


def test_copies_with_different_labels_are_said_so(root: Path) -> None:
    copy_within_train(root)
    label = read(root / "trainannot/2.png")
    write(root / "trainannot/2.png", label[::-1, ::-1])
    assert "labels differ" in only(check(config_for(root))).message


def test_copies_are_found_whatever_the_file_format(root: Path) -> None:
    write(root / "train/2.jpg", read(root / "train/0.png"))
    pixels = read(root / "train/2.jpg")  # as JPEG has changed them
    (root / "train/2.png").unlink()
    write(root / "val/0.png", pixels)
    assert only(check(config_for(root))).kind == "leak"


def test_images_of_one_colour_are_no_copies_of_each_other(root: Path) -> None:
    blacken(root, "train/1.png")
    blacken(root, "val/1.png")
    assert kinds(check(config_for(root))) == [("constant", "train"), ("constant", "val")]


def test_classes_that_never_occur_are_told_by_where(root: Path) -> None:
    for path in [*root.glob("trainannot/*.png"), *root.glob("valannot/*.png")]:
        label = read(path)
        label[label == 1] = 0  # building: nowhere
        label[label == (2 if "train" in str(path) else 3)] = 0  # pole: not in train; road: not in val
        write(path, label)
    found = {(finding.split, finding.message.split(" is ")[0]) for finding in check(config_for(root)).findings}
    assert found == {("all", "building"), ("train", "pole"), ("val", "road")}


def test_a_class_of_one_joined_split_can_be_learned(root: Path) -> None:
    config = config_for(root)
    config.data.train_split, config.data.val_split = "train+test", "val"
    for path in root.glob("trainannot/*.png"):
        write(path, np.where(read(path) == 2, 0, read(path)).astype(np.uint8))
    assert check(config).findings == ()


def test_splits_joined_on_purpose_are_a_note_and_their_copies_no_leak(root: Path) -> None:
    copy_into_val(root)
    config = config_for(root)
    config.data.train_split = "train+val"
    report = check(config)
    assert kinds(report) == [("duplicate", "val"), ("joined", "val")]
    assert report.errors == []
    assert [counts.readable for counts in report.splits] == [3, 2]  # each read once


def test_splits_that_are_asked_for_replace_the_configured_ones(root: Path) -> None:
    spoil_label(root, "testannot/0.png")
    write(root / "test/0.png", read(root / "train/0.png"))
    assert check(config_for(root)).findings == ()
    assert kinds(check(config_for(root), ["test"])) == [("label", "test")]
    write_pairs(root / "again", {"test": 1})
    write(root / "testannot/0.png", read(root / "again/testannot/0.png"))
    assert kinds(check(config_for(root), ["train+test"])) == [("leak", "test")]


def test_extra_parts_are_read_and_compared(root: Path) -> None:
    other = write_pairs(root / "other", {"train": 2})
    write(other / "train/1.png", read(root / "val/0.png"))
    spoil_label(other, "trainannot/0.png")
    config = config_for(root)
    config.data.extra = [DataPart("camvid", str(other)), DataPart("camvid", str(root), split="train")]
    report = check(config)
    # noise of one seed: the first picture of both trees is the same, and its label here is bad
    assert kinds(report) == [("label", "camvid train"), ("leak", "val")]
    assert [(counts.name, counts.images) for counts in report.splits] == [("train", 3), ("val", 2), ("camvid train", 2)]


def test_an_extra_part_of_other_classes_is_an_error(root: Path) -> None:
    config = config_for(root)
    config.data.extra = [DataPart("road_scenes", args={"count": 1, "height": 32, "width": 32})]
    (finding,) = [finding for finding in check(config).findings if finding.level == "error"]
    assert finding.kind == "classes"
    assert "'road' instead of 'sky'" in finding.message


def test_crops_that_images_cannot_fill_are_a_note(root: Path) -> None:
    config = config_for(root)
    config.augment.crop, config.augment.scale, config.input.scale = (24, 80), (0.5, 2.0), 2.0
    finding = only(check(config))
    assert (finding.kind, finding.split, finding.level) == ("padding", "train", "note")
    assert "80x24" in finding.message
    assert "50 % of such a crop" in finding.message  # 40x24 of 80x24
    config.augment.crop = (24, 40)
    assert check(config).findings == ()


def test_instance_maps_are_read(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, splits=("val",), size=(16, 32))
    first, second = sorted(tmp_path.rglob("*instanceIds.png"))
    truncate(first)
    write(second, read(second)[:, 1:])
    config = config_for(tmp_path)
    config.data.name = "cityscapes"
    errors = check(config, ["val"]).errors
    assert [(finding.kind, finding.split) for finding in errors] == [("instances", "val")] * 2
    assert "31x16 but its image is 32x16" in errors[1].message


def test_archives_are_read_by_all_threads(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, splits=("val",), size=(16, 32), zipped=True)
    config = config_for(tmp_path)
    config.data.name = "cityscapes"
    report = check(config, ["val"], workers=4)
    assert report.errors == []
    assert report.splits[0].readable == 2
    assert zipfile.is_zipfile(tmp_path / "gtFine_trainvaltest.zip")


def test_the_report_does_not_depend_on_the_number_of_threads(root: Path) -> None:
    spoil_label(root)
    copy_into_val(root)
    one, four = (check(config_for(root), workers=workers).to_dict() for workers in (1, 4))
    assert one == four


def test_progress_reaches_the_end(root: Path) -> None:
    heard: list[tuple[int, int]] = []
    check(config_for(root), progress=lambda done, total: heard.append((done, total)))
    assert heard == [(done, 5) for done in range(1, 6)]


def test_procedural_data_pass() -> None:
    config = Config()
    config.data.args = {"count": 6, "height": 64, "width": 128}
    config.augment.crop = (32, 64)
    assert check(config).errors == []


@pytest.mark.parametrize(("key", "value"), [("name", "camvd"), ("args", {"sise": 3})])
def test_a_request_that_cannot_be_met_is_no_finding(root: Path, key: str, value: object) -> None:
    config = config_for(root)
    setattr(config.data, key, value)
    with pytest.raises(ValueError, match=r"^garden\.yaml: data: "):
        check(config)


@pytest.mark.parametrize("name", ["camvid", "cityscapes", "ade20k", "folder", "road_scenes"])
def test_a_split_that_the_data_set_does_not_have_is_no_finding(root: Path, name: str) -> None:
    config = folder_config(root) if name == "folder" else config_for(root)
    if name == "road_scenes":
        config.data.root = None
    config.data.name = name
    with pytest.raises(DataError, match=r"^garden\.yaml: data: .* has no split 'tes'; "):
        check(config, ["tes"])
    if name in ("camvid", "folder"):
        with pytest.raises(DataError, match="has no split 'tes'"):
            check(config, ["train", "tes"])


@pytest.mark.parametrize(
    ("name", "args", "split"),
    [
        ("pascal_context", {"classes": 61}, "val"),
        ("mapillary", {"version": "v9"}, "train"),
        ("cityscapes", {"annotations": "rough"}, "train"),
        ("cityscapes", {"labels": "colour"}, "train"),
        ("cityscapes", {"lists": "train.txt"}, "train"),
        ("cityscapes", {}, "test"),
        ("ade20k", {}, "test"),
    ],
)
def test_an_argument_or_split_that_no_files_could_meet_is_no_finding(
    tmp_path: Path, name: str, args: dict[str, object], split: str
) -> None:
    config = config_for(tmp_path)
    config.data.name, config.data.args = name, args
    with pytest.raises(DataError, match=r"^garden\.yaml: data: "):
        check(config, [split])


def test_a_folder_that_nobody_named_is_no_finding(root: Path) -> None:
    config = config_for(root)
    config.data.root = None
    with pytest.raises(ConfigError, match=r"data\.root="):
        check(config)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays.arrays(np.uint8, (3, 4), elements=st.integers(0, 255) | st.integers(0, 12)))
def test_any_label_is_counted_or_refused(tmp_path: Path, label: np.ndarray) -> None:
    write(tmp_path / "val/0.png", np.arange(36, dtype=np.uint8).reshape(3, 4, 3))
    write(tmp_path / "valannot/0.png", label)
    report = check(config_for(tmp_path), ["val"], workers=1)
    (counts,) = report.splits
    undefined = label[(label > 11) & (label < 255)]
    if len(undefined):
        assert [finding.kind for finding in report.errors] == ["label"]
        value = int(undefined.min())
        assert f"{value}: {int((label == value).sum())} px" in report.errors[0].message
        assert counts.readable == 0
    else:
        assert report.errors == []
        assert counts.pixels[:11].tolist() == np.bincount(label.ravel(), minlength=256)[:11].tolist()
        assert counts.pixels[255] == (label >= 11).sum()


class Garden(SegDataset):
    """Anybody's data set, which loads what it is given."""

    info = INFO

    def __init__(self, image: np.ndarray, label: np.ndarray, length: int = 1) -> None:
        self.image, self.label, self.length = image, label, length
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return self.length

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        self.loaded.append(index)
        return self.image, self.label

    def sample_name(self, index: int) -> str:
        return f"bed {index}"


GOOD = np.arange(36, dtype=np.uint8).reshape(3, 4, 3), np.array([[0, 1, 255, 0]] * 3, np.uint8)


@pytest.mark.parametrize(
    ("image", "label", "words"),
    [
        (GOOD[0], np.where(GOOD[1] == 1, 2, GOOD[1]).astype(np.uint8), "bed 0 is loaded with classes {2: 3 px}"),
        (GOOD[0], np.where(GOOD[1] == 1, 254, GOOD[1]).astype(np.uint8), "{254: 3 px}; garden has 0-1 and 255"),
        (GOOD[0], GOOD[1].astype(np.int64), "loaded as int64 (3, 4)"),
        (GOOD[0], GOOD[1][:, :3], "loaded as uint8 (3, 3); the data set has to load uint8 (3, 4)"),
        (GOOD[0].astype(np.float32), GOOD[1], "comes with an image float32 (3, 4, 3)"),
        (GOOD[0][..., 0], GOOD[1], "comes with an image uint8 (3, 4)"),
    ],
)
def test_arrays_that_a_data_set_must_not_load_are_errors(image: np.ndarray, label: np.ndarray, words: str) -> None:
    (finding,) = look_at(Garden(image, label), 0).findings
    assert finding.level == "error"
    assert words in finding.message


def test_arrays_as_they_should_be_have_no_finding() -> None:
    assert look_at(Garden(*GOOD), 0).findings == ()


def test_a_glance_reads_few_samples_from_the_first_to_the_last_of_every_part() -> None:
    parts = [Garden(*GOOD, length) for length in (1000, 5)]
    looks = glance({"here": ConcatDataset(parts), "there": Garden(*GOOD, 3)})
    assert {name: len(found) for name, found in looks.items()} == {"here": GLANCES + 5, "there": 3}
    assert len(set(parts[0].loaded)) == GLANCES
    assert {0, 999} <= set(parts[0].loaded)
    assert np.diff(sorted(parts[0].loaded)).max() <= 67  # evenly: 999 / 15 = 66.6
    assert sorted(parts[1].loaded) == [0, 1, 2, 3, 4]


def test_a_glance_draws_no_random_numbers() -> None:
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    glance({"scenes": Garden(*GOOD, 40)})
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[index]
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_the_text_shows_twenty_of_a_kind_and_ends_with_the_sum(tmp_path: Path) -> None:
    write_pairs(tmp_path, {"train": 25, "val": 1})
    for index in range(25):
        spoil_label(tmp_path, f"trainannot/{index}.png", 99)
    report = check(config_for(tmp_path))
    text = report.text()
    assert text.count("{99: 3 px}") == 20
    assert "and 5 more" in text
    assert text.splitlines()[-1] == "25 errors, 0 warnings"
    findings = report.to_dict()["findings"]
    assert isinstance(findings, list)
    assert len(findings) == 25


def test_the_text_has_a_table_of_splits_and_one_of_classes(root: Path) -> None:
    lines = check(config_for(root)).text().splitlines()
    assert lines[0] == "garden.yaml: camvid"
    assert lines[3].split() == ["train", "3", "3", "8.3", "%", "20x12"]
    (road,) = [line for line in lines if line.startswith("road ")]
    assert road.split() == ["road", "9.09", "%", "3", "9.09", "%", "2"]


def test_names_in_findings_are_printable(tmp_path: Path) -> None:
    write_pairs(tmp_path, {"train": 1, "val": 1})
    for folder in ("train", "trainannot"):
        (tmp_path / folder / "0.png").rename(tmp_path / folder / "a\nb\udcff.png")
    spoil_label(tmp_path, "trainannot/a\nb\udcff.png")
    finding = only(check(config_for(tmp_path)))
    assert finding.file.isprintable()
    assert finding.message.isprintable()


def test_every_kind_has_a_level() -> None:
    assert {level for level, _ in KINDS.values()} == {"error", "warning", "note"}
