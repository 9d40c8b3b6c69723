"""The confusion matrix equals a loop over pixels, adds up, and its scores follow the two published rules."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastseg.errors import DataError, LabelError, UnknownNameError
from fastseg.metrics import BoundaryF, ConfusionMatrix, Scores

VOID = 255


def names(num_classes: int) -> list[str]:
    return [f"class {k}" for k in range(num_classes)]


def counted(num_classes: int, labels: Tensor, predictions: Tensor) -> ConfusionMatrix:
    matrix = ConfusionMatrix(num_classes)
    matrix.update(labels, predictions)
    return matrix


def integers(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)  # an empty list alone would give floats


def naive_counts(num_classes: int, labels: list[int], predictions: list[int]) -> list[list[int]]:
    counts = [[0] * (num_classes + 1) for _ in range(num_classes + 1)]
    for label, prediction in zip(labels, predictions, strict=True):
        row = num_classes if label == VOID else label
        column = prediction if 0 <= prediction < num_classes else num_classes
        counts[row][column] += 1
    return counts


@st.composite
def pixels(draw: st.DrawFn) -> tuple[int, list[int], list[int]]:
    num_classes = draw(st.one_of(st.integers(1, 6), st.just(19), st.just(255)))
    size = draw(st.integers(0, 60))
    label = st.one_of(st.integers(0, num_classes - 1), st.just(VOID))
    prediction = st.one_of(st.integers(0, num_classes - 1), st.integers(0, 255))
    return (
        num_classes,
        draw(st.lists(label, min_size=size, max_size=size)),
        draw(st.lists(prediction, min_size=size, max_size=size)),
    )


@given(pixels(), st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64]))
@settings(max_examples=300, deadline=None)
def test_counts_equal_a_loop_over_pixels(drawn: tuple[int, list[int], list[int]], dtype: torch.dtype) -> None:
    num_classes, labels, predictions = drawn
    matrix = counted(num_classes, torch.tensor(labels, dtype=dtype), torch.tensor(predictions, dtype=dtype))
    assert matrix.counts.tolist() == naive_counts(num_classes, labels, predictions)
    assert matrix.counts.dtype is torch.int64
    assert matrix.pixels == len(labels)


@given(pixels())
@settings(max_examples=100, deadline=None)
def test_scores_equal_sets_of_pixels(drawn: tuple[int, list[int], list[int]]) -> None:
    num_classes, labels, predictions = drawn
    scores = counted(num_classes, integers(labels), integers(predictions)).scores(names(num_classes))
    seen = [(a, b) for a, b in zip(labels, predictions, strict=True) if a != VOID]
    for k in {0, num_classes - 1, *(a for a, _ in seen)}:
        union = sum(a == k or b == k for a, b in seen)
        expected = sum(a == b == k for a, b in seen) / union if union else None
        assert scores.to_dict()["iou"][k] == expected  # type: ignore[index]
    assert scores.pixels == len(labels)
    assert scores.pixels - scores.void_pixels == len(seen)


@given(pixels(), st.integers(1, 5), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_shards_in_any_order_add_up_to_the_whole(
    drawn: tuple[int, list[int], list[int]], world: int, random: object
) -> None:
    num_classes, label_list, prediction_list = drawn
    labels, predictions = integers(label_list), integers(prediction_list)
    whole = counted(num_classes, labels, predictions)
    order = list(range(len(label_list)))
    random.shuffle(order)  # type: ignore[attr-defined]
    labels, predictions = labels[order], predictions[order]
    total = ConfusionMatrix(num_classes)
    for rank in range(world):
        total = total + counted(num_classes, labels[rank::world], predictions[rank::world])
    assert torch.equal(total.counts, whole.counts)


def test_renaming_the_classes_permutes_the_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (400,), generator=generator)
    predictions = torch.randint(0, 5, (400,), generator=generator)
    permutation = torch.tensor([3, 0, 4, 1, 2])
    before = counted(5, labels, predictions).scores(names(5))
    after = counted(5, permutation[labels], permutation[predictions]).scores(names(5))
    assert [after.iou[k] for k in permutation] == list(before.iou)
    assert after.miou == before.miou


def test_any_shape_counts_alike() -> None:
    labels = torch.randint(0, 4, (2, 3, 5), dtype=torch.uint8)
    predictions = torch.randint(0, 4, (2, 3, 5), dtype=torch.int64)
    assert torch.equal(
        counted(4, labels, predictions).counts, counted(4, labels.flatten(), predictions.flatten()).counts
    )


def test_more_pixels_than_32_bits_hold_are_counted_exactly() -> None:
    matrix = ConfusionMatrix(2)
    matrix.counts[0, 0] = 3_000_000_000
    matrix.counts[0, 1] = 1_000_000_000
    total = matrix + matrix
    total.update(torch.zeros(1, dtype=torch.uint8), torch.zeros(1, dtype=torch.uint8))
    assert total.pixels == 8_000_000_001
    assert total.scores(["a", "b"]).iou[0] == 6_000_000_001 / 8_000_000_001


def test_byte_inputs_do_not_wrap() -> None:
    labels = torch.full((70_000,), 18, dtype=torch.uint8)
    matrix = counted(19, labels, labels)
    assert matrix.counts[18, 18] == matrix.pixels == 70_000


@pytest.mark.parametrize("prediction", [-1, 3, 254, 255, 256, 2**40])
def test_predictions_outside_the_classes_are_misses(prediction: int) -> None:
    matrix = counted(3, torch.tensor([0, 0, VOID]), torch.tensor([0, prediction, prediction]))
    assert matrix.counts[0].tolist() == [1, 0, 0, 1]
    assert matrix.counts[3].tolist() == [0, 0, 0, 1]
    assert matrix.scores(names(3)).iou[0] == 0.5


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_labels_outside_the_classes_are_refused_with_their_counts(dtype: torch.dtype) -> None:
    matrix = ConfusionMatrix(19)
    labels = torch.tensor([0, 33, 33, 19, 255], dtype=dtype)
    with pytest.raises(LabelError, match=r"\{19: 1 px, 33: 2 px\}; allowed are 0-18, and 255"):
        matrix.update(labels, torch.zeros_like(labels))
    assert matrix.pixels == 0


@pytest.mark.parametrize("value", [-1, 256, -(2**40)])
def test_labels_that_no_byte_holds_are_refused(value: int) -> None:
    with pytest.raises(LabelError, match=rf"\{{{value}: 1 px\}}"):
        counted(2, torch.tensor([value, 0]), torch.tensor([0, 0]))


def test_eight_bit_signed_tensors_are_understood() -> None:
    labels = torch.tensor([0, 1], dtype=torch.int8)
    assert counted(2, labels, torch.tensor([-1, 1], dtype=torch.int8)).counts.tolist() == [
        [0, 0, 1],
        [0, 1, 0],
        [0, 0, 0],
    ]


def test_shapes_and_dtypes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(LabelError, match=r"\(2, 3\) and predictions \(3, 2\) differ"):
        counted(2, torch.zeros(2, 3, dtype=torch.int64), torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(LabelError, match=r"predictions are torch\.float32"):
        counted(2, torch.zeros(2, dtype=torch.int64), torch.zeros(2))
    with pytest.raises(LabelError, match="num_classes is 256; allowed are 1-255"):
        ConfusionMatrix(256)


def test_matrices_of_other_class_lists_do_not_add() -> None:
    with pytest.raises(DataError, match="of 2 and 3 classes"):
        ConfusionMatrix(2).merge(ConfusionMatrix(3))


def hand_example() -> ConfusionMatrix:
    """Ten pixels: a predicted a a b; b predicted b b; c never; three void pixels predicted a a b, two b missed."""
    labels = torch.tensor([0, 0, 0, 1, 1, VOID, VOID, VOID, 1, 1])
    predictions = torch.tensor([0, 0, 1, 1, 1, 0, 0, 1, VOID, 0])
    return counted(3, labels, predictions)


def test_void_ignored_follows_cityscapes_scripts_by_hand() -> None:
    scores = hand_example().scores(["a", "b", "c"])
    # a: TP 2, FN 1, FP 1 (the last pixel); b: TP 2, FN 2, FP 1; c: nothing seen
    assert scores.iou[:2] == (2 / 4, 2 / 5)
    assert scores.miou == (2 / 4 + 2 / 5) / 2
    assert scores.accuracy[:2] == (2 / 3, 2 / 4)
    assert scores.pixel_accuracy == 4 / 7
    assert math.isnan(scores.iou[2])
    assert scores.absent == ("c",)
    assert (scores.pixels, scores.void_pixels) == (10, 3)


def test_camvid_authors_count_predictions_on_void_as_false_positives_by_hand() -> None:
    scores = hand_example().scores(["a", "b", "c"], protocol="camvid_authors")
    assert scores.iou[:2] == (2 / 6, 2 / 6)
    assert scores.miou == 1 / 3
    assert scores.accuracy[:2] == (2 / 3, 2 / 4)


def test_an_unknown_protocol_offers_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'void_ignored'"):
        ConfusionMatrix(2).scores(names(2), protocol="void_ignore")


def test_a_class_predicted_but_never_labelled_scores_zero_and_counts() -> None:
    scores = counted(2, torch.tensor([0, 0]), torch.tensor([0, 1])).scores(names(2))
    assert scores.iou == (0.5, 0.0)
    assert scores.miou == 0.25
    assert scores.mean_accuracy == 0.5


def test_nothing_but_void_gives_no_score() -> None:
    scores = counted(2, torch.full((4,), VOID), torch.zeros(4, dtype=torch.int64)).scores(names(2))
    assert math.isnan(scores.miou)
    assert scores.to_dict()["miou"] is None
    assert "absent from labels and predictions: class 0, class 1" in scores.table()


def test_class_names_must_match_the_matrix() -> None:
    with pytest.raises(DataError, match="3 class names for a confusion matrix of 2"):
        ConfusionMatrix(2).scores(names(3))


def test_the_dict_survives_strict_json() -> None:
    content = json.loads(json.dumps(hand_example().scores(["a", "b", "c"]).to_dict(), allow_nan=False))
    assert content["iou"] == [0.5, 0.4, None]
    assert content["class_names"] == ["a", "b", "c"]
    assert content["protocol"] == "void_ignored"


def test_the_table_is_aligned_and_names_protocol_and_absent_classes() -> None:
    lines = hand_example().scores(["a", "bicyclist", "c"]).table().splitlines()
    assert lines == [
        "class       IoU %   acc %",
        "-------------------------",
        "a           50.00   66.67",
        "bicyclist   40.00   50.00",
        "c               -       -",
        "-------------------------",
        "mean        45.00   58.33",
        "pixel accuracy 57.14 % of 7 px",
        "mean IoU over 2 of 3 classes, protocol void_ignored",
        "absent from labels and predictions: c",
    ]


def with_boundary() -> Scores:
    boundary = BoundaryF.of_classes((3.0, 12.5), [[0.5, 0.25, math.nan], [1.0, 0.5, math.nan]])
    return replace(hand_example().scores(["a", "bicyclist", "c"]), boundary_f=boundary)


def test_the_table_has_a_column_for_every_boundary_threshold() -> None:
    lines = with_boundary().table().splitlines()
    assert lines == [
        "class       IoU %   acc %   F 3px  F 12.5px",
        "-------------------------------------------",
        "a           50.00   66.67   50.00    100.00",
        "bicyclist   40.00   50.00   25.00     50.00",
        "c               -       -       -         -",
        "-------------------------------------------",
        "mean        45.00   58.33   37.50     75.00",
        "pixel accuracy 57.14 % of 7 px",
        "mean IoU over 2 of 3 classes, protocol void_ignored",
        "F: boundary F-score in %, mean over the images that show the class; void does not count",
        "absent from labels and predictions: c",
    ]


def test_boundary_scores_survive_strict_json() -> None:
    content = json.loads(json.dumps(with_boundary().to_dict(), allow_nan=False))
    assert content["boundary_f"] == {
        "thresholds": [3.0, 12.5],
        "per_class": [[0.5, 0.25, None], [1.0, 0.5, None]],
        "means": [0.375, 0.75],
    }


def test_all_reduce_in_one_process_changes_nothing() -> None:
    matrix = hand_example()
    assert torch.equal(matrix.all_reduce().counts, hand_example().counts)


def test_scores_equal_cityscapes_scripts(tmp_path: Path) -> None:
    evaluation = pytest.importorskip(
        "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling",
        reason="the oracle needs `pip install cityscapesscripts`",
    )
    labels_module = pytest.importorskip("cityscapesscripts.helpers.labels")
    ids = [label.id for label in labels_module.labels if not label.ignoreInEval]
    void = 0
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 20, (600,), generator=generator)
        predictions = torch.randint(0, 19, (600,), generator=generator)
        labels[labels == 19] = VOID
        matrix = evaluation.generateMatrix(evaluation.args)
        for label, prediction in zip(labels.tolist(), predictions.tolist(), strict=True):
            matrix[void if label == VOID else ids[label]][ids[prediction]] += 1
        expected = [evaluation.getIouScoreForLabel(i, matrix, evaluation.args) for i in ids]
        scores: Scores = counted(19, labels, predictions).scores(names(19))
        assert scores.iou == pytest.approx(expected, abs=1e-12)
