"""Official ids or train ids: decided from the pixels, said in one line, and never wrong in silence."""

from __future__ import annotations

import io
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from fastseg.data import notes
from fastseg.data.cityscapes import CITYSCAPES, CODINGS, cityscapes
from fastseg.data.cityscapes_labels import FEW, kind_of, spread
from fastseg.data.coding import INVALID
from fastseg.data.dataset import FileDataset
from fastseg.errors import DataError, LabelError
from fastseg.types import IGNORE_INDEX
from trees.cityscapes import train_ids, write_cityscapes

SHARED = range(19)  # values that both kinds of files have
KINDS = tuple(CODINGS)


@dataclass
class Picture:
    """A label file in memory that holds each of `values`."""

    values: Collection[int]
    name: str = "label.png"
    reads: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"/data/{self.name}"

    def read_bytes(self) -> bytes:
        self.reads.append(self.name)
        data = io.BytesIO()
        Image.fromarray(np.array([sorted(self.values)], np.uint8)).save(data, "png")
        return data.getvalue()


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "_said", set())


def read_all(files: Sequence[Picture], asked: str) -> None:
    coding = CODINGS[kind_of(files, asked, what="cityscapes")]
    for file in files:
        coding.load(file)


def sets_of(*ranges: Sequence[int]) -> st.SearchStrategy[set[int]]:
    return st.sets(st.sampled_from([value for each in ranges for value in each]), min_size=1, max_size=12)


OFFICIAL = sets_of(range(34)).map(lambda values: Picture(values))
TRAIN = sets_of(SHARED, [IGNORE_INDEX]).map(lambda values: Picture(values))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", range(256))
def test_every_value_is_a_class_or_ignored_or_refused_by_either_coding(kind: str, value: int) -> None:
    classes, ignored = {
        "labelIds": (CITYSCAPES.official_ids, set(range(34)) - set(CITYSCAPES.official_ids)),
        "labelTrainIds": (tuple(range(19)), {255}),
    }[kind]
    expected = classes.index(value) if value in classes else IGNORE_INDEX if value in ignored else INVALID
    assert CODINGS[kind].table[value] == expected
    if expected == INVALID:
        with pytest.raises(LabelError, match=rf"/data/label\.png has values \{{{value}: 1 px\}}"):
            CODINGS[kind].load(Picture({value}))
    else:
        assert CODINGS[kind].load(Picture({value})).tolist() == [[expected]]


@pytest.mark.parametrize("value", range(256))
def test_one_value_proves_one_kind_or_none(value: int) -> None:
    kind = "labelIds" if 19 <= value <= 33 else "labelTrainIds" if value == 255 else None
    if kind is None:
        with pytest.raises(LabelError, match=r"set data\.args\.labels=labelIds or data\.args\.labels=labelTrainIds"):
            kind_of([Picture({value})], "auto", what="cityscapes")
    else:
        assert kind_of([Picture({value})], "auto", what="cityscapes") == kind


@settings(max_examples=150, deadline=None)
@given(files=st.lists(OFFICIAL, min_size=1, max_size=12))
def test_official_ids_are_recognised_wherever_one_file_proves_them(files: list[Picture]) -> None:
    assume(any(max(file.values) >= 19 for file in files))
    assert kind_of(files, "auto", what="cityscapes") == "labelIds"


@settings(max_examples=150, deadline=None)
@given(files=st.lists(TRAIN, min_size=1, max_size=12))
def test_train_ids_are_recognised_wherever_one_file_proves_them(files: list[Picture]) -> None:
    assume(any(255 in file.values for file in files))
    assert kind_of(files, "auto", what="cityscapes") == "labelTrainIds"


@settings(max_examples=150, deadline=None)
@given(
    files=st.tuples(st.lists(OFFICIAL, min_size=1, max_size=8), st.lists(TRAIN, min_size=1, max_size=8)).flatmap(
        lambda kinds: st.permutations(kinds[0] + kinds[1])
    ),
    asked=st.sampled_from(["auto", *KINDS]),
)
def test_a_mixture_of_both_kinds_is_never_read_to_its_end(files: list[Picture], asked: str) -> None:
    assume(any(not {*file.values}.isdisjoint(range(19, 34)) for file in files))
    assume(any(255 in file.values for file in files))
    with pytest.raises(LabelError):
        read_all(files, asked)


def test_a_mixture_names_a_file_of_each_kind() -> None:
    files = [Picture({3, 26}, "a.png"), Picture({3, 255}, "b.png")]
    with pytest.raises(
        LabelError, match=r"cityscapes val mixes .*: /data/a\.png is labelIds \(value 26\), but /data/b\.png"
    ):
        kind_of(files, "auto", what="cityscapes val")


def test_one_file_with_values_of_both_kinds_is_refused() -> None:
    with pytest.raises(
        LabelError, match=r"a\.png holds a number of labelIds only \(value 20\) and one .* \(value 255\)"
    ):
        kind_of([Picture({20, 255}, "a.png")], "auto", what="cityscapes")


