"""A file made to cost much costs less than 100 MB and a second: it is refused by its header, or read as it is."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

import hostile_files
from fastseg.data.matlab import read_matrix
from fastseg.data.readers import read_colour_label, read_ids, read_image, read_label
from fastseg.errors import FastsegError
from fastseg.weights.files import read_weights

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is looked at in /proc")

MOST_MB, MOST_SECONDS = 100, 1.0


def memory(key: str) -> float:
    """MB of this process: 'VmRSS' now, 'VmHWM' at most since it was last set back."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index(f"{key}:") + 1]) / 1024


def cost(read: Callable[[], object]) -> tuple[str, float, float]:
    """What reading said, the MB that it took for a while, and the processor's seconds."""
    Path("/proc/self/clear_refs").write_text("5")
    before, began = memory("VmRSS"), time.process_time()
    try:
        read()
        said = ""
    except FastsegError as error:
        said = str(error)
    return said, memory("VmHWM") - before, time.process_time() - began


def costs(kind: str, folder: Path) -> dict[str, tuple[str, float, float]]:
    """Of every hostile file of a kind, by name, in a process that did nothing before."""
    found = {}
    if kind == "images":
        for read in (read_image, read_label, read_ids, read_colour_label):
            read(hostile_files.png())  # what a first call loads is not the file's
        for name, data in hostile_files.images().items():
            for read in (read_image, read_label, read_ids, read_colour_label):
                found[f"{name} ({read.__name__})"] = cost(partial(read, data))
    elif kind == "matlab":
        for shape in ((10, 10), (40_000, 40_000)):
            data = hostile_files.matlab(shape)
            for name in ("LabelMap", "another"):
                found[f"{name} of {shape}"] = cost(partial(read_matrix, data, name))
    else:
        files = {"checkpoints": hostile_files.checkpoints, "weights": hostile_files.weights}[kind]()
        path = folder / {"checkpoints": "a.pt", "weights": "a.safetensors"}[kind]
        for name, data in files.items():
            path.write_bytes(data)
            del data
            found[name] = cost(lambda: read_weights(path))
    return found


@pytest.mark.parametrize("kind", ["images", "matlab", "checkpoints", "weights"])
def test_hostile_files_cost_little(tmp_path: Path, kind: str) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(costs, kind, tmp_path).result(timeout=200)
    assert {name: mb for name, (_, mb, _) in found.items() if mb > MOST_MB} == {}
    assert {name: seconds for name, (_, _, seconds) in found.items() if seconds > MOST_SECONDS} == {}
    assert [name for name, (said, _, _) in found.items() if not said and "too many pixels" not in name] == []
