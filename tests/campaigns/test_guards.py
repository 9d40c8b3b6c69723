"""`make test-guards`: every guard has a negative control. Take one away, and a test fails.

`guards` lists them: a guard is a piece of the code, what stands in its place when it is gone, and the tests that
then have to fail. They run in a copy of the tree. `GUARDS=journal` takes those whose name contains it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastseg
from guards import GUARDS, Guard

ROOT = Path(fastseg.__file__).parents[1]
CHOSEN = os.environ.get("GUARDS", "")
TESTS_FAILED = 1  # pytest's exit code; others tell of mistakes in this list


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree, in which guards can be taken away."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("fastseg", "tests", "configs", "exp", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "setup.py"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.mark.slow
@pytest.mark.guards
@pytest.mark.timeout(900)
@pytest.mark.parametrize("guard", [guard for guard in GUARDS if CHOSEN in guard.name], ids=lambda guard: guard.name)
def test_without_the_guard_a_test_fails(copy: Path, guard: Guard) -> None:
    file = copy / guard.file
    whole = file.read_text()
    file.write_text(whole.replace(guard.code, guard.instead))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", *guard.tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=800,
        )
    finally:
        file.write_text(whole)
    print(f"\n{guard.name}: {(done.stdout.strip().splitlines() or ['nothing'])[-1]}")
    assert done.returncode == TESTS_FAILED, done.stdout[-3000:] + done.stderr[-1000:]


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_every_guard_stands_where_the_list_says(guard: Guard) -> None:
    assert (ROOT / guard.file).read_text().count(guard.code) == 1
    assert guard.code != guard.instead
    for test in guard.tests:
        file, _, name = test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text()


def test_no_two_guards_have_one_name() -> None:
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)
