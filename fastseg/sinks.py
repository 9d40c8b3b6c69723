"""Where pictures of a video go: files, and raw bytes."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from fastseg.errors import ConfigError, OutputError, printable
from fastseg.frames import quiet_cv2
from fastseg.output import check_target

CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
LOSSLESS_CODECS = {".avi": "FFV1", ".mkv": "FFV1"}


class FrameSink(Protocol):
    """Takes pictures uint8 (H,W,3) RGB or (H,W), all of one size; `close` with False takes back what it has."""

    def write(self, picture: np.ndarray) -> None: ...

    def close(self, keep: bool) -> None: ...


class RawSink:
    """Writes pictures as raw bytes, as `ffmpeg -f rawvideo` reads them; one byte a pixel for (H,W)."""

    def __init__(self, stream: BinaryIO, pixel_format: str = "rgb24") -> None:
        self._stream = stream
        self._reversed = pixel_format == "bgr24"

    def write(self, picture: np.ndarray) -> None:
        """Raises BrokenPipeError when the reader has gone."""
        turned = picture[..., ::-1] if self._reversed and picture.ndim == 3 else picture
        self._stream.write(np.ascontiguousarray(turned).data)
        self._stream.flush()

    def close(self, keep: bool) -> None:
        """The stream is its owner's, and what is written has gone."""


class FileSink:
    """A video file, that appears when it is complete.

    With `lossless`, values are kept as they are, for labels. Raises ConfigError for a suffix without a codec,
    OutputError for a file that exists without `overwrite`, for frames with an odd side, which codecs cut off, and when
    the disk refuses.
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
            self._writer = cv2.VideoWriter(str(self._temporary), cv2.CAP_FFMPEG, fourcc, self.fps, (width, height))
            if not self._writer.isOpened():
                raise OutputError(
                    f"{printable(self.path)} cannot be written with codec {self.codec} at {self.fps:g} frames a "
                    "second; choose another suffix or folder"
                )
        bgr = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR if picture.ndim == 2 else cv2.COLOR_RGB2BGR)
        self._writer.write(bgr)

    def close(self, keep: bool) -> None:
        """Put the file in its place, or take it away."""
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        try:
            if keep:
                os.replace(self._temporary, self.path)
            else:
                self._temporary.unlink()
        except OSError as error:
            raise OutputError(f"{printable(self.path)} cannot be written: {error}; choose another place") from error
