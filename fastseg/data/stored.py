"""The numbers that stand in a file of one channel: Pillow stretches those of few bits to the whole range of grey."""

from __future__ import annotations

import numpy as np
from PIL.ImageFile import ImageFile

FEW_BITS = {"L;2": 3, "L;4": 15}  # how Pillow names grey of 2 and 4 bits (PNG, TIFF), and the largest number of these


def stored_numbers(shown: np.ndarray, header: ImageFile) -> np.ndarray:
    """The numbers in a file, from what Pillow decoded of it in mode L or I, and its header that is not yet decoded.

    Grey of 2 and 4 bits arrives times 85 and 17, that of a PGM times 255 (or 65535) / maxval, rounded. Both are undone
    exactly, since no two numbers come as near as rounding moves them.
    """
    if not header.tile:
        return shown
    decoder, _, _, given = header.tile[0]
    raw, *further = given if isinstance(given, tuple) else (given,)
    largest = FEW_BITS.get(str(raw)[:3])
    if decoder in ("ppm", "ppm_plain"):
        largest = int(further[0])
    brightest = 255 if header.mode == "L" else 65535
    if largest is None or largest == brightest:
        return shown
    return (shown.astype(np.uint32) * largest + brightest // 2) // brightest
