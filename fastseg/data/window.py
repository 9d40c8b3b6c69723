"""Which part of an image a crop shows: drawn before a pixel is touched."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from fastseg.config import AugmentConfig
from fastseg.types import IGNORE_INDEX

TRIES = 10  # windows drawn for one crop at most, as many as mmsegmentation's RandomCrop
SAMPLES = 96  # labels a side that are counted in a window: enough for a share, and no cost beside the crop itself
NEAR = 0.25  # of the crop's side: how far from its middle a place that it must show may come to lie


@dataclass(frozen=True)
class Window:
    """A crop's place: `center_x`, `center_y` in pixel centres of the source image, which is resized by `scale_x` and
    `scale_y`, turned about the centre by `angle` (radians) and mirrored where `flip`."""

    center_x: float
    center_y: float
    scale_x: float
    scale_y: float
    angle: float
    flip: bool


def draw_window(
    label: np.ndarray,
    config: AugmentConfig,
    random: np.random.Generator,
    *,
    input_scale: float,
    focus: tuple[int, int] | None = None,
) -> Window:
    """A window of `config.crop` pixels into a source image of the size of `label`, uint8 (H,W).

    With `focus`, a column and row of the source, that pixel comes to lie in the middle half of the crop before its
    rotation, unless the image ends there; a rotation that would turn it out of the crop is left out.

    With `config.cat_max_ratio` below 1 the place (not the scale, whose distribution would shift) is drawn again, up to
    ten times in all, while one class has more than this share of the labelled pixels in it; the last place counts as
    it is. The share is counted on the source label over at most 96x96 evenly spaced pixels of the window before its
    rotation. After mmsegmentation's RandomCrop, whose recipes say 0.75.
    """
    crop_height, crop_width = config.crop
    height, width = label.shape
    low, high = config.scale
    scale = input_scale * math.exp(random.uniform(math.log(low), math.log(high)))
    stretch = math.exp(random.uniform(-1, 1) * math.log1p(config.aspect) / 2)
    scale_x, scale_y = scale * stretch, scale / stretch
    angle = math.radians(random.uniform(-config.rotate, config.rotate)) if config.rotate else 0.0
    flip = bool(random.random() < config.flip)
    for _ in range(TRIES):
        center_x = _center(width, scale_x, crop_width, random, None if focus is None else focus[0])
        center_y = _center(height, scale_y, crop_height, random, None if focus is None else focus[1])
        window = Window(center_x, center_y, scale_x, scale_y, angle, flip)
        if config.cat_max_ratio == 1 or _largest_share(label, window, config.crop) <= config.cat_max_ratio:
            break
    if focus is not None and not _shows(window, focus, config.crop):
        return replace(window, angle=0.0)
    return window


def _center(side: int, scale: float, crop: int, random: np.random.Generator, focus: int | None) -> float:
    """The middle of a crop along one axis, in pixel centres of the source."""
    # where the crop begins in the scaled image; an image smaller than the crop floats inside it
    spare = side * scale - crop
    first, last = min(0, spare), max(0, spare)
    if focus is None:
        begin = random.uniform(first, last)
    else:
        begin = (focus + 0.5) * scale - crop / 2 + random.uniform(-NEAR, NEAR) * crop
        begin = min(max(begin, first), last)
    return (begin + crop / 2) / scale - 0.5


def _shows(window: Window, focus: tuple[int, int], crop: tuple[int, int]) -> bool:
    """Whether a pixel of the source lies in the crop: the inverse of `augment.inverse_map`, but for the mirror."""
    x, y = (focus[0] - window.center_x) * window.scale_x, (focus[1] - window.center_y) * window.scale_y
    cosine, sine = math.cos(window.angle), math.sin(window.angle)
    return abs(cosine * x + sine * y) <= crop[1] / 2 and abs(cosine * y - sine * x) <= crop[0] / 2


def _largest_share(label: np.ndarray, window: Window, crop: tuple[int, int]) -> float:
    """The share of the most frequent class among the labelled pixels of a window; 1 where there are none."""
    height, width = label.shape
    half_height, half_width = crop[0] / window.scale_y / 2, crop[1] / window.scale_x / 2
    top, bottom = _inside(window.center_y + 0.5, half_height, height)
    left, right = _inside(window.center_x + 0.5, half_width, width)
    step_y, step_x = -(-(bottom - top) // SAMPLES), -(-(right - left) // SAMPLES)
    counts = np.bincount(label[top:bottom:step_y, left:right:step_x].ravel(), minlength=IGNORE_INDEX)[:IGNORE_INDEX]
    return float(counts.max() / counts.sum()) if counts.any() else 1.0


def _inside(middle: float, half: float, side: int) -> tuple[int, int]:
    """The pixels from `middle - half` to `middle + half`, at least one, that lie on an axis of `side` pixels."""
    begin = min(max(round(middle - half), 0), side - 1)
    return begin, max(min(round(middle + half), side), begin + 1)
