"""Every frame of a file comes out once, in order, with its labels; what is lost, skipped or cut off is said."""

from __future__ import annotations

import io
import itertools
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.budget import ScalePace, SkipPace
from fastseg.cli import main
from fastseg.errors import CheckpointError, ConfigError, DataError, MissingFileError, OutputError
from fastseg.export_info import unknown_info
from fastseg.exported import ExportedModel
from fastseg.frames import RawSource, open_source, parse_size
from fastseg.inference import FileInference
from fastseg.pipeline import BoundedQueue, ClosedError
from fastseg.predict import Predictor
from fastseg.sinks import FileSink, RawSink
from fastseg.video import VideoSummary, run_video
from toys import COLORS, NearestColor

SIZE = (8, 12)
ERROR = 24  # grey levels that lossy codecs may lose on frames of one colour


@pytest.fixture(scope="module")
def exact() -> Predictor:
    return Predictor(NearestColor(), device="cpu")


class Frames:
    """A source of frames of one class each, and what can befall it."""

    name = "frames"
    fps = 10.0
    frames: int | None = None

    def __init__(self, classes: list[int], *, live: bool = False, endless: bool = False) -> None:
        self.classes = classes
        self.live = live
        self.endless = endless
        self.notes: list[str] = []
        self.cut_off = False
        self.closed = False

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in self.classes:
            yield frame_of(number)

    def close(self) -> None:
        self.closed = True


class Pictures:
    """A sink that keeps pictures in memory."""

    def __init__(self) -> None:
        self.pictures: list[np.ndarray] = []
        self.kept: bool | None = None

    def write(self, picture: np.ndarray) -> None:
        self.pictures.append(picture)

    def close(self, keep: bool) -> None:
        self.kept = keep


def frame_of(number: int) -> np.ndarray:
    return np.broadcast_to(COLORS[number], (*SIZE, 3)).copy()


def video_file(path: Path, classes: list[int], fps: float = 12.5, codec: str = "MJPG") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    for number in classes:
        writer.write(np.full((48, 64, 3), COLORS[number][::-1], np.uint8))
    writer.release()
    return path


