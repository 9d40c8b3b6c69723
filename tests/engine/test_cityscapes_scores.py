"""Our scores are those of cityscapesScripts: on 50 random pairs, and on a tree from prediction to both evaluations.

Scores of pixels are equal as floats, being quotients of the same integers. Averages and iIoU are equal to 1e-12: theirs
are sums of floats in the order of the images.
"""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastseg.data import build_dataset
from fastseg.data.cityscapes import CITYSCAPES
from fastseg.engine.evaluate import evaluate
from fastseg.engine.instance_score import MEAN_AREAS, InstanceScore
from fastseg.engine.submit import split_images, submit
from fastseg.metrics import ConfusionMatrix, InstanceIoU, NamedIoU, Scores
from fastseg.predict import Predictor
from fastseg.types import IGNORE_INDEX
from toys import StridedModel
from trees.cityscapes import write_cityscapes

RAW_IDS = np.arange(34)
WITH_OBJECTS = range(24, 34)
VOID_PREDICTIONS = (0, 3, 4, 9, 18)  # ids that are no class; see `instance_score` for the two that count in theirs
TO_CLASS = np.full(256, IGNORE_INDEX, np.uint8)
TO_CLASS[list(CITYSCAPES.official_ids)] = np.arange(CITYSCAPES.num_classes)

Pair = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = pytest.importorskip(
        "cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling",
        reason="the oracle needs `pip install cityscapesscripts`",
    )
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # its name until NumPy 2.4, which they call
    return module


def official_scores(module: ModuleType, predictions: Sequence[Path], truth: Sequence[Path]) -> dict[str, Any]:
    """What their evaluation of image files returns."""
    args = copy.copy(module.args)
    args.quiet, args.JSONOutput = True, False
    return module.evaluateImgLists(list(map(str, predictions)), list(map(str, truth)), args)


