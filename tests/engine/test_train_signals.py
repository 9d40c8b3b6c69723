"""Runs that are told to stop, or killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from fastseg.config import Config, dump_config
from fastseg.data import loader
from fastseg.engine import saving
from fastseg.engine import train as engine
from fastseg.engine.checkpoint import find_checkpoint, load_checkpoint
from fastseg.engine.step import StepResult
from fastseg.engine.train import TrainResult, train
from fastseg.errors import ImageReadError
from fastseg.weights.files import read_weights
from jobs import Job
from workers import TwoProcesses, column, lighten, short_config

pytestmark = pytest.mark.usefixtures("light_runs")


def stop_at_call(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, number: signal.Signals) -> None:
    """Have the n-th call (from 0) of a function send this process a signal first."""
    original, calls = getattr(owner, name), iter(range(10**6))

    def signalled(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            signal.raise_signal(number)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, signalled)


def evaluated_config(run_dir: Path) -> Config:
    config = short_config(run_dir)
    config.train.eval_every = 1.0  # every 2 steps
    config.train.checkpoint_every = 3
    return config


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 4 steps that no signal reaches."""
    with pytest.MonkeyPatch.context() as patched:
        lighten(patched)
        return train(evaluated_config(tmp_path_factory.mktemp("whole"))).run_dir


@pytest.mark.parametrize(
    ("owner", "name", "call", "number", "stopped_at"),
    [
        (loader, "augment", 4, signal.SIGTERM, 3),  # while the first image of the third step is made
        (engine.Predictor, "predict_array", 0, signal.SIGINT, 2),  # in the evaluation at step 2
        (engine.Predictor, "predict_array", 4, signal.SIGTERM, 4),  # in the evaluation at step 4, the last
        (saving, "save_checkpoint", 0, signal.SIGUSR1, 4),  # while the checkpoint of step 3 is written
    ],
    ids=["loading", "evaluation", "last_evaluation", "saving"],
)
def test_a_signal_saves_and_the_run_goes_on_as_if_nothing_was(
    tmp_path: Path, whole_run: Path, owner: Any, name: str, call: int, number: signal.Signals, stopped_at: int
) -> None:
    run_dir = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patched:
        stop_at_call(patched, owner, name, call, number)
        result = train(evaluated_config(run_dir))
    assert result == TrainResult(run_dir, stopped_at, None, None, number.name)
    assert not (run_dir / "last.safetensors").exists()
    assert train(evaluated_config(run_dir), resume="auto").stopped == ""
    for file in ("train.csv", "eval.csv"):
        assert (run_dir / file).read_text() == (whole_run / file).read_text()
    mine, whole = (read_weights(folder / "last.safetensors").state for folder in (run_dir, whole_run))
    assert all(torch.equal(mine[key], whole[key]) for key in whole)
    assert column(run_dir, "iteration", "eval.csv") == [2, 4]


def test_a_signal_to_the_loading_processes_too_costs_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = short_config(tmp_path / "run", steps=30)  # more than are loaded ahead
    config.data.workers = 2
    others = set(multiprocessing.active_children())
    original, calls = engine.set_learning_rate, iter(range(100))

    def signalled(*args: Any) -> None:
        call = next(calls)
        if call == 3:
            for child in set(multiprocessing.active_children()) - others:  # as torchrun does with a process group
                os.kill(child.pid or 0, signal.SIGTERM)
        if call == 20:
            signal.raise_signal(signal.SIGTERM)
        original(*args)

    monkeypatch.setattr(engine, "set_learning_rate", signalled)
    result = train(config)
    assert (result.stopped, result.iterations) == ("SIGTERM", 21)


def test_a_run_that_accumulates_goes_on_at_its_place(tmp_path: Path) -> None:
    def config(name: str) -> Config:
        config = short_config(tmp_path / name)
        config.train.total_batch, config.train.accumulate = 4, 2
        return config

    train(config("whole"))
    with pytest.MonkeyPatch.context() as patched:
        stop_at_call(patched, engine, "set_learning_rate", 1, signal.SIGTERM)
        assert train(config("stopped")).iterations == 2
    train(config("stopped"), resume="auto")
    for file in ("train.csv", "eval.csv"):
        assert (tmp_path / "stopped" / file).read_text() == (tmp_path / "whole" / file).read_text()


def test_a_signal_before_the_first_step_takes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at_call(monkeypatch, engine.build, "build_optimizer", 0, signal.SIGTERM)
    config = short_config(tmp_path / "run")
    assert train(config) == TrainResult(tmp_path / "run", 0, None, None, "SIGTERM")
    assert train(config, resume="auto").iterations == 4


