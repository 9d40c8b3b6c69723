"""The library's one reader of images and one reader of label maps (Pillow; cv2 never sees a path).

Provisional: grown by the readers' author.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def read_image(source: Path | str | bytes, *, apply_exif: bool = True, max_pixels: int = 100_000_000) -> np.ndarray:
    image = Image.open(source)
    if apply_exif:
        image = ImageOps.exif_transpose(image)
    return np.asarray(image.convert("RGB"))


def read_label(source: Path | str | bytes, *, max_pixels: int = 100_000_000) -> np.ndarray:
    return np.asarray(Image.open(source))
