"""The kernels in C load where they were built for this machine, and nowhere else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastseg import native

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _looked_up_anew() -> Iterator[None]:
    native.library.cache_clear()
    yield
    native.library.cache_clear()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where `native` looks for its library instead of beside itself."""
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    monkeypatch.delenv(native.SWITCH, raising=False)
    return tmp_path


def compile_version(folder: Path, version: int) -> None:
    source = folder / "module.c"
    source.write_text(f"int fastseg_native_version(void) {{ return {version}; }}\n")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(folder / "_native.so")], check=True)


def test_a_library_of_this_version_is_loaded(elsewhere: Path) -> None:
    compile_version(elsewhere, native.VERSION)
    assert native.library() is not None


def test_a_library_of_another_version_is_left_alone(elsewhere: Path) -> None:
    compile_version(elsewhere, native.VERSION + 1)
    assert native.library() is None


def test_a_file_that_is_no_library_is_left_alone(elsewhere: Path) -> None:
    (elsewhere / "_native.so").write_bytes(b"not for this machine")
    assert native.library() is None


def test_without_a_library_there_is_none(elsewhere: Path) -> None:
    assert native.library() is None


def test_the_environment_switches_the_library_off(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_version(elsewhere, native.VERSION)
    monkeypatch.setenv(native.SWITCH, "0")
    assert native.library() is None


def test_the_version_in_c_is_that_in_python() -> None:
    source = (ROOT / "fastseg" / "csrc" / "module.c").read_text()
    assert f"return {native.VERSION};" in source


def test_predictions_need_no_library() -> None:
    code = (
        "import numpy as np\n"
        "from fastseg import Predictor, native\n"
        "assert native.library() is None\n"
        "print(Predictor('fast_scnn', device='cpu').predict_array(np.zeros((40, 60, 3), np.uint8)).shape)\n"
    )
    environment = {"FASTSEG_NATIVE": "0", "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "(40, 60)", done.stderr
