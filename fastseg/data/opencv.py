"""OpenCV as a loading process uses it."""

from __future__ import annotations

from types import ModuleType


def single_threaded_cv2() -> ModuleType:
    """`cv2`, told to start no threads: one sample, one thread, since workers and processes share the cores."""
    import cv2

    cv2.setNumThreads(0)  # a quarter of a microsecond; at every use, as a program may have set it otherwise
    return cv2
