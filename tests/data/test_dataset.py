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
    RepeatedDataset,
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


def test_parts_are_shown_as_often_as_asked_for_and_in_turn() -> None:
    dataset = RepeatedDataset(
        ConcatDataset([Counting(0, 2), Counting(50, 0), Counting(100, 1)]), [(2, 2), (0, 5), (1, 3)]
    )
    names = ["0.png", "1.png", "0.png", "1.png", "100.png", "100.png", "100.png"]
    assert [dataset.sample_name(i) for i in range(len(dataset))] == names
    assert [f"{dataset.load(i)[0][0, 0, 0]}.png" for i in range(len(dataset))] == names
    assert dataset.info is INFO


def test_a_cache_beneath_repetitions_keeps_each_sample_once() -> None:
    inner = Counting(0, 3)
    dataset = RepeatedDataset(CachedDataset(inner), [(3, 4)])
    assert [int(dataset.load(i)[0][0, 0, 0]) for i in range(12)] == [0, 1, 2] * 4
    assert inner.loads == 3


def test_parts_that_do_not_make_up_the_data_set_are_a_defect() -> None:
    with pytest.raises(ValueError, match="do not make up 2 samples"):
        RepeatedDataset(Counting(0, 2), [(3, 1)])


def test_what_a_sample_has_passes_through_every_wrapping(tmp_path: Path) -> None:
    sample = write(tmp_path, raw_label(1, 7, 0))
    Image.fromarray(np.full((3, 4), 300, np.uint16)).save(tmp_path / "ids.png")
    files = FileDataset(INFO, [Sample(sample.image, sample.label, tmp_path / "ids.png")], CODING)
    plain = FileDataset(INFO, [sample], CODING)
    wrapped = RepeatedDataset(ConcatDataset([plain, files]), [(1, 1), (1, 2)])
    assert [wrapped.identity(i) for i in range(3)] == [plain.identity(0), files.identity(0), files.identity(0)]
    assert plain.identity(0) is not None
    assert wrapped.load_instances(0) is None
    for dataset, index in ((wrapped, 1), (wrapped, 2), (CachedDataset(wrapped), 2)):
        instances = dataset.load_instances(index)
        assert instances is not None
        assert (instances == 300).all()


def test_a_label_is_read_without_its_image(tmp_path: Path) -> None:
    dataset = FileDataset(INFO, [write(tmp_path, raw_label(1, 7, 0))], CODING)
    label = dataset.load(0)[1]
    (tmp_path / "a.png").write_bytes(b"damaged")
    for wrapped in (dataset, ConcatDataset([dataset]), RepeatedDataset(dataset, [(1, 1)]), CachedDataset(dataset)):
        assert np.array_equal(wrapped.load_label(0), label)
    assert Counting(0, 2).load_label(1).shape == (2, 2)  # where labels are made together with images


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


def test_a_root_that_would_be_ignored_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.root=/photos would be ignored: data set 'road_scenes' has no folder"):
        build_dataset("road_scenes", "train", root="/photos")


def test_a_missing_root_names_the_key(farm: list[tuple[str, str, int]]) -> None:
    with pytest.raises(ConfigError, match=r"data set 'farm' needs the folder that holds it: data\.root="):
        build_dataset("farm", "train")
    assert len(build_dataset("farm", "train", args={"root": "/r"})) == 2


def test_what_is_wrong_with_a_further_part_is_said_of_its_own_key(farm: list[tuple[str, str, int]]) -> None:
    with pytest.raises(ConfigError, match=r"holds it: data\.extra\[1\]\.root=/path/to/farm$"):
        build_dataset("farm", "train", key="data.extra[1]")
    with pytest.raises(ConfigError, match=r"^data\.extra\[1\]\.args\.split comes from data\.extra\[1\]\.split"):
        build_dataset("farm", "train", root="/r", args={"split": "val"}, key="data.extra[1]")


def test_a_split_among_the_arguments_is_refused(farm: list[tuple[str, str, int]]) -> None:
    with pytest.raises(ConfigError, match=r"data\.args\.split .* remove it"):
        build_dataset("farm", "train", root="/r", args={"split": "val"})


def test_misspelt_names_and_arguments_offer_the_right_ones(farm: list[tuple[str, str, int]]) -> None:
    with pytest.raises(UnknownNameError, match="unknown data set 'farn'; did you mean 'farm'"):
        build_dataset("farn", "train")
    with pytest.raises(UnknownNameError, match="has no argument 'lenght'; did you mean 'length'"):
        build_dataset("farm", "train", root="/r", args={"lenght": 5})


def test_an_argument_of_the_wrong_type_is_a_mistake_in_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"'camvid' cannot take data\.args \{'root': 3\}"):
        build_dataset("camvid", "train", args={"root": 3})
