"""Memory that stays with the process: counted in page faults, in a process of its own."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from fastseg.memory import tune_cpu

ROOT = Path(__file__).resolve().parent.parent
COUNT = """
import resource
import torch
from fastseg.memory import tune_cpu

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(12 * 2**20)  # 48 MB, above what glibc keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
print(tune_cpu(), tune_cpu())
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is glibc's")
def test_large_maps_are_not_faulted_in_again() -> None:
    done = subprocess.run([sys.executable, "-c", COUNT], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    before, answers, after = done.stdout.splitlines()
    assert answers == "True True"
    pages = 10 * 48 * 2**20 // 4096
    if int(before) < pages / 2:
        pytest.skip("this system's allocator or its page size keeps the pages already")
    assert int(after) < int(before) / 10


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_elsewhere_it_does_nothing_and_says_so(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tune_cpu.cache_clear()
    monkeypatch.setattr(sys, "platform", system)
    assert tune_cpu() is False
    tune_cpu.cache_clear()


def test_it_needs_no_torch() -> None:
    code = "import sys, fastseg; fastseg.tune_cpu(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


def test_whether_pages_are_kept_is_known_and_asking_keeps_none() -> None:
    code = """
from fastseg.memory import pages_are_kept, tune_cpu
print(pages_are_kept(), pages_are_kept())
tuned = tune_cpu()
print(pages_are_kept() == tuned)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["False False", "True"], done.stderr
