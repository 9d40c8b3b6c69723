"""Reports of a run: exact CSV rows, none twice after resuming, TensorBoard only where it is installed."""

from __future__ import annotations

import csv
import errno
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fastseg.engine.record import Record

pytestmark = pytest.mark.usefixtures("no_tensorboard")


@pytest.fixture
def no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard is not installed."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


def record(folder: Path, iteration: int = 0, evaluated: int = -1, *, enabled: bool = True) -> Record:
    return Record(folder, iteration=iteration, evaluated=evaluated, total=10, enabled=enabled)


def rows(path: Path) -> list[list[str]]:
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_numbers_come_back_exactly(tmp_path: Path) -> None:
    values = {"loss": 0.1 + 0.2, "aux.x": 1e-300, "lr": float("nan")}
    report = record(tmp_path)
    report.train(1, values)
    report.evaluation(1, {"miou": 1 / 3})
    report.close()
    header = ["iteration", "loss", "aux.x", "lr"]
    assert rows(tmp_path / "train.csv") == [header, ["1", repr(0.1 + 0.2), "1e-300", "nan"]]
    assert float(rows(tmp_path / "eval.csv")[1][1]) == 1 / 3


def test_resuming_repeats_no_row(tmp_path: Path) -> None:
    first = record(tmp_path)
    for iteration in range(1, 7):
        first.train(iteration, {"loss": iteration})
    for iteration in (2, 4, 6):
        first.evaluation(iteration, {"miou": 0})
    # saved at step 4, before the evaluation that is due there
    again = record(tmp_path, iteration=4, evaluated=2)
    again.evaluation(4, {"miou": 1})
    again.train(5, {"loss": 50})
    assert rows(tmp_path / "train.csv")[1:] == [["1", "1.0"], ["2", "2.0"], ["3", "3.0"], ["4", "4.0"], ["5", "50.0"]]
    assert rows(tmp_path / "eval.csv")[1:] == [["2", "0.0"], ["4", "1.0"]]


def test_a_run_that_begins_again_has_its_own_columns(tmp_path: Path) -> None:
    record(tmp_path).train(1, {"loss": 1})
    record(tmp_path).train(1, {"loss": 1, "aux.x": 2})
    assert rows(tmp_path / "train.csv") == [["iteration", "loss", "aux.x"], ["1", "1.0", "2.0"]]


def test_a_torn_last_row_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("iteration,loss\r\n3,1.0\r\n4,2.0\r\n5")
    record(tmp_path, iteration=4)
    assert rows(tmp_path / "train.csv") == [["iteration", "loss"], ["3", "1.0"], ["4", "2.0"]]


def test_a_log_file_gets_lines_with_the_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = record(tmp_path)
    report.say("hello")
    report.train(5, {"loss": 0.123456, "lr": 0.01})
    report.advance()
    out = capsys.readouterr().out
    assert out.startswith("hello\n[5/10] loss 0.1235 lr 0.01 | 0:00 passed, 0:00 left")


def test_other_processes_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = record(tmp_path, enabled=False)
    report.say("hello")
    report.train(1, {"loss": 1})
    report.evaluation(1, {"miou": 1})
    report.advance()
    report.close()
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_a_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    report = record(tmp_path, iteration=3)
    report.train(4, {"loss": 0.5})
    report.advance()
    report.say("hello")
    report.close()
    captured = capsys.readouterr()
    assert "4/10" in captured.err
    assert "loss 0.5" in captured.err
    assert "hello" in captured.out + captured.err
    assert rows(tmp_path / "train.csv")[1] == ["4", "0.5"]


def test_tensorboard_gets_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            calls.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            calls.append((name, value, step))

        def close(self) -> None:
            calls.append("closed")

    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    report = record(tmp_path, iteration=4)
    report.train(5, {"loss": 0.5})
    report.evaluation(5, {"miou": 0.25})
    report.close()
    assert calls == [(str(tmp_path / "tensorboard"), 5), ("train/loss", 0.5, 5), ("eval/miou", 0.25, 5), "closed"]


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_costs_the_report_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = record(tmp_path)
    report.train(1, {"loss": 1})
    monkeypatch.setattr("builtins.open", full_disk)
    for iteration in (2, 3):
        report.train(iteration, {"loss": 1})
    monkeypatch.undo()
    report.train(4, {"loss": 1})
    said = capsys.readouterr().out
    assert said.count("train.csv cannot be written: No space left on device; the run goes on without") == 1
    assert [line.split()[0] for line in said.splitlines() if line.startswith("[")] == [f"[{i}/10]" for i in range(1, 5)]
    assert [row[0] for row in rows(tmp_path / "train.csv")] == ["iteration", "1", "4"]


def test_curves_that_cannot_be_written_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    board = ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = type("Full", (), {"__init__": lambda *_, **__: None, "add_scalar": full_disk})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    report = record(tmp_path)
    for iteration in (1, 2):
        report.train(iteration, {"loss": 1})
    report.close()
    assert capsys.readouterr().out.count("TensorBoard's curves cannot be written: No space left on device") == 1
    assert len(rows(tmp_path / "train.csv")) == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a file that is always full")
def test_a_log_on_a_full_disk_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdout", open("/dev/full", "w"))  # noqa: SIM115 - it cannot even be closed
        report = record(tmp_path)
        report.train(1, {"loss": 1})
        report.say("a line")
        with pytest.raises(OSError, match="No space"):
            sys.stdout.close()
    assert len(rows(tmp_path / "train.csv")) == 2
