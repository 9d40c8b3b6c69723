"""A checkpoint that is found is the one that was saved, whatever happened to the disk or the process in between."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fastseg.engine import checkpoint
from fastseg.engine.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from fastseg.errors import CheckpointError, MissingFileError


def table(iteration: int) -> dict[str, Any]:
    return {"format_version": 1, "iteration": iteration, "weight": torch.full((50,), float(iteration))}


def save(folder: Path, *iterations: int) -> Path:
    for iteration in iterations:
        path = save_checkpoint(folder, iteration, table(iteration))
    return path


def found(folder: Path) -> int:
    """The iteration that resuming would go on from."""
    path = find_checkpoint(folder)
    assert path is not None
    loaded = load_checkpoint(path)
    assert torch.equal(loaded["weight"], table(loaded["iteration"])["weight"])
    return int(loaded["iteration"])


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = save(tmp_path / "new" / "folder", 7)
    assert path.name == "step_00000007.pt"
    assert found(path.parent) == 7


def test_two_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 5, 10, 15, 20)
    names = ["step_00000015.json", "step_00000015.pt", "step_00000020.json", "step_00000020.pt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_an_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path) is None
    assert find_checkpoint(tmp_path / "missing") is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none\.pt does not exist"):
        load_checkpoint(tmp_path / "none.pt")


def test_the_old_one_is_deleted_only_after_the_new_one_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, 2)
    original = checkpoint.write_atomically

    def lying_disk(path: Path, data: bytes) -> None:
        original(path, data[:-1] + b"x" if path.suffix == ".pt" else data)

    monkeypatch.setattr(checkpoint, "write_atomically", lying_disk)
    with pytest.raises(CheckpointError, match="does not read back.*older checkpoints are kept"):
        save(tmp_path, 3)
    assert (tmp_path / "step_00000001.pt").exists()
    assert found(tmp_path) == 2


def damaged(tmp_path: Path, damage: Callable[[bytes], bytes]) -> list[str]:
    """Damage the newest of two checkpoints; what resuming says then. It must go on from the one before."""
    newest = save(tmp_path, 1, 2)
    newest.write_bytes(damage(newest.read_bytes()))
    lines: list[str] = []
    path = find_checkpoint(tmp_path, say=lines.append)
    assert path is not None
    assert load_checkpoint(path)["iteration"] == 1
    with pytest.raises(CheckpointError, match=newest.name):
        load_checkpoint(newest)
    return lines


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_falls_back(tmp_path: Path, share: float) -> None:
    (line,) = damaged(tmp_path, lambda data: data[: int(len(data) * share)])
    assert "step_00000002.pt" in line
    assert "bytes instead of" in line


@pytest.mark.parametrize("zeros", [1, 100, 1000])
def test_a_zero_tail_falls_back(tmp_path: Path, zeros: int) -> None:
    (line,) = damaged(tmp_path, lambda data: data[:-zeros] + bytes([data[-zeros] ^ 1]) + bytes(zeros - 1))
    assert "SHA-256" in line


def test_every_flipped_bit_is_seen(tmp_path: Path) -> None:
    newest = save(tmp_path, 1, 2)
    intact = newest.read_bytes()
    for position in range(0, len(intact), 7):
        flipped = bytearray(intact)
        flipped[position] ^= 1 << (position % 8)
        newest.write_bytes(flipped)
        assert found(tmp_path) == 1, position


@pytest.mark.parametrize("manifest", [None, "", "{", "[]", '{"bytes": 3}', "null"])
def test_a_file_without_its_manifest_does_not_count(tmp_path: Path, manifest: str | None) -> None:
    newest = save(tmp_path, 1, 2)
    newest.with_suffix(".json").unlink()
    if manifest is not None:
        newest.with_suffix(".json").write_text(manifest)
    assert found(tmp_path) == 1


def test_damage_everywhere_is_an_error_that_lists_it(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    for path in tmp_path.glob("*.pt"):
        path.write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=r"no intact checkpoint.*step_00000002.*step_00000001.*another run_dir"):
        find_checkpoint(tmp_path)


KILLED_SAVE = """
import os, signal, sys
from pathlib import Path
import torch
from fastseg.engine.checkpoint import save_checkpoint

folder, failpoint, iteration = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
name, number = failpoint.split(":")
calls, original = 0, getattr(os, name)
def fatal(*args, **kwargs):
    global calls
    calls += 1
    if calls == int(number):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)

torch.set_num_threads(1)
if os.fork() == 0:  # several deaths for one import of torch
    setattr(os, name, fatal)
    save_checkpoint(folder, iteration, {
        "format_version": 1, "iteration": iteration, "weight": torch.full((50,), float(iteration))})
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.wait()[1]) % 256)
"""
# a save: manifest (fsync, replace, fsync of the folder), file (the same), then the oldest is unlinked
FAILPOINTS = [*(f"fsync:{n}" for n in range(1, 5)), "replace:1", "replace:2", "unlink:1", "unlink:2"]


def killed_saves(folder: Path) -> dict[str, tuple[int, int]]:
    """Exit status of a save of step 3, and the step found afterwards, by the system call that killed it."""
    results = {}
    for failpoint in FAILPOINTS:
        copy = folder / failpoint.replace(":", "_")
        save(copy, 1, 2)
        status = in_child(lambda copy=copy: save(copy, 3), failpoint)  # type: ignore[misc]
        results[failpoint] = (status, found(copy))
        # and the next save is as good as any, and leaves nothing behind
        save(copy, 4)
        assert found(copy) == 4
        assert not list(copy.glob(".*.tmp"))
    return results


def in_child(action: Callable[[], Any], failpoint: str) -> int:
    """Exit status of `action` in a forked process that kills itself at the n-th call of a function of `os`."""
    name, number = failpoint.split(":")
    pid = os.fork()
    if pid == 0:
        original, calls = getattr(os, name), [0]

        def fatal(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == int(number):
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(os, name, fatal)
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
