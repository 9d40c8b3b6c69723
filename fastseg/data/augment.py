"""Augmentation keyed by (seed, epoch, index): a sample looks the same in whatever process or order it is made.

The crop window is chosen in the coordinates of the source image and only that window is resized, so the cost follows
the crop (below three quarters of the size the image is smoothed first). Images stay uint8 until the device.
"""

from __future__ import annotations

import math

import numpy as np

from fastseg.config import AugmentConfig
from fastseg.data.window import draw_window
from fastseg.types import IGNORE_INDEX


def augment(
    image: np.ndarray,
    label: np.ndarray,
    config: AugmentConfig,
    *,
    input_scale: float,
    key: tuple[int, int, int],
    fill: tuple[int, int, int] = (124, 116, 104),
) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 (H,W,3) and label uint8 (H,W) -> the same at `config.crop`, by random numbers from `key`.

    Random scale and aspect, rotation, crop, flip, brightness, contrast, saturation, hue and blur. Pixels outside the
    image are `fill` in the image and ignored in the label; labels are resampled by nearest neighbour.
    """
    import cv2

    cv2.setNumThreads(0)  # one sample, one thread: workers and processes share the cores
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    window = draw_window(label, config, random, input_scale=input_scale)
    crop_height, crop_width = config.crop

    # maps pixel centres of the crop to pixel centres of the source: rotate about the window's middle, scale, flip
    cosine, sine, mirror = math.cos(window.angle), math.sin(window.angle), -1 if window.flip else 1
    a, b = cosine / window.scale_x * mirror, -sine / window.scale_x
    c, d = sine / window.scale_y * mirror, cosine / window.scale_y
    middle_x, middle_y = (crop_width - 1) / 2, (crop_height - 1) / 2
    matrix = np.array(
        [
            [a, b, window.center_x - a * middle_x - b * middle_y],
            [c, d, window.center_y - c * middle_x - d * middle_y],
        ]
    )
    size = (crop_width, crop_height)
    if min(window.scale_x, window.scale_y) < 0.75:  # sampling every second pixel would alias; average first
        blur = max(1.0, 1 / math.sqrt(window.scale_x * window.scale_y))
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * blur)
    image = cv2.warpAffine(
        image, matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )  # fmt: skip
    label = cv2.warpAffine(
        label, matrix, size, flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT,
        borderValue=IGNORE_INDEX,
    )  # fmt: skip
    image = _colour(image, config, random)
    if config.blur and random.random() < config.blur:
        image = cv2.GaussianBlur(image, (0, 0), random.uniform(0.3, 1.2))
    return np.ascontiguousarray(image), np.ascontiguousarray(label)


def _colour(image: np.ndarray, config: AugmentConfig, random: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and hue as one affine map of RGB, applied by one 3x4 matrix product."""
    import cv2

    brightness = 1 + random.uniform(-config.brightness, config.brightness)
    contrast = 1 + random.uniform(-config.contrast, config.contrast)
    saturation = 1 + random.uniform(-config.saturation, config.saturation)
    hue = random.uniform(-config.hue, config.hue) * 2 * math.pi
    if not (config.brightness or config.contrast or config.saturation or config.hue):
        return image
    luma = np.array([0.299, 0.587, 0.114])
    # rotating the chroma plane of YIQ turns the hue; shrinking it lowers the saturation
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    cosine, sine = math.cos(hue), math.sin(hue)
    turn = np.array(
        [[1, 0, 0], [0, saturation * cosine, -saturation * sine], [0, saturation * sine, saturation * cosine]]
    )
    matrix = np.linalg.inv(to_yiq) @ turn @ to_yiq * (brightness * contrast)
    mean = float(np.dot(luma, cv2.mean(image)[:3])) * brightness
    offset = np.full((3, 1), mean * (1 - contrast))
    return cv2.transform(image, np.hstack([matrix, offset]).astype(np.float32))
