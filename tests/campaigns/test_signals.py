"""`make test-kill`: jobs that are told to stop at 30 random moments save, end in time, and go on exactly.

Each of SIGTERM, SIGINT and SIGUSR1, to the launcher or to one of its two processes, from their start to their end.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from fastseg.engine.checkpoint import find_checkpoint
from jobs import Job
from run_differences import run_differences
from small_jobs import SECONDS, start, wait_for_all, whole_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.kill,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc"),
]
MOMENTS = 30
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
WHOM = ("launcher", "0", "1")


def tell(job: Job, number: signal.Signals, whom: str) -> None:
    """Send the signal, to a process as soon as there is one."""
    while job.poll() is None:
        try:
            os.kill(job.pid if whom == "launcher" else job.process_of(int(whom)), number)
        except (ValueError, ProcessLookupError):
            time.sleep(0.1)
        else:
            return


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_run(tmp_path_factory.getbasetemp())


def test_a_job_that_is_told_to_stop_at_any_moment_goes_on_as_if_nothing_was(tmp_path: Path, whole: Path) -> None:
    generator = random.Random(0)
    exact, saved, slowest = 0, 0, 0.0
    for moment in range(MOMENTS):
        folder = tmp_path / str(moment)
        folder.mkdir()
        number, whom, seconds = SIGNALS[moment % 3], WHOM[moment // 3 % 3], generator.uniform(1, 14)
        with start(folder) as job:
            time.sleep(seconds)
            tell(job, number, whom)
            slowest = max(slowest, wait_for_all(job))
        output = (folder / "output.txt").read_text()
        stopped = re.search(r"stopped by \w+ at iteration (\d+)", output)
        if stopped:
            saved += 1
            newest = find_checkpoint(folder / "run/checkpoints")
            assert newest is not None
            assert newest.stem == f"step_{int(stopped[1]):08d}", f"{number.name} to {whom} after {seconds:.2f} s"
        with start(folder, "--resume", "auto") as again:
            assert again.wait(timeout=300) == 0, (folder / "output.txt").read_text()
        different = run_differences(whole, folder / "run")
        assert different == [], f"{number.name} to {whom} after {seconds:.2f} s"
        exact += 1
    print(f"\n{exact} of {MOMENTS} exact; {saved} told in training saved, no step lost; at most {slowest:.1f} s to end")
    assert saved >= MOMENTS // 4
    assert slowest < SECONDS
