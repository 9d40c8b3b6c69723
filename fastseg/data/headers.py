"""The size of an image by its header, without decoding a pixel."""

from __future__ import annotations

import io
import warnings

from PIL import Image

from fastseg.data.files import read_head
from fastseg.data.readers import FORMATS, read_image
from fastseg.types import DataFile

HEAD = 1 << 16  # bytes that hold the header of nearly every image; others are read whole


def image_size(file: DataFile) -> tuple[int, int]:
    """(H,W) of the pixels as they are stored (of a TIFF with EXIF rotation perhaps (W,H)).

    Raises as `readers.read_image` for what has no header that can be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a size beyond Pillow's limits: the reader has its own
            with Image.open(io.BytesIO(read_head(file, HEAD)), formats=FORMATS) as image:
                return image.height, image.width
    except Exception:  # a header that is longer, damaged or none; the one reader finds the words for it
        height, width, _ = read_image(file, apply_exif=False).shape
        return height, width
