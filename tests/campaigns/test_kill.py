"""`make test-kill`: jobs of two processes that are killed anywhere go on, and end bit for bit as if nothing had been.

50 points: every named place of the code (`fastseg.failpoints`), each of the two processes and their launcher, and
random moments. After every one the job is started again with `--resume auto` and its end is compared with that of a
job that nobody killed: network, average, optimiser, random state, losses, scores and weight files.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from fastseg.engine.checkpoint import find_checkpoint
from fastseg.failpoints import NAMES
from jobs import Job
from run_differences import run_differences
from small_jobs import SECONDS, start, wait_for_all, whole_run

pytestmark = [pytest.mark.slow, pytest.mark.kill]

# places that only the main process comes to
MAINS = {
    "best weights written",
    "manifest written",
    "checkpoint written",
    "checkpoints pruned",
    "last weights written",
}
MOMENTS = 12


def points() -> list[tuple[str, str]]:
    """Where and whom: (failpoint:count, '0', '1' or 'launcher'), and (seconds, whom)."""
    found = []
    for name in NAMES:
        many = name in ("batch loaded", "gradients ready", "step done", "image evaluated")
        counts = {"manifest written": [1, 3], "checkpoint written": [1, 4]}.get(name, [5] if many else [1])
        for count in counts:
            found += [(f"{name}:{count}", whom) for whom in ("0", "1", "launcher") if whom != "1" or name not in MAINS]
    generator = random.Random(0)
    whom = ("0", "1", "launcher")
    return found + [(f"{generator.uniform(6, 14):.2f} s", whom[index % 3]) for index in range(MOMENTS)]


def kill_later(job: Job, seconds: float, whom: str) -> None:
    time.sleep(seconds)
    os.kill(job.pid if whom == "launcher" else job.process_of(int(whom)), signal.SIGKILL)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(tmp_path_factory.getbasetemp())


@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
@pytest.mark.parametrize(("point", "whom"), points())
def test_a_job_that_is_killed_ends_as_if_nothing_was(tmp_path: Path, whole: Path, point: str, whom: str) -> None:
    at_a_place = ":" in point
    rank = {"launcher": "0"}.get(whom, whom)
    environment = {"FASTSEG_KILL_AT": point, "FASTSEG_KILL_RANK": rank} if at_a_place else {}
    if at_a_place and whom == "launcher":
        environment["FASTSEG_KILL_WHOM"] = "launcher"
    with start(tmp_path, environment=environment) as job:
        if at_a_place:
            job.wait(timeout=200)
        else:
            kill_later(job, float(point.split()[0]), whom)
        assert wait_for_all(job) < SECONDS
    output = (tmp_path / "output.txt").read_text()
    if at_a_place:
        assert job.returncode != 0, f"nobody came to {point}\n{output}"
    if any((tmp_path / "run/checkpoints").glob("*.pt")):
        assert find_checkpoint(tmp_path / "run/checkpoints") is not None
    with start(tmp_path, "--resume", "auto") as again:
        assert again.wait(timeout=300) == 0, (tmp_path / "output.txt").read_text()
    assert run_differences(whole, tmp_path / "run") == []


def test_every_place_is_tried_and_there_are_fifty_points() -> None:
    assert {point.rpartition(":")[0] for point, _ in points() if ":" in point} == set(NAMES)
    assert len(points()) >= 50
