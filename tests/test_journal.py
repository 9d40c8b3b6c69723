"""A run over a folder that is interrupted anywhere goes on, and ends byte for byte as if nothing had been."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastseg.cli import main
from fastseg.errors import ConfigError, OutputError
from fastseg.folders import predict_files
from fastseg.journal import JOURNAL, Journal
from fastseg.output import Prediction
from fastseg.predict import Predictor
from killed_runs import KINDS, killed_run, results
from toys import COLORS, NearestColor


@pytest.fixture(scope="module")
def exact() -> Predictor:
    return Predictor(NearestColor(), device="cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for index in range(6):
        (folder / f"day {index % 2}").mkdir(parents=True, exist_ok=True)
        classes = np.random.default_rng(index).integers(0, 4, (8, 12), np.uint8)
        Image.fromarray(COLORS[classes]).save(folder / f"day {index % 2}" / f"{index}.png")
    return folder


def stopped_after(exact: Predictor, photos: Path, out: Path, count: int) -> None:
    """A run that an interrupt ends when `count` images are done."""

    def stop(finished: int, total: int, file: Path) -> None:
        if finished == count:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_files(exact, [photos], out, kinds=KINDS, on_progress=stop)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_an_interrupted_run_goes_on_and_ends_equal(exact: Predictor, photos: Path, tmp_path: Path, count: int) -> None:
    predict_files(exact, [photos], tmp_path / "whole", kinds=KINDS)
    out = tmp_path / "out"
    stopped_after(exact, photos, out, count)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    summary = predict_files(exact, [photos], out, kinds=KINDS, resume=True)
    assert summary.failed == []
    assert len(summary.done) == 6
    assert len(summary.skipped) >= count
    assert results(out) == results(tmp_path / "whole")
    assert sum(path.stat().st_mtime_ns == time for path, time in times.items()) >= 2 * count  # not made again
    assert f"6 ok ({len(summary.skipped)} of them before), 0 failed" in summary.text()
    again = predict_files(exact, [photos], out, kinds=KINDS, resume=True)
    assert len(again.skipped) == 6


@pytest.mark.parametrize("damage", ["a result is cut", "a result is gone", "an image has changed"])
def test_what_is_not_as_it_was_left_is_made_again(exact: Predictor, photos: Path, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out"
    predict_files(exact, [photos], out, kinds=KINDS)
    expected = results(out)
    target = out / "day 0/2_ids.png"
    if damage == "a result is cut":
        target.write_bytes(target.read_bytes()[:-9])
    elif damage == "a result is gone":
        target.unlink()
    else:
        image = photos / "day 0/2.png"
        Image.fromarray(COLORS[np.full((8, 12), 3, np.uint8)]).save(image)
        os.utime(image, ns=(1, 1))
    summary = predict_files(exact, [photos], out, kinds=KINDS, resume=True)
    assert (len(summary.skipped), summary.failed) == (5, [])
    assert (results(out) == expected) == (damage != "an image has changed")


def test_files_of_others_are_not_replaced(exact: Predictor, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files(exact, [photos / "day 0"], out, kinds=KINDS)
    (out / "1_ids.png").write_bytes(b"mine")
    summary = predict_files(exact, [photos / "day 0", photos / "day 1/1.png"], out, kinds=KINDS, resume=True)
    assert (out / "1_ids.png").read_bytes() == b"mine"
    assert [file.name for file, _ in summary.failed] == ["1.png"]
    assert len(summary.skipped) == 3


def test_a_line_that_was_cut_off_does_not_count(exact: Predictor, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files(exact, [photos], out, kinds=KINDS)
    expected = results(out)
    journal = out / JOURNAL
    content = journal.read_bytes()
    for size in range(0, len(content), 97):
        journal.write_bytes(content[:size])
        summary = predict_files(exact, [photos], out, kinds=KINDS, resume=True, overwrite=True)
        assert (summary.failed, results(out)) == ([], expected)


def test_a_line_after_one_that_was_cut_off_counts(tmp_path: Path) -> None:
    image, target = tmp_path / "a.png", tmp_path / "a_ids.png"
    image.write_bytes(b"image")
    target.write_bytes(b"labels")
    for cut in (3, 0):
        journal = Journal(tmp_path, {"a": 1}, resume=True)
        journal.begin(image)
        journal.finish(image, [target])
        journal.close()
        content = (tmp_path / JOURNAL).read_bytes()
        (tmp_path / JOURNAL).write_bytes(content[: len(content) - cut])
    again = Journal(tmp_path, {"a": 1}, resume=True)
    assert again.is_finished(image, [target])
    again.close()


def test_half_written_files_of_others_stay(exact: Predictor, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "day 0"
    out.mkdir(parents=True)
    ours, theirs = out / ".0_ids.png.0123456789ab.tmp", out / ".mine.png.0123456789ab.tmp"
    for path in (ours, theirs):
        path.write_bytes(b"half")
    predict_files(exact, [photos], tmp_path / "out", kinds=KINDS)
    assert [ours.exists(), theirs.exists()] == [False, True]


def test_results_that_were_made_otherwise_are_not_mixed(exact: Predictor, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopped_after(exact, photos, out, 2)
    flipped = Predictor(NearestColor(), device="cpu", flip=True)
    with pytest.raises(ConfigError, match=r"made otherwise: flip \(then False, now True\); .*--overwrite.*--out"):
        predict_files(flipped, [photos], out, kinds=KINDS, resume=True)
    with pytest.raises(ConfigError, match=r"save \(then \['ids', 'overlay'\], now \['ids'\]\)"):
        predict_files(exact, [photos], out, kinds=("ids",), resume=True)


def test_a_plain_run_keeps_what_an_earlier_one_wrote_down(exact: Predictor, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict_files(exact, [photos], out, kinds=KINDS)
    assert len(predict_files(exact, [photos], out, kinds=KINDS).failed) == 6  # they exist
    assert len(predict_files(exact, [photos], out, kinds=KINDS, resume=True).skipped) == 6


def test_names_that_are_no_text_are_written_down(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \n.png")
    (tmp_path / name).write_bytes(b"image")
    target = tmp_path / os.fsdecode(b"caf\xe9_ids.png")
    target.write_bytes(b"labels")
    journal = Journal(tmp_path, {"a": 1})
    journal.begin(tmp_path / name)
    journal.finish(tmp_path / name, [target])
    journal.close()
    again = Journal(tmp_path, {"a": 1}, resume=True)
    assert again.is_finished(tmp_path / name, [target])
    again.close()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize(("function", "call"), [("fsync", 0), ("replace", 3)])
def test_a_run_that_is_killed_goes_on_and_ends_equal(
    exact: Predictor, photos: Path, tmp_path: Path, function: str, call: int
) -> None:
    predict_files(exact, [photos], tmp_path / "whole", kinds=KINDS)
    killed_run(photos, tmp_path / "out", function, call, context=multiprocessing.get_context("spawn"))
    summary = predict_files(exact, [photos], tmp_path / "out", kinds=KINDS, resume=True)
    assert summary.failed == []
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_two_runs_do_not_write_to_one_folder(exact: Predictor, photos: Path, tmp_path: Path) -> None:
    said = []

    def look(finished: int, total: int, file: Path) -> None:
        for resume in (False, True):
            with pytest.raises(OutputError, match=r"another run is writing to .*out; wait for it, or choose another"):
                predict_files(exact, [photos / "day 0"], tmp_path / "out", kinds=KINDS, resume=resume)
        said.append(finished)

    assert len(predict_files(exact, [photos], tmp_path / "out", kinds=KINDS, on_progress=look).done) == 6
    assert len(said) == 6
    assert len(predict_files(exact, [photos], tmp_path / "out", kinds=KINDS, resume=True).skipped) == 6


def test_the_command_goes_on(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for extra in ([], ["--resume"]):
        assert main(["predict", str(photos), "--out", str(tmp_path / "out"), "--save", "ids", *extra]) == 0
    assert "6 ok (6 of them before), 0 failed" in capsys.readouterr().out


def test_what_is_no_predictor_has_a_journal_too(photos: Path, tmp_path: Path, exact: Predictor) -> None:
    def predict(path: Path, *, max_pixels: int) -> Prediction:
        return exact(path, max_pixels=max_pixels)

    predict_files(predict, [photos], tmp_path / "out", kinds=("ids",))
    assert len(predict_files(predict, [photos], tmp_path / "out", kinds=("ids",), resume=True).skipped) == 6


def test_a_journal_that_is_a_link_or_anothers_is_left_alone(exact: Predictor, photos: Path, tmp_path: Path) -> None:
    for kind, content in (("link", "mine"), ("link", ""), ("link", None), ("file", "mine")):
        out, other = tmp_path / f"{kind} {content}", tmp_path / f"{kind} {content}.txt"
        out.mkdir()
        if content is not None:
            (other if kind == "link" else out / JOURNAL).write_text(content)
        if kind == "link":
            (out / JOURNAL).symlink_to(other)
        with pytest.raises(OutputError, match=r"\.fastseg_predict\.jsonl"):
            predict_files(exact, [photos], out)
        assert kind == "file" or other.exists() == (content is not None)
        assert content is None or (out / JOURNAL).read_text() == content
