"""`make test-soak`: long runs whose memory, open files and shared memory stay what they were.

`SOAK_STEPS` (20,000) of the smallest training, with checkpoints and evaluations; `SOAK_IMAGES` (20,000) predictions of
a folder in which every hundredth file is damaged; `SOAK_STORM` (2,000) steps of a job that is told to stop every few
seconds.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastseg.config import dump_config
from fastseg.engine import train as engine
from fastseg.engine.train import train
from fastseg.folders import predict_files
from fastseg.predict import Predictor
from jobs import Job
from run_differences import run_differences
from toys import COLORS, NearestColor
from workers import tiny_config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.soak,
    pytest.mark.timeout(6 * 3600),
    pytest.mark.skipif(sys.platform != "linux", reason="a process is looked at in /proc"),
]
STEPS = int(os.environ.get("SOAK_STEPS", "20000"))
IMAGES = int(os.environ.get("SOAK_IMAGES", "20000"))
STORM = int(os.environ.get("SOAK_STORM", "2000"))
MB_PER_1000 = 1.0  # steps


def held() -> tuple[float, int, int]:
    """MB of resident memory, open files, and files in /dev/shm."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    shared = len(list(Path("/dev/shm").iterdir())) if Path("/dev/shm").is_dir() else 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6, len(list(Path("/proc/self/fd").iterdir())), shared


def slope(values: list[float]) -> float:
    """Growth per value, of the second half: the first fills caches."""
    half = values[len(values) // 2 :]
    return statistics.linear_regression(range(len(half)), half).slope if len(half) > 1 else 0.0


def test_training_holds_what_it_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path / "run")
    config.schedule.iterations = STEPS
    config.train.checkpoint_every, config.train.eval_every, config.train.log_every = 50, 250.0, 1000
    config.data.workers = 1
    original, seen, steps = engine.set_learning_rate, [], 0

    def looked_at(*args: object) -> None:
        nonlocal steps
        if steps % 100 == 0:
            seen.append(held())
        steps += 1
        original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "set_learning_rate", looked_at)
    train(config)
    growth = 10 * slope([memory for memory, _, _ in seen])
    middle = seen[len(seen) // 2 :]
    files, shared = [files for _, files, _ in middle], [shared for _, _, shared in middle]
    print(
        f"\n{STEPS} steps: {seen[0][0]:.0f}-{seen[-1][0]:.0f} MB, {growth:.2f} MB per 1000 steps of the second half; "
        f"open files {min(files)}-{max(files)}, in /dev/shm {min(shared)}-{max(shared)}"
    )
    assert growth < MB_PER_1000
    assert max(files) - min(files) <= 2
    assert max(shared) - min(shared) <= 2


def test_a_folder_of_many_images_takes_no_more_memory_than_one_of_few(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    damaged = []
    for index in range(IMAGES):
        path = folder / f"{index:06}.png"
        if index % 100 == 50:
            path.write_bytes(b"\x89PNG\r\n\x1a\n no image")
            damaged.append(path)
        else:
            Image.fromarray(COLORS[np.full((16, 24), index % 4, np.uint8)]).save(path)
    seen: list[float] = []

    def look(finished: int, total: int, file: Path) -> None:
        if finished % 100 == 0:
            seen.append(held()[0])

    predictor = Predictor(NearestColor(), device="cpu")
    summary = predict_files(predictor, [folder], tmp_path / "out", kinds=("ids",), on_progress=look)
    print(f"\n{IMAGES} images: {seen[0]:.0f} to {seen[-1]:.0f} MB, at most {max(seen):.0f}; {len(damaged)} damaged")
    assert sorted(file for file, _ in summary.failed) == damaged
    assert len(summary.done) == IMAGES - len(damaged)
    assert max(seen) - seen[len(seen) // 10] < 50


def test_a_storm_of_stops_changes_nothing(tmp_path: Path) -> None:
    final = f"checkpoints/step_{STORM:08d}.pt"
    config = tiny_config(tmp_path / "whole")
    config.schedule.iterations = STORM
    config.train.eval_every, config.train.log_every, config.train.checkpoint_every = 250.0, 10, STORM
    config.data.workers = 1
    for name in ("whole", "stormy"):
        config.run_dir = str(tmp_path / name)
        (tmp_path / f"{name}.yaml").write_text(dump_config(config))
    with open(tmp_path / "output.txt", "w") as output:
        with Job(tmp_path / "whole.yaml", output=output) as job:
            assert job.wait(timeout=1800) == 0
        generator, stops, done = random.Random(0), 0, False
        while not done:
            with Job(tmp_path / "stormy.yaml", "--resume", "auto", output=output) as job:
                try:
                    done = job.wait(timeout=generator.uniform(5, 15)) == 0
                except subprocess.TimeoutExpired:
                    job.terminate()
                    job.wait(timeout=25)
                    stops += 1
                    assert job.processes() == {}
    said = (tmp_path / "output.txt").read_text()
    print(f"\n{STORM} steps through {stops} stops, of which {said.count('stopped by SIGTERM')} in training")
    assert said.count("stopped by SIGTERM") > 3
    assert run_differences(tmp_path / "whole", tmp_path / "stormy", final) == []
