"""Disks that are full cost a checkpoint, and the run only when they stay full."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fastseg.engine import checkpoint
from fastseg.engine import train as engine
from fastseg.engine.checkpoint import find_checkpoint, load_checkpoint
from fastseg.engine.saving import check_room
from fastseg.engine.train import train
from fastseg.errors import CheckpointError
from workers import TwoProcesses, column, short_config

pytestmark = pytest.mark.usefixtures("light_runs")


def full_disk(patched: pytest.MonkeyPatch, *steps: int) -> None:
    """Have checkpoints of these steps not be written."""
    write = checkpoint.write_atomically

    def refused(path: Path, data: bytes, **options: Any) -> None:
        if any(path.stem == f"step_{step:08d}" for step in steps):
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise CheckpointError(f"{path} cannot be written: {error}")
        write(path, data, **options)

    patched.setattr(checkpoint, "write_atomically", refused)


def train_on_a_full_disk(run_dir: Path, *steps: int) -> list[int]:
    """Train six steps, with a checkpoint of each where there is room. Returns the steps that were saved in the end."""
    config = short_config(run_dir, steps=6)
    config.train.checkpoint_every = 1
    with pytest.MonkeyPatch.context() as patched:
        full_disk(patched, *steps)
        train(config)
    return sorted(load_checkpoint(path)["progress"]["iteration"] for path in (run_dir / "checkpoints").glob("*.pt"))


def test_a_run_goes_on_without_two_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_on_a_full_disk(tmp_path / "run", 2, 3, 5) == [4, 6]
    said = capsys.readouterr().out
    assert "[2] no checkpoint; 2 more of these in a row and the run ends" in said
    assert "[3] no checkpoint; 1 more" in said
    assert "[5] no checkpoint; 2 more" in said
    assert column(tmp_path / "run", "iteration") == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("steps", [(3, 4, 5), (6,)], ids=["three in a row", "the last"])
def test_a_disk_that_stays_full_ends_the_run_and_what_was_saved_stays(tmp_path: Path, steps: tuple[int, ...]) -> None:
    with pytest.raises(CheckpointError, match=rf"step_0000000{steps[-1]}.*No space left"):
        train_on_a_full_disk(tmp_path / "run", *steps)
    assert find_checkpoint(tmp_path / "run/checkpoints") == tmp_path / f"run/checkpoints/step_0000000{steps[0] - 1}.pt"


def test_weights_that_cannot_be_written_cost_a_line_and_the_last_ones_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, refused = engine.save_weights, ["best", "last"]

    def sometimes(path: Path, *args: Any) -> Path:
        if path.stem in refused:
            refused.remove(path.stem)
            raise CheckpointError(f"{path} cannot be written: No space left on device")
        return write(path, *args)

    monkeypatch.setattr(engine, "save_weights", sometimes)
    config = short_config(tmp_path / "run", steps=4)
    config.train.eval_every = 1.0
    with pytest.raises(CheckpointError, match=r"last\.safetensors cannot be written"):
        train(config)
    assert "[2] no best weights; 2 more of these in a row and the run ends" in capsys.readouterr().out
    table = load_checkpoint(tmp_path / "run/checkpoints/step_00000004.pt")
    assert table["progress"]["best"] == column(tmp_path / "run", "miou", "eval.csv")[1]  # the first is on no disk
    assert (tmp_path / "run/best.safetensors").exists()
    assert train(config, resume="auto").weights == tmp_path / "run/last.safetensors"


def refused_on_all(run_dir: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        train_on_a_full_disk(run_dir, 1, 2, 3)
    return str(error.value)


def test_all_processes_end_when_the_first_cannot_save(tmp_path: Path, two_processes: TwoProcesses) -> None:
    one, other = two_processes(refused_on_all, tmp_path / "run")
    assert one == other
    assert "step_00000003" in one


def test_too_little_room_is_known_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = shutil.disk_usage(tmp_path)._replace(free=20_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    with pytest.raises(
        CheckpointError, match=r"has 20 MB free or in older checkpoints, and 2 checkpoints .* about 58 MB; .*run_dir"
    ):
        train(short_config(tmp_path / "run"))
    assert not (tmp_path / "run/train.csv").exists()


def test_room_is_counted_for_what_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(1000, 1000, bias=False)  # 4 MB
    for free, optimizer, average, enough in (
        (36_000_000, "sgd", False, True),  # the network and its momentum, and three weights files, three times
        (35_999_999, "sgd", False, False),
        (47_999_999, "adamw", False, False),
        (60_000_000, "adamw", True, True),
    ):
        room = shutil.disk_usage(tmp_path)._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _, room=room: room)
        if enough:
            check_room(tmp_path, model, optimizer, average=average)
        else:
            with pytest.raises(CheckpointError, match="MB free"):
                check_room(tmp_path, model, optimizer, average=average)


def test_checkpoints_that_stand_already_are_no_new_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").mkdir()
    for step in (1, 2):
        (tmp_path / f"checkpoints/step_{step:08d}.pt").write_bytes(bytes(8_000_000))
    (tmp_path / "best.safetensors").write_bytes(bytes(4_000_000))
    room = shutil.disk_usage(tmp_path)._replace(free=16_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    check_room(tmp_path, torch.nn.Linear(1000, 1000, bias=False), "sgd", average=False)
