"""`fastseg bench`: what it prints and writes, and what it says of a request that cannot be met."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from fastseg import atomic
from fastseg.cli import main
from fastseg.engine import bench as engine
from fastseg.engine.bench_job import Job, JobTimes, VariantTimes
from fastseg.errors import OutputError

SECONDS = {"plain argmax": 0.5, "plain max": 0.3, "fp32": 0.05, "bf16": 0.025}


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Measure with numbers of our own, and keep what was asked for."""
    asked: list[Job] = []

    def fake(job: Job, limit: float) -> JobTimes:
        asked.append(job)
        if job.model == "espnet":
            return JobTimes(error=f"stopped after the limit of {limit:.0f} s")
        variants = {name: VariantTimes([SECONDS[name]] * 3, {"network": [0.01] * 3}, 1.0) for name in job.variants}
        return JobTimes(1_138_051, 19, 6_713_204_736, {"fp32": 5e11, "bf16": 1e12}, {"PNG": [0.04]}, variants)

    whole = engine.bench
    monkeypatch.setattr(engine, "bench", lambda *args, **kwargs: whole(*args, **kwargs, measure=fake))
    return asked


def test_variants_and_ratios_are_printed(jobs: list[Job], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--precision", "fp32", "bf16", "--baseline", "--threads", "2", "--no-own-process"]) == 0
    text = capsys.readouterr().out
    assert "fast_scnn, random weights, 1024x2048, 2 threads" in text
    assert "floor of the network: fp32 26.9 ms, bf16 13.4 ms" in text
    assert "shares of equal labels are no guide" in text
    (line,) = [line for line in text.split("taking turns")[1].splitlines() if line.startswith("bf16")]
    assert line.split() == ["bf16", "20.00", "12.00", "100.0000"]
    assert jobs == [Job("fast_scnn", ("plain argmax", "plain max", "fp32", "bf16"), 1024, 2048, threads=2)]


def test_files_hold_the_rows_and_the_command_that_made_them(
    jobs: list[Job], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {kind: tmp_path / f"zoo.{kind}" for kind in ("json", "csv", "markdown")}
    options = [text for kind, path in files.items() for text in (f"--{kind}", str(path))]
    assert main(["bench", "--model", "fast_scnn", "espnet*", "--size", "64x96", *options]) == 1  # espnet fails
    assert [job.model for job in jobs] == ["fast_scnn", "fast_scnn", "espnet_c", "espnet_c", "espnet"]
    found = json.loads(files["json"].read_text())
    assert found["rows"][-1]["error"] == "stopped after the limit of 600 s"
    command = "fastseg bench --model fast_scnn 'espnet*' --size 64x96"
    assert found["machine"]["command"].startswith(command)
    assert command in files["markdown"].read_text()
    lines = files["csv"].read_text().splitlines()
    assert any(line.startswith(f"# command: {command}") for line in lines)
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert [row["model"] for row in rows] == ["fast_scnn", "espnet_c", "espnet"]
    assert main(["bench", *options]) == 2
    assert "exists already; replace it with --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "fast_scn"], "no model matches 'fast_scn'; did you mean 'fast_scnn'"),
        (["--size", "0x0"], "--size is '0x0'; give HEIGHTxWIDTH"),
        (["--size", "1024"], "--size is '1024'; give HEIGHTxWIDTH"),
        (["--precision", "fp16"], "fp16 is for GPUs"),
        (["--precision", "int8"], "unknown precision 'int8'"),
        (["--runtime", "tensorrt"], "unknown runtime 'tensorrt'"),
        (["--threads", "0"], "--threads is 0"),
        (["--seconds", "0"], "--seconds is 0.0"),
        (["--rounds", "0"], "--rounds is 0"),
        (["--limit", "-1"], "--limit is -1.0"),
        (["--input-scale", "1"], "--input-scale is 1.0; it goes with --weights"),
        (["--classes", "0"], "--classes is 0"),
        (["--device", "cuda:99"], "--device cuda:99 cannot be used"),
        (["--weights", "kitti"], "no weights 'kitti'"),
        (["--json", "a", "--csv", "a"], "name the same file"),
        (["--all", "--model", "fast_scnn"], "not allowed with argument"),
    ],
)
def test_mistakes_are_answered_in_one_line_before_anything_is_measured(
    jobs: list[Job], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not jobs


@pytest.mark.parametrize("folder", ["street.jpg", "street.jpg/new", "/proc"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(
    folder: str, jobs: list[Job], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if folder == "/proc" and not Path(folder).exists():
        pytest.skip("needs Linux")
    (tmp_path / "street.jpg").touch()
    assert main(["bench", "--csv", str(tmp_path / folder / "x.csv"), "--markdown", str(tmp_path / "ok.md")]) == 2
    error = capsys.readouterr().err
    assert "x.csv cannot be written" in error
    assert len(error.splitlines()) == 1
    assert not jobs
    assert [path.name for path in tmp_path.iterdir()] == ["street.jpg"]


def test_files_are_written_whatever_becomes_of_the_others(
    jobs: list[Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = atomic.write_atomically

    def full(path: Path, data: bytes) -> None:
        if path.suffix == ".csv":
            raise OutputError(f"{path.name}: no space left")
        whole(path, data)

    monkeypatch.setattr(atomic, "write_atomically", full)
    assert main(["bench", "--csv", str(tmp_path / "x.csv"), "--markdown", str(tmp_path / "new" / "ok.md")]) == 2
    assert "x.csv: no space left" in capsys.readouterr().err
    assert (tmp_path / "new" / "ok.md").exists()


def test_a_misspelt_command_of_two_words_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "dta"]) == 2
    assert "unknown command 'bench dta'; did you mean 'bench data'?" in capsys.readouterr().err


@pytest.mark.slow  # three processes that load torch
def test_a_small_bench_runs_from_image_to_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench.json"
    arguments = ["--size", "64x96", "--rounds", "2", "--baseline", "--weights", "camvid", "--threads", "1"]
    assert main(["bench", *arguments, "--json", str(file)]) == 0
    text = capsys.readouterr().out
    for part in ("preprocess ms", "upsample+argmax ms", "x floor", "vs plain argmax", "own vs plain max", "GFLOP/s"):
        assert part in text
    rows = {row["variant"]: row for row in json.loads(file.read_text())["rows"]}
    assert rows["fp32"]["labels equal %"] >= 99.9  # of 6144 pixels: folding may turn a near-tie
    assert rows["fp32"]["own process ms"] > 0