def frames_in(path: Path) -> tuple[list[np.ndarray], float]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        good, frame = capture.read()
        if not good:
            break
        frames.append(frame[..., ::-1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


# The run


@settings(max_examples=30, deadline=None)
@given(classes=st.lists(st.integers(0, 3), min_size=1, max_size=20), kind=st.sampled_from(["ids", "color", "overlay"]))
def test_every_frame_comes_out_in_order_with_its_labels(exact: Predictor, classes: list[int], kind: str) -> None:
    source, sink = Frames(classes), Pictures()
    summary = run_video(exact, source, sink, kind=kind)
    if kind == "ids":
        assert [int(np.unique(picture).item()) for picture in sink.pictures] == classes
    else:  # a class's colour over itself
        assert all(np.array_equal(p, frame_of(c)) for p, c in zip(sink.pictures, classes, strict=True))
    assert (summary.read, summary.labelled, summary.written, summary.dropped) == (len(classes),) * 3 + (0,)
    assert len(summary.latencies) == len(classes)
    assert (sink.kept, source.closed) == (True, True)


def test_without_a_sink_there_are_statistics_only(exact: Predictor) -> None:
    summary = run_video(exact, Frames([0, 1, 2]))
    assert (summary.labelled, summary.written) == (3, 0)
    assert summary.line().startswith("read 3, written 0, dropped 0 | ")


def test_a_limit_reads_no_further(exact: Predictor) -> None:
    assert run_video(exact, Frames([0] * 50), limit=7).read == 7
    with pytest.raises(ConfigError, match="limit is 0"):
        run_video(exact, Frames([0]), limit=0)


def test_a_live_source_loses_frames_that_come_too_fast_and_a_file_none(exact: Predictor) -> None:
    """The network waits until the source has given all frames but the first, of which it then sees the newest."""
    all_read = threading.Event()

    class Fast(Frames):
        def __iter__(self) -> Iterator[np.ndarray]:
            yield from super().__iter__()
            all_read.set()

    class Slow:
        dataset = exact.dataset

        def predict_array(self, frame: np.ndarray, *, scale: float) -> np.ndarray:
            assert all_read.wait(30)
            return exact.predict_array(frame)

    sink = Pictures()
    summary = run_video(Slow(), Fast([0, 1, 2, 3] * 5, live=True), sink, kind="ids")  # type: ignore[arg-type]
    assert summary.dropped + summary.written == summary.read == 20
    assert summary.dropped >= 18
    assert sink.pictures[-1][0, 0] == 3
    assert f"{summary.dropped} frames came while others were in work" in summary.text()


def test_skipped_frames_show_the_labels_before_them_and_are_counted(exact: Predictor) -> None:
    ticks = itertools.count()  # a second passes at every look at the clock, so each frame takes at least one
    sink = Pictures()
    summary = run_video(
        exact, Frames([0, 1, 2, 3, 0, 1]), sink, kind="ids", pace=SkipPace(1e-9), clock=lambda: float(next(ticks))
    )
    assert [int(picture[0, 0]) for picture in sink.pictures] == [0] + [1] * 5  # the first one's time does not count
    assert summary.skipped == 4
    assert "4 of 6 frames show earlier labels" in summary.text()


def test_a_lowered_scale_reaches_the_network_and_is_told(exact: Predictor) -> None:
    class Half:
        def next_scale(self) -> float:
            return 0.5

        def took(self, seconds: float) -> None:
            assert seconds >= 0

    seen: list[tuple[int, ...]] = []
    handle = exact.deployed.network.register_forward_hook(lambda _, args, __: seen.append(tuple(args[0].shape[2:])))
    sink = Pictures()
    summary = run_video(exact, Frames([2, 3]), sink, kind="ids", pace=Half())
    handle.remove()
    assert seen == [(4, 6)] * 2
    assert [picture.shape for picture in sink.pictures] == [SIZE] * 2
    assert "scale 0.5 for 2" in summary.text()


def test_progress_comes_about_every_second(exact: Predictor) -> None:
    ticks = itertools.count()
    lines: list[int] = []
    run_video(
        exact,
        Frames([0] * 4),
        clock=lambda: 0.2 * next(ticks),
        on_progress=lambda summary: lines.append(summary.labelled),
    )
    assert lines
    assert sorted(set(lines)) == lines


class InterruptedAtThird:
    """Labels two frames as another predictor does."""

    def __init__(self, exact: Predictor) -> None:
        self.exact, self.dataset, self.count = exact, exact.dataset, 0

    def predict_array(self, frame: np.ndarray, *, scale: float) -> np.ndarray:
        self.count += 1
        if self.count == 3:
            raise KeyboardInterrupt
        return self.exact.predict_array(frame)


def test_an_interrupt_keeps_what_a_camera_gave_and_takes_away_the_part_of_a_file(exact: Predictor) -> None:
    camera, sink = Frames([0] * 10, endless=True), Pictures()
    summary = run_video(InterruptedAtThird(exact), camera, sink)  # type: ignore[arg-type]
    assert (summary.written, sink.kept, camera.closed) == (2, True, True)
    assert "ended by an interrupt" in summary.text()
    file, sink = Frames([0] * 10), Pictures()
    with pytest.raises(KeyboardInterrupt):
        run_video(InterruptedAtThird(exact), file, sink)  # type: ignore[arg-type]
    assert (sink.kept, file.closed) == (False, True)


@pytest.mark.parametrize("error", [BrokenPipeError(), OutputError("the disk is full")])
def test_an_error_of_the_sink_ends_the_run(exact: Predictor, error: Exception) -> None:
    class Broken(Pictures):
        def write(self, picture: np.ndarray) -> None:
            raise error

    sink = Broken()
    with pytest.raises(type(error)):
        run_video(exact, Frames([0] * 100), sink)
    assert sink.kept is False


def test_an_error_of_the_source_or_the_network_reaches_the_caller_and_no_thread_stays(exact: Predictor) -> None:
    class Bad(Frames):
        def __iter__(self) -> Iterator[np.ndarray]:
            yield frame_of(0)
            raise DataError("the camera was unplugged")

    before = threading.active_count()
    with pytest.raises(DataError, match="unplugged"):
        run_video(exact, Bad([]), Pictures())
    broken = NearestColor()
    broken.scale.data.fill_(float("nan"))
    with pytest.raises(CheckpointError):
        run_video(Predictor(broken, device="cpu"), Frames([0] * 100))
    assert threading.active_count() == before


def test_a_first_failure_is_told_before_one_of_closing(exact: Predictor) -> None:
    class Broken(Pictures):
        def write(self, picture: np.ndarray) -> None:
            raise OutputError("the disk is full")

        def close(self, keep: bool) -> None:
            raise OutputError("there is no file")

    with pytest.raises(OutputError, match="the disk is full"):
        run_video(exact, Frames([0]), Broken())


def test_an_interrupt_ends_a_run_whose_pictures_nobody_takes(exact: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastseg.video.PATIENCE", 0.05)
    taken = threading.Event()

    class Stalled(Pictures):
        def write(self, picture: np.ndarray) -> None:
            assert taken.wait(30)

    sink = Stalled()
    summary = run_video(InterruptedAtThird(exact), Frames([0] * 10, endless=True), sink)  # type: ignore[arg-type]
    taken.set()
    assert (summary.written, sink.kept) == (0, None)


def test_an_interrupt_before_the_first_frame_of_a_stream_is_one(exact: Predictor) -> None:
    class Interrupted:
        dataset = exact.dataset

        def predict_array(self, frame: np.ndarray, *, scale: float) -> np.ndarray:
            raise KeyboardInterrupt

    sink = Pictures()
    with pytest.raises(KeyboardInterrupt):
        run_video(Interrupted(), Frames([0], endless=True), sink)  # type: ignore[arg-type]
    assert sink.kept is False


def test_scales_for_an_exported_file_are_refused_before_the_first_frame() -> None:
    class Exported:
        def check(self, *, scale: float) -> None:
            FileInference(ExportedModel(Path("net.onnx"), unknown_info(Path("net.onnx")), np.asarray)).check(
                scale=scale
            )

    with pytest.raises(ConfigError, match=r"--skip for skipping frames: net\.onnx is an exported file"):
        run_video(Exported(), Frames([0]), pace=ScalePace(1.0))  # type: ignore[arg-type]


def test_scales_within_a_memory_budget_are_refused_before_the_first_frame() -> None:
    predictor = Predictor("fast_scnn", weights="road_scenes", max_mem="1GB")
    with pytest.raises(ConfigError, match=r"--skip for skipping frames: max_mem holds at scale 1"):
        run_video(predictor, Frames([0]), pace=ScalePace(1.0))


def test_a_budget_that_cannot_be_kept_is_told(exact: Predictor) -> None:
    ticks = itertools.count()
    summary = run_video(exact, Frames([0] * 60), pace=ScalePace(0.001), clock=lambda: 0.01 * next(ticks))
    assert re.search(r"the budget of 1 ms was not kept: \d+ ms even at scale 0.25", summary.text())


def test_an_unknown_kind_is_refused(exact: Predictor) -> None:
    with pytest.raises(ConfigError, match="'overlays'; did you mean 'overlay'"):
        run_video(exact, Frames([0]), kind="overlays")


# The queue


def test_a_full_queue_waits_or_drops_the_oldest() -> None:
    live: BoundedQueue[int] = BoundedQueue(2, drop_oldest=True)
    for item in range(5):
        live.put(item)
    live.finish()
    assert (list(live), live.dropped) == ([3, 4], 3)
    waiting: BoundedQueue[int] = BoundedQueue(2)

    def produce() -> None:
        for item in range(50):
            waiting.put(item)
        waiting.finish()

    producer = threading.Thread(target=produce)
    producer.start()
    assert list(waiting) == list(range(50))
    producer.join()


def test_a_closed_queue_tells_whoever_puts() -> None:
    queue: BoundedQueue[int] = BoundedQueue(1)
    queue.close()
    with pytest.raises(ClosedError):
        queue.put(1)
    queue.close(BrokenPipeError())
    with pytest.raises(BrokenPipeError):
        queue.put(1)


# Sources and sinks


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(0, 4),
    extra=st.integers(0, 8 * 12 * 3 - 1),
    pieces=st.integers(1, 100),
    pixel_format=st.sampled_from(["rgb24", "bgr24"]),
)
def test_raw_frames_are_those_of_the_bytes_and_a_part_is_named(
    count: int, extra: int, pieces: int, pixel_format: str
) -> None:
    class Pipe(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, pieces))

    pixels = np.random.default_rng(0).integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)
    stored = pixels if pixel_format == "rgb24" else pixels[..., ::-1]
    source = RawSource(Pipe(stored.tobytes() + bytes(extra)), SIZE, pixel_format, 25)
    if count == 0:
        with pytest.raises(DataError, match=f"{extra} of 288 bytes" if extra else "no frame"):
            next(iter(source))
        return
    frames = list(source)
    assert len(frames) == count
    assert all(np.array_equal(a, b) for a, b in zip(frames, pixels, strict=True))
    assert source.cut_off == bool(extra)
    if extra:
        assert source.notes[0].startswith(f"standard input ends within frame {count + 1}: {extra} of 288 bytes")