def random_pair(seed: int) -> Pair:
    """Ids of the labels, ids of the predictions and instance ids, of blocks and single pixels; some ids are absent."""
    random = np.random.default_rng(seed)
    height, width = random.integers(5, 40, 2)
    present = random.choice(RAW_IDS, random.integers(1, 20), replace=False)
    blocks = random.choice(present, (height // 4 + 1, width // 4 + 1))
    truth = np.kron(blocks, np.ones((4, 4), int))[:height, :width]
    guesses = random.choice([*CITYSCAPES.official_ids, *VOID_PREDICTIONS], (height, width))
    right = np.isin(truth, CITYSCAPES.official_ids) & (random.random((height, width)) < random.random())
    number = random.integers(-2, 4, blocks.shape)  # below 0: a group, which has its plain id
    number = np.kron(number, np.ones((4, 4), int))[:height, :width]
    objects = np.isin(truth, WITH_OBJECTS) & (number >= 0)
    instances = np.where(objects, truth * 1000 + number, truth)
    return truth.astype(np.uint8), np.where(right, truth, guesses).astype(np.uint8), instances.astype(np.uint16)


def write_pair(folder: Path, name: str, pair: Pair) -> tuple[Path, Path]:
    """The files as they are named there; returns those of the predictions and of the labels."""
    paths = [folder / f"{name}_{ending}.png" for ending in ("gtFine_labelIds", "pred", "gtFine_instanceIds")]
    for path, pixels in zip(paths, pair, strict=True):
        Image.fromarray(pixels).save(path)
    return paths[1], paths[0]


def our_scores(pairs: Sequence[Pair]) -> tuple[Scores, InstanceIoU]:
    matrix, objects = ConfusionMatrix(CITYSCAPES.num_classes), InstanceScore(CITYSCAPES)
    for truth, predicted, instances in pairs:
        matrix.update(torch.from_numpy(TO_CLASS[truth]), torch.from_numpy(TO_CLASS[predicted]))
        objects.update(TO_CLASS[predicted], instances)
    return matrix.scores(CITYSCAPES.class_names, categories=CITYSCAPES.categories), objects.scores(matrix)


def assert_same(ours: NamedIoU, theirs: Mapping[str, float], average: float, *, tolerance: float) -> None:
    """By name; what only they have (void) has no score."""
    expected = [theirs[name] for name in ours.names]
    assert list(ours.iou) == pytest.approx(expected, rel=tolerance, abs=0, nan_ok=True)
    assert ours.miou == pytest.approx(average, rel=1e-12, abs=0, nan_ok=True)
    assert all(np.isnan(value) for name, value in theirs.items() if name not in ours.names)


def assert_all_same(scores: Scores, objects: InstanceIoU, theirs: dict[str, Any]) -> None:
    assert scores.categories is not None
    classes = NamedIoU(scores.class_names, scores.iou, scores.miou)
    assert_same(classes, theirs["classScores"], theirs["averageScoreClasses"], tolerance=0)
    assert_same(scores.categories, theirs["categoryScores"], theirs["averageScoreCategories"], tolerance=0)
    assert_same(objects.classes, theirs["classInstScores"], theirs["averageScoreInstClasses"], tolerance=1e-12)
    assert_same(objects.categories, theirs["categoryInstScores"], theirs["averageScoreInstCategories"], tolerance=1e-12)


@pytest.mark.parametrize("seed", range(50))
def test_a_random_pair_has_their_scores(seed: int, official: ModuleType, tmp_path: Path) -> None:
    pair = random_pair(seed)
    predicted, truth = write_pair(tmp_path, "a_000000_000000", pair)
    assert_all_same(*our_scores([pair]), official_scores(official, [predicted], [truth]))


def test_all_random_pairs_together_have_their_scores(official: ModuleType, tmp_path: Path) -> None:
    pairs = [random_pair(seed) for seed in range(50)]
    files = [write_pair(tmp_path, f"a_000000_{index:06d}", pair) for index, pair in enumerate(pairs)]
    scores, objects = our_scores(pairs)
    assert_all_same(scores, objects, official_scores(official, *zip(*files, strict=True)))
    assert not np.isnan(scores.iou).any()  # else the test would compare less than it says
    assert sum(not np.isnan(each) for each in objects.classes.iou) == 8
    assert sum(not np.isnan(each) for each in objects.categories.iou) == 2


def test_categories_instances_and_mean_areas_are_theirs(official: ModuleType) -> None:
    evaluated = {label.name: label for label in official.labels if not label.ignoreInEval}
    ours = zip(CITYSCAPES.class_names, CITYSCAPES.official_ids, CITYSCAPES.categories, strict=True)
    assert list(ours) == [(label.name, label.id, label.category) for label in evaluated.values()]
    assert CITYSCAPES.instance_classes == tuple(name for name, label in evaluated.items() if label.hasInstances)
    areas = {name: area for name, area in official.args.avgClassSize.items() if name in evaluated}
    assert MEAN_AREAS["cityscapes"] == areas


def test_a_tree_predicted_and_packed_has_the_same_scores_by_their_evaluator_and_ours(
    official: ModuleType, tmp_path: Path
) -> None:
    root = write_cityscapes(tmp_path / "cityscapes", splits=("val",))
    network = StridedModel(CITYSCAPES.num_classes)
    network.state_dict()["layers.1.bias"][13] += 1  # many cars, so that some of the cars are found
    predictor = Predictor(network, device="cpu")
    images = split_images(str(root), "val", partial=True)
    submit(predictor, images, tmp_path / "val.zip")
    with zipfile.ZipFile(tmp_path / "val.zip") as archive:
        archive.extractall(tmp_path / "results")

    truth = sorted((root / "gtFine" / "val").rglob("*_gtFine_labelIds.png"))
    lookup = copy.copy(official.args)
    lookup.predictionPath, lookup.predictionWalk = str(tmp_path / "results"), None
    predictions = [Path(official.getPrediction(lookup, str(path))) for path in truth]
    theirs = official_scores(official, predictions, truth)

    scores = evaluate(predictor, build_dataset("cityscapes", "val", root=str(root)), instances=True)
    assert scores.instance_iou is not None
    assert_all_same(scores, scores.instance_iou, theirs)
    assert len(truth) == len(images) == 2
    assert scores.miou > 0
    assert scores.instance_iou.classes.miou > 0
