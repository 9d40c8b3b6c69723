"""Which part of an image a crop shows: drawn before a pixel is touched."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fastseg.config import AugmentConfig


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


def draw_window(label: np.ndarray, config: AugmentConfig, random: np.random.Generator, *, input_scale: float) -> Window:
    """A window of `config.crop` pixels into a source image of the size of `label`, uint8 (H,W)."""
    crop_height, crop_width = config.crop
    height, width = label.shape
    low, high = config.scale
    scale = input_scale * math.exp(random.uniform(math.log(low), math.log(high)))
    stretch = math.exp(random.uniform(-1, 1) * math.log1p(config.aspect) / 2)
    scale_x, scale_y = scale * stretch, scale / stretch
    angle = math.radians(random.uniform(-config.rotate, config.rotate)) if config.rotate else 0.0
    flip = bool(random.random() < config.flip)
    # the top left corner of the crop in the scaled image; an image smaller than the crop floats inside it
    spare_x, spare_y = width * scale_x - crop_width, height * scale_y - crop_height
    left, top = random.uniform(min(0, spare_x), max(0, spare_x)), random.uniform(min(0, spare_y), max(0, spare_y))
    center_x, center_y = (left + crop_width / 2) / scale_x - 0.5, (top + crop_height / 2) / scale_y - 0.5
    return Window(center_x, center_y, scale_x, scale_y, angle, flip)
