"""Runs over a folder of images in processes that kill themselves."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from fastseg.folders import predict_files
from fastseg.journal import JOURNAL, Journal
from fastseg.predict import Predictor
from toys import NearestColor, tree

KINDS = ("ids", "overlay")


def results(folder: Path) -> dict[str, bytes]:
    """Every file but the journal, by its name."""
    return {name: data for name, data in tree(folder).items() if data is not None and name != JOURNAL}


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _predict_and_die(photos: Path, out: Path, function: str, call: int) -> None:
    """Killed before call number `call` of os.fsync or os.replace, or of a line of the journal: 'line' before it is
    written, 'half a line' in its middle."""
    calls = iter(range(10**6))

    def fatal(original: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any) -> Any:
            if next(calls) == call:
                if function == "half a line":
                    journal, line = args
                    original(journal, line[: len(line) // 2])
                _die()
            return original(*args)

        return called

    if function in ("fsync", "replace"):
        setattr(os, function, fatal(getattr(os, function)))
    else:
        Journal._write = fatal(Journal._write)  # type: ignore[method-assign]
    predict_files(Predictor(NearestColor(), device="cpu"), [photos], out, kinds=KINDS)


def killed_run(photos: Path, out: Path, function: str, call: int, *, context: BaseContext) -> None:
    """A run over `photos` that is killed there, and has come so far."""
    process = context.Process(target=_predict_and_die, args=(photos, out, function, call))  # type: ignore[attr-defined]
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
