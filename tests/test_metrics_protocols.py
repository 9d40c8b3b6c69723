"""Categories, and the protocols of ADE20K and PASCAL-Context, equal counts over sets of pixels."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.errors import DataError
from fastseg.metrics import ConfusionMatrix, InstanceIoU, NamedIoU, Scores

VOID = 255
Pixels = list[tuple[int, int]]


def scores(pixels: Pixels, num_classes: int, **options: object) -> Scores:
    matrix = ConfusionMatrix(num_classes)
    labels, predictions = torch.tensor(pixels, dtype=torch.int64).reshape(-1, 2).T
    matrix.update(labels, predictions)
    return matrix.scores([f"class {k}" for k in range(num_classes)], **options)  # type: ignore[arg-type]


@st.composite
def cases(draw: st.DrawFn) -> tuple[int, Pixels]:
    """Few classes of many, so that some are absent; void labels, and predictions that are no class."""
    num_classes = draw(st.integers(1, 8))
    label = st.one_of(st.integers(0, num_classes - 1), st.just(VOID))
    prediction = st.integers(0, num_classes)
    return num_classes, draw(st.lists(st.tuples(label, prediction), max_size=40))


def scene_parsing(num_classes: int, pixels: Pixels) -> tuple[float, float]:
    """Mean IoU and pixel accuracy as demoEvaluation.m of the challenge states them: labels from 1, 0 is unlabelled."""
    labelled = [(label + 1, prediction + 1) for label, prediction in pixels if label != VOID]
    iou = []
    for k in range(1, num_classes + 1):
        both = sum(label == prediction == k for label, prediction in labelled)
        either = sum(k in pair for pair in labelled)
        iou.append(both / either if either else 0.0)
    right = sum(label == prediction for label, prediction in labelled)
    return sum(iou) / num_classes, right / len(labelled) if labelled else math.nan


@given(cases())
@settings(max_examples=200, deadline=None)
def test_scene_parsing_is_that_of_the_ade20k_challenge(case: tuple[int, Pixels]) -> None:
    num_classes, pixels = case
    ours = scores(pixels, num_classes, protocol="scene_parsing")
    # 1e-15: their sum of floats and ours round differently
    assert (ours.miou, ours.pixel_accuracy) == pytest.approx(scene_parsing(num_classes, pixels), rel=1e-15, nan_ok=True)


@given(cases())
@settings(max_examples=100, deadline=None)
def test_scene_parsing_differs_from_void_ignored_by_absent_classes_only(case: tuple[int, Pixels]) -> None:
    num_classes, pixels = case
    ours, other = scores(pixels, num_classes, protocol="scene_parsing"), scores(pixels, num_classes)
    assert ours.absent == other.absent
    assert ours.iou == pytest.approx(other.iou, abs=0, rel=0, nan_ok=True)
    if not ours.absent:
        assert ours.miou == other.miou
    elif len(ours.absent) < num_classes:
        share = (num_classes - len(ours.absent)) / num_classes
        assert ours.miou == pytest.approx(other.miou * share, rel=1e-14)


def test_the_table_tells_that_absent_classes_count() -> None:
    lines = scores([(0, 0), (1, 0)], 4, protocol="scene_parsing").table().splitlines()
    assert lines[-2:] == [
        "mean IoU over 4 of 4 classes, protocol scene_parsing",
        "absent from labels and predictions, counted as 0: class 2, class 3",
    ]
    assert lines[-4].split() == ["mean", "12.50", "50.00"]


PIXELS = [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (VOID, 0), (VOID, 2)]  # 0 is PASCAL-Context's background


def test_with_59_classes_background_counts_nowhere() -> None:
    """The background is void ground truth, and cannot be predicted."""
    without = [(label - 1 if label not in (0, VOID) else VOID, prediction - 1) for label, prediction in PIXELS]
    ours = scores([pair for pair in without if pair[1] >= 0], 2)
    assert ours.iou == (1 / 2, 1 / 2)
    assert ours.pixel_accuracy == 2 / 3


def test_with_60_classes_background_is_a_class_like_any_other() -> None:
    ours = scores(PIXELS, 3)
    assert ours.iou == (1 / 2, 1 / 3, 1 / 2)
    assert ours.pixel_accuracy == 3 / 5


@given(cases(), st.integers(1, 3), st.sampled_from(["void_ignored", "camvid_authors", "scene_parsing"]))
@settings(max_examples=200, deadline=None)
def test_categories_are_classes_once_labels_and_predictions_are_renamed(
    case: tuple[int, Pixels], groups: int, protocol: str
) -> None:
    num_classes, pixels = case
    groups = min(groups, num_classes)
    ours = scores(
        pixels, num_classes, protocol=protocol, categories=[f"group {k % groups}" for k in range(num_classes)]
    )
    renamed = [
        (label if label == VOID else label % groups, groups if prediction == num_classes else prediction % groups)
        for label, prediction in pixels
    ]
    expected = scores(renamed, groups, protocol=protocol)
    assert ours.categories is not None
    assert ours.categories.names == tuple(f"group {k}" for k in range(groups))
    assert ours.categories.iou == pytest.approx(expected.iou, abs=0, rel=0, nan_ok=True)
    present = [each for each in expected.iou if not math.isnan(each)]
    assert ours.categories.miou == pytest.approx(
        math.fsum(present) / len(present) if present else math.nan, abs=0, rel=0, nan_ok=True
    )


def test_without_categories_there_are_none() -> None:
    ours = scores([(0, 0)], 2)
    assert ours.categories is None
    assert {"categories", "instance_iou", "boundary_f"}.isdisjoint(ours.to_dict())


def test_categories_must_match_the_matrix() -> None:
    with pytest.raises(DataError, match="1 categories for a confusion matrix of 2 classes; give one per class"):
        scores([(0, 0)], 2, categories=["only"])


def full_scores() -> Scores:
    """Of classes 0 and 1 (nature) and 2 (vehicle), whose objects are told apart."""
    pixels = [(0, 0), (0, 1), (1, 1), (2, 2), (2, 0)]
    instances = InstanceIoU(
        NamedIoU.of(("class 0", "class 1", "class 2"), (math.nan, math.nan, 0.25)),
        NamedIoU.of(("nature", "vehicle"), (math.nan, 0.25)),
    )
    return replace(scores(pixels, 3, categories=["nature", "nature", "vehicle"]), instance_iou=instances)


def test_the_table_has_categories_and_instance_scores() -> None:
    assert full_scores().table().splitlines() == [
        "class     IoU %   acc %  iIoU %",
        "-------------------------------",
        "class 0   33.33   50.00       -",
        "class 1   50.00  100.00       -",
        "class 2   50.00   50.00   25.00",
        "-------------------------------",
        "mean      44.44   66.67   25.00",
        "",
        "category   IoU %  iIoU %",
        "------------------------",
        "nature     75.00       -",
        "vehicle    50.00   25.00",
        "------------------------",
        "mean       62.50   25.00",
        "",
        "pixel accuracy 60.00 % of 5 px",
        "mean IoU over 3 of 3 classes, protocol void_ignored",
        "iIoU: every object counts as much as one of its class's mean size, however small it is",
    ]


def test_categories_and_instance_scores_survive_strict_json() -> None:
    content = json.loads(json.dumps(full_scores().to_dict(), allow_nan=False))
    assert content["categories"] == {"names": ["nature", "vehicle"], "iou": [0.75, 0.5], "miou": 0.625}
    assert content["instance_iou"]["classes"]["iou"] == [None, None, 0.25]
    assert content["instance_iou"]["categories"]["miou"] == 0.25
