"""Any order of saves, crashes, full disks and damage leaves the newest checkpoint that was whole, or a newer one."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fastseg.engine import checkpoint, resume
from fastseg.engine.checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from fastseg.engine.resume import locked
from fastseg.errors import CheckpointError, ConfigError

PLACES = (
    *[("fsync", call) for call in range(4)],  # of manifest, folder, checkpoint, folder
    *[("replace", call) for call in range(2)],
    *[("failpoint", call) for call in range(3)],
)


class _KilledError(BaseException):
    """Nothing may catch it: what would come after does not happen."""


@contextlib.contextmanager
def failing(function: str, call: int, error: BaseException) -> Iterator[None]:
    """Have call number `call` of os.fsync, os.replace or a failpoint of saving raise."""
    owner: Any = checkpoint if function == "failpoint" else os
    original: Callable[..., Any] = getattr(owner, function)
    calls = iter(range(10**6))

    def failed(*args: Any) -> Any:
        if next(calls) == call:
            raise error
        return original(*args)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, function, failed)
        yield


class Checkpoints(RuleBasedStateMachine):
    """`tables` holds what may be read back of each step, `certain` the newest that must be there."""

    def __init__(self) -> None:
        super().__init__()
        self.run_dir = Path(tempfile.mkdtemp())
        self.folder = self.run_dir / "checkpoints"
        self.step, self.version, self.certain = 0, 0, 0
        self.tables: dict[int, list[int]] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.run_dir)

    def table(self) -> dict[str, Any]:
        self.version += 1
        self.tables.setdefault(self.step, []).append(self.version)
        return {"format_version": 1, "version": self.version}

    def intact(self) -> list[Path]:
        return [path for path in sorted(self.folder.glob("step_*.pt")) if checkpoint._damage(path) is None]

    @rule(again=st.booleans())
    def save(self, again: bool) -> None:
        self.step += not (again and self.step)
        before = {path.name for path in self.intact()}
        path = save_checkpoint(self.folder, self.step, self.table())
        self.certain = self.step
        self.tables[self.step] = [self.version]
        assert {each.name for each in self.intact()} == set(sorted(before | {path.name})[-checkpoint.KEEP :])

    @rule(again=st.booleans(), place=st.sampled_from(PLACES))
    def crash(self, again: bool, place: tuple[str, int]) -> None:
        self.step += not (again and self.step)
        with failing(*place, _KilledError()), contextlib.suppress(_KilledError):
            save_checkpoint(self.folder, self.step, self.table())

    @rule(again=st.booleans(), place=st.sampled_from(PLACES[:6]))
    def fill_the_disk(self, again: bool, place: tuple[str, int]) -> None:
        self.step += not (again and self.step)
        with failing(*place, OSError(errno.ENOSPC, "No space left on device")), pytest.raises(CheckpointError):
            save_checkpoint(self.folder, self.step, self.table())

    @precondition(lambda self: len(self.intact()) >= 2)
    @rule(kind=st.sampled_from(["bit", "cut", "zeros", "no manifest"]), share=st.floats(0, 0.999))
    def damage_the_newest(self, kind: str, share: float) -> None:
        newest = self.intact()[-1]
        data = bytearray(newest.read_bytes())
        place = int(share * len(data))
        if kind == "no manifest":
            newest.with_suffix(".json").unlink()
        elif kind == "cut":
            newest.write_bytes(data[:place])
        elif kind == "bit" or not any(data[place:]):
            data[place] ^= 1
            newest.write_bytes(data)
        else:
            newest.write_bytes(data[:place] + bytes(len(data) - place))
        self.certain = int(self.intact()[-1].stem.partition("_")[2])

    @precondition(lambda self: self.step)
    @rule()
    def a_second_run_is_refused(self) -> None:
        with locked(self.run_dir), pytest.MonkeyPatch.context() as patched:
            patched.setattr(resume, "LOCK_SECONDS", 0.0)
            with pytest.raises(ConfigError, match="in use"):
                locked(self.run_dir).__enter__()

    @invariant()
    def the_newest_whole_one_is_found(self) -> None:
        if not self.certain:
            return
        found = find_checkpoint(self.folder)
        assert found is not None
        step = int(found.stem.partition("_")[2])
        assert step >= self.certain
        assert load_checkpoint(found)["version"] in self.tables[step]


class ManyCheckpoints(Checkpoints):
    """The same, for longer."""


TestCheckpoints = Checkpoints.TestCase
TestCheckpoints.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestManyCheckpoints = pytest.mark.slow(ManyCheckpoints.TestCase)
TestManyCheckpoints.settings = settings(max_examples=500, stateful_step_count=50, deadline=None)
