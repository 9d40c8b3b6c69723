"""Augmentation keyed by (seed, epoch, index): a sample looks the same in whatever process or order it is made.

The crop window is chosen in the coordinates of the source image and only that window is touched, so the cost follows
the crop. A window that is not turned is moved to whole source pixels (its scale by at most a sixty-fourth) and resized,
a fourth of the work of warping it. Images stay uint8 until the device, and neither input is written to.
"""

from __future__ import annotations

import math

import numpy as np

from fastseg.config import AugmentConfig
from fastseg.data.opencv import single_threaded_cv2
from fastseg.data.window import Window, draw_window
from fastseg.types import IGNORE_INDEX

FILL = (124, 116, 104)  # ImageNet's mean colour
# Images are smoothed first below these scales, where bilinear sampling skips pixels. It takes two a side, so a resize
# to half the size or more uses all, as in other pipelines; a warp, whose samples may fall on pixels, does not.
SHARP_RESIZE, SHARP_WARP = 0.49, 0.75  # a window of whole pixels may be a little larger than at half the size
SMALLEST = 32  # source pixels a side from which a window may be moved to whole ones
LARGEST = 4  # times the crop's area: what a window beyond the image's borders may be padded to
TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])  # its first row: luma
FROM_YIQ = np.linalg.inv(TO_YIQ)


