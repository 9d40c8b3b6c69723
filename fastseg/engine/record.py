"""What a run leaves to read: lines on the terminal, CSV files, TensorBoard curves when it is installed."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastseg.atomic import write_atomically


class Record:
    """Progress of one run, written by the main process only (`enabled`).

    What cannot be written, because a disk is full, costs the report, not the run: it is said once, and left out.

    On a terminal a tqdm bar, in a log file plain lines with the time left. `train.csv` and `eval.csv` in the run
    folder get one row per report; rows after `iteration`, and scores after the iteration `evaluated`, are dropped
    first, so a resumed run does not repeat them.
    """

    def __init__(self, folder: Path, *, iteration: int, evaluated: int, total: int, enabled: bool) -> None:
        self.folder = folder
        self.enabled = enabled
        self._start, self._first, self._total = time.monotonic(), iteration, total
        self._bar: Any = None
        self._board: Any = None
        self._missing: set[str] = set()
        if not enabled:
            return
        _drop_rows_after(folder / "train.csv", iteration)
        _drop_rows_after(folder / "eval.csv", evaluated)
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=iteration, unit="it", dynamic_ncols=True)
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=iteration + 1)
        except ImportError:
            pass
        except OSError as error:
            self._lost("TensorBoard's curves", error)

    def say(self, text: str) -> None:
        """One line for the reader."""
        if self.enabled:
            if self._bar is not None:
                self._bar.write(text)
            else:
                with _no_disk_ends_the_run():
                    print(text, flush=True)

    def advance(self) -> None:
        """One step done."""
        if self._bar is not None:
            self._bar.update(1)

    def train(self, iteration: int, values: dict[str, float]) -> None:
        """Losses and rates of a step."""
        if not self.enabled:
            return
        self._write("train.csv", iteration, values)
        text = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self._bar is not None:
            self._bar.set_postfix_str(text)
            return
        elapsed = time.monotonic() - self._start
        left = elapsed / max(iteration - self._first, 1) * (self._total - iteration)
        self.say(f"[{iteration}/{self._total}] {text} | {_clock(elapsed)} passed, {_clock(left)} left")

    def evaluation(self, iteration: int, values: dict[str, float]) -> None:
        """Scores of an evaluation."""
        if self.enabled:
            self._write("eval.csv", iteration, values)

    def close(self) -> None:
        """Finish the bar and the curves."""
        if self._bar is not None:
            self._bar.close()
        if self._board is not None:
            with _no_disk_ends_the_run():
                self._board.close()

    def _write(self, name: str, iteration: int, values: dict[str, float]) -> None:
        path = self.folder / name
        row = [iteration, *(repr(float(value)) for value in values.values())]  # exact: runs are compared
        size = 0
        try:
            size = path.stat().st_size if path.exists() else 0
            with open(path, "a", newline="") as file:
                csv.writer(file).writerows([["iteration", *values]] * (size == 0) + [row])
        except OSError as error:
            self._lost(str(path), error)
            with contextlib.suppress(OSError):  # no half row: the next would stand behind it
                os.truncate(path, size)
        if self._board is not None:
            try:
                for key, value in values.items():
                    self._board.add_scalar(f"{path.stem}/{key}", value, iteration)
            except OSError as error:
                self._lost("TensorBoard's curves", error)
                self._board = None

    def _lost(self, what: str, error: OSError) -> None:
        if what not in self._missing:
            self._missing.add(what)
            self.say(f"{what} cannot be written: {error.strerror}; the run goes on without")


@contextlib.contextmanager
def _no_disk_ends_the_run() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the reader went away, and may want the run to
        raise
    except OSError:
        pass


def _drop_rows_after(path: Path, iteration: int) -> None:
    if path.exists():
        with open(path, newline="") as file:
            rows = list(csv.reader(file))
        kept = [row for row in rows[1:] if row and row[0].isdigit() and int(row[0]) <= iteration]
        if not kept:  # columns may differ from those of a run that never came to a checkpoint
            path.unlink()
            return
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows[:1] + kept)
        write_atomically(path, text.getvalue().encode())


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
