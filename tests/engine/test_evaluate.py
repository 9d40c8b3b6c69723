"""Evaluation counts every image once: alone, over two processes, with more processes than images."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn

from fastseg.data.dataset import SegDataset
from fastseg.engine.boundary_score import BoundaryScore
from fastseg.engine.evaluate import EvaluationStoppedError, evaluate, write_json
from fastseg.errors import ConfigError, DataError, FastsegError, LabelError, OutputError, UnknownNameError
from fastseg.metrics import ConfusionMatrix
from fastseg.pipeline import AHEAD
from fastseg.predict import Predictor
from fastseg.types import DatasetInfo, SegModel, SegOutput
from workers import TwoProcesses

K = 3
INFO = DatasetInfo("toy", ("a", "b", "c"), ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
BAD = 77


class Toy(SegDataset):
    """Random images of differing sizes; labels hold void. Sample `bad` has a value that is no class."""

    info = INFO

    def __init__(self, size: int, bad: int | None = None) -> None:
        self.count = size
        self.bad = bad
        self.loaded: list[int] = []
        self.threads: set[int] = set()

    def __len__(self) -> int:
        return self.count

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        self.loaded.append(index)
        self.threads.add(threading.get_ident())
        random = np.random.default_rng(index)
        shape = (5 + index, 7)
        label = random.choice(np.array([0, 1, 2, 255], np.uint8), shape)
        if index == self.bad:
            label[0, :2] = BAD
        label.flags.writeable = False  # as decoded images are
        return random.integers(0, 256, (*shape, 3), dtype=np.uint8), label

    def sample_name(self, index: int) -> str:
        return f"toy {index}"


class RedPredictor:
    """Predicts the red channel modulo 4: every class, and 3, which is none."""

    def __init__(self, num_classes: int = K) -> None:
        self.model = SimpleNamespace(num_classes=num_classes, weights_info=None)

    def predict_array(self, image: np.ndarray) -> np.ndarray:
        return image[..., 0] % 4


class RedGreenBlue(SegModel):
    """A network whose logits are its input: predicts the strongest channel."""

    num_classes = K

    def __init__(self) -> None:
        super().__init__()
        self.aux_heads = nn.ModuleDict()

    def forward(self, images: Tensor) -> SegOutput:
        return SegOutput(images, {})


def predictor(num_classes: int = K) -> Predictor:
    return cast(Predictor, RedPredictor(num_classes))


def expected(size: int, protocol: str = "void_ignored") -> dict[str, Any]:
    """What one matrix over all images gives."""
    matrix, dataset = ConfusionMatrix(K), Toy(size)
    for index in range(size):
        image, label = dataset.load(index)
        matrix.update(torch.tensor(label), torch.tensor(RedPredictor().predict_array(image)))
    return matrix.scores(INFO.class_names, protocol).to_dict()


def outcome(*args: Any, **kwargs: Any) -> dict[str, Any]:
    try:
        return evaluate(*args, **kwargs).to_dict()
    except (FastsegError, EvaluationStoppedError) as error:
        return {"error": type(error).__name__, "message": str(error)}


def two_ranks(rank: int, folder: str) -> None:
    """Everything that needs two processes, in one start of them."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    results: dict[str, Any] = {"loaded": []}
    for size in range(1, 6):
        dataset = Toy(size)
        results[f"size {size}"] = outcome(predictor(), dataset)
        results["loaded"].append(sorted(dataset.loaded))
    results["authors"] = outcome(predictor(), Toy(3), protocol="camvid_authors")
    results["limit"] = outcome(predictor(), Toy(5), limit=3)
    results["bad sample"] = outcome(predictor(), Toy(4, bad=1))
    results["stopped"] = outcome(predictor(), Toy(4), should_stop=lambda: rank == 1)
    results["after"] = outcome(predictor(), Toy(2))
    Path(folder, f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.spawn(two_ranks, args=(str(folder),), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def as_json(content: Any) -> Any:
    """Tuples as lists."""
    return json.loads(json.dumps(content))


@pytest.mark.parametrize("size", range(1, 6))
def test_two_processes_score_exactly_as_one(ranks: list[dict[str, Any]], size: int) -> None:
    alone = as_json(outcome(predictor(), Toy(size)))
    assert alone == as_json(expected(size))
    assert [rank[f"size {size}"] for rank in ranks] == [alone, alone]


def scored(size: int) -> tuple[dict[str, Any], list[int]]:
    dataset = Toy(size)
    return outcome(predictor(), dataset), sorted(dataset.loaded)


@pytest.mark.parametrize("count", [2, 3])
def test_any_number_of_images_on_any_number_of_processes_scores_as_on_one(
    count: int, two_processes: TwoProcesses, three_processes: TwoProcesses
) -> None:
    for size in range(1, 18):
        results = {2: two_processes, 3: three_processes}[count](scored, size)
        assert [scores for scores, _ in results] == [expected(size)] * count
        assert sorted(index for _, loaded in results for index in loaded) == list(range(size))


def test_a_pixel_that_is_not_counted_is_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    update, calls = ConfusionMatrix.update, iter(range(9))
    monkeypatch.setattr(ConfusionMatrix, "update", lambda *args: update(*args) if next(calls) else None)
    with pytest.raises(RuntimeError, match=r"counted \d+ of \d+ pixels in 2 of 2 images"):
        evaluate(predictor(), Toy(2))


def test_each_image_is_read_by_one_process_once(ranks: list[dict[str, Any]]) -> None:
    for size, shares in enumerate(zip(*(rank["loaded"] for rank in ranks), strict=True), start=1):
        assert sorted(index for share in shares for index in share) == list(range(size))
    assert ranks[1]["loaded"][0] == []  # one image: the second process has none


def test_protocol_and_limit_hold_across_processes(ranks: list[dict[str, Any]]) -> None:
    assert [rank["authors"] for rank in ranks] == [as_json(expected(3, "camvid_authors"))] * 2
    assert [rank["limit"] for rank in ranks] == [as_json(expected(3))] * 2


def test_a_bad_sample_on_one_rank_ends_the_evaluation_on_both(ranks: list[dict[str, Any]]) -> None:
    assert ranks[1]["bad sample"]["error"] == "LabelError"
    assert "toy 1" in ranks[1]["bad sample"]["message"]
    assert ranks[0]["bad sample"]["error"] == "DistributedError"
    assert "failed on 1 of 2 processes" in ranks[0]["bad sample"]["message"]


def test_a_stop_on_one_rank_gives_no_score_on_any(ranks: list[dict[str, Any]]) -> None:
    assert [rank["stopped"]["error"] for rank in ranks] == ["EvaluationStoppedError"] * 2
    assert ranks[0]["stopped"]["message"] == "stopped after 2 of 4 images"


def test_the_processes_still_agree_after_an_error_and_a_stop(ranks: list[dict[str, Any]]) -> None:
    assert [rank["after"] for rank in ranks] == [as_json(expected(2))] * 2


def test_every_pixel_is_counted() -> None:
    scores = evaluate(predictor(), Toy(4))
    assert scores.pixels == sum((5 + i) * 7 for i in range(4))
    assert scores.class_names == INFO.class_names


def test_a_network_behind_a_predictor_scores_what_its_labels_are() -> None:
    network = Predictor(RedGreenBlue(), device="cpu")
    matrix, dataset = ConfusionMatrix(K), Toy(2)
    for index in range(2):
        image, label = dataset.load(index)
        matrix.update(torch.tensor(label), torch.tensor(network.predict_array(image)))
    assert evaluate(network, dataset).to_dict() == matrix.scores(INFO.class_names).to_dict()


def test_protocols_differ_where_labels_are_void() -> None:
    ignored, authors = evaluate(predictor(), Toy(3)), evaluate(predictor(), Toy(3), protocol="camvid_authors")
    assert authors.to_dict() == expected(3, "camvid_authors")
    assert authors.miou < ignored.miou
    assert authors.pixel_accuracy == ignored.pixel_accuracy


def boundary_scores(size: int) -> dict[str, Any]:
    return evaluate(predictor(), Toy(size), boundary_thresholds=(1, 2.5)).to_dict()


def test_boundary_scores_are_those_of_all_images_beside_unchanged_others() -> None:
    boundary, dataset = BoundaryScore(K, (1, 2.5)), Toy(3)
    for index in range(3):
        image, label = dataset.load(index)
        boundary.update(label, RedPredictor().predict_array(image))
    scores = evaluate(predictor(), Toy(3), boundary_thresholds=(1, 2.5))
    assert scores.boundary_f == boundary.scores()
    assert scores.boundary_f.thresholds == (1, 2.5)
    content = scores.to_dict()
    assert content.pop("boundary_f") == {key: as_json(value) for key, value in vars(boundary.scores()).items()}
    assert content == expected(3)


def test_two_processes_have_exactly_the_boundary_scores_of_one(two_processes: TwoProcesses) -> None:
    for size in (1, 5):  # 1: the second process has no image
        assert two_processes(boundary_scores, size) == [boundary_scores(size)] * 2


def test_boundary_scores_are_not_computed_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundaryScore, "update", lambda *_: pytest.fail("computed"))
    scores = evaluate(predictor(), Toy(1))
    assert scores.boundary_f is None
    assert "boundary_f" not in scores.to_dict()


def test_a_threshold_that_is_no_distance_is_refused_before_anything_is_read() -> None:
    dataset = Toy(2)
    with pytest.raises(ConfigError, match="boundary thresholds are 3, 0; give distances"):
        evaluate(predictor(), dataset, boundary_thresholds=(3, 0))
    assert dataset.loaded == []


def test_a_limit_takes_the_first_images_and_reads_no_more() -> None:
    dataset = Toy(10)
    assert evaluate(predictor(), dataset, limit=2).to_dict() == expected(2)
    assert sorted(dataset.loaded) == [0, 1]
    assert evaluate(predictor(), Toy(2), limit=100).to_dict() == expected(2)


def test_progress_counts_up_to_the_total() -> None:
    calls: list[tuple[int, int]] = []
    evaluate(predictor(), Toy(3), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_stopping_reads_only_a_bounded_number_of_images() -> None:
    dataset = Toy(100)
    with pytest.raises(EvaluationStoppedError, match="after 0 of 100 images"):
        evaluate(predictor(), dataset, should_stop=lambda: True)
    assert len(dataset.loaded) <= AHEAD + 1


def test_images_are_read_outside_the_thread_that_predicts() -> None:
    dataset = Toy(3)
    evaluate(predictor(), dataset)
    assert threading.get_ident() not in dataset.threads
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_a_bad_label_is_named_by_its_sample() -> None:
    with pytest.raises(LabelError, match=r"^toy 2: labels have values \{77: 2 px\}"):
        evaluate(predictor(), Toy(4, bad=2))


def test_class_counts_that_differ_are_both_named_before_anything_is_read() -> None:
    dataset = Toy(2)
    with pytest.raises(FastsegError, match="the model predicts 19 classes and toy has 3"):
        evaluate(predictor(19), dataset)
    assert dataset.loaded == []


def test_a_misspelt_protocol_is_refused_before_anything_is_read() -> None:
    dataset = Toy(2)
    with pytest.raises(UnknownNameError, match="void_ignored"):
        evaluate(predictor(), dataset, protocol="void_ignore")
    assert dataset.loaded == []


def test_nothing_to_evaluate_is_an_error() -> None:
    with pytest.raises(DataError, match="limit is 0; give at least 1"):
        evaluate(predictor(), Toy(2), limit=0)
    with pytest.raises(DataError, match="toy has no samples"):
        evaluate(predictor(), Toy(0))


def test_json_holds_scores_and_context(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "eval.json"
    write_json(path, evaluate(predictor(), Toy(2)), model="toy", checkpoint=Path("best.pt"))
    content = json.loads(path.read_text())
    assert content == {"model": "toy", "checkpoint": "best.pt", **as_json(expected(2))}
    assert [item.name for item in path.parent.iterdir()] == ["eval.json"]


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "eval.json"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        write_json(path, evaluate(predictor(), Toy(1)))
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["eval.json"]


def test_json_context_cannot_hide_a_score_and_folders_are_kept(tmp_path: Path) -> None:
    scores = evaluate(predictor(), Toy(1))
    with pytest.raises(OutputError, match="context keys miou, pixels are scores"):
        write_json(tmp_path / "eval.json", scores, miou=0.9, pixels=1)
    with pytest.raises(OutputError, match="is not a file"):
        write_json(tmp_path, scores)
