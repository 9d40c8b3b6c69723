"""The first bytes of a PNG: its size and how its pixels are stored."""

from __future__ import annotations

import struct
from typing import NamedTuple

HEADER = struct.Struct(">8s4x4sIIBB")
SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # colour types


class PNGHeader(NamedTuple):
    """Pixels, bits per channel (per index of a palette image) and colour type."""

    width: int
    height: int
    bits: int
    colour_type: int


def png_header(content: bytes) -> PNGHeader | None:
    """What the first `HEADER.size` bytes of a file say, or None for what is no PNG.

    Source: the PNG specification, W3C, sections 5.2 and 11.2.1.
    """
    if len(content) < HEADER.size:
        return None
    signature, chunk, *header = HEADER.unpack_from(content)
    return PNGHeader(*header) if (signature, chunk) == (SIGNATURE, b"IHDR") else None
