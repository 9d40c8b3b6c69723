"""Class-uniform sampling: the index of places, and what is drawn from it."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fastseg.data.class_uniform import TILES, ClassUniform, find_places, places_as_shown, places_of
from fastseg.data.dataset import RepeatedDataset, SegDataset
from fastseg.errors import ConfigError, LabelError
from fastseg.types import DatasetInfo

LABELS = arrays(
    np.uint8,
    st.tuples(st.integers(1, 20), st.integers(1, 30)),
    elements=st.sampled_from([0, 1, 2, 7, 254, 255]),
)


class Meadow(SegDataset):
    """Grass (0) with one pixel of flower (1) in every hundredth sample, and no stone (2)."""

    info = DatasetInfo("meadow", ("grass", "flower", "stone"), ((0, 1, 0), (1, 0, 0), (1, 1, 1)))

    def __len__(self) -> int:
        return 200

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        raise AssertionError("labels are enough")

    def load_label(self, index: int) -> np.ndarray:
        label = np.zeros((12, 16), np.uint8)
        if index % 100 == 42:
            label[5, 11] = 1
        return label

    def sample_name(self, index: int) -> str:
        return f"{index}.png"


@given(label=LABELS)
@settings(max_examples=150, deadline=None)
def test_every_place_shows_its_class_and_every_class_of_a_tile_has_one(label: np.ndarray) -> None:
    places = places_of(label)
    assert all(label[y, x] == value for value, x, y in places)
    height, width = label.shape
    tiled = [
        (row, column, int(value))
        for row, column in product(range(TILES[0]), range(TILES[1]))
        for value in np.unique(
            label[
                height * row // TILES[0] : height * (row + 1) // TILES[0],
                width * column // TILES[1] : width * (column + 1) // TILES[1],
            ]
        )
        if value != 255
    ]
    assert places[:, 0].tolist() == [value for _, _, value in tiled]
    assert len(places) <= TILES[0] * TILES[1] * len(set(np.unique(label)) - {255})


def test_a_place_is_in_the_middle_of_its_class() -> None:
    label = np.full((20, 40), 255, np.uint8)
    label[3:6, 2:7] = 4  # in the tile of 10x10 at the top left
    assert places_of(label).tolist() == [[4, 4, 4]]


def table() -> np.ndarray:
    return find_places(Meadow(), range(200), threads=2)


def test_places_name_their_sample_and_only_labels_are_read() -> None:
    places = table()
    flowers = places[places[:, 0] == 1]
    assert flowers.tolist() == [[1, 42, 11, 5], [1, 142, 11, 5]]
    assert (places[:, 0] == 0).sum() == 200 * 8
    assert places.dtype == np.int32


def test_a_rare_class_is_drawn_as_often_as_a_common_one() -> None:
    sampling, random = ClassUniform(table(), share=1.0), np.random.default_rng(0)
    drawn = [sampling.draw(random) for _ in range(1000)]
    flowers = [place.sample for place in drawn if place is not None and place[1:] == (11, 5)]
    # 2 of 200 images show a flower; 500 +- 4 standard deviations of a fair coin
    assert 436 < len(flowers) < 564
    assert set(flowers) == {42, 142}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_of_the_crops_is_that_asked_for(share: float) -> None:
    sampling, random = ClassUniform(table(), share), np.random.default_rng(1)
    drawn = sum(sampling.draw(random) is not None for _ in range(2000))
    assert abs(drawn / 2000 - share) < 0.05  # over four standard deviations


def test_who_found_the_places_does_not_matter() -> None:
    parts = [find_places(Meadow(), range(rank, 200, 3), threads=1) for rank in (2, 0, 1)]
    one, other = ClassUniform(table(), 1.0), ClassUniform(np.concatenate(parts), 1.0)
    assert np.array_equal(one.table, other.table)


def test_labels_without_any_class_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.class_uniform is 0\.5 and no training label shows a class; set it"):
        ClassUniform(find_places(Meadow(), [], threads=1), 0.5)


def test_a_label_that_cannot_be_read_is_its_own_error() -> None:
    class Torn(Meadow):
        def load_label(self, index: int) -> np.ndarray:
            raise LabelError(f"{index}.png is torn")

    with pytest.raises(LabelError, match=r"^0\.png is torn$"):
        find_places(Torn(), range(200), threads=2)


def test_progress_is_told_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastseg.data.class_uniform.SAY_EVERY", -1.0)
    lines: list[str] = []
    find_places(Meadow(), range(0, 200, 2), threads=1, say=lines.append)
    assert lines[0] == "data.class_uniform: 1 of 100 labels read"
    assert len(lines) == 100


def test_what_is_shown_twice_counts_twice() -> None:
    shown = RepeatedDataset(Meadow(), [(100, 1), (100, 3)])
    places = places_as_shown(table(), shown)
    flowers = places[places[:, 0] == 1, 1].tolist()
    assert [shown.sample_name(index) for index in flowers] == ["42.png", "142.png", "142.png", "142.png"]


def test_a_place_stays_in_its_sample_when_the_samples_before_it_are_repeated() -> None:
    shown = RepeatedDataset(Meadow(), [(100, 3), (100, 1)])
    places = places_as_shown(table(), shown)
    assert len(places) == 2 + 2 + 400 * 8  # 42 and 142 have a flower more, the first of them three times
    flowers = places[places[:, 0] == 1]
    assert flowers[:, 2:].tolist() == [[11, 5]] * 4
    assert [shown.sample_name(index) for index in flowers[:, 1]] == ["42.png", "42.png", "42.png", "142.png"]
    assert all(shown.load_label(sample)[y, x] == value for value, sample, x, y in places.tolist())