def test_raw_frames_are_read_and_written_past_buffers_whose_locks_python_needs_to_end() -> None:
    class Reader(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            raise AssertionError("it would hold the lock while it waits")

    class Writer(io.BufferedWriter):
        def write(self, data: Any, /) -> int:
            raise AssertionError("it would hold the lock while it waits")

    read, write = os.pipe()
    with Reader(io.FileIO(read)) as source, Writer(io.FileIO(write, "w")) as target:
        RawSink(target).write(frame_of(2))
        assert np.array_equal(next(iter(RawSource(source, SIZE, "rgb24", 25))), frame_of(2))


def test_an_unknown_pixel_format_is_refused_for_pictures_too() -> None:
    with pytest.raises(ConfigError, match="'yuv420p'"):
        RawSink(io.BytesIO(), "yuv420p")


@pytest.mark.parametrize("pixel_format", ["rgb24", "bgr24"])
def test_raw_pictures_come_back_as_they_went(pixel_format: str) -> None:
    stream = io.BytesIO()
    sink = RawSink(stream, pixel_format)
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    sink.write(picture)
    stream.seek(0)
    assert np.array_equal(next(iter(RawSource(stream, SIZE, pixel_format, 25))), picture)
    stream = io.BytesIO()
    RawSink(stream, pixel_format).write(picture[..., 0])
    assert stream.getvalue() == picture[..., 0].tobytes()


def test_a_video_file_gives_its_frames_and_rate(tmp_path: Path) -> None:
    source = open_source(str(video_file(tmp_path / "a.avi", [0, 1, 2, 3])))
    assert (source.fps, source.frames, source.live, source.endless) == (12.5, 4, False, False)
    frames = list(source)
    source.close()
    assert all(np.abs(frame.astype(int) - COLORS[i]).max() < ERROR for i, frame in enumerate(frames))
    assert (source.notes, source.cut_off) == ([], False)


def test_a_video_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    whole = video_file(tmp_path / "a.avi", [0, 1, 2, 3] * 10).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    source = open_source(str(tmp_path / "cut.avi"))
    frames = list(source)
    assert 0 < len(frames) < 40
    assert (source.cut_off, len(source.notes)) == (True, 1)
    assert f"ends after frame {len(frames)} and promises 40" in source.notes[0]


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"a\.mp4 cannot be opened as a video"):
        open_source(str(tmp_path / "a.mp4"))
    with pytest.raises(MissingFileError, match=r"gone\.mp4"):
        open_source(str(tmp_path / "gone.mp4"))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("-", {}, "add --size"),
        ("-", {"size": SIZE, "pixel_format": "yuv420p"}, "'yuv420p'"),
        ("-", {"size": SIZE, "fps": 0.0}, "fps is 0"),
        ("a.mp4", {"size": SIZE}, "has its own"),
    ],
)
def test_options_that_do_not_fit_the_input_are_refused(text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_source(text, stdin=io.BytesIO(), **options)


@pytest.mark.parametrize("text", ["1280", "1280x", "0x5", "axb", "1280x720x3", "-1x5"])
def test_sizes_are_width_times_height(text: str) -> None:
    assert parse_size("1280x720") == (720, 1280)
    with pytest.raises(ConfigError, match="WIDTHxHEIGHT"):
        parse_size(text)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi"])
def test_a_file_keeps_size_rate_and_number_of_frames(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"out{suffix}"
    sink = FileSink(path, 12.5)
    for number in (0, 1, 2):
        sink.write(np.broadcast_to(COLORS[number], (48, 64, 3)))
    sink.close(True)
    frames, fps = frames_in(path)
    assert (len(frames), fps) == (3, 12.5)
    assert all(np.abs(frame.astype(int) - COLORS[i]).max() < ERROR for i, frame in enumerate(frames))
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_class_indices_survive_a_lossless_file(tmp_path: Path, suffix: str) -> None:
    labels = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
    sink = FileSink(tmp_path / f"ids{suffix}", 25, lossless=True)
    sink.write(labels)
    sink.close(True)
    frames, _ = frames_in(tmp_path / f"ids{suffix}")
    assert np.array_equal(frames[0], labels[..., None].repeat(3, axis=2))


def test_files_that_would_change_labels_or_lose_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"keep labels as they are"):
        FileSink(tmp_path / "ids.mp4", 25, lossless=True)
    with pytest.raises(ConfigError, match=r"\.gif.*\.mp4"):
        FileSink(tmp_path / "a.gif", 25)
    with pytest.raises(OutputError, match="63x48 have an odd side"):
        FileSink(tmp_path / "a.mp4", 25).write(np.zeros((48, 63, 3), np.uint8))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi"])
@pytest.mark.parametrize(
    ("room", "wrong"),
    [
        (60_000, "of 10 frames reached the disk; check free space"),
        (189_000, r"cannot be written: (.* of 10 frames|.*File too large)"),  # within the last frame
    ],
)
def test_a_full_disk_is_an_error_and_the_old_video_stands(tmp_path: Path, room: int, wrong: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"mine")
    noise = np.random.default_rng(0).integers(0, 256, (10, 144, 176, 3), dtype=np.uint8)
    sink = FileSink(path, 25, overwrite=True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        for picture in noise:
            sink.write(picture)
        with pytest.raises(OutputError, match=wrong):
            sink.close(True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fps", [1.0, 23.976, 29.97, 59.94, 0.37])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_a_complete_file_passes_whatever_its_rate(tmp_path: Path, suffix: str, fps: float) -> None:
    sink = FileSink(tmp_path / f"a{suffix}", fps)
    for _ in range(37):
        sink.write(np.zeros((48, 64, 3), np.uint8))
    sink.close(True)
    assert len(frames_in(tmp_path / f"a{suffix}")[0]) == 37


def test_a_file_that_cannot_be_begun_says_so_when_it_is_closed_too(tmp_path: Path) -> None:
    sink = FileSink(tmp_path / "a.mp4", 1e9)
    with pytest.raises(OutputError, match="cannot be written with codec mp4v at 1e"):
        sink.write(np.zeros((48, 64, 3), np.uint8))
    sink.close(False)
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_exists_is_kept_and_an_incomplete_one_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="--overwrite"):
        FileSink(path, 25)
    sink = FileSink(path, 25, overwrite=True)
    sink.write(np.zeros((48, 64, 3), np.uint8))
    sink.close(False)
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


# The command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastseg.cli.common.build_predictor", lambda args: Predictor(NearestColor(), device="cpu"))


def test_the_command_labels_a_file_and_tells_its_times(
    command: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video_file(tmp_path / "a.avi", [0, 1, 2])
    arguments = ["video", str(tmp_path / "a.avi"), "--out", str(tmp_path / "b.mkv"), "--save", "ids"]
    assert main(arguments) == 0
    assert [int(frame[24, 32, 0]) for frame in frames_in(tmp_path / "b.mkv")[0]] == [0, 1, 2]
    text = capsys.readouterr().out
    assert "read 3, written 3, dropped 0" in text
    assert "p50" in text
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize("extra", [0, 100])
def test_the_command_takes_raw_frames_in_and_gives_raw_frames_out(
    command: None, extra: int, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    data = b"".join(frame_of(number).tobytes() for number in (3, 0))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data + bytes(extra))))
    assert main(["video", "-", "--size", "12x8", "--save", "ids", "--out", "-"]) == (1 if extra else 0)
    captured = capsysbinary.readouterr()
    assert captured.out == bytes([3] * 96 + [0] * 96)
    assert (b"ends within frame 3: 100 of 288 bytes" in captured.err) == bool(extra)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-"], "add --size"),
        (["a.mp4"], "a.mp4"),
        (["-", "--size", "12x8", "--skip"], "--skip says how to keep a budget"),
        (["-", "--size", "12x8", "--budget", "fast"], "write it as 33ms"),
        (["-", "--size", "12x8", "--save", "edges"], "'edges'"),
        (["-", "--size", "12x8", "--out", "a.gif"], ".mp4"),
        (["-", "--size", "12x8", "--out", "a.mp4"], "standard input has no frame"),
        (["a.mp4", "--pixel-format", "bgr24"], "--pixel-format is for raw frames"),
    ],
)
def test_mistakes_are_one_line(
    command: None,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    assert main(["video", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("link", [False, True])
def test_the_input_is_never_replaced(
    command: None, link: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = video_file(tmp_path / "a.avi", [0, 1])
    before = source.read_bytes()
    given = tmp_path / "b.avi" if link else source
    if link:
        given.symlink_to(source)
    assert main(["video", str(given), "--out", str(source), "--overwrite"]) == 2
    assert "is the input itself" in capsys.readouterr().err
    assert source.read_bytes() == before


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_a_closed_stream_is_one_line(
    command: None, stream: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    monkeypatch.setattr(f"sys.{stream}", None)
    assert main(["video", "-", "--size", "12x8", "--out", "-"]) == 2
    error = capsys.readouterr().err
    assert f"standard {stream.removeprefix('std')}put is closed" in error
    assert error.count("\n") == 1


def test_a_terminated_command_leaves_no_part_of_a_file(
    command: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = video_file(tmp_path / "a.avi", [0] * 20)
    label = Predictor.predict_array
    frames = itertools.count()

    def labels(self: Predictor, image: np.ndarray, *, scale: float = 1.0) -> np.ndarray:
        if next(frames) == 10:
            signal.raise_signal(signal.SIGTERM)
        return label(self, image, scale=scale)

    monkeypatch.setattr(Predictor, "predict_array", labels)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a failure must not end the tests
    try:
        assert main(["video", str(source), "--out", str(tmp_path / "b.mp4")]) == 143
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_command_quietly(tmp_path: Path) -> None:
    video_file(tmp_path / "a.avi", [0] * 30)
    read, write = os.pipe()
    os.close(read)
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fastseg", "video", str(tmp_path / "a.avi"), "--out", "-"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120, env=environment)
    os.close(write)
    assert (done.stderr, done.returncode) == ("", 141)


def test_a_summary_of_nothing_has_a_line() -> None:
    assert VideoSummary().line() == (
        "read 0, written 0, dropped 0 | 0.0 fps | latency p50 - p95 - ms | network p50 - p95 - ms"
    )
