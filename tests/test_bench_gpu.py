"""The GPU's benchmark: its rows can be made anywhere, and it says so where there is no GPU."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

CPU = torch.device("cpu")
PATH = Path(__file__).resolve().parent.parent / "tools" / "bench_gpu.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_gpu", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def short(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tool, "WARMUP", 1)


def test_without_a_gpu_it_says_so_and_ends_with_2(
    tool: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tool.main(["fast_scnn", "--write", str(tmp_path / "table.md")]) == 2
    out = capsys.readouterr()
    assert out.err.startswith("no GPU: torch ")
    assert out.out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "1024"], "--size is '1024'; give HEIGHTxWIDTH"),
        (["fast_scn"], "did you mean 'fast_scnn'"),
        (["--rounds", "0"], "--rounds is 0; give 1 or more"),
    ],
)
def test_mistakes_are_named(
    tool: ModuleType, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        tool.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_row_has_four_times_images_a_second_and_the_papers_speed(tool: ModuleType) -> None:
    line = tool.row("fast_scnn", "fp32", (64, 128), 2, CPU)
    times = r"(\d+\.\d{3} \| ){4}"
    assert re.fullmatch(rf"\| `fast_scnn` \| fp32 \| {times}\*\*\d+\.\d\*\* \| 123.5 \(1024x2048\) \|\n", line)


def test_the_kernels_table_compares_every_way_with_the_floor(tool: ModuleType) -> None:
    table = tool.kernel_table((64, 128), 2, CPU, amount=1 << 20)
    lines = [line for line in table.splitlines() if line.startswith(("| regions", "| random"))]
    assert len(lines) == 6
    assert f"{(19 * 8 * 16 * 4 + 64 * 128) / 1e6:.1f} MB" in table
