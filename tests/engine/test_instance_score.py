"""The iIoU by its definition, exactly, in any order and over any number of processes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from fastseg.cli import main
from fastseg.data.cityscapes import CITYSCAPES
from fastseg.data.dataset import SegDataset
from fastseg.engine.evaluate import evaluate
from fastseg.engine.instance_score import MEAN_AREAS, InstanceScore
from fastseg.errors import DataError, LabelError
from fastseg.metrics import ConfusionMatrix, InstanceIoU
from fastseg.predict import Predictor
from fastseg.types import IGNORE_INDEX
from toys import StridedModel
from trees.cityscapes import write_cityscapes
from workers import TwoProcesses

K = CITYSCAPES.num_classes
ROAD, PERSON, RIDER, CAR, TRUCK = (CITYSCAPES.class_names.index(n) for n in ("road", "person", "rider", "car", "truck"))
HUMAN, VEHICLE = 5, 6  # places of the categories
AREAS = MEAN_AREAS["cityscapes"]


class Streets(SegDataset):
    """Random images with objects of all classes that have them; sample `without` has no map of instances."""

    info = CITYSCAPES

    def __init__(self, count: int, without: int | None = None) -> None:
        self.count = count
        self.without = without
        self.maps_read: list[int] = []

    def __len__(self) -> int:
        return self.count

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(index)
        label = random.choice(np.array([*range(K), IGNORE_INDEX], np.uint8), (6 + index, 9))
        seen = np.where(random.random(label.shape) < 0.6, label, random.integers(0, K, label.shape))
        return np.repeat(seen[..., None], 3, axis=2).astype(np.uint8), label

    def load_instances(self, index: int) -> np.ndarray | None:
        self.maps_read.append(index)
        if index == self.without:
            return None
        label = self.load(index)[1]
        ids = np.array([*CITYSCAPES.official_ids, *[0] * (256 - K)], np.uint16)[label]
        number = np.random.default_rng(index).integers(0, 3, label.shape).astype(np.uint16)
        return np.where(label >= PERSON, np.where(label < K, ids * 1000 + number, ids), ids).astype(np.uint16)

    def sample_name(self, index: int) -> str:
        return f"street {index}"


class SeenPredictor:
    """Predicts the red channel."""

    model = SimpleNamespace(num_classes=K, weights_info=None)

    def predict_array(self, image: np.ndarray) -> np.ndarray:
        return image[..., 0]


def predictor() -> Predictor:
    return cast(Predictor, SeenPredictor())


def scored(label: list[list[int]], prediction: list[list[int]], instances: list[list[int]]) -> InstanceIoU:
    matrix, objects = ConfusionMatrix(K), InstanceScore(CITYSCAPES)
    matrix.update(torch.tensor(label), torch.tensor(prediction))
    objects.update(np.array(prediction, np.uint8), np.array(instances, np.uint16))
    return objects.scores(matrix)


def test_the_score_follows_its_definition_by_hand() -> None:
    found = scored(
        [[PERSON, PERSON, PERSON, PERSON, RIDER, ROAD, ROAD, 255]],
        [[PERSON, RIDER, ROAD, PERSON, RIDER, PERSON, ROAD, PERSON]],
        [[24000, 24000, 24000, 24001, 25000, 7, 7, 0]],
    )
    # two persons, of 3 pixels (1 right) and of 1 (right); one false positive, on the road; void does not count
    area = AREAS["person"]
    assert found.classes.iou[PERSON] == pytest.approx(area * (1 / 3 + 1) / (area * 2 + 1), rel=1e-14)
    assert found.classes.iou[RIDER] == pytest.approx(AREAS["rider"] / (AREAS["rider"] + 1), rel=1e-14)
    # as humans: 2 of 3 pixels of the first person are right, and the rider
    right = area * (2 / 3 + 1) + AREAS["rider"]
    assert found.categories.iou[HUMAN] == pytest.approx(right / (area * 2 + AREAS["rider"] + 1), rel=1e-14)


def test_a_small_object_weighs_as_much_as_a_large_one() -> None:
    label = [[CAR] * 9 + [ROAD]]
    instances = [[26000] * 8 + [26001, 7]]
    large_found = scored(label, [[CAR] * 8 + [ROAD] * 2], instances).classes.iou[CAR]
    small_found = scored(label, [[ROAD] * 8 + [CAR, ROAD]], instances).classes.iou[CAR]
    assert large_found == small_found == 0.5


def test_groups_have_no_share_but_what_is_predicted_there_may_be_false() -> None:
    alone = scored([[PERSON, ROAD]], [[PERSON, ROAD]], [[24000, 7]])
    with_group = scored([[PERSON, ROAD, CAR, CAR]], [[PERSON, ROAD, PERSON, CAR]], [[24000, 7, 26, 26]])
    assert alone.classes.iou[PERSON] == 1
    assert with_group.classes.iou[PERSON] == pytest.approx(AREAS["person"] / (AREAS["person"] + 1), rel=1e-14)
    assert math.isnan(with_group.classes.iou[CAR])


def test_objects_of_ids_that_are_no_class_do_not_count() -> None:
    found = scored([[255, 255, CAR]], [[CAR, CAR, CAR]], [[29000, 30001, 26000]])  # caravan, trailer
    assert found.classes.iou[CAR] == 1


def test_classes_and_categories_without_objects_have_no_score() -> None:
    found = scored([[ROAD, PERSON]], [[ROAD, PERSON]], [[7, 24000]])
    scored_classes = [k for k, each in enumerate(found.classes.iou) if not math.isnan(each)]
    assert scored_classes == [PERSON]
    assert [name for name, each in zip(found.categories.names, found.categories.iou, strict=True) if each == 1] == [
        "human"
    ]
    assert math.isnan(found.categories.iou[VEHICLE])  # nothing was seen of it
    assert found.classes.miou == found.categories.miou == 1


def test_a_category_of_which_one_class_has_no_objects_has_no_score() -> None:
    objects = InstanceScore(replace(CITYSCAPES, instance_classes=("person", "car")))
    objects.update(np.array([[PERSON]], np.uint8), np.array([[24000]], np.uint16))
    found = objects.scores(ConfusionMatrix(K))
    assert found.classes.iou[PERSON] == 1
    assert math.isnan(found.categories.iou[HUMAN])


def test_a_class_that_is_only_predicted_scores_zero() -> None:
    assert scored([[ROAD]], [[TRUCK]], [[7]]).classes.iou[TRUCK] == 0


def test_the_prediction_of_no_class_is_a_miss() -> None:
    found = scored([[CAR, CAR]], [[CAR, 200]], [[26000, 26000]])
    assert found.classes.iou[CAR] == found.categories.iou[VEHICLE] == 0.5


def test_shares_are_exact_where_floats_are_not() -> None:
    """7 objects of which a third is right: 7/21 exactly, although no float is 1/3."""
    pixels = 21
    instances = [[26000 + index // 3 for index in range(pixels)]]
    prediction = [[CAR if index % 3 == 0 else ROAD for index in range(pixels)]]
    assert scored([[CAR] * pixels], prediction, instances).classes.iou[CAR] == 1 / 3


def exact(dataset: Streets) -> list[float]:
    """The iIoU of every class in rational numbers, object by object."""
    objects = {k: Fraction(0) for k in range(K)}
    shares, wrong = dict(objects), dict(objects)
    for index in range(len(dataset)):
        image, label = dataset.load(index)
        prediction, instances = image[..., 0], dataset.load_instances(index)
        assert instances is not None
        for k in range(K):
            wrong[k] += int(((prediction == k) & (label != k) & (label != IGNORE_INDEX)).sum())
        for each in np.unique(instances[instances >= 1000]):
            k = CITYSCAPES.official_ids.index(int(each) // 1000)
            where = instances == each
            objects[k] += 1
            shares[k] += Fraction(int((prediction[where] == k).sum()), int(where.sum()))
    areas = {k: Fraction(AREAS[name]) for k, name in enumerate(CITYSCAPES.class_names) if name in AREAS}
    return [float(areas[k] * shares[k] / (areas[k] * objects[k] + wrong[k])) for k in areas]


def test_many_images_have_the_exact_score_to_the_last_digit() -> None:
    scores = evaluate(predictor(), Streets(8), instances=True)
    assert scores.instance_iou is not None
    assert [each for each in scores.instance_iou.classes.iou if not math.isnan(each)] == exact(Streets(8))


def test_the_order_of_images_changes_nothing() -> None:
    counts = []
    for order in (range(6), reversed(range(6))):
        objects, dataset = InstanceScore(CITYSCAPES), Streets(6)
        for index in order:
            instances = dataset.load_instances(index)
            assert instances is not None
            objects.update(dataset.load(index)[0][..., 0], instances)
        counts.append(objects.counts)
    assert torch.equal(*counts)


def scores_of(size: int) -> dict[str, Any]:
    return evaluate(predictor(), Streets(size), instances=True).to_dict()


def test_two_processes_have_exactly_the_scores_of_one(two_processes: TwoProcesses) -> None:
    for size in (1, 5):  # 1: the second process has no image
        alone = scores_of(size)
        assert alone["instance_iou"] is not None
        assert two_processes(scores_of, size) == [alone] * 2


def test_maps_are_not_read_unless_asked_for() -> None:
    dataset = Streets(2)
    scores = evaluate(predictor(), dataset)
    assert dataset.maps_read == []
    assert scores.instance_iou is None
    assert "instance_iou" not in scores.to_dict()


def test_a_data_set_without_maps_has_no_score() -> None:
    assert evaluate(predictor(), Streets(2, without=0), instances=True).instance_iou is None


def test_a_data_set_whose_mean_areas_are_unknown_has_no_score() -> None:
    dataset = Streets(2)
    dataset.info = replace(CITYSCAPES, name="another")
    assert evaluate(predictor(), dataset, instances=True).instance_iou is None
    for info in (dataset.info, replace(CITYSCAPES, instance_classes=("person", "sky"))):
        with pytest.raises(DataError, match=f"{info.name} has no iIoU: it is defined for cityscapes"):
            InstanceScore(info)


def test_a_missing_map_is_named_by_its_sample() -> None:
    with pytest.raises(LabelError, match=r"^street 2: there is no map of instances.*--no-instances"):
        evaluate(predictor(), Streets(3, without=2), instances=True)


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        ([[26000]], "the instance map is 1x1 and the prediction 2x1"),
        ([[26000, 11001]], "has the id 11001, but classes with objects are person, rider, car"),
    ],
)
def test_maps_that_do_not_fit_are_refused_uncounted(instances: Sequence[Sequence[int]], message: str) -> None:
    objects = InstanceScore(CITYSCAPES)
    with pytest.raises(LabelError, match=message):
        objects.update(np.zeros((1, 2), np.uint8), np.array(instances, np.uint16))
    assert not objects.counts.any()


def test_eval_of_cityscapes_shows_categories_and_instances_unless_told_not_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_cityscapes(tmp_path / "cityscapes", splits=("val",))
    monkeypatch.setattr("fastseg.cli.common.build_predictor", lambda args: Predictor(StridedModel(K), device="cpu"))
    arguments = ["eval", "--data", "cityscapes", "--root", str(root), "--split", "val"]
    assert main([*arguments, "--json", str(tmp_path / "scores.json")]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "cityscapes, val: 2 images"
    assert printed.splitlines()[1].split() == ["class", "IoU", "%", "acc", "%", "iIoU", "%"]
    assert ["category", "IoU", "%", "iIoU", "%"] in [line.split() for line in printed.splitlines()]
    content = json.loads((tmp_path / "scores.json").read_text())
    assert content["categories"]["names"] == ["flat", "construction", "object", "nature", "sky", "human", "vehicle"]
    assert len(content["instance_iou"]["classes"]["iou"]) == K
    assert main([*arguments, "--no-instances"]) == 0
    assert "iIoU" not in capsys.readouterr().out
