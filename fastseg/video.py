"""Video: frames are read, looked at and written at the same time, and what does not keep pace is said."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fastseg.budget import SCALES, Pace, ScalePace, percentile
from fastseg.errors import ConfigError, suggest
from fastseg.frames import FrameSource
from fastseg.output import Prediction
from fastseg.pipeline import BoundedQueue, ClosedError
from fastseg.predict import Predictor
from fastseg.sinks import FrameSink
from fastseg.types import DatasetInfo

KINDS = ("overlay", "color", "ids")
WAITING = 4  # frames between two stages
REMEMBERED = 10_000  # frames that the percentiles are of
SECONDS_BETWEEN_REPORTS = 1.0
PATIENCE = 2.0  # seconds that a source has to give its last frame, and a sink to take it, when they are stopped


@dataclass
class VideoSummary:
    """How a video went: frames read, labelled or not, written, and dropped because they came too fast.

    Of `labelled` frames, `skipped` show the labels of an earlier one. `latencies` are seconds from a frame's arrival to
    the end of its way, `network` those of the network alone, of the last frames; `scales` counts the frames that the
    network saw at each scale.
    """

    read: int = 0
    labelled: int = 0
    skipped: int = 0
    written: int = 0
    dropped: int = 0
    seconds: float = 0.0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    network: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    scales: Counter[float] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def fps(self) -> float:
        """Frames with labels, per second."""
        return self.labelled / self.seconds if self.seconds > 0 else 0.0

    def line(self) -> str:
        """Counts, rate and times in one line."""
        return (
            f"read {self.read}, written {self.written}, dropped {self.dropped} | {self.fps:.1f} fps | "
            f"latency p50 {_ms(self.latencies, 0.5)} p95 {_ms(self.latencies, 0.95)} ms | "
            f"network p50 {_ms(self.network, 0.5)} p95 {_ms(self.network, 0.95)} ms"
        )

    def text(self) -> str:
        """The line, and below it what was done to keep the budget and what was amiss."""
        lines = [self.line()]
        if set(self.scales) - {1.0}:
            parts = [f"{scale:g} for {self.scales[scale]}" for scale in sorted(self.scales, reverse=True)]
            lines.append(f"to keep the budget, the network saw frames at scale {', '.join(parts)}")
        if self.skipped:
            lines.append(f"to keep the budget, {self.skipped} of {self.labelled} frames show earlier labels")
        if self.dropped:
            lines.append(f"{self.dropped} frames came while others were in work, and are missing in the result")
        return "\n".join([*lines, *self.notes])


def run_video(
    predictor: Predictor,
    source: FrameSource,
    sink: FrameSink | None = None,
    *,
    kind: str = "overlay",
    pace: Pace | None = None,
    limit: int | None = None,
    on_progress: Callable[[VideoSummary], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> VideoSummary:
    """Label a video frame by frame: one thread reads, the caller's runs the network, one draws and writes.

    Few frames wait between them. Where they come faster than the network is, a live source loses the oldest one and
    another waits. `pace` lowers the scale or skips frames; `limit` ends after that many frames; `on_progress` is called
    about every second. An interrupt ends an endless source, whose result is kept; that of a file is taken away.

    Raises ConfigError for an unknown kind, a limit below 1 and scales for an exported file, DataError for a source that
    has no frame, BrokenPipeError when the reader of raw frames has gone, and what the predictor and the sink raise.
    """
    check_video_kind(kind)
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}; give at least 1 frame, or leave it out for all")
    if isinstance(pace, ScalePace):
        try:
            predictor.check(scale=SCALES[-1])
        except ConfigError as error:
            raise ConfigError(f"a budget needs smaller scales, or --skip for skipping frames: {error}") from None
    summary, started = VideoSummary(), clock()
    arrived: BoundedQueue[tuple[float, np.ndarray]] = BoundedQueue(
        1 if source.live else WAITING, drop_oldest=source.live
    )
    labelled: BoundedQueue[tuple[float, np.ndarray, np.ndarray]] = BoundedQueue(WAITING)

    def read() -> None:
        try:
            for frame in itertools.islice(source, limit):
                summary.read += 1
                arrived.put((clock(), frame))
            arrived.finish()
        except ClosedError:
            pass
        except BaseException as error:  # for the thread that can raise it
            arrived.finish(error)

    def write() -> None:
        try:
            for arrival, frame, labels in labelled:
                if sink is not None:
                    sink.write(picture(frame, labels, predictor.dataset, kind))
                    summary.written += 1
                summary.latencies.append(clock() - arrival)
        except BaseException as error:
            labelled.close(error)

    # a read that waits for a camera cannot be interrupted, and must not keep the program from ending
    reader = threading.Thread(target=read, name="video-read", daemon=True)
    writer = threading.Thread(target=write, name="video-write", daemon=True)
    reader.start()
    writer.start()
    failure: BaseException | None = None
    try:
        _label(predictor, arrived, labelled, pace, summary, on_progress, started, clock)
        labelled.finish()
        writer.join()
    except KeyboardInterrupt as error:
        if source.endless and summary.labelled:
            summary.notes.append(f"{source.name} was ended by an interrupt")
        else:
            failure = error
    except BaseException as error:
        failure = error
    arrived.close()
    labelled.finish()
    writer.join(PATIENCE)
    if writer.is_alive():  # nobody takes what it writes
        labelled.close()
        writer.join(PATIENCE)
    reader.join(PATIENCE)
    if not reader.is_alive():
        source.close()
    failure = labelled.error or failure
    if sink is not None and not writer.is_alive():
        try:
            sink.close(failure is None)
        except Exception as error:
            failure = failure or error  # what came first is the cause
    if failure is not None:
        raise failure
    if isinstance(pace, ScalePace) and pace.missed is not None:
        summary.notes.append(
            f"the budget of {1000 * pace.budget:g} ms was not kept: {1000 * pace.missed:.3g} ms even at scale "
            f"{pace.scale:g}"
        )
    summary.dropped = arrived.dropped
    summary.seconds = clock() - started
    summary.notes += source.notes
    return summary


def _label(
    predictor: Predictor,
    arrived: BoundedQueue[tuple[float, np.ndarray]],
    labelled: BoundedQueue[tuple[float, np.ndarray, np.ndarray]],
    pace: Pace | None,
    summary: VideoSummary,
    on_progress: Callable[[VideoSummary], None] | None,
    started: float,
    clock: Callable[[], float],
) -> None:
    """Labels of every frame that arrives, as long as someone takes them."""
    labels: np.ndarray | None = None
    reported = started
    for arrival, frame in arrived:
        scale = 1.0 if pace is None else pace.next_scale()
        if scale is None and labels is not None:
            summary.skipped += 1
        else:
            scale = scale or 1.0
            began = clock()
            labels = predictor.predict_array(frame, scale=scale)
            seconds = clock() - began
            summary.network.append(seconds)
            summary.scales[scale] += 1
            if pace is not None:
                pace.took(seconds)
        labelled.put((arrival, frame, labels))
        summary.labelled += 1
        now = clock()
        if on_progress is not None and now - reported >= SECONDS_BETWEEN_REPORTS:
            summary.dropped, summary.seconds, reported = arrived.dropped, now - started, now
            on_progress(summary)


def picture(frame: np.ndarray, labels: np.ndarray, dataset: DatasetInfo, kind: str) -> np.ndarray:
    """What a viewer sees of a frame: uint8 (H,W,3) RGB, for 'ids' (H,W)."""
    prediction = Prediction(labels, frame, dataset)
    if kind == "ids":
        return prediction.ids()
    return prediction.color() if kind == "color" else np.asarray(prediction.overlay(legend=False))


def check_video_kind(kind: str) -> None:
    """Raises ConfigError for a kind of picture that a video cannot have."""
    if kind not in KINDS:
        raise ConfigError(f"unknown kind of video {kind!r}; {suggest(kind, KINDS)}")


def _ms(seconds: deque[float], share: float) -> str:
    # a copy, as another thread may add to it; one operation, so that it cannot come in between
    return f"{1000 * percentile(list(seconds), share):.0f}" if seconds else "-"
