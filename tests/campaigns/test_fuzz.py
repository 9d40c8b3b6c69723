"""`make test-fuzz`: 10,000 damaged images and thousands of other files give a result or the documented error.

They are read in processes of their own, so that a crash ends one of these and is counted. Numbers: `FUZZ=100000`.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, TimeoutError, as_completed
from concurrent.futures.process import BrokenProcessPool

import pytest

from mutations import TARGETS, Findings, fuzz

IMAGES = int(os.environ.get("FUZZ", "10000"))
COUNTS = {"images": IMAGES, "lists": IMAGES // 2, "configurations": IMAGES // 10, "weights": IMAGES // 2,
          "checkpoints": IMAGES // 2}  # fmt: skip
CHUNK = 250
PEAK_MB = 1000  # of a process, PyTorch's own 300 included


@pytest.mark.parametrize("target", [pytest.param(name, marks=[pytest.mark.slow, pytest.mark.fuzz]) for name in TARGETS])
@pytest.mark.timeout(3000)
def test_damaged_files_are_read_or_refused(target: str) -> None:
    findings, crashes = Findings(), []
    chunks = [(first, min(first + CHUNK, COUNTS[target])) for first in range(0, COUNTS[target], CHUNK)]
    while chunks:
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            jobs = {pool.submit(fuzz, target, *chunk): chunk for chunk in chunks}
            try:
                for job in as_completed(jobs, timeout=2400):
                    findings.add(job.result())
                    chunks.remove(jobs[job])
            except (BrokenProcessPool, TimeoutError) as error:
                crashes.append(f"{type(error).__name__} in {target} {chunks[0]}")
                del chunks[0]  # one of the first ones did it
    print(f"\n{target}: {COUNTS[target]} files: {findings}, {len(crashes)} crashes")
    assert not crashes
    assert findings.wrong == []
    assert findings.slow == []
    assert findings.outcomes["read"] > 0
    assert findings.outcomes["refused"] > 0 or target == "lists"  # in which any text may be names
    assert findings.peak_mb < PEAK_MB


@pytest.mark.parametrize("target", TARGETS)
def test_a_few_damaged_files_are_read_or_refused(target: str) -> None:
    findings = fuzz(target, 0, 30)
    assert findings.wrong == []
    assert sum(findings.outcomes.values()) >= 30
