"""Frames of video, from files, cameras, URLs and raw bytes."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, Protocol

import numpy as np

from fastseg.data.readers import check_exists
from fastseg.errors import ConfigError, DataError, printable, suggest

PIXEL_FORMATS = ("rgb24", "bgr24")  # as ffmpeg calls them
COUNT_TOLERANCE = 2  # frames: some formats know their length in seconds only
DEFAULT_FPS = 25.0  # what ffmpeg assumes of raw frames
MOST_AT_ONCE = 1 << 20  # bytes, as many as a pipe holds at most


class FrameSource(Protocol):
    """Frames uint8 (H,W,3) RGB, all of one size, `fps` a second, `frames` in all where that is known.

    `live` ones come whether or not someone is ready for them; `endless` ones end when someone stops them. After the
    last one, `notes` tells what was amiss, and `cut_off` whether frames are missing.
    """

    name: str
    live: bool
    endless: bool
    fps: float
    frames: int | None
    notes: list[str]
    cut_off: bool

    def __iter__(self) -> Iterator[np.ndarray]: ...

    def close(self) -> None: ...


def open_source(
    text: str,
    *,
    size: tuple[int, int] | None = None,
    pixel_format: str = "rgb24",
    fps: float | None = None,
    stdin: BinaryIO | None = None,
) -> FrameSource:
    """`text` is a video file, a camera's index, a URL that OpenCV can open, or '-': raw frames on `stdin`.

    `size` (height, width) and `pixel_format` are of raw frames, which are read past a buffer of `stdin`. `fps` replaces
    the rate that the input names. Raises MissingFileError and DataError for what cannot be opened, ConfigError for
    arguments that do not fit together.
    """
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ConfigError(f"fps is {fps}; give frames per second above 0")
    if text == "-":
        if stdin is None:
            raise ConfigError("raw frames need a stream to come from")
        if size is None:
            raise ConfigError(
                "raw frames on standard input do not say how large they are; add --size, such as 1280x720"
            )
        return RawSource(stdin, size, pixel_format, fps or DEFAULT_FPS)
    if size is not None:
        raise ConfigError(f"a size is for raw frames ('-'); {printable(text)} has its own")
    return CaptureSource(text, fps)


def parse_size(text: str) -> tuple[int, int]:
    """'1280x720', width first -> (height, width). Raises ConfigError for anything else."""
    found = re.fullmatch(r"(\d{1,6})x(\d{1,6})", text.lower())
    if found is None or not (int(found[1]) and int(found[2])):
        raise ConfigError(f"the size {text!r} is not WIDTHxHEIGHT in pixels, such as 1280x720")
    return int(found[2]), int(found[1])


def check_pixel_format(name: str) -> None:
    """Raises ConfigError for a format that raw frames cannot have."""
    if name not in PIXEL_FORMATS:
        raise ConfigError(f"unknown pixel format {name!r}; {suggest(name, PIXEL_FORMATS)}")


class RawSource:
    """Frames without any header, one after the other, as `ffmpeg -f rawvideo` writes them."""

    live = False  # the pipe makes the writer wait
    endless = True
    frames: int | None = None

    def __init__(self, stream: BinaryIO, size: tuple[int, int], pixel_format: str, fps: float) -> None:
        check_pixel_format(pixel_format)
        self.name = "standard input"
        self.fps = fps
        self.notes: list[str] = []
        self.cut_off = False
        # unbuffered: Python cannot end while a thread waits inside a buffered stream
        self._stream = getattr(stream, "raw", stream)
        self._shape = (*size, 3)
        self._reversed = pixel_format == "bgr24"

    def __iter__(self) -> Iterator[np.ndarray]:
        count = 0
        while True:
            frame = np.empty(self._shape, np.uint8)
            length = _read_into(self._stream, frame.reshape(-1))
            if length < frame.nbytes:
                break
            count += 1
            yield np.ascontiguousarray(frame[..., ::-1]) if self._reversed else frame
        if length:
            self.cut_off = True
            self.notes.append(
                f"{self.name} ends within frame {count + 1}: {length} of {frame.nbytes} bytes; the stream was cut off, "
                f"or frames are not {self._shape[1]}x{self._shape[0]} in 3 bytes a pixel"
            )
        if count == 0:
            raise DataError(self.notes[0] if length else f"{self.name} has no frame; does its writer fail?")

    def close(self) -> None:
        """The stream is its owner's."""


def _read_into(stream: BinaryIO, target: np.ndarray) -> int:
    """Fill `target`, uint8 (B,), from a pipe, which gives what it has; less than that many bytes only at its end."""
    length = 0
    while length < len(target):
        data = stream.read(min(len(target) - length, MOST_AT_ONCE))
        if not data:
            break
        target[length : length + len(data)] = np.frombuffer(data, np.uint8)
        length += len(data)
    return length


class CaptureSource:
    """What OpenCV opens: files, cameras by their number, URLs."""

    def __init__(self, text: str, fps: float | None) -> None:
        cv2 = quiet_cv2()
        camera = text.isdecimal() and not os.path.exists(text)
        is_url = "://" in text
        if not camera and not is_url:
            check_exists(Path(text))
        self.name = f"camera {text}" if camera else printable(text)
        self.live = camera or (is_url and not text.startswith(("http://", "https://", "file://")))
        self.endless = camera or is_url
        self._capture = cv2.VideoCapture(int(text) if camera else text)
        if not self._capture.isOpened():
            hint = "is it connected and free?" if camera else "OpenCV knows no such video, or lacks the codec"
            raise DataError(f"{self.name} cannot be opened as a video; {hint}")
        self._cv2 = cv2
        named = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps or (named if math.isfinite(named) and 0 < named <= 1000 else DEFAULT_FPS)
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frames = int(count) if not self.live and math.isfinite(count) and count > 0 else None
        self.notes: list[str] = []
        self.cut_off = False

    def __iter__(self) -> Iterator[np.ndarray]:
        count, shape = 0, None
        while True:
            good, frame = self._capture.read()
            if not good:
                break
            if shape is not None and frame.shape != shape:
                self.cut_off = True
                self.notes.append(f"{self.name} changes its size after frame {count}; what follows is left out")
                return
            count, shape = count + 1, frame.shape
            yield self._cv2.cvtColor(frame, self._cv2.COLOR_BGR2RGB)
        if count == 0:
            raise DataError(f"{self.name} has no frame that can be decoded")
        if self.frames is not None and count < self.frames - COUNT_TOLERANCE:
            self.cut_off = True
            self.notes.append(
                f"{self.name} ends after frame {count} and promises {self.frames}: it is cut off or damaged there"
            )

    def close(self) -> None:
        self._capture.release()


def quiet_cv2() -> ModuleType:
    """`cv2` whose messages do not mix with ours."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
