"""Networks that know a void class beyond the data set's, scored by two protocols, against a count pixel by pixel."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fastseg.cli import main
from fastseg.data import notes
from fastseg.data.camvid import CAMVID, RAW_VOID
from fastseg.data.dataset import SegDataset, build_dataset
from fastseg.engine.evaluate import check_classes, evaluate
from fastseg.errors import FastsegError
from fastseg.predict import Predictor
from fastseg.types import DatasetInfo, Preprocessing, SegModel, SegOutput, WeightsInfo
from fastseg.weights import load_model

K = 11
WITH_VOID = replace(CAMVID, class_names=(*CAMVID.class_names, "void"), palette=(*CAMVID.palette, (0, 0, 0)))


class RedIsTheClass(SegModel):
    """Predicts, at each pixel, the class whose index is the red value."""

    def __init__(self, info: DatasetInfo | None, num_classes: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes or (info.num_classes if info else K)
        self.aux_heads = nn.ModuleDict()
        if info is not None:
            unit = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
            self.weights_info = WeightsInfo("red", "red", "", "", info, unit)

    def forward(self, images: Tensor) -> SegOutput:
        classes = torch.arange(self.num_classes).view(1, -1, 1, 1)
        return SegOutput(-(images[:, :1] - classes).abs(), {})


def slow_iou(labels: list[np.ndarray], predictions: list[np.ndarray], protocol: str) -> list[float]:
    """IoU of each of 11 classes; label 11 and prediction 11 are void. One pixel after the other."""
    true_positive, false_positive, false_negative = ([0] * K for _ in range(3))
    for label, prediction in zip(labels, predictions, strict=True):
        for truth, found in zip(label.ravel().tolist(), prediction.ravel().tolist(), strict=True):
            if truth == RAW_VOID:
                if protocol == "camvid_authors" and found != RAW_VOID:
                    false_positive[found] += 1
            elif found == truth:
                true_positive[truth] += 1
            else:
                false_negative[truth] += 1
                if found != RAW_VOID:
                    false_positive[found] += 1
    unions = [sum(counts) for counts in zip(true_positive, false_positive, false_negative, strict=True)]
    return [tp / union if union else math.nan for tp, union in zip(true_positive, unions, strict=True)]


def slow_histogram_iou(labels: list[np.ndarray], predictions: list[np.ndarray]) -> list[float]:
    """The authors' way: a histogram over 12 classes, void one of them, of which the first 11 are reported."""
    histogram = np.zeros((K + 1, K + 1), np.int64)
    for label, prediction in zip(labels, predictions, strict=True):
        np.add.at(histogram, (label.ravel(), prediction.ravel()), 1)
    correct = np.diag(histogram)
    return list((correct / (histogram.sum(0) + histogram.sum(1) - correct))[:K])