@pytest.mark.parametrize(
    ("asked", "other", "value"), [("labelIds", "labelTrainIds", 255), ("labelTrainIds", "labelIds", 26)]
)
def test_files_of_the_other_kind_than_asked_are_refused(asked: str, other: str, value: int) -> None:
    files = [Picture({0, 5}), Picture({7, value}, f"x_{asked}.png")]
    message = (
        rf"x_{asked}\.png has the value {value}, which {other} files have and {asked} files never do.*={other}, or"
    )
    with pytest.raises(LabelError, match=message):
        kind_of(files, asked, what="cityscapes")


@pytest.mark.parametrize("kind", KINDS)
def test_names_decide_where_no_value_does(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    files = [Picture(SHARED, f"{number}_gtFine_{kind}.png") for number in range(6)]
    assert kind_of(files, "auto", what="cityscapes val") == kind
    assert f"labels are {kind} (by the names of the files: none of 6 has" in caplog.text


@pytest.mark.parametrize(
    "names", [("a.png", "b.png"), ("a_labelIds.png", "b_labelTrainIds.png"), ("a_labelIds.png", "b.png")]
)
def test_neither_values_nor_names_ask_for_the_setting(names: tuple[str, str]) -> None:
    with pytest.raises(
        LabelError, match=rf"none of the 2 label files .* such as /data/{names[0]}; set data\.args\.labels="
    ):
        kind_of([Picture(SHARED, name) for name in names], "auto", what="cityscapes")


def test_few_files_are_read_where_they_decide_and_all_where_none_does() -> None:
    for deciding, expected in ((range(20), FEW), ((11,), FEW + 10), ((), 20)):
        reads: list[str] = []
        files = [
            Picture({0, 26} if number in deciding else {0}, f"{number}_labelIds.png", reads) for number in range(20)
        ]
        assert kind_of(files, "auto", what="cityscapes") == "labelIds"
        assert len(reads) == expected, deciding


@pytest.mark.parametrize("asked", KINDS)
def test_a_kind_that_is_asked_for_costs_a_few_reads(asked: str) -> None:
    reads: list[str] = []
    kind_of([Picture({0}, str(number), reads) for number in range(20)], asked, what="cityscapes")
    assert len(reads) == FEW


@given(count=st.integers(0, 300), few=st.integers(1, 9))
def test_spread_gives_every_place_once_and_the_ends_first(count: int, few: int) -> None:
    places = list(spread(count, few))
    assert sorted(places) == list(range(count))
    if count >= few >= 2:
        assert (places[0], places[few - 1]) == (0, count - 1)


def test_the_decision_is_said_once_and_by_the_first_process_only(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = []
    for rank in ("1", "0", "0"):
        monkeypatch.setenv("RANK", rank)
        kind_of([Picture({26}, "x.png")], "auto", what="cityscapes train")
        messages.append(len(caplog.messages))
    assert messages == [0, 1, 1]
    assert caplog.messages == ["cityscapes train: labels are labelIds (value 26 in /data/x.png)"]
    assert caplog.records[0].levelno >= logging.WARNING  # what Python shows without a set-up


@pytest.mark.parametrize("kinds", [("labelIds",), ("labelTrainIds",), KINDS])
def test_whatever_kind_lies_there_gives_the_same_classes(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    dataset = cityscapes(str(write_cityscapes(tmp_path, splits=("val",), kinds=kinds)), "val")
    assert isinstance(dataset, FileDataset)
    assert all(sample.label.name.endswith(f"_{kinds[0]}.png") for sample in dataset.samples)
    ids = cityscapes(str(write_cityscapes(tmp_path / "ids", splits=("val",))), "val", labels="labelIds")
    for index in range(len(ids)):
        assert np.array_equal(dataset.load(index)[1], ids.load(index)[1])


def test_official_names_with_train_ids_inside_are_read_as_train_ids(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_cityscapes(tmp_path, splits=("val",), kinds=("labelIds",))
    before = cityscapes(str(root), "val").load(0)[1]
    for path in root.glob("gtFine/val/*/*_labelIds.png"):
        Image.fromarray(train_ids(np.asarray(Image.open(path)))).save(path)
    with pytest.raises(LabelError, match="which labelTrainIds files have and labelIds files never do"):
        cityscapes(str(root), "val", labels="labelIds")
    caplog.clear()
    assert np.array_equal(cityscapes(str(root), "val").load(0)[1], before)
    assert "cityscapes val: labels are labelTrainIds (value 255 in " in caplog.text


def test_labels_of_the_more_complete_kind_are_read(tmp_path: Path) -> None:
    root = write_cityscapes(tmp_path, splits=("val",))
    next(root.glob("gtFine/val/*/*_labelIds.png")).unlink()
    dataset = cityscapes(str(root), "val")
    assert isinstance(dataset, FileDataset)
    assert all(sample.label.name.endswith("_labelTrainIds.png") for sample in dataset.samples)


@pytest.mark.parametrize("labels", ["Auto", "trainIds", "colour", ""])
def test_an_unknown_kind_is_refused(tmp_path: Path, labels: str) -> None:
    with pytest.raises(DataError, match=r"no labels .*\(data\.args\.labels\); "):
        cityscapes(str(write_cityscapes(tmp_path, splits=("val",))), "val", labels=labels)
