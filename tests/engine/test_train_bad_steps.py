"""Steps whose loss or gradient is not finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from fastseg.config import Config
from fastseg.engine import train as engine
from fastseg.engine.checkpoint import find_checkpoint, load_checkpoint
from fastseg.engine.step import StepResult
from fastseg.engine.train import BAD_STEPS_ALLOWED, train
from fastseg.errors import FastsegError
from fastseg.losses import LossTerm, SegLoss
from fastseg.types import IGNORE_INDEX
from workers import TwoProcesses, column, short_config

pytestmark = pytest.mark.usefixtures("light_runs")


def poisoned(steps: range, ranks: tuple[int, ...] = (0,)) -> Callable[..., dict[str, LossTerm]]:
    """`SegLoss.__call__` that returns NaN at some calls on some ranks."""
    original, calls = SegLoss.__call__, iter(range(10**6))

    def call(self: SegLoss, output: Any, labels: Tensor) -> dict[str, LossTerm]:
        terms = original(self, output, labels)
        if next(calls) in steps and (dist.get_rank() if dist.is_initialized() else 0) in ranks:
            terms["main"] = LossTerm(terms["main"].total * float("nan"), terms["main"].normalizer)
        return terms

    return call


def train_poisoned(config: Config) -> dict[str, Any]:
    """Steps that were skipped, whether the final state is finite, and a weight to compare."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SegLoss, "__call__", poisoned(range(1, 2), ranks=(1,)))
        patched.setattr(engine.Record, "say", lambda _, text: said.append(text))
        train(config)
    dist.barrier()
    table = load_checkpoint(Path(config.run_dir) / "checkpoints/step_00000004.pt")
    return {
        "skipped": [text for text in said if "step skipped" in text],
        "losses": column(Path(config.run_dir), "loss"),
        "finite": all(bool(torch.isfinite(v).all()) for kind in ("model", "ema") for v in table[kind].values()),
        "updates": table["ema_updates"],
    }


def test_a_bad_loss_on_one_process_skips_the_step_on_all(tmp_path: Path, two_processes: TwoProcesses) -> None:
    for found in two_processes(train_poisoned, short_config(tmp_path / "run")):
        (line,) = found["skipped"]
        assert line.startswith("[1/4] loss or gradient not finite, step skipped; lr ")
        assert line.count("train_00000") == 2  # both processes' images are named
        assert [loss != loss for loss in found["losses"]] == [False, True, False, False]
        assert found["finite"]
        assert found["updates"] == 3


def test_a_bad_gradient_skips_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = engine.backward, iter(range(100))

    def backward(model: torch.nn.Module, *args: Any, **kwargs: Any) -> StepResult:
        result = original(model, *args, **kwargs)
        if next(calls) == 1:
            gradient = next(model.parameters()).grad
            assert gradient is not None
            gradient[0] = float("inf")
        return result

    monkeypatch.setattr(engine, "backward", backward)
    train(short_config(tmp_path / "run"))
    table = load_checkpoint(tmp_path / "run/checkpoints/step_00000004.pt")
    assert all(bool(torch.isfinite(value).all()) for value in table["model"].values())
    assert table["ema_updates"] == 3


@pytest.mark.parametrize("name", ["classifier.conv.weight", "classifier.dsconv1.pointwise.bn.running_var"])
def test_weights_that_overflow_end_the_run_before_they_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    original, calls = torch.optim.SGD.step, iter(range(100))

    def step(self: torch.optim.SGD, *args: Any) -> None:
        original(self, *args)
        if next(calls) == 2:
            models[0].state_dict()[name].view(-1)[0] = float("inf")

    models: list[torch.nn.Module] = []
    convert = engine.convert_norm

    def converted(model: torch.nn.Module, norm: Any) -> torch.nn.Module:
        models.append(convert(model, norm))
        return models[0]

    monkeypatch.setattr(engine, "convert_norm", converted)
    monkeypatch.setattr(torch.optim.SGD, "step", step)
    averages: list[dict[str, Tensor]] = []
    monkeypatch.setattr(engine, "WeightAverage", _recorded(engine.WeightAverage, averages))
    config = short_config(tmp_path / "run", steps=6)
    config.train.checkpoint_every = 1
    with pytest.raises(FastsegError, match=r"not finite after step 3 with lr .*lower optim\.lr \(now 0\.02\)"):
        train(config)
    newest = find_checkpoint(tmp_path / "run/checkpoints")
    assert newest is not None
    assert newest.name == "step_00000002.pt"
    assert all(bool(torch.isfinite(value).all()) for value in averages[0].values())


def _recorded(original: type[engine.WeightAverage], states: list[dict[str, Tensor]]) -> Callable[..., Any]:
    def build(*args: Any) -> engine.WeightAverage:
        average = original(*args)
        states.append(average.state)
        return average

    return build


def test_ten_bad_steps_in_a_row_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SegLoss, "__call__", poisoned(range(2, 100)))
    config = short_config(tmp_path / "run", steps=15)
    config.train.checkpoint_every = 1
    with pytest.raises(FastsegError, match=r"10 steps in a row were not finite; lower optim\.lr \(now 0\.02\)"):
        train(config)
    newest = find_checkpoint(tmp_path / "run/checkpoints")
    assert newest is not None
    assert newest.name == "step_00000002.pt"  # from before, and nothing of the bad steps


def test_nine_bad_steps_in_a_row_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = range(1, BAD_STEPS_ALLOWED)
    monkeypatch.setattr(SegLoss, "__call__", poisoned(bad))
    assert train(short_config(tmp_path / "run", steps=12)).iterations == 12


def test_a_batch_of_nothing_but_void_is_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = SegLoss.__call__, iter(range(100))

    def call(self: SegLoss, output: Any, labels: Tensor) -> dict[str, LossTerm]:
        return original(self, output, labels.fill_(IGNORE_INDEX) if next(calls) == 1 else labels)

    monkeypatch.setattr(SegLoss, "normalizers", lambda *_: None)  # they would be counted before the labels change
    monkeypatch.setattr(SegLoss, "__call__", call)
    train(short_config(tmp_path / "run"))
    losses = column(tmp_path / "run", "loss")
    assert losses[1] == 0
    assert all(loss > 0 for loss in losses[:1] + losses[2:])
    table = load_checkpoint(tmp_path / "run/checkpoints/step_00000004.pt")
    assert table["ema_updates"] == 4  # the step counts


def test_fp16_overflow_is_a_bad_step_and_not_a_silent_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = short_config(tmp_path / "run", steps=20)
    config.train.precision = "fp16"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "all_finite", lambda gradients: False)
        with pytest.raises(FastsegError, match="10 steps in a row were not finite"):
            train(config)
    assert "step skipped" in capsys.readouterr().out


def test_a_good_step_between_bad_ones_counts_them_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call, good, calls = poisoned(range(100)), SegLoss.__call__, iter(range(100))
    monkeypatch.setattr(
        SegLoss, "__call__", lambda *args: (good if next(calls) == BAD_STEPS_ALLOWED - 1 else call)(*args)
    )
    with pytest.raises(FastsegError, match="10 steps in a row"):
        train(short_config(tmp_path / "run", steps=30))
    assert len(column(tmp_path / "run", "loss")) == 2 * BAD_STEPS_ALLOWED - 1
