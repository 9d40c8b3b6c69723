"""Cityscapes by Fast_Seg's list files: image, tab, label in every line, from folders and archives."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.data.cityscapes import CODINGS, cityscapes
from fastseg.data.cityscapes_files import find_entry
from fastseg.data.dataset import FileDataset, build_dataset
from fastseg.data.files import ArchiveMember
from fastseg.errors import DataError, MissingFileError
from trees.cityscapes import assert_same_samples, write_cityscapes, write_list


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of folders, not to be written to."""
    return write_cityscapes(tmp_path_factory.mktemp("folders"))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in archives, not to be written to."""
    return write_cityscapes(tmp_path_factory.mktemp("archives"), zipped=True)


@pytest.mark.parametrize("zipped", [False, True, ("gtFine",)])
@pytest.mark.parametrize("kind", CODINGS)
def test_pairs_of_a_list_are_the_split_from_folders_and_archives(
    tmp_path: Path, unpacked: Path, zipped: bool | Collection[str], kind: str
) -> None:
    root = write_cityscapes(tmp_path, zipped=zipped)
    write_list(root, "train", "train.txt", kind=kind)
    assert_same_samples(cityscapes(str(root), "train"), cityscapes(str(unpacked), "train", labels=kind))


def test_a_list_keeps_its_order_and_leaves_other_splits_alone(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, zipped=True)
    write_list(root, "train", "train_fine.txt", reverse=True)
    arguments: dict[str, object] = {"lists": {"train": "train_fine.txt"}}
    dataset = build_dataset("cityscapes", "train", root=str(root), args=arguments)
    assert [dataset.sample_name(i)[:13] for i in range(4)] == [
        "bochum_000001",
        "bochum_000000",
        "aachen_000001",
        "aachen_000000",
    ]
    assert len(build_dataset("cityscapes", "val", root=str(root), args=arguments)) == 2
    assert len(build_dataset("cityscapes", "train_fine", root=str(root))) == 4


def test_a_list_may_lie_elsewhere_and_may_be_passed_over(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path / "data")
    absolute = write_list(tmp_path, "train", "mine.txt")
    assert len(cityscapes(str(root), "train", lists={"train": str(absolute)})) == 4
    (root / "train.txt").write_text("aachen/aachen_000000_000019\n")
    with pytest.raises(MissingFileError, match=r"1 files named by .*train\.txt .*line 1: aachen/aachen_000000_000019"):
        cityscapes(str(root), "train")
    assert len(cityscapes(str(root), "train", lists={"train": None})) == 4


def test_listed_files_may_have_any_name(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, splits=("val",))
    rows = []
    for number, path in enumerate(sorted(root.glob("leftImg8bit/val/*/*.png"))):
        label = root / "gtFine/val/munster" / path.name.replace("_leftImg8bit", "_gtFine_labelTrainIds")
        rows.append(f"my images/{number}.png\tmy labels/{number}.png")
        for source, target in zip((path, label), rows[-1].split("\t"), strict=True):
            (root / target).parent.mkdir(exist_ok=True)
            source.rename(root / target)
    (root / "mine.txt").write_text("\r\n".join(rows))
    dataset = cityscapes(str(root), "mine")
    assert isinstance(dataset, FileDataset)
    assert dataset.coding is CODINGS["labelTrainIds"]
    assert dataset.load_instances(0) is None


def test_lists_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, zipped=True)
    with pytest.raises(
        MissingFileError, match=r"gone\.txt \(data\.args\.lists\.train\) does not exist; .*contains: gtFine_"
    ):
        cityscapes(str(root), "train", lists={"train": "gone.txt"})
    for lists in ("train.txt", ["train.txt"], {"train": 1}):
        with pytest.raises(DataError, match=r"data\.args\.lists is .*it takes a list file for each split"):
            build_dataset("cityscapes", "train", root=str(root), args={"lists": lists})
    write_list(root, "train_extra", "other.txt")
    with pytest.raises(MissingFileError, match=r"8 files named by .*other\.txt \(4 rows\) do not exist below"):
        cityscapes(str(root), "other")


def test_an_image_without_its_label_in_a_list_is_refused(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path)
    (root / "val.txt").write_text("leftImg8bit/val/munster/munster_000000_000019_leftImg8bit.png\n")
    with pytest.raises(DataError, match=r"val\.txt names munster_000000_000019_leftImg8bit\.png without its label"):
        cityscapes(str(root), "val")


@pytest.mark.parametrize("before", ["", "/data/cityscapes/", "C:\\cityscapes\\", "../cityscapes/", "./"])
def test_listed_members_are_found_behind_the_folders_of_another_machine(packed: Path, before: str) -> None:
    entry = "gtFine/val/munster/munster_000000_000019_gtFine_labelIds.png"
    assert find_entry(packed, before + entry) == ArchiveMember(packed / "gtFine_trainvaltest.zip", entry)


@settings(max_examples=200, deadline=None)
@given(
    entry=st.text()
    | st.lists(st.sampled_from(["gtFine", "val", "..", "", "munster", "a.png", "gtCoarse"])).map("/".join)
)
def test_any_entry_is_a_member_or_none(packed: Path, entry: str) -> None:
    found = find_entry(packed, entry)
    assert found is None or found.read_bytes()
