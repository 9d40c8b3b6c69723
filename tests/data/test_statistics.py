"""Class weights from label frequencies, on label maps counted by hand."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import pytest

from fastseg.data.dataset import SegDataset
from fastseg.data.statistics import class_weights
from fastseg.errors import ConfigError
from fastseg.types import DatasetInfo


class Labels(SegDataset):
    """Label maps given as flat lists; `loaded` records which were read."""

    def __init__(self, labels: Sequence[Sequence[int]], num_classes: int = 3) -> None:
        names = tuple(f"class{i}" for i in range(num_classes))
        self.info = DatasetInfo("labels", names, tuple((i, i, i) for i in range(num_classes)))
        self.labels = [np.array([label], np.uint8) for label in labels]
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        self.loaded.append(index)
        label = self.labels[index]
        return np.zeros((*label.shape, 3), np.uint8), label

    def sample_name(self, index: int) -> str:
        return str(index)


TWO = [[0, 0, 0, 1, 255, 255], [0, 0, 0, 0]]  # class 0: 7 of 8 valid pixels, class 1: 1 of 8, class 2 never


def test_enet_weights_are_its_formula_over_valid_pixels() -> None:
    weights = class_weights(Labels(TWO), "enet")
    assert weights == pytest.approx([1 / math.log(1.02 + 7 / 8), 1 / math.log(1.02 + 1 / 8), 1.0])


def test_espnet_weights_are_its_formula_over_valid_pixels() -> None:
    weights = class_weights(Labels(TWO), "espnet")
    assert weights == pytest.approx([1 / math.log(1.10 + 7 / 8), 1 / math.log(1.10 + 1 / 8), 1.0])


def test_median_frequency_divides_by_the_images_that_show_the_class() -> None:
    shares = [7 / 8, 1 / 4]  # class 1 occurs in the first image only, which has 4 valid pixels
    median = sum(shares) / 2
    assert class_weights(Labels(TWO), "median") == pytest.approx([median / shares[0], median / shares[1], 1.0])


@pytest.mark.parametrize("weighting", ["enet", "espnet", "median"])
def test_nothing_but_ignored_pixels_weighs_every_class_one(weighting: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert class_weights(Labels([[255, 255], [255]]), weighting) == [1.0, 1.0, 1.0]
        assert class_weights(Labels([]), weighting) == [1.0, 1.0, 1.0]


def test_a_rarer_class_weighs_more() -> None:
    for weighting in ("enet", "espnet", "median"):
        weights = class_weights(Labels([[0] * 80 + [1] * 15 + [2] * 5]), weighting)
        assert weights == sorted(weights)
        assert len(set(weights)) == 3


def test_the_limit_takes_evenly_spaced_samples_with_both_ends() -> None:
    dataset = Labels([[0]] * 101)
    class_weights(dataset, "enet", limit=5)
    assert dataset.loaded == [0, 25, 50, 75, 100]


def test_another_weighting_offers_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"loss\.class_weights is 'medain'; did you mean 'median'"):
        class_weights(Labels(TWO), "medain")


def test_no_image_is_decoded() -> None:
    class LabelsAlone(Labels):
        def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            raise AssertionError("labels are enough")

        def load_label(self, index: int) -> np.ndarray:
            return self.labels[index]

    assert class_weights(LabelsAlone(TWO), "enet") == class_weights(Labels(TWO), "enet")
