"""Processes that load data and have no room, are killed, stand still, or wait when the run is told to stop."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fastseg.config import AugmentConfig
from fastseg.data.loader import Batch, StreamSampler, training_loader
from fastseg.data.loading import StoppedWaitingError, batches_ahead, named_failures, patiently
from fastseg.errors import LoadingError
from jobs import is_running
from toys import Numbered

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes and shared memory of Linux")

OTHERS: list[Any] = []


def start(seconds: float = 600, told: list[Exception] | None = None, dataset: Any = None) -> Iterator[Batch]:
    OTHERS[:] = multiprocessing.active_children()  # of fixtures that live as long as the session
    sampler = StreamSampler(4, batch_size=2, rank=0, world_size=1, seed=0, start=0, stop=200)
    return training_loader(
        dataset or Numbered(4), AugmentConfig(crop=(8, 10)), input_scale=1.0, seed=0, sampler=sampler, workers=1,
        pin_memory=False, give_up=lambda _: told[0] if told else None, timeout_seconds=seconds,
    )  # fmt: skip


def signalled(number: signal.Signals) -> int:
    """The one process that loads, which is sent a signal."""
    (worker,) = set(multiprocessing.active_children()) - set(OTHERS)
    assert worker.pid is not None
    os.kill(worker.pid, number)
    return worker.pid


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    room = shutil.disk_usage("/")._replace(free=size)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)


def test_what_fits_into_shared_memory_is_loaded_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 1000)
    assert [batches_ahead(2, size) for size in (100, 125, 126, 250, 251, 500)] == [4, 4, 3, 2, 1, 1]
    with pytest.raises(
        LoadingError, match=r"data\.workers=2 .*batches of 1\.0 MB need 2\.0 MB .* 0\.0 MB free; .*0 loads.*--shm-size"
    ):
        batches_ahead(2, 1_000_000)


def test_no_room_is_known_before_a_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 2 * 8 * 10 * 4 - 1)
    with pytest.raises(LoadingError, match="shared memory"):
        next(start())
    assert set(multiprocessing.active_children()) <= set(OTHERS)


def test_a_process_that_was_killed_is_named_with_its_remedy() -> None:
    batches = start()
    next(batches)
    pid = signalled(signal.SIGKILL)
    with pytest.raises(LoadingError, match=rf"was killed .*{pid}.*fewer data\.workers.*--shm-size.*--resume auto"):
        for _ in batches:
            pass


def test_torchs_word_for_a_killed_process_is_translated_wherever_it_interrupts() -> None:
    message = r"was killed \(DataLoader worker \(pid 7\) is killed by signal: Killed\)"
    with pytest.raises(LoadingError, match=message), named_failures():
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")


def test_a_connection_that_a_killed_process_leaves_is_translated_too() -> None:
    dead = multiprocessing.get_context("fork").Process(target=_killed)
    dead.start()
    dead.join()

    def reset() -> Iterator[int]:
        raise ConnectionResetError(104, "Connection reset by peer")
        yield 0

    with pytest.raises(LoadingError, match=rf"was killed \(process {dead.pid}: SIGKILL\)"):
        next(patiently(reset(), [dead]))
    with pytest.raises(ConnectionResetError):
        next(patiently(reset(), []))


def _killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_stands_still_ends_the_wait_in_time() -> None:
    batches = start(seconds=2)
    next(batches)
    pid = signalled(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(LoadingError, match=r"no process has loaded a batch for 2 s \(train\.timeout\).*\.workers"):
        for _ in batches:
            pass
    assert 2 < time.monotonic() - began < 20
    assert not is_running(pid)


class Slow(Numbered):
    """A data set that takes longer than the loader's patience for a look around."""

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(0.4)
        return super().load(index)


def test_waiting_loses_no_batch() -> None:
    quick, slow = start(), start(dataset=Slow(4))  # 0.8 s a batch
    assert [next(slow).names for _ in range(3)] == [next(quick).names for _ in range(3)]


@pytest.mark.timeout(30)
def test_who_is_told_to_stop_waits_no_longer() -> None:
    told: list[Exception] = []
    batches = start(told=told)
    next(batches)
    pid = signalled(signal.SIGSTOP)
    told.append(StoppedWaitingError())
    with pytest.raises(StoppedWaitingError):
        for _ in batches:
            pass
    assert not is_running(pid)


class Broken(Numbered):
    """A data set with a mistake of its own in it."""

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        raise RuntimeError("shapes differ")


def test_a_data_sets_own_error_is_not_taken_for_a_killed_process() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"):
        next(start(dataset=Broken(4)))


FAILING = """
import sys
from fastseg.config import AugmentConfig
from fastseg.data.loader import StreamSampler, training_loader
from fastseg.errors import DataError
from toys import Numbered
import multiprocessing, os, signal

class Torn(Numbered):
    def load(self, index):
        if sys.argv[1] == "torn" and index == 2:
            raise DataError("torn")
        return super().load(index)

def main():
    sampler = StreamSampler(4, batch_size=2, rank=0, world_size=1, seed=0, start=0, stop=200)
    batches = training_loader(Torn(4), AugmentConfig(crop=(8, 10)), input_scale=1.0, seed=0, sampler=sampler, workers=2,
                              pin_memory=False)
    for _ in batches:
        if sys.argv[1] == "killed":
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

main()
"""


@pytest.mark.parametrize("how", ["torn", "killed"])
def test_after_an_error_the_interpreter_ends(how: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", FAILING, how], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert {"torn": "DataError: torn", "killed": "LoadingError"}[how] in done.stderr


TRAINING = """
import sys
from fastseg.config import AugmentConfig
from fastseg.data.loader import StreamSampler, training_loader
from toys import Numbered
import multiprocessing, time
sampler = StreamSampler(4, batch_size=2, rank=0, world_size=1, seed=0, start=0, stop=200)
batches = training_loader(Numbered(4), AugmentConfig(crop=(8, 10)), input_scale=1.0, seed=0, sampler=sampler, workers=2,
                          pin_memory=False)
next(batches)
print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
time.sleep(60)
"""


def test_loading_processes_end_with_a_training_that_is_killed() -> None:
    training = subprocess.Popen(
        [sys.executable, "-c", TRAINING], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert training.stdout is not None
    workers = training.stdout.readline().split()
    assert len(workers) == 2
    training.kill()
    training.wait()
    deadline = time.monotonic() + 3  # torch's own look for a parent comes every 5 s
    while any(is_running(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(is_running(pid) for pid in workers)