def augment(
    image: np.ndarray,
    label: np.ndarray,
    config: AugmentConfig,
    *,
    input_scale: float,
    key: tuple[int, ...],
    fill: tuple[int, int, int] = FILL,
    focus: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 (H,W,3) and label uint8 (H,W) -> the same at `config.crop`, by random numbers from `key`.

    Random scale and aspect, rotation, crop, flip, brightness, contrast, saturation, hue and blur. Pixels outside the
    image are `fill` in the image and ignored in the label; labels are resampled by nearest neighbour. `focus` is a
    column and row that the crop must show.
    """
    single_threaded_cv2()
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    window = draw_window(label, config, random, input_scale=input_scale, focus=focus)
    image, label = render(image, label, window, config.crop, fill=fill)
    return recoloured(image, config, random), label


def render(
    image: np.ndarray,
    label: np.ndarray,
    window: Window,
    crop: tuple[int, int],
    *,
    fill: tuple[int, int, int] = FILL,
) -> tuple[np.ndarray, np.ndarray]:
    """What `window` shows of image uint8 (H,W,3) and label uint8 (H,W), as new arrays of `crop` pixels."""
    height, width = label.shape
    if window.angle == 0:
        whole = snapped(window, crop)
        source_x, source_y, source_width, source_height = whole
        inside = source_x >= 0 and source_y >= 0 and source_x + source_width <= width
        inside = inside and source_y + source_height <= height
        overlaps = -source_width < source_x < width and -source_height < source_y < height
        small_enough = inside or (overlaps and source_width * source_height <= LARGEST * crop[0] * crop[1])
        if min(source_width, source_height) >= SMALLEST and small_enough:
            return _resized(image, label, whole, crop, flip=window.flip, fill=fill)
    return _warped(image, label, window, crop, fill)


def snapped(window: Window, crop: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, width, height) in source pixels of the whole pixels nearest to a window that is not turned."""
    width, height = max(1, round(crop[1] / window.scale_x)), max(1, round(crop[0] / window.scale_y))
    left = math.floor(window.center_x + 0.5 - width / 2 + 0.5)
    return left, math.floor(window.center_y + 0.5 - height / 2 + 0.5), width, height


def _resized(
    image: np.ndarray,
    label: np.ndarray,
    window: tuple[int, int, int, int],
    crop: tuple[int, int],
    *,
    flip: bool,
    fill: tuple[int, int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """The crop that shows exactly the pixels of `window` (left, top, width, height)."""
    import cv2

    left, top, width, height = window
    size = crop[1], crop[0]
    rows, columns = _clipped(top, height, label.shape[0]), _clipped(left, width, label.shape[1])
    image = _smoothed(image, rows, columns, SHARP_RESIZE, scale_x=size[0] / width, scale_y=size[1] / height)
    label = label[rows, columns]
    beyond = rows.start - top, top + height - rows.stop, columns.start - left, left + width - columns.stop
    if any(beyond):
        image = cv2.copyMakeBorder(image, *beyond, cv2.BORDER_CONSTANT, value=fill)
        label = cv2.copyMakeBorder(label, *beyond, cv2.BORDER_CONSTANT, value=IGNORE_INDEX)
    # both take the centre of a pixel for its place; of equal sizes they are copies
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST_EXACT)
    return (cv2.flip(image, 1, dst=image), cv2.flip(label, 1, dst=label)) if flip else (image, label)


def _warped(
    image: np.ndarray, label: np.ndarray, window: Window, crop: tuple[int, int], fill: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The crop by an affine map from its pixel centres to those of the source: for windows of any place and angle."""
    import cv2

    size = crop[1], crop[0]
    matrix = inverse_map(window, crop)
    corners = matrix @ np.array([[0, size[0] - 1, 0, size[0] - 1], [0, 0, size[1] - 1, size[1] - 1], [1, 1, 1, 1]])
    (left, top), (right, bottom) = np.floor(corners.min(1)).astype(int), np.ceil(corners.max(1)).astype(int)
    columns = _clipped(int(left) - 1, int(right - left) + 3, label.shape[1])
    rows = _clipped(int(top) - 1, int(bottom - top) + 3, label.shape[0])
    image = _smoothed(image, rows, columns, SHARP_WARP, scale_x=window.scale_x, scale_y=window.scale_y)
    matrix[:, 2] -= columns.start, rows.start
    flags = cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(
        image, matrix, size, flags=flags | cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=fill
    )
    label = cv2.warpAffine(
        label[rows, columns],
        matrix,
        size,
        flags=flags | cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=IGNORE_INDEX,
    )
    return image, label


def inverse_map(window: Window, crop: tuple[int, int]) -> np.ndarray:
    """(2,3): pixel centres (column, row) of the crop to those of the source. Rotate about the middle, scale, mirror."""
    cosine, sine, mirror = math.cos(window.angle), math.sin(window.angle), -1 if window.flip else 1
    a, b = cosine / window.scale_x * mirror, -sine / window.scale_x
    c, d = sine / window.scale_y * mirror, cosine / window.scale_y
    middle_x, middle_y = (crop[1] - 1) / 2, (crop[0] - 1) / 2
    return np.array(
        [
            [a, b, window.center_x - a * middle_x - b * middle_y],
            [c, d, window.center_y - c * middle_x - d * middle_y],
        ]
    )


def _clipped(first: int, count: int, side: int) -> slice:
    """`count` pixels from `first` on, as far as they lie on a side of `side`; at least one."""
    start = min(max(first, 0), side - 1)
    return slice(start, max(start + 1, min(first + count, side)))


def _smoothed(
    image: np.ndarray, rows: slice, columns: slice, sharp: float, *, scale_x: float, scale_y: float
) -> np.ndarray:
    """`image[rows, columns]`, low-passed for these scales where one is below `sharp`; else a view."""
    import cv2

    if min(scale_x, scale_y) >= sharp:
        return image[rows, columns]
    shrink = math.sqrt(scale_x * scale_y)
    # 1 2 1 down to half the size, which OpenCV has a fast way for; below, a Gaussian but for its last percents
    radius, sigma = (1, 0.0) if shrink >= 0.5 else (max(1, round(0.8 / shrink)), 0.4 / shrink)
    # with the neighbours that the window's border needs
    around = slice(max(0, rows.start - radius), rows.stop + radius)
    beside = slice(max(0, columns.start - radius), columns.stop + radius)
    smooth = cv2.GaussianBlur(image[around, beside], (2 * radius + 1, 2 * radius + 1), sigma)
    top, left = rows.start - around.start, columns.start - beside.start
    return smooth[top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]


def recoloured(image: np.ndarray, config: AugmentConfig, random: np.random.Generator) -> np.ndarray:
    """Image uint8 (H,W,3) with random brightness, contrast, saturation, hue and blur; itself where none is asked for.

    All but the blur are one affine map of RGB, applied by one 3x4 matrix product.
    """
    import cv2

    brightness = 1 + random.uniform(-config.brightness, config.brightness)
    contrast = 1 + random.uniform(-config.contrast, config.contrast)
    saturation = 1 + random.uniform(-config.saturation, config.saturation)
    hue = random.uniform(-config.hue, config.hue) * 2 * math.pi
    if config.brightness or config.contrast or config.saturation or config.hue:
        # rotating the chroma plane of YIQ turns the hue; shrinking it lowers the saturation
        cosine, sine = math.cos(hue), math.sin(hue)
        turn = np.array(
            [[1, 0, 0], [0, saturation * cosine, -saturation * sine], [0, saturation * sine, saturation * cosine]]
        )
        matrix = FROM_YIQ @ turn @ TO_YIQ * (brightness * contrast)
        mean = float(np.dot(TO_YIQ[0], cv2.mean(image)[:3])) * brightness
        offset = np.full((3, 1), mean * (1 - contrast))
        image = cv2.transform(image, np.hstack([matrix, offset]).astype(np.float32))
    if config.blur and random.random() < config.blur:
        image = cv2.GaussianBlur(image, (0, 0), random.uniform(0.3, 1.2))
    return image