def test_a_signal_saves_while_no_batch_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = short_config(tmp_path / "run", steps=30)
    config.data.workers = 1
    others = set(multiprocessing.active_children())
    original, calls = engine.set_learning_rate, iter(range(100))

    def signalled(*args: Any) -> None:
        if next(calls) == 3:
            (child,) = set(multiprocessing.active_children()) - others
            os.kill(child.pid or 0, signal.SIGSTOP)
            threading.Timer(2.0, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
        original(*args)

    monkeypatch.setattr(engine, "set_learning_rate", signalled)
    result = train(config)
    assert result.stopped == "SIGTERM"
    assert 3 <= result.iterations < 15  # those that were loaded ahead
    assert (
        find_checkpoint(tmp_path / "run/checkpoints") == tmp_path / f"run/checkpoints/step_{result.iterations:08d}.pt"
    )


def damaged_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The image that the fourth step begins with is damaged."""
    original, calls = loader.augment, iter(range(10**6))

    def augment(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == 6:
            raise ImageReadError("a.png is damaged; fetch it again")
        return original(*args, **kwargs)

    monkeypatch.setattr(loader, "augment", augment)


def test_what_cannot_be_loaded_costs_no_step(
    tmp_path: Path, whole_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = tmp_path / "run"
    config = evaluated_config(run_dir)
    config.train.checkpoint_every = 1000
    with pytest.MonkeyPatch.context() as patched:
        damaged_image(patched)
        with pytest.raises(ImageReadError, match=r"a\.png is damaged"):
            train(config)
    assert "[3/4] saved; once it is mended, go on with --resume auto" in capsys.readouterr().out
    assert train(config, resume="auto").stopped == ""
    for file in ("train.csv", "eval.csv"):
        assert (run_dir / file).read_text() == (whole_run / file).read_text()


def test_a_failure_ends_the_loading_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = short_config(tmp_path / "run", steps=30)
    config.data.workers = 2
    others = set(multiprocessing.active_children())
    started: set[object] = set()

    def fail(*_: Any, **__: Any) -> StepResult:
        started.update(set(multiprocessing.active_children()) - others)
        raise RuntimeError("a step failed")

    monkeypatch.setattr(engine, "backward", fail)
    with pytest.raises(RuntimeError, match="a step failed") as failure:
        train(config)
    assert len(started) == 2
    assert not started & set(multiprocessing.active_children())  # Python would wait for them for ever
    del failure  # held the frames until here, as an error that ends the program does


def train_stopped_in_evaluation(config: Config) -> tuple[TrainResult, Any]:
    """A signal reaches process 1 in the final evaluation."""
    with pytest.MonkeyPatch.context() as patched:
        if dist.get_rank() == 1:
            stop_at_call(patched, engine.Predictor, "predict_array", 0, signal.SIGTERM)
        result = train(config)
    dist.barrier()
    table = load_checkpoint(Path(config.run_dir) / "checkpoints/step_00000002.pt")
    return result, table["progress"]


def test_a_signal_to_one_process_in_the_final_evaluation_stops_both(
    tmp_path: Path, two_processes: TwoProcesses
) -> None:
    config = short_config(tmp_path / "run", steps=2)
    for result, progress in two_processes(train_stopped_in_evaluation, config):
        assert result == TrainResult(tmp_path / "run", 2, None, None, "SIGTERM")
        assert progress == {"iteration": 2, "evaluated": -1, "best": -1.0}


@pytest.mark.slow
@pytest.mark.parametrize("kill", ["launcher", "everyone", "one worker"])
def test_a_job_that_is_killed_goes_on(tmp_path: Path, kill: str) -> None:
    config = short_config(tmp_path / "run", steps=300)
    config.data.workers = 1
    config.train.checkpoint_every = 5
    (tmp_path / "tiny.yaml").write_text(dump_config(config))
    with Job(tmp_path / "tiny.yaml") as job:
        job.wait_for("[12/300]")
        workers = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
        if kill == "launcher":
            job.terminate()
        elif kill == "everyone":  # as a batch system does; the launcher passes its own signal on
            for pid in [job.pid, *map(int, workers)]:
                os.kill(pid, signal.SIGTERM)
        else:
            os.kill(int(workers[-1]), signal.SIGKILL)
        output, _ = job.communicate(timeout=25)  # torchrun kills at 30
    assert job.returncode != 0
    saved = find_checkpoint(tmp_path / "run/checkpoints")
    assert saved is not None
    step = int(saved.stem.partition("_")[2])
    if kill == "one worker":
        assert step % 5 == 0
    else:
        assert f"stopped by SIGTERM at iteration {step}; go on with --resume auto" in output
    assert 10 <= step < 300
    with Job(tmp_path / "tiny.yaml", "--resume", "auto") as job:
        job.wait_for(f"[{step + 1}/300]")
        job.terminate()
        job.communicate(timeout=60)
