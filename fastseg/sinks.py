"""Where pictures of a video go: files, and raw bytes."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from fastseg.errors import ConfigError, OutputError, printable
from fastseg.frames import check_pixel_format, quiet_cv2
from fastseg.output import check_target

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
ROOM = 1 << 16  # bytes that must be free when a file is complete, for want of another sign that its end was written
LOSSLESS_CODECS = {".avi": "FFV1", ".mkv": "FFV1"}


class FrameSink(Protocol):
    """Takes pictures uint8 (H,W,3) RGB or (H,W), all of one size; `close` with False takes back what it has."""

    def write(self, picture: np.ndarray) -> None: ...

    def close(self, keep: bool) -> None: ...


class RawSink:
    """Writes pictures as raw bytes, as `ffmpeg -f rawvideo` reads them; one byte a pixel for (H,W).

    Raises ConfigError for an unknown pixel format.
    """

    def __init__(self, stream: BinaryIO, pixel_format: str = "rgb24") -> None:
        check_pixel_format(pixel_format)
        stream.flush()
        # unbuffered: Python cannot end while a thread waits inside a buffered stream
        self._stream = getattr(stream, "raw", stream)
        self._reversed = pixel_format == "bgr24"

    def write(self, picture: np.ndarray) -> None:
        """Raises BrokenPipeError when the reader has gone."""
        turned = picture[..., ::-1] if self._reversed and picture.ndim == 3 else picture
        data = np.ascontiguousarray(turned).data.cast("B")
        while len(data):
            taken = self._stream.write(data)
            if not taken:  # a pipe that is full and does not wait
                time.sleep(0.001)
            data = data[taken or 0 :]
        self._stream.flush()

    def close(self, keep: bool) -> None:
        """The stream is its owner's, and what is written has gone."""


class FileSink:
    """A video file, that appears when it is complete.

    With `lossless`, values are kept as they are, for labels. Raises ConfigError for a suffix without a codec,
    OutputError for a file that exists without `overwrite`, for frames with an odd side, which codecs cut off, and when
    the disk refuses; a file that exists then stands.
    """

    def __init__(self, path: Path, fps: float, *, lossless: bool = False, overwrite: bool = False) -> None:
        codecs = LOSSLESS_CODECS if lossless else CODECS
        if path.suffix.lower() not in codecs:
            kept = " keep labels as they are" if lossless else " are written"
            raise ConfigError(f"{printable(path)}: {', '.join(codecs)}{kept}; change the suffix, or write to '-'")
        check_target(path, overwrite=overwrite)
        self.path = path
        self.fps = fps
        self.codec = codecs[path.suffix.lower()]
        self._temporary = path.with_name(f".{path.stem[:40]}.{uuid.uuid4().hex[:12]}.tmp{path.suffix}")
        self._cv2 = quiet_cv2()
        self._writer: Any = None  # OpenCV has no types
        self._written = 0

    def write(self, picture: np.ndarray) -> None:
        cv2 = self._cv2
        if self._writer is None:
            height, width = picture.shape[:2]
            if height % 2 or width % 2:
                raise OutputError(
                    f"frames of {width}x{height} have an odd side, of which video files lose a row or column; write "
                    "raw frames (--out -) and let another program encode them"
                )
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"the folder of {printable(self.path)} cannot be made: {error}") from error
            fourcc = cv2.VideoWriter.fourcc(*self.codec)
            writer = cv2.VideoWriter(str(self._temporary), cv2.CAP_FFMPEG, fourcc, self.fps, (width, height))
            if not writer.isOpened():
                with contextlib.suppress(OSError):
                    self._temporary.unlink(missing_ok=True)
                raise OutputError(
                    f"{printable(self.path)} cannot be written with codec {self.codec} at {self.fps:g} frames a "
                    "second; choose another suffix, rate or folder"
                )
            self._writer = writer
        bgr = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR if picture.ndim == 2 else cv2.COLOR_RGB2BGR)
        self._writer.write(bgr)
        self._written += 1

    def close(self, keep: bool) -> None:
        """Put the file in its place, or take it away. Raises OutputError when frames are missing in it."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        try:
            if keep:
                self._check_complete()
                self._sync()
                os.replace(self._temporary, self.path)
        except OSError as error:
            raise OutputError(f"{printable(self.path)} cannot be written: {error}; choose another place") from error
        finally:
            with contextlib.suppress(OSError):  # the first failure counts
                self._temporary.unlink(missing_ok=True)

    def _check_complete(self) -> None:
        """Raises OutputError for a file that lacks frames: OpenCV says nothing when the disk refuses them."""
        found = self._frames_in_file()
        if found != self._written:
            raise OutputError(
                f"{printable(self.path)} cannot be written: {found} of {self._written} frames reached the disk; check "
                "free space, or choose another place"
            )

    def _frames_in_file(self) -> int:
        # headers promise frames that are missing: count them, as they are stored, which takes no time to speak of
        capture = self._cv2.VideoCapture(str(self._temporary), self._cv2.CAP_FFMPEG)
        capture.set(self._cv2.CAP_PROP_FORMAT, -1)
        count = 0
        while capture.grab():
            count += 1
        capture.release()
        return count

    def _sync(self) -> None:
        """Raises OSError when the disk has no more room: a part of the last frame is then missing."""
        with open(self._temporary, "r+b", buffering=0) as file:
            length = file.seek(0, os.SEEK_END)
            room = bytes(ROOM)
            while room:
                room = room[file.write(room) :]
            os.fsync(file.fileno())
            file.truncate(length)
            os.fsync(file.fileno())
