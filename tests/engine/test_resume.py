"""A run that stops and goes on is, bit for bit, the run that never stopped."""

from __future__ import annotations

import contextlib
import csv
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from fastseg.config import Config
from fastseg.engine import checkpoint
from fastseg.engine import train as engine
from fastseg.engine.checkpoint import load_checkpoint, save_checkpoint
from fastseg.engine.train import train
from fastseg.errors import CheckpointError
from run_differences import FINAL, STEPS, run_differences
from workers import TwoProcesses, lighten, tiny_config

pytestmark = pytest.mark.usefixtures("light_runs")


def config_of(run_dir: Path, optimizer: str, workers: int = 0) -> Config:
    config = tiny_config(run_dir)
    config.data.workers = workers
    if optimizer == "adamw":
        config.optim.name = "adamw"
        config.optim.lr = 0.001
    return config


def is_main() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


@contextlib.contextmanager
def every_checkpoint_kept() -> Iterator[None]:
    before, checkpoint.KEEP = checkpoint.KEEP, 10**6
    try:
        yield
    finally:
        checkpoint.KEEP = before


def run_whole(folder: Path, optimizer: str) -> Path:
    """The uninterrupted run, with a checkpoint of every step."""
    config = config_of(folder / "whole", optimizer)
    config.train.checkpoint_every = 1
    with every_checkpoint_kept():
        train(config)
    return folder / "whole"


def resume_at(whole: Path, step: int, run_dir: Path, optimizer: str, workers: int = 0) -> None:
    """Put `run_dir` where the run `whole` was after `step`, with logs that already go further, and go on."""
    if is_main():
        (run_dir / "checkpoints").mkdir(parents=True)
        for suffix in (".pt", ".json"):
            name = f"step_{step:08d}{suffix}"
            shutil.copy(whole / "checkpoints" / name, run_dir / "checkpoints" / name)
        for name in ("train.csv", "eval.csv"):
            shutil.copy(whole / name, run_dir / name)
        best = [load_checkpoint(path)["progress"]["best"] for path in (whole / FINAL, *run_dir.glob("*/*.pt"))]
        if best[0] == best[1]:  # made before the step
            shutil.copy(whole / "best.safetensors", run_dir)
    barrier()
    train(config_of(run_dir, optimizer, workers), resume="auto")


def sweep(folder: Path, optimizer: str, points: list[tuple[int, int]]) -> dict[Any, list[str]]:
    """Differences from an uninterrupted run after resuming it at each (step, workers)."""
    whole = run_whole(folder, optimizer)
    found: dict[Any, list[str]] = {}
    for step, workers in points:
        run_dir = folder / f"{step}_{workers}"
        resume_at(whole, step, run_dir, optimizer, workers)
        barrier()
        found[step, workers] = run_differences(whole, run_dir)
        barrier()
        if is_main():
            shutil.rmtree(run_dir)
    return found


def sweep_and_interrupt(
    folder: Path, optimizer: str, points: list[tuple[int, int]], stride: int
) -> dict[Any, list[str]]:
    """As `sweep`, and the same for a run that is told to stop at every `stride`-th step and resumed each time."""
    found = sweep(folder, optimizer, points)
    whole, run_dir = folder / "whole", folder / "interrupted"
    original, calls = engine.set_learning_rate, 0

    def signalled(*args: Any) -> None:
        nonlocal calls
        calls += 1
        told = not dist.is_initialized() or dist.get_rank() == 1  # one process is told; all stop
        if told and calls % stride == 0:
            signal.raise_signal(signal.SIGTERM)
        original(*args)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "set_learning_rate", signalled)
        for step in range(stride, STEPS, stride):
            result = train(config_of(run_dir, optimizer), resume="auto")
            assert (result.stopped, result.iterations, result.weights) == ("SIGTERM", step, None)
    train(config_of(run_dir, optimizer), resume="auto")
    barrier()
    return {**found, "interrupted": run_differences(whole, run_dir)}


