"""Jobs of two processes that are interrupted and compared with one that nobody interrupted."""

from __future__ import annotations

import functools
import time
from pathlib import Path

from fastseg.config import Config, dump_config
from jobs import Job
from workers import tiny_config

SECONDS = 25  # within which a job has to end once it is told to or lost a part; torchrun's own limit is 30


def job_config(run_dir: Path) -> Config:
    config = tiny_config(run_dir)
    config.train.checkpoint_every = 3
    config.data.workers = 1
    return config


def start(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> Job:
    """Two processes, whose words go to a file."""
    file = folder / "config.yaml"
    if not file.exists():
        file.write_text(dump_config(job_config(folder / "run")))
    with open(folder / "output.txt", "a") as output:
        return Job(file, *arguments, output=output, environment=environment)


def wait_for_all(job: Job) -> float:
    """Until nothing of the job is left; the seconds that took."""
    began = time.monotonic()
    job.wait(timeout=120)
    while job.processes():
        assert time.monotonic() - began < 120, "orphans"
        time.sleep(0.1)
    return time.monotonic() - began


@functools.cache
def whole_run(base: Path) -> Path:
    """The run that nobody interrupted, made once in a session's folder of temporary files."""
    folder = base / "uninterrupted"
    folder.mkdir()
    with start(folder) as job:
        assert job.wait(timeout=200) == 0, (folder / "output.txt").read_text()
    return folder / "run"
