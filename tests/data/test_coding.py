"""Label codings: every number and every colour becomes a class, is ignored, or is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fastseg.data.coding import INVALID, Colours, Values, counted, packed, packed_pixels, ranges, unpacked
from fastseg.data.dataset import FileDataset
from fastseg.errors import LabelError
from fastseg.types import IGNORE_INDEX, DatasetInfo

NUMBERS = Values.of((7, 1), (0, 255), "farm")
PAINTED = Colours({(0, 99, 0): 0, (99, 0, 0): 1, (0, 0, 1): IGNORE_INDEX}, "farm")
COLOURS = st.tuples(*[st.integers(0, 255)] * 3)


def painted(path: Path, *pixels: tuple[int, int, int]) -> Path:
    Image.fromarray(np.array([pixels], np.uint8)).save(path)
    return path


@pytest.mark.parametrize("value", range(256))
def test_a_number_is_a_class_or_ignored_or_refused(value: int) -> None:
    raw = np.full((2, 3), value, np.uint8)
    if value in (7, 1):
        assert (NUMBERS.decode(raw, Path("x.png")) == (7, 1).index(value)).all()
    elif value in (0, 255):
        assert (NUMBERS.decode(raw, Path("x.png")) == IGNORE_INDEX).all()
    else:
        with pytest.raises(LabelError, match=rf"^x\.png has values \{{{value}: 6 px\}} that farm .* are 0-1, 7, 255\."):
            NUMBERS.decode(raw, Path("x.png"))


@given(value=st.integers(0, 65535))
def test_a_table_shorter_than_the_numbers_refuses_what_lies_beyond(value: int) -> None:
    coding = Values(np.array([IGNORE_INDEX, 0, 1, INVALID, 2], np.uint8), "wide")
    raw = np.array([[value, 1]], np.uint16)
    if value in (0, 1, 2, 4):
        assert coding.decode(raw, Path("x")).tolist() == [[{0: 255, 1: 0, 2: 1, 4: 2}[value], 0]]
    else:
        with pytest.raises(LabelError, match=rf"\{{{value}: 1 px\}}"):
            coding.decode(raw, Path("x"))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_a_long_table_takes_narrow_numbers(dtype: type) -> None:
    table = np.full(65536, INVALID, np.uint8)
    table[[3, 200]] = 0, 1
    assert Values(table, "long").decode(np.array([[200, 3]], dtype), Path("x")).tolist() == [[1, 0]]


def test_colours_become_classes(tmp_path: Path) -> None:
    label = PAINTED.load(painted(tmp_path / "a.png", (99, 0, 0), (0, 99, 0), (0, 0, 1)))
    assert label.dtype == np.uint8
    assert label.tolist() == [[1, 0, 255]]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(colours=st.lists(COLOURS, min_size=1, max_size=6))
def test_another_colour_is_refused_with_its_file_and_count(colours: list[tuple[int, int, int]], tmp_path: Path) -> None:
    file = painted(tmp_path / "a.png", *colours)
    known = {(0, 99, 0): 0, (99, 0, 0): 1, (0, 0, 1): 255}
    unknown = [colour for colour in colours if colour not in known]
    if not unknown:
        assert PAINTED.load(file).tolist() == [[known[colour] for colour in colours]]
        return
    with pytest.raises(LabelError) as refusal:
        PAINTED.load(file)
    assert str(file) in str(refusal.value)
    shown = sorted(set(unknown))[:5]
    assert all(f"{colour}: {unknown.count(colour)} px" in str(refusal.value) for colour in shown)


@given(colour=COLOURS)
def test_a_colour_survives_its_packing(colour: tuple[int, int, int]) -> None:
    assert unpacked(packed(colour)) == colour
    assert packed_pixels(np.array([[colour]], np.uint8)).tolist() == [[packed(colour)]]


def test_codings_of_one_table_share_a_key_and_others_do_not() -> None:
    assert NUMBERS.key() == Values.of((7, 1), (0, 255), "another name").key()
    assert NUMBERS.key() != Values.of((1, 7), (0, 255), "farm").key()
    assert PAINTED.key() == Colours({(0, 0, 1): 255, (99, 0, 0): 1, (0, 99, 0): 0}, "x").key()
    assert PAINTED.key() != Colours({(0, 0, 1): 255, (99, 0, 0): 0, (0, 99, 0): 1}, "x").key()


def test_numbers_are_told_as_runs_and_the_first_counts_only() -> None:
    assert ranges([0, 1, 2, 5, 7, 8]) == "0-2, 5, 7-8"
    assert counted([1, 2, 3, 4, 5, 6, 7], [9] * 7).endswith("5: 9 px, and 2 more")


def test_a_coding_that_knows_more_classes_than_the_data_set_is_refused() -> None:
    info = DatasetInfo("farm", ("field",), ((0, 99, 0),))
    assert NUMBERS.classes() == PAINTED.classes() == {0, 1}
    for coding in (NUMBERS, PAINTED):
        with pytest.raises(LabelError, match=r"farm has 1 classes and its coding gives 1; correct the table"):
            FileDataset(info, [], coding)