@pytest.fixture(scope="module")
def camvid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images in CamVid's layout: labels with void; red values that agree with about half of them."""
    root = tmp_path_factory.mktemp("camvid")
    random = np.random.default_rng(0)
    for folder in ("test", "testannot"):
        (root / folder).mkdir()
    for index in range(3):
        label = random.integers(0, K + 1, (24, 32), dtype=np.uint8)
        other = random.integers(0, K + 1, label.shape, dtype=np.uint8)
        red = np.where(random.random(label.shape) < 0.5, label, other)
        image = np.stack([red, other, other], axis=-1)
        Image.fromarray(image).save(root / "test" / f"{index}.png")
        Image.fromarray(label).save(root / "testannot" / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def dataset(camvid: Path) -> SegDataset:
    return build_dataset("camvid", "test", root=str(camvid))


@pytest.fixture(scope="module")
def arrays(camvid: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Raw labels (11 is void) and red values, which are the predictions."""
    labels = [np.asarray(Image.open(camvid / "testannot" / f"{index}.png")) for index in range(3)]
    return labels, [np.asarray(Image.open(camvid / "test" / f"{index}.png"))[..., 0] for index in range(3)]


@pytest.mark.parametrize("protocol", ["camvid_authors", "void_ignored"])
def test_scores_equal_a_count_pixel_by_pixel(
    protocol: str, dataset: SegDataset, arrays: tuple[list[np.ndarray], list[np.ndarray]]
) -> None:
    scores = evaluate(Predictor(RedIsTheClass(WITH_VOID), device="cpu"), dataset, protocol=protocol)
    expected = slow_iou(*arrays, protocol)
    assert scores.iou == tuple(expected)
    assert scores.miou == pytest.approx(sum(expected) / K, abs=1e-15)
    assert scores.class_names == CAMVID.class_names
    assert scores.pixels == 3 * 24 * 32
    assert scores.void_pixels == sum((label == RAW_VOID).sum() for label in arrays[0])


def test_the_authors_protocol_is_their_histogram_over_twelve_classes(
    dataset: SegDataset, arrays: tuple[list[np.ndarray], list[np.ndarray]]
) -> None:
    expected = slow_histogram_iou(*arrays)
    scores = evaluate(Predictor(RedIsTheClass(WITH_VOID), device="cpu"), dataset, protocol="camvid_authors")
    assert scores.iou == pytest.approx(expected, abs=1e-15)
    ignored = evaluate(Predictor(RedIsTheClass(WITH_VOID), device="cpu"), dataset)
    assert scores.miou < ignored.miou
    assert scores.accuracy == ignored.accuracy


def test_predicted_void_is_a_miss_and_not_a_hit_of_another_class(tmp_path: Path) -> None:
    """By hand: of two sky pixels one is predicted void, of two void pixels one sky, and the only road pixel void."""
    labels, predicted = [0, 0, RAW_VOID, RAW_VOID, 3], [0, RAW_VOID, 0, RAW_VOID, RAW_VOID]
    for folder, row in (("test", predicted), ("testannot", labels)):
        (tmp_path / folder).mkdir()
        values = np.array([row], np.uint8)
        image = np.stack([values] * 3, axis=-1) if folder == "test" else values
        Image.fromarray(image).save(tmp_path / folder / "a.png")
    dataset = build_dataset("camvid", "test", root=str(tmp_path))
    predictor = Predictor(RedIsTheClass(WITH_VOID), device="cpu")
    ignored, authors = evaluate(predictor, dataset), evaluate(predictor, dataset, protocol="camvid_authors")
    assert (ignored.iou[0], ignored.iou[3]) == (1 / 2, 0.0)
    assert (authors.iou[0], authors.iou[3]) == (1 / 3, 0.0)
    assert ignored.accuracy[0] == authors.accuracy[0] == 1 / 2
    assert set(ignored.absent) == set(CAMVID.class_names) - {"sky", "road"}


@pytest.mark.parametrize("protocol", ["camvid_authors", "void_ignored"])
def test_eval_scores_a_file_of_espnets_authors(
    protocol: str,
    camvid: Path,
    arrays: tuple[list[np.ndarray], list[np.ndarray]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.manual_seed(0)
    from fastseg.models import create_model
    from fastseg.weights.espnet import authors_name

    network = create_model("espnet", num_classes=12, q=1, skip_channels=19)
    state = {authors_name(name, decoder=True): tensor for name, tensor in network.state_dict().items()}
    for name, tensor in state.items():
        if name.endswith(".bias"):
            tensor.uniform_(-1, 1)  # so that several classes are predicted
    path, out = tmp_path / "authors.pth", tmp_path / "scores.json"
    torch.save(state, path)
    arguments = ["eval", str(path), "--weights-format", "espnet", "--root", str(camvid), "--protocol", protocol]
    assert main([*arguments, "--json", str(out), "--device", "cpu"]) == 0
    assert f"of 11 classes, protocol {protocol}" in capsys.readouterr().out
    predictor = Predictor(load_model(path, weights_format="espnet"), device="cpu")
    images = [np.asarray(Image.open(camvid / "test" / f"{index}.png")) for index in range(3)]
    predictions = [predictor.predict_array(image) for image in images]
    assert len(np.unique(predictions)) > 2
    content = json.loads(out.read_text())
    expected = slow_iou(arrays[0], predictions, protocol)
    assert content["iou"] == [None if math.isnan(iou) else iou for iou in expected]
    assert (content["model"], content["data"], content["protocol"]) == ("espnet", "camvid", protocol)


# --- which class lists fit


@pytest.mark.parametrize("name", ["Void", "background", "unlabelled", "un-labeled"])
def test_names_of_no_class_are_accepted_beyond_the_data_sets(name: str, dataset: SegDataset) -> None:
    info = replace(WITH_VOID, class_names=(*CAMVID.class_names, name))
    assert evaluate(Predictor(RedIsTheClass(info), device="cpu"), dataset).pixels == 3 * 24 * 32


def renamed(index: int, name: str, info: DatasetInfo = WITH_VOID) -> DatasetInfo:
    names = list(info.class_names)
    names[index] = name
    return replace(info, class_names=tuple(names))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (RedIsTheClass(renamed(11, "dog")), "predicts 12 classes and camvid11_480 has 11"),
        (RedIsTheClass(renamed(0, "heaven")), "class 0 is 'heaven' to the model and 'sky' in camvid"),
        (RedIsTheClass(renamed(3, "tree", CAMVID)), "class 3 is 'tree' to the model and 'road' in camvid"),
        (RedIsTheClass(None, 12), "predicts 12 classes and camvid11_480 has 11"),
        (RedIsTheClass(None, 10), "predicts 10 classes and camvid11_480 has 11"),
        (RedIsTheClass(replace(WITH_VOID, name="unnamed")), "predicts 12 classes and camvid11_480 has 11"),
    ],
    ids=range(6),
)
def test_other_class_lists_are_refused(model: SegModel, message: str, dataset: SegDataset) -> None:
    with pytest.raises(FastsegError, match=message):
        evaluate(Predictor(model, device="cpu"), dataset)


@pytest.mark.parametrize(
    "info",
    [
        None,
        DatasetInfo("unnamed", tuple(f"class_{index}" for index in range(K)), ()),
        renamed(6, "Sign_Symbol", CAMVID),
    ],
    ids=["no description", "numbered", "another spelling"],
)
def test_models_without_names_and_other_spellings_are_scored(info: DatasetInfo | None, dataset: SegDataset) -> None:
    assert evaluate(Predictor(RedIsTheClass(info), device="cpu"), dataset).pixels == 3 * 24 * 32


@pytest.mark.parametrize(
    ("trained_on", "names", "warned"),
    [("street", "class_{}", True), ("cells", "class_{}", False), ("street", "cell {}", False)],
)
def test_classes_that_are_only_numbered_are_not_taken_for_the_same_in_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trained_on: str, names: str, warned: bool
) -> None:
    monkeypatch.setattr(notes, "_said", set())
    info = replace(CAMVID, name="cells", class_names=tuple(names.format(index) for index in range(K)))
    check_classes(Predictor(RedIsTheClass(replace(info, name=trained_on)), device="cpu"), info)
    lines = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == warned
    if warned:
        assert lines[0].startswith("the model was trained on street and is scored on cells: names like class_0 ")
