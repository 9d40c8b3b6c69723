"""`fastseg pick`: budgets, what is measured and what need not be, the answer, the picture."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastseg.cli import main
from fastseg.cli.pick import _number, known_scores
from fastseg.engine import bench_process
from fastseg.engine.bench_job import Job, JobTimes, VariantTimes
from fastseg.engine.pick import Budget, Candidate, best_of, frontier_names
from fastseg.engine.pick_table import pick_plot, pick_text
from fastseg.errors import ConfigError, MissingPackageError

SOME = ["--models", "fast_scnn", "dfanet_a", "swiftnet_r18", "espnet"]
SECONDS = {"fast_scnn": 0.04, "dfanet_a": 0.09, "espnet": 0.2, "swiftnet_r18": 0.5}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Measure with numbers of our own at 0.5 TFLOP/s; the list fills with the names of what was measured."""
    names: list[str] = []

    def fake(job: Job, limit: float) -> JobTimes:
        names.append(job.model)
        times = VariantTimes([SECONDS[job.model]] * 5, peak=100_000_000)
        return JobTimes(1, 19, 10**9, {"fp32": 5e11}, {}, {"fp32": times})

    monkeypatch.setattr(bench_process, "measure_apart", fake)
    return names


def test_the_most_accurate_network_within_the_budget_is_named(
    measured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pick", "--ms", "100", *SOME]) == 0
    text = capsys.readouterr().out
    assert "take dfanet_a: 71.3 mIoU (test (paper; not reproduced)), 90.0 ms an image" in text
    # SwiftNet's 103.6 G multiply-adds take 414 ms at this rate, ESPNet's 18.4 G 74 ms
    assert measured == ["fast_scnn", "dfanet_a", "espnet"]
    (line,) = [line for line in text.splitlines() if line.startswith("swiftnet_r18")]
    assert "not measured: its multiply-adds alone take 414 ms" in line


def test_a_budget_that_nothing_meets_is_exit_code_1(measured: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pick", "--fps", "30", *SOME]) == 1
    assert "meets the budget of 33.3 ms; the fastest, fast_scnn, takes 40.0 ms" in capsys.readouterr().out


def test_a_budget_below_a_millisecond_is_printed_with_its_digits(
    measured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pick", "--ms", "0.001", *SOME]) == 1
    assert "budget: 0.001 ms;" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("budget", "answer"),
    [
        (["--mem", "1MB"], "the budget of 1 MB; the one with the least memory, dfanet_a, needs 100 MB"),
        (["--mem", "1KB"], "the budget of 0.001 MB; the one with the least memory, dfanet_a, needs 100 MB"),
        (["--params", "1k"], "the budget of 1,000 parameters; the smallest, espnet, has "),
        (["--ms", "50", "--params", "1M"], "the fastest, espnet, takes 200.0 ms"),
    ],
)
def test_what_no_network_meets_is_answered_with_the_limit_that_is_broken(
    budget: list[str], answer: str, measured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pick", *budget, *SOME]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert answer in last
    assert "fastest" not in last or "--ms" in budget


def test_limits_that_networks_keep_only_one_by_one_are_said_to_be_so() -> None:
    fast = Candidate("a", 60.0, "paper", 10, seconds=0.1, peak=900_000_000)
    small = Candidate("b", 60.0, "paper", 10, seconds=0.5, peak=100_000_000)
    assert pick_text([fast, small], Budget(0.2, 2e8)).endswith(
        "the budget of 200.0 ms, 200 MB; no limit is out of reach by itself: loosen one of them"
    )


def test_networks_with_too_many_parameters_are_not_measured(measured: list[str]) -> None:
    assert main(["pick", "--params", "1M", *SOME]) == 0
    assert measured == ["espnet"]


def test_memory_counts_when_it_is_asked_for(measured: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pick", "--mem", "99MB", *SOME]) == 1
    assert main(["pick", "--mem", "101MB", *SOME]) == 0


def test_measurements_are_kept_in_a_file_on_request_only(
    measured: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "times.json"
    arguments = ["pick", "--ms", "100", "--cache", str(file), *SOME, "--threads", "2"]
    assert main(arguments) == 0
    first = capsys.readouterr().out
    assert main(arguments) == 0
    assert capsys.readouterr().out == first
    assert len(measured) == 3
    assert main([*arguments[:-1], "3"]) == 0  # other threads, other times
    assert len(measured) == 6
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("content", ["[1]", '{"fastseg pick": []}', '{"fastseg pick": {"a": 1}}'])
def test_a_cache_file_that_is_something_else_stays_as_it_is(
    content: str, measured: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "notes.json"
    file.write_text(content)
    assert main(["pick", "--ms", "100", "--cache", str(file), *SOME]) == 2
    assert "holds no measurements" in capsys.readouterr().err
    assert file.read_text() == content
    assert not measured


@pytest.mark.parametrize("option", ["--plot", "--cache"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(
    option: str, measured: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "street.jpg").touch()
    assert main(["pick", "--ms", "100", option, str(tmp_path / "street.jpg" / "x.png"), *SOME]) == 2
    error = capsys.readouterr().err
    assert "x.png cannot be written" in error
    assert len(error.splitlines()) == 1
    assert not measured


def test_the_plot_is_a_png(measured: list[str], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "frontier.png"
    assert main(["pick", "--ms", "100", "--plot", str(file), *SOME]) == 0
    assert file.read_bytes().startswith(b"\x89PNG")
    assert main(["pick", "--ms", "100", "--plot", str(file), *SOME]) == 2


def test_labels_of_the_plot_cover_neither_each_other_nor_points_and_stay_in_the_axes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many networks as the zoo has, crowded, and one at the right end."""
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    whole = Figure.savefig

    def save(figure: Figure, *args: Any, **kwargs: Any) -> None:
        drawn.append(figure)
        whole(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", save)
    candidates = [
        Candidate(f"network_{i}", 65 + i / 4 + i * 7 % 5, "paper", 1, seconds=0.022 + 0.0008 * i) for i in range(28)
    ]
    candidates.append(Candidate("heavy", 82.0, "paper", 1, least=0.045, remark="not measured"))
    pick_plot(candidates, Budget(0.033), "cityscapes, 1024x2048", "a machine; 2026-01-02")
    (axis,) = drawn[0].axes
    names = frontier_names(candidates)
    boxes = {
        text.get_text(): text.get_window_extent()
        for text in axis.texts
        if text.get_text() in names or text.get_text().isdecimal()
    }
    assert len(boxes) == len(candidates)
    assert names <= boxes.keys()
    frame = axis.get_window_extent()
    points = axis.transData.transform([(1000 * (c.seconds or c.least or 0), c.miou or 0) for c in candidates])
    for name, box in boxes.items():
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1, name
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1, name
        assert not any(box.contains(x, y) for x, y in points), name
        assert not any(box.overlaps(other) for key, other in boxes.items() if key != name), name
    (key,) = [text.get_text() for text in axis.texts if "(or slower)" in text.get_text()]
    assert len(key.splitlines()) == len(candidates) - len(names)
    assert axis.get_title() == "a machine; 2026-01-02"
    low, high = axis.get_xlim()
    assert sum(low <= tick <= high for tick in axis.get_xticks()) >= 4


def test_a_plot_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastseg.engine.pick_table import require_matplotlib

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'fastseg-zoo\[plot\]'"):
        require_matplotlib()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fps", "0"], "--fps is 0.0"),
        (["--ms", "-5"], "--ms is -5.0"),
        (["--fps", "30", "--ms", "33"], "not allowed with argument"),
        (["--mem", "2XB"], "'2XB' is no amount of memory; write it as 500MB"),
        (["--plot", "a.png", "--cache", "./a.png"], "--plot and --cache name the same file"),
        (["--params", "many"], "'many' is no amount such as 1500000"),
        (["--models", "fastscnn"], "no model matches 'fastscnn'"),
        (["--size", "9"], "--size is '9'"),
        (["--plot", "a.pdf"], "a PNG is drawn"),
        (["--precision", "fp16"], "fp16 is for GPUs"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    arguments: list[str], message: str, measured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pick", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not measured


def test_numbers_may_be_short() -> None:
    assert [_number(text) for text in ("5M", "900k", "12")] == [5e6, 9e5, 12]
    with pytest.raises(argparse.ArgumentTypeError):
        _number("5MB")


def test_accuracy_on_cityscapes_is_published_and_on_camvid_ours() -> None:
    assert known_scores(["fast_scnn", "dfanet_b"], "cityscapes") == {"fast_scnn": (68.0, "test (paper)")}
    ((miou, whose),) = known_scores(["fast_scnn", "espnet"], "camvid").values()
    assert whose == "CamVid test (ours)"
    assert miou is not None
    assert known_scores(["espnet"], "camvid", keep_unknown=True) == {"espnet": (None, "no known accuracy")}
    with pytest.raises(ConfigError, match="no network has a known accuracy on camvid"):
        known_scores(["espnet"], "camvid")


def test_a_network_of_unknown_accuracy_is_never_the_answer() -> None:
    known = Candidate("a", 60.0, "paper", 10, seconds=0.5)
    unknown = Candidate("b", None, "", 10, seconds=0.1)
    assert best_of([known, unknown], Budget(1.0)) is known
    assert best_of([unknown], Budget(1.0)) is None
    assert frontier_names([known, unknown]) == {"a"}


def test_of_equally_accurate_networks_the_fastest_is_taken() -> None:
    slow = Candidate("a", 60.0, "paper", 10, seconds=0.5)
    fast = replace(slow, model="b", seconds=0.1)
    assert best_of([slow, fast], Budget()) is fast
    assert frontier_names([slow, fast]) == {"b"}


def test_what_was_not_measured_meets_no_budget() -> None:
    assert not Candidate("a", 60.0, "paper", 10).meets(Budget())
    assert not Candidate("a", 60.0, "paper", 10, seconds=0.1).meets(Budget(memory=1e9))
