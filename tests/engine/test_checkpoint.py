"""A checkpoint that is found is the one that was saved, whatever happened to the disk or the process in between."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fastseg.engine import checkpoint
from fastseg.engine.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint, set_aside
from fastseg.errors import CheckpointError, FastsegError, MissingFileError


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


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    (tmp_path / "step_00000003.pt").mkdir()
    shutil.copy(tmp_path / "step_00000002.json", tmp_path / "step_00000003.json")
    said: list[str] = []
    newest = find_checkpoint(tmp_path, say=said.append)
    assert newest is not None
    assert newest.name == "step_00000002.pt"
    assert "step_00000003.pt: it cannot be read (Is a directory)" in said[0]
    save(tmp_path, 4)
    assert found(tmp_path) == 4


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

    def lying_disk(path: Path, data: bytes, error: type[FastsegError]) -> None:
        original(path, data[:-1] + b"x" if path.suffix == ".pt" else data, error=error)

    monkeypatch.setattr(checkpoint, "write_atomically", lying_disk)
    with pytest.raises(CheckpointError, match=r"does not read back.*older checkpoints are kept"):
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


def killed_at(failpoint: str, action: Callable[[], Any]) -> int:
    """Exit status of `action` in a forked process that kills itself at the n-th call of a function of `os`."""
    name, number = failpoint.split(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads do not survive; the child needs none
        pid = os.fork()
    if pid == 0:
        original, calls = getattr(os, name), [0]

        def fatal(*args: Any) -> Any:
            calls[0] += 1
            if calls[0] == int(number):
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args)

        setattr(os, name, fatal)
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# in order: the manifest is synchronised, put in place, its folder synchronised; then the same for the file itself
@pytest.mark.parametrize(
    ("failpoint", "expected"),
    [("fsync:1", 2), ("replace:1", 2), ("fsync:2", 2), ("fsync:3", 2), ("replace:2", 2), ("fsync:4", 3)],
)
def test_kill_9_while_saving_leaves_the_one_before(tmp_path: Path, failpoint: str, expected: int) -> None:
    save(tmp_path, 1, 2)
    assert killed_at(failpoint, lambda: save(tmp_path, 3)) == -signal.SIGKILL
    assert found(tmp_path) == expected
    save(tmp_path, 4)  # the next save is as good as any, and sweeps up
    assert found(tmp_path) == 4
    assert not list(tmp_path.glob(".*.tmp"))
    assert len(list(tmp_path.glob("*.pt"))) == 2


@pytest.mark.parametrize("failpoint", ["fsync:1", "replace:1", "fsync:2", "fsync:3", "replace:2", "fsync:4"])
def test_kill_9_while_saving_a_step_again_leaves_that_step(tmp_path: Path, failpoint: str) -> None:
    # as at the end of a run: saved, evaluated, saved again; the first may be the only checkpoint there is
    path = save(tmp_path, 2)
    later = {**table(2), "evaluated": 2}
    assert killed_at(failpoint, lambda: save_checkpoint(tmp_path, 2, later)) == -signal.SIGKILL
    assert find_checkpoint(tmp_path) == path
    assert load_checkpoint(path).get("evaluated") == (2 if failpoint == "fsync:4" else None)
    path.write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="no intact checkpoint"):
        find_checkpoint(tmp_path)


def test_damage_is_not_taken_for_what_is_replaced(tmp_path: Path) -> None:
    path = save(tmp_path, 1, 2)
    path.write_bytes(b"junk")
    assert killed_at("replace:2", lambda: save(tmp_path, 2)) == -signal.SIGKILL
    assert found(tmp_path) == 1


def test_a_save_never_deletes_itself_or_what_is_newer(tmp_path: Path) -> None:
    save(tmp_path, 200, 300, 100, 150)
    assert sorted(path.stem for path in tmp_path.glob("*.pt")) == [f"step_00000{n}" for n in (100, 150, 200, 300)]
    assert [path.name for path in set_aside(tmp_path, 150)] == [f"set_aside_step_00000{n}.pt" for n in (200, 300)]
    assert found(tmp_path) == 150
    assert load_checkpoint(tmp_path / "set_aside_step_00000300.pt")["iteration"] == 300


def test_a_damaged_one_is_not_among_the_two_that_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, 2).write_bytes(b"junk")
    save(tmp_path, 3).write_bytes(b"junk")
    assert found(tmp_path) == 1
    save(tmp_path, 4)
    (tmp_path / "step_00000004.json").unlink()
    assert found(tmp_path) == 1
    save(tmp_path, 5, 6)
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["step_00000005.pt", "step_00000006.pt"]


def test_a_full_disk_is_named_and_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, 2)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        with pytest.raises(CheckpointError, match=r"step_00000003.* cannot be written .*MB.*No space left.*free space"):
            save(tmp_path, 3)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert found(tmp_path) == 2


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("not a folder")
    with pytest.raises(CheckpointError, match=r"checkpoints"):
        save(tmp_path / "checkpoints", 1)
    assert (tmp_path / "checkpoints").read_text() == "not a folder"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    save(tmp_path, 1)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(CheckpointError, match=r"step_00000002.* cannot be written.*Permission denied"):
            save(tmp_path, 2)
        assert found(tmp_path) == 1
    finally:
        tmp_path.chmod(0o755)


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {canary}",)

    path = save_checkpoint(tmp_path, 1, {"format_version": 1, "weight": Malicious()})
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_checkpoint(path)
    assert not canary.exists()
