"""Cityscapes from folders, archives and lists, with fine and coarse labels: always the same samples."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastseg.data import notes
from fastseg.data.cityscapes import BLANK, CITYSCAPES, cityscapes, cityscapes_images
from fastseg.data.dataset import FileDataset, build_dataset
from fastseg.data.files import ArchiveMember
from fastseg.data.readers import read_ids, read_label
from fastseg.errors import DataError, FastsegError, ImageReadError, MissingFileError
from trees.cityscapes import assert_same_samples, pack, samples_of, write_cityscapes, write_list

LABELLED = (("fine", "train"), ("fine", "val"), ("coarse", "train"), ("coarse", "val"), ("coarse", "train_extra"))


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole tree, not to be written to."""
    return write_cityscapes(tmp_path_factory.mktemp("folders"), coarse=True)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in archives, not to be written to."""
    return write_cityscapes(tmp_path_factory.mktemp("archives"), coarse=True, zipped=True)


@pytest.mark.parametrize(("annotations", "split"), LABELLED)
def test_archives_give_what_the_folders_give(unpacked: Path, packed: Path, annotations: str, split: str) -> None:
    ours, theirs = (cityscapes(str(root), split, annotations=annotations) for root in (unpacked, packed))
    assert isinstance(theirs, FileDataset)
    assert all(isinstance(sample.label, ArchiveMember) for sample in theirs.samples)
    assert len(ours) == {"train": 4, "val": 2, "train_extra": 4}[split]
    assert_same_samples(ours, theirs)


@pytest.mark.parametrize("zipped", [("gtFine",), ("leftImg8bit",)])
def test_one_package_may_be_packed_and_the_other_not(tmp_path: Path, unpacked: Path, zipped: Collection[str]) -> None:
    root = write_cityscapes(tmp_path, zipped=zipped)
    assert_same_samples(cityscapes(str(root), "train"), cityscapes(str(unpacked), "train"))


def test_one_split_may_be_packed_and_the_others_not(tmp_path: Path, unpacked: Path) -> None:
    root = write_cityscapes(tmp_path, coarse=True)
    for archive, package in (("leftImg8bit_trainextra.zip", "leftImg8bit"), ("gtCoarse.zip", "gtCoarse")):
        with zipfile.ZipFile(root / archive, "w") as target:
            for path in sorted((root / package / "train_extra").rglob("*.png")):
                target.write(path, path.relative_to(root).as_posix())
        (root / package / "train_extra").rename(root / f"{package}_moved")
    for split in ("train", "train_extra"):
        dataset = cityscapes(str(root), split, annotations="coarse")
        assert_same_samples(dataset, cityscapes(str(unpacked), split, annotations="coarse"))


def test_archives_may_be_unpacked_into_folders_of_their_own(tmp_path: Path, unpacked: Path) -> None:
    root = write_cityscapes(tmp_path, coarse=True, zipped=True)
    for archive in list(root.glob("*.zip")):
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(root / archive.stem)
        archive.unlink()
    for kind, split in LABELLED:
        dataset = cityscapes(str(root), split, annotations=kind)
        assert_same_samples(dataset, cityscapes(str(unpacked), split, annotations=kind))
    write_list(root, "train", "val.txt")
    assert samples_of(cityscapes(str(root), "val")) == samples_of(cityscapes(str(unpacked), "train"))


def test_a_folder_is_read_before_an_archive_and_messages_say_so(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, splits=("val",))
    (root / "gtFine_trainvaltest.zip").write_bytes(b"not read")
    dataset = cityscapes(str(root), "val")
    assert isinstance(dataset, FileDataset)
    assert isinstance(dataset.samples[0].label, Path)
    for path in root.glob("gtFine/val/*/*_000000_*"):
        path.unlink()
    with pytest.raises(
        MissingFileError, match=r"_labelIds\.png \(read is this folder, not .*gtFine_trainvaltest\.zip\)"
    ):
        cityscapes(str(root), "val", labels="labelIds")


@pytest.mark.parametrize("archive", ["leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"])
def test_an_archive_that_is_still_being_fetched_is_named(tmp_path: Path, archive: str) -> None:
    root = write_cityscapes(tmp_path, splits=("val",), zipped=True)
    (root / archive).write_bytes((root / archive).read_bytes()[:-30])
    with pytest.raises(ImageReadError, match=rf"{archive} \(\d+ bytes\) is no zip archive .*wait for the download"):
        cityscapes(str(root), "val")


def test_an_archive_that_is_not_needed_may_still_be_fetched(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, splits=("val",), zipped=True)
    for archive in ("leftImg8bit_trainextra.zip", "gtCoarse.zip"):
        (root / archive).write_bytes(b"PK\x03\x04")
    assert len(cityscapes(str(root), "val")) == 2


def test_a_damaged_image_inside_an_archive_is_named(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, splits=("val",), zipped=True)
    archive = root / "leftImg8bit_trainvaltest.zip"
    with zipfile.ZipFile(archive) as opened:
        info = opened.getinfo("leftImg8bit/val/munster/munster_000001_000019_leftImg8bit.png")
    data = bytearray(archive.read_bytes())
    data[info.header_offset + 200] ^= 0xFF
    archive.write_bytes(data)
    dataset = cityscapes(str(root), "val")
    dataset.load(0)
    with pytest.raises(ImageReadError, match=r"test\.zip!leftImg8bit/val/munster/munster_000001_.*is damaged"):
        dataset.load(1)


def test_a_label_that_an_archive_lacks_is_named_with_the_archive(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, splits=("val",))
    for path in root.glob("gtFine/val/*/*_000001_*"):
        path.unlink()
    pack(root, "gtFine")
    with pytest.raises(
        MissingFileError, match=r"1 of 2 files have no label .*test\.zip!gtFine/val/\*/\*_gtFine_labelIds"
    ):
        cityscapes(str(root), "val")


def test_an_archive_without_the_split_says_what_was_searched(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, splits=("val",), zipped=True)
    with pytest.raises(
        DataError, match=r"0 samples found under .*test\.zip!leftImg8bit/train/\*/\*_left.*there is: nothing"
    ):
        cityscapes(str(root), "train")


def test_what_a_mac_adds_to_an_archive_is_left_alone(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, splits=("val",), zipped=True)
    with zipfile.ZipFile(root / "leftImg8bit_trainvaltest.zip", "a") as archive:
        archive.writestr("__MACOSX/leftImg8bit/val/munster/._munster_000009_000019_leftImg8bit.png", "")
        archive.writestr("leftImg8bit/val/munster/._munster_000009_000019_leftImg8bit.png", "")
        archive.writestr("leftImg8bit/val/munster/.DS_Store", "")
    assert len(cityscapes(str(root), "val")) == 2


def test_neither_folder_nor_archive_names_both(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, splits=("val",), zipped=True)
    (root / "gtFine_trainvaltest.zip").rename(root / "gtFine_trainvaltest.zip.part")
    with pytest.raises(
        MissingFileError,
        match=r"gtFine does not exist; .*gtFine_trainvaltest\.zip\.part.* expects .*gtFine_trainvaltest\.zip\)",
    ):
        cityscapes(str(root), "val")


def test_a_split_and_its_annotations_have_to_fit(unpacked: Path) -> None:
    with pytest.raises(
        DataError, match=r"train_extra images have coarse labels only: leave data\.args\.annotations out"
    ):
        cityscapes(str(unpacked), "train_extra", annotations="fine")
    with pytest.raises(DataError, match=r"no annotations 'course' \(data\.args\.annotations\); did you mean 'coarse'"):
        cityscapes(str(unpacked), "train", annotations="course")
    for kind in ("fine", "coarse"):
        with pytest.raises(DataError, match="test images are not public"):
            cityscapes(str(unpacked), "test", annotations=kind)


def test_train_extra_is_coarse_and_the_rest_fine_unless_said_otherwise(
    unpacked: Path, caplog: pytest.LogCaptureFixture
) -> None:
    packages = {}
    for split in ("train", "val", "train_extra"):
        ((_, label, _), *_) = samples_of(cityscapes(str(unpacked), split))
        packages[split] = label.split("_")[-2]
    assert packages == {"train": "gtFine", "val": "gtFine", "train_extra": "gtCoarse"}
    assert len(build_dataset("cityscapes", "train+train_extra", root=str(unpacked))) == 8
    caplog.clear()
    notes._said.clear()
    cityscapes(str(unpacked), "val", annotations="coarse")
    assert caplog.text.count("cityscapes val (coarse): labels are labelIds") == 1


@pytest.mark.parametrize("content", ["black", "corrupt", "replaced"])
def test_the_one_image_published_without_a_picture_is_left_out_unless_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    root = write_cityscapes(tmp_path, splits=(), coarse=True)
    image = root / "leftImg8bit/train_extra/troisdorf/troisdorf_000001_000019_leftImg8bit.png"
    for path in (image, *root.glob("gtCoarse/train_extra/troisdorf/troisdorf_000001_*")):
        path.rename(path.with_name(path.name.replace("000001_000019", "000000_000073")))
    image = image.with_name(BLANK)
    if content == "black":
        Image.fromarray(np.zeros((32, 64), np.uint8)).save(image)
    elif content == "corrupt":
        image.write_bytes(image.read_bytes()[:100])
    dataset = cityscapes(str(root), "train_extra", annotations="coarse")
    left_out = f"cityscapes: {image} is left out" in caplog.text
    assert (len(dataset), left_out) == ((4, False) if content == "replaced" else (3, True))
    assert "troisdorf_000000_000073" in [name for name, _ in cityscapes_images(str(root), "train_extra")]


# --- images alone ---


@pytest.mark.parametrize("split", ["train", "val", "test", "train_extra"])
def test_images_of_every_split_have_their_official_names(unpacked: Path, packed: Path, split: str) -> None:
    names, theirs = (cityscapes_images(str(root), split) for root in (unpacked, packed))
    assert [name for name, _ in names] == [name for name, _ in theirs] == sorted(name for name, _ in names)
    for (name, file), (_, member) in zip(names, theirs, strict=True):
        assert file.name == f"{name}_leftImg8bit.png"
        assert file.read_bytes() == member.read_bytes()


def test_images_need_no_labels(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, splits=("test",), kinds=())
    assert [name for name, _ in cityscapes_images(str(root), "test")] == [
        "berlin_000000_000019",
        "berlin_000001_000019",
    ]


def test_images_of_what_is_not_there_are_an_error(tmp_path: Path, unpacked: Path) -> None:
    with pytest.raises(MissingFileError, match="does not exist"):
        cityscapes_images(str(tmp_path / "gone"), "test")
    with pytest.raises(DataError, match=r"no split 'tset'"):
        cityscapes_images(str(unpacked), "tset")
    (tmp_path / "leftImg8bit/test").mkdir(parents=True)
    with pytest.raises(DataError, match="0 samples found"):
        cityscapes_images(str(tmp_path), "test")


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_no_changed_byte_of_an_archive_gives_other_images(
    packed: Path, tmp_path_factory: pytest.TempPathFactory, position: int, flip: int
) -> None:
    data = bytearray((packed / "leftImg8bit_trainvaltest.zip").read_bytes())
    data[-1 - position % len(data)] ^= flip
    root = tmp_path_factory.mktemp("flipped")
    (root / "leftImg8bit_trainvaltest.zip").write_bytes(data)
    whole = dict(cityscapes_images(str(packed), "val"))
    try:
        images = [(name, file.read_bytes()) for name, file in cityscapes_images(str(root), "val")]
    except FastsegError as error:
        assert "leftImg8bit_trainvaltest.zip" in str(error)  # noqa: PT017, either outcome is right, silence is not
    else:
        assert all(name not in whole or content == whole[name].read_bytes() for name, content in images)


# --- the tree itself, and the tables, against the official ones ---


def test_the_tree_has_the_modes_and_ids_of_the_real_one(unpacked: Path) -> None:
    for kind, mode in (("labelIds", "L"), ("labelTrainIds", "L"), ("instanceIds", "I;16")):
        for path in unpacked.glob(f"gt*/*/*/*_{kind}.png"):
            assert Image.open(io.BytesIO(path.read_bytes())).mode == mode
    for path in unpacked.glob("gtFine/*/*/*_labelIds.png"):
        ids = read_label(path)
        instances = read_ids(path.with_name(path.name.replace("labelIds", "instanceIds")))
        assert np.array_equal(np.where(instances < 1000, instances, instances // 1000), ids)
        present = set(np.unique(ids))
        assert present <= ({0, 1, 2, 3} if "/test/" in path.as_posix() else set(range(34)))
        assert {1, 2, 3} <= present


def test_names_ids_categories_and_instances_are_those_of_the_official_scripts() -> None:
    official = pytest.importorskip("cityscapesscripts.helpers.labels", reason="needs cityscapesscripts, the oracle")
    classes = sorted((label for label in official.labels if 0 <= label.trainId < 255), key=lambda label: label.trainId)
    assert CITYSCAPES.class_names == tuple(label.name for label in classes)
    assert CITYSCAPES.official_ids == tuple(label.id for label in classes)
    assert CITYSCAPES.palette == tuple(label.color for label in classes)
    assert CITYSCAPES.categories == tuple(label.category for label in classes)
    assert CITYSCAPES.instance_classes == tuple(label.name for label in classes if label.hasInstances)


def test_every_class_has_a_category_and_instances_are_of_classes() -> None:
    assert len(CITYSCAPES.categories) == 19
    assert len(set(CITYSCAPES.categories)) == 7
    table = dict(zip(CITYSCAPES.class_names, CITYSCAPES.categories, strict=True))
    assert (table["road"], table["traffic sign"], table["terrain"], table["rider"]) == (
        "flat",
        "object",
        "nature",
        "human",
    )
    assert {table[name] for name in CITYSCAPES.instance_classes} == {"human", "vehicle"}
    assert len(CITYSCAPES.instance_classes) == 8
