"""Data sets as the rest of fastseg sees them: checked files, joined splits, the memory cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastseg.data.coding import Values
from fastseg.data.dataset import (
    DATASETS,
    CachedDataset,
    ConcatDataset,
    FileDataset,
    SegDataset,
    build_dataset,
)
from fastseg.errors import ConfigError, LabelError, UnknownNameError
from fastseg.types import DatasetInfo, Sample

INFO = DatasetInfo("farm", ("field", "barn"), ((0, 99, 0), (99, 0, 0)), official_ids=(1, 7))
CODING = Values.of((1, 7), (0,), "farm")


def write(folder: Path, raw: np.ndarray, *, size: tuple[int, int] = (4, 3), stem: str = "a") -> Sample:
    image, label = folder / f"{stem}.png", folder / f"{stem}_label.png"
    Image.new("RGB", size, (10, 20, 30)).save(image)
    Image.fromarray(raw).save(label)
    return Sample(image, label)


def raw_label(*values: int) -> np.ndarray:
    return np.resize(np.array(values, np.uint8), (3, 4))


def test_raw_values_become_classes_through_the_table(tmp_path: Path) -> None:
    dataset = FileDataset(INFO, [write(tmp_path, raw_label(1, 7, 0))], CODING)
    image, label = dataset.load(0)
    assert (len(dataset), dataset.sample_name(0)) == (1, "a.png")
    assert image.shape == (3, 4, 3)
    assert image[0, 0].tolist() == [10, 20, 30]
    assert label.dtype == np.uint8
    assert label.ravel()[:3].tolist() == [0, 1, 255]


def test_an_undefined_value_names_file_values_counts_and_what_is_allowed(tmp_path: Path) -> None:
    dataset = FileDataset(INFO, [write(tmp_path, raw_label(1, 1, 9, 200))], CODING)
    with pytest.raises(LabelError, match=r"a_label\.png has values \{9: 3 px, 200: 3 px\} that farm .*are 0-1, 7\."):
        dataset.load(0)


def test_a_label_of_another_size_names_both_files_and_sizes(tmp_path: Path) -> None:
    dataset = FileDataset(INFO, [write(tmp_path, raw_label(1), size=(8, 6))], CODING)
    with pytest.raises(
        LabelError, match=r"a_label\.png is 4x3 but its image .*a\.png is 8x6; export both at one size$"
    ):
        dataset.load(0)


def test_a_turned_image_is_recognised_as_such(tmp_path: Path) -> None:
    dataset = FileDataset(INFO, [write(tmp_path, raw_label(1), size=(3, 4))], CODING)
    with pytest.raises(LabelError, match="rotated by its EXIF tag: save it upright"):
        dataset.load(0)


class Counting(SegDataset):
    """Sample i is `base + i`; every load is counted."""

    info = INFO

    def __init__(self, base: int, length: int) -> None:
        self.base, self.length, self.loads = base, length, 0

    def __len__(self) -> int:
        return self.length

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        assert 0 <= index < self.length
        self.loads += 1
        return np.full((2, 2, 3), self.base + index, np.uint8), np.zeros((2, 2), np.uint8)

    def sample_name(self, index: int) -> str:
        return f"{self.base + index}.png"


def test_joined_data_sets_follow_one_another_also_past_an_empty_one() -> None:
    dataset = ConcatDataset([Counting(0, 2), Counting(50, 0), Counting(100, 3)])
    assert [dataset.sample_name(i) for i in range(len(dataset))] == ["0.png", "1.png", "100.png", "101.png", "102.png"]
    assert [int(dataset.load(i)[0][0, 0, 0]) for i in range(len(dataset))] == [0, 1, 100, 101, 102]
    assert dataset.info is INFO


def test_the_cache_loads_every_sample_once() -> None:
    inner = Counting(0, 3)
    cached = CachedDataset(inner)
    for _ in range(3):
        assert [int(cached.load(i)[0][0, 0, 0]) for i in (2, 0, 1)] == [2, 0, 1]
    assert inner.loads == 3
    assert (len(cached), cached.sample_name(1), cached.info) == (3, "1.png", INFO)


@pytest.fixture
def farm() -> Iterator[list[tuple[str, str, int]]]:
    """A data set registered for one test, which records what it was asked for."""
    asked: list[tuple[str, str, int]] = []

    def farm(root: str, split: str, length: int = 2) -> SegDataset:
        asked.append((root, split, length))
        return Counting(0, length)

    DATASETS.register(farm)
    yield asked
    del DATASETS._builders["farm"]


def test_splits_may_be_joined_by_plus(farm: list[tuple[str, str, int]]) -> None:
    assert len(build_dataset("farm", "train + val", root="/r", args={"length": 5})) == 10
    assert farm == [("/r", "train", 5), ("/r", "val", 5)]
    assert isinstance(build_dataset("farm", "train", root="/r"), Counting)


def test_a_missing_root_names_the_key(farm: list[tuple[str, str, int]]) -> None:
    with pytest.raises(ConfigError, match=r"data set 'farm' needs the folder that holds it: data\.root="):
        build_dataset("farm", "train")
    assert len(build_dataset("farm", "train", args={"root": "/r"})) == 2


def test_a_split_among_the_arguments_is_refused(farm: list[tuple[str, str, int]]) -> None:
    with pytest.raises(ConfigError, match=r"data\.args\.split .* remove it"):
        build_dataset("farm", "train", root="/r", args={"split": "val"})


def test_misspelt_names_and_arguments_offer_the_right_ones(farm: list[tuple[str, str, int]]) -> None:
    with pytest.raises(UnknownNameError, match="unknown data set 'farn'; did you mean 'farm'"):
        build_dataset("farn", "train")
    with pytest.raises(UnknownNameError, match="has no argument 'lenght'; did you mean 'length'"):
        build_dataset("farm", "train", root="/r", args={"lenght": 5})


def test_a_root_is_not_passed_to_a_data_set_that_needs_none() -> None:
    assert "root" not in DATASETS.arguments("road_scenes")
    assert len(build_dataset("road_scenes", "val", root="/anywhere")) > 0


def test_an_argument_of_the_wrong_type_is_a_mistake_in_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"'camvid' cannot take data\.args \{'root': 3\}"):
        build_dataset("camvid", "train", args={"root": 3})