EVERY_STEP = [(step, 0) for step in range(1, STEPS)]
QUICK = (1, 6, 7, 8, 13, 14, 19)  # the first, the last, and those around evaluations; `make test-slow` takes every one
BEFORE_EVALUATION = 14  # saved there before the evaluation that is due, the second of three


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run by SGD on one process."""
    with pytest.MonkeyPatch.context() as patched:
        lighten(patched)
        return run_whole(tmp_path_factory.mktemp("whole"), "sgd")


def test_the_run_has_something_to_lose(whole_run: Path) -> None:
    with open(whole_run / "train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["iteration"]) for row in rows] == list(range(1, STEPS + 1))
    assert len({row["loss"] for row in rows}) == STEPS
    with open(whole_run / "eval.csv", newline="") as file:
        assert [int(row["iteration"]) for row in csv.DictReader(file)] == [7, 14, 20]
    table = load_checkpoint(whole_run / FINAL)
    assert table["ema_updates"] == STEPS
    assert not torch.equal(table["ema"]["classifier.conv.weight"], table["model"]["classifier.conv.weight"])
    assert len(table["optimizer"]["state"]) > 100
    assert table["progress"]["evaluated"] == STEPS


@pytest.mark.parametrize(
    "step", [step if step in QUICK else pytest.param(step, marks=pytest.mark.slow) for step in range(1, STEPS)]
)
def test_resumed_at_any_step(whole_run: Path, tmp_path: Path, step: int) -> None:
    resume_at(whole_run, step, tmp_path / "resumed", "sgd")
    assert run_differences(whole_run, tmp_path / "resumed") == []


def test_resumed_with_loading_processes(whole_run: Path, tmp_path: Path) -> None:
    resume_at(whole_run, 13, tmp_path / "resumed", "sgd", workers=2)
    assert run_differences(whole_run, tmp_path / "resumed") == []


@pytest.mark.parametrize("stride", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_resumed_at_many_steps_on_two_processes(two_processes: TwoProcesses, tmp_path: Path, stride: int) -> None:
    # one chain of interruptions; the sweep of as many whole runs is among the slow tests
    points = [(BEFORE_EVALUATION, 2)]
    for found in two_processes(sweep_and_interrupt, tmp_path, "sgd", points, stride):
        assert found == {point: [] for point in [*points, "interrupted"]}


@pytest.mark.slow
def test_resumed_with_adamw(tmp_path: Path) -> None:
    assert sweep(tmp_path, "adamw", [(BEFORE_EVALUATION, 0)]) == {(BEFORE_EVALUATION, 0): []}


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resumed_at_any_step_on_two_processes(two_processes: TwoProcesses, tmp_path: Path, optimizer: str) -> None:
    points = [*EVERY_STEP, (6, 2), (13, 2)]
    for found in two_processes(sweep, tmp_path, optimizer, points):
        assert found == {point: [] for point in points}


@pytest.mark.slow
def test_resumed_at_any_step_with_adamw(tmp_path: Path) -> None:
    assert sweep(tmp_path, "adamw", EVERY_STEP) == {point: [] for point in EVERY_STEP}


def test_a_finished_run_is_only_evaluated_again(whole_run: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "resumed"
    resume_at(whole_run, STEPS, run_dir, "sgd")
    assert run_differences(whole_run, run_dir) == []


def replaced(table: dict[str, Any], key: str) -> dict[str, Any]:
    """A checkpoint in which one part is another's, mostly that of a program which forgot to save it."""
    progress = table["progress"]
    values: dict[str, Any] = {
        "model": {name: value * 0 + 0.5 for name, value in table["model"].items()},
        "ema": table["model"],
        "ema_updates": 0,
        "random": [{"cpu": torch.Generator().manual_seed(0).get_state()}],
        "optimizer": {**table["optimizer"], "state": {}},
        "progress.iteration": {**progress, "iteration": progress["iteration"] - 1},
        "progress.evaluated": {**progress, "evaluated": -1},
        "progress.best": {**progress, "best": 2.0},
    }
    return {**table, key.partition(".")[0]: values[key]}


PARTS = ["model", "ema", "ema_updates", "random", "optimizer"]


@pytest.mark.parametrize("key", [*PARTS, "progress.iteration", "progress.evaluated", "progress.best"])
def test_each_part_of_a_checkpoint_is_needed(whole_run: Path, tmp_path: Path, key: str) -> None:
    run_dir = tmp_path / "resumed"
    run_dir.mkdir()
    for name in ("train.csv", "eval.csv"):
        shutil.copy(whole_run / name, run_dir / name)
    table = load_checkpoint(whole_run / f"checkpoints/step_{BEFORE_EVALUATION:08d}.pt")
    path = save_checkpoint(tmp_path / "other", BEFORE_EVALUATION, replaced(table, key))
    train(config_of(run_dir, "sgd"), resume=str(path))
    assert run_differences(whole_run, run_dir) != []


@pytest.mark.parametrize("key", [*PARTS, "scaler", "progress", "config", "world_size"])
def test_a_checkpoint_without_a_part_is_refused(whole_run: Path, tmp_path: Path, key: str) -> None:
    table = load_checkpoint(whole_run / f"checkpoints/step_{BEFORE_EVALUATION:08d}.pt")
    del table[key]
    path = save_checkpoint(tmp_path, BEFORE_EVALUATION, table)
    with pytest.raises(CheckpointError, match=f"{path.name} lacks {key};"):
        train(config_of(tmp_path / "resumed", "sgd"), resume=str(path))
