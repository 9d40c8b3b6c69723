"""Processes that load data: the room they need, and what becomes of a run when one dies or stands still."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar, cast

from fastseg.errors import LoadingError
from fastseg.parent import die_with_parent

T = TypeVar("T")
SHARED_MEMORY = Path("/dev/shm")
AHEAD = 4  # batches that a process loads before they are asked for
LOOK_SECONDS = 0.5
BURIAL_SECONDS = 2.0
REMEDY = "use fewer data.workers (0 loads in the training itself); in a container, give it --shm-size=8g"


class StoppedWaitingError(Exception):
    """The run was told to stop while it waited for a batch."""


def batches_ahead(workers: int, batch_bytes: int) -> int:
    """How many batches each process may load ahead in the shared memory that is free.

    Raises LoadingError where not even one fits: processes would be killed, or wait for ever.
    """
    if not SHARED_MEMORY.is_dir():
        return AHEAD
    free = shutil.disk_usage(SHARED_MEMORY).free
    here = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)  # processes that train on this machine, and share the room
    fitting = free // max(1, here * workers * batch_bytes)
    if fitting < 1:
        raise LoadingError(
            f"data.workers={workers} processes that load batches of {batch_bytes / 1e6:.1f} MB need "
            f"{here * workers * batch_bytes / 1e6:.1f} MB of shared memory, and {SHARED_MEMORY} has "
            f"{free / 1e6:.1f} MB free; {REMEDY}"
        )
    return min(AHEAD, fitting)


def patiently(
    batches: Iterator[T],
    workers: Collection[BaseProcess],
    *,
    give_up: Callable[[float], Exception | None] = lambda _: None,
    timeout_seconds: float = 600,
) -> Iterator[T]:
    """The items of a DataLoader's iterator, whose processes are `workers`.

    Raises what `give_up(seconds)` returns, by the seconds that none was there, and LoadingError when none came for
    `timeout_seconds`.
    """
    lookout = _Lookout(workers, give_up, timeout_seconds)
    lookout.start()
    try:
        while True:
            batch: T | None = None
            problem: Exception | None = None
            lookout.begin()
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                problem = error
            lookout.rest()
            if lookout.verdict is not None:
                raise lookout.verdict from None
            if problem is not None:
                raise _death(workers) or problem
            yield cast("T", batch)
    finally:
        lookout.end()


class _Lookout(threading.Thread):
    """Ends a wait that lasts too long by killing those who load.

    Torch's own timeout does not: it waits without end for what a process that stands still has already announced.
    """

    def __init__(
        self, workers: Collection[BaseProcess], give_up: Callable[[float], Exception | None], timeout_seconds: float
    ) -> None:
        super().__init__(name="fastseg lookout", daemon=True)
        self.verdict: Exception | None = None
        self._workers, self._give_up, self._timeout_seconds = workers, give_up, timeout_seconds
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._waited: float | None = None

    def begin(self) -> None:
        """A wait begins."""
        self._waited = 0.0

    def rest(self) -> None:
        """It is over. A verdict counts also when a batch came while it was given; its dead are buried here: for each of
        them torch interrupts this thread with a RuntimeError, which must not hit a save."""
        while self._waited is not None:
            with contextlib.suppress(RuntimeError), self._lock:
                self._waited = None
        deadline = time.monotonic() + BURIAL_SECONDS  # who waits for a dead disk cannot even be killed
        for worker in self._workers if self.verdict is not None else ():
            while worker.exitcode is None and time.monotonic() < deadline:
                with contextlib.suppress(RuntimeError):
                    worker.join(0.1)

    def run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            with self._lock:
                if self._waited is None:
                    continue
                self._waited += LOOK_SECONDS  # by looks: a clock goes on while a job is suspended
                if self._waited <= LOOK_SECONDS:
                    continue
                self.verdict = self._give_up(self._waited)
                if self.verdict is None and self._waited > self._timeout_seconds:
                    self.verdict = LoadingError(
                        f"no process has loaded a batch for {self._timeout_seconds} s (train.timeout): one stands "
                        f"still, on a disk that does not answer or for lack of shared memory{_shared_memory()}; look "
                        f"at the disk, or {REMEDY}; then go on with --resume auto"
                    )
                if self.verdict is not None:
                    for worker in self._workers:
                        worker.kill()
                    return

    def end(self) -> None:
        self._ended.set()


def end_loading(iterator: object, workers: Collection[BaseProcess]) -> None:
    """End a DataLoader's iterator and its processes now: an error on its way out may hold it, and they are deaf to the
    signal by which the interpreter would end them."""
    with contextlib.suppress(RuntimeError):
        getattr(iterator, "_shutdown_workers", lambda: None)()
    for worker in workers:
        if worker.is_alive():
            worker.kill()


@contextmanager
def named_failures() -> Iterator[None]:
    """Turn torch's word for a loading process that was killed into a LoadingError."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):  # not "Caught ... in DataLoader worker": a data set's own error
            raise
        raise _killed(str(error).splitlines()[0].rstrip(". ")) from error


def _death(workers: Collection[BaseProcess]) -> LoadingError | None:
    """The error for one of them that has ended by itself: what it leaves are broken connections of many kinds."""
    for worker in workers:
        with contextlib.suppress(RuntimeError):  # torch's word for the same
            worker.join(0.1)
        if worker.exitcode:
            number = -worker.exitcode
            end = signal.Signals(number).name if number in set(signal.Signals) else f"exit code {worker.exitcode}"
            return _killed(f"process {worker.pid}: {end}")
    return None


def _killed(what: str) -> LoadingError:
    return LoadingError(
        f"a process that loads data was killed ({what}), most often for lack of memory or of shared memory"
        f"{_shared_memory()}; {REMEDY}; then go on with --resume auto"
    )


def _shared_memory() -> str:
    if not SHARED_MEMORY.is_dir():
        return ""
    usage = shutil.disk_usage(SHARED_MEMORY)
    return f" ({SHARED_MEMORY} has {usage.free / 1e6:.0f} of {usage.total / 1e6:.0f} MB free)"


def leave_signals_to_the_training(_: int) -> None:
    """A launcher signals whole process groups: a loading process that died of it would take the last save along.

    It ends when the training is done with it, and with the training.
    """
    for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)
