"""Files made to cost whoever opens them: small ones that say they are large, or unpack to much."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

SIDE = 60_000  # pixels, as far as headers tell
MUCH = 400_000_000  # bytes that are packed


def packed(size: int = MUCH) -> bytes:
    """A zlib stream of so many zeros."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(10_000_000)) for _ in range(size // 10_000_000)]
    return b"".join([*parts, packer.flush()])


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes, width: int = 16, height: int = 16, data: bytes | None = None) -> bytes:
    """A grey PNG file with extra chunks before its pixels."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    pixels = zlib.compress(bytes((width + 1) * height)) if data is None else data
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def photo(kind: str) -> bytes:
    """1000 x 2000 pixels of noise, which do not compress."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (1000, 2000, 3), np.uint8)
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


def tiff(entries: list[tuple[int, int, int, int]]) -> bytes:
    """Header and one directory of (tag, type, count, value or offset)."""
    rows = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + rows + bytes(64)


def enlarged(data: bytes, place: int, form: str, *values: int) -> bytes:
    content = bytearray(data)
    struct.pack_into(form, content, place, *values)
    return bytes(content)


def jpeg() -> bytes:
    data = photo("JPEG")
    place = data.index(b"\xff\xc0")  # frame: length, precision, height, width
    return enlarged(data, place + 5, ">HH", SIDE, SIDE)


def gif() -> bytes:
    data = photo("GIF")
    place = data.index(b"\x2c")  # of the frame, whose size counts beside the screen's
    return enlarged(enlarged(data, 6, "<HH", SIDE, SIDE), place + 5, "<HH", SIDE, SIDE)


def webp() -> bytes:
    """An extended header that says 16,384 x 16,384."""
    side = (16_383).to_bytes(3, "little")
    body = (
        b"VP8X"
        + struct.pack("<I", 10)
        + b"\0\0\0\0"
        + side
        + side
        + b"VP8L"
        + struct.pack("<I", 8)
        + b"\x2f"
        + bytes(7)
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def images() -> dict[str, bytes]:
    strips = [(256, 4, 1, SIDE), (257, 4, 1, SIDE), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
              (277, 3, 1, 1), (278, 4, 1, SIDE), (279, 4, 1, 2**31)]  # fmt: skip
    tiny = [(tag, kind, count, 16 if value == SIDE else value) for tag, kind, count, value in strips]
    much = packed()
    found = {
        "png: large": png(width=SIDE, height=SIDE, data=much),
        "png: too many pixels for its size": png(width=16, height=16, data=much),
        "png: text": png(png_chunk(b"zTXt", b"Comment\0\0" + much)),
        "png: international text": png(png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + much)),
        "png: profile": png(png_chunk(b"iCCP", b"icc\0\0" + much)),
        "png: a chunk of 2 GB": png(struct.pack(">I", 2**31 - 1) + b"tEXt"),
        "jpeg": jpeg(),
        "gif": gif(),
        "webp": webp(),
        "bmp": enlarged(photo("BMP"), 18, "<ii", SIDE, SIDE),
        "bmp: negative": enlarged(photo("BMP"), 18, "<ii", SIDE, -SIDE),
        "ppm": b"P6 %d %d 255 " % (SIDE, SIDE),
        "ppm: digits": b"P6 " + b"9" * 1_000_000 + b" 1 255 ",
        "ppm: plain": b"P3 %d %d 255 " % (SIDE, SIDE) + b"1 " * 100_000,
        "tiff: large": tiff(strips),
        "tiff: long strip": tiff(tiny),
        "tiff: a tag of 2 billion values": tiff([*tiny[:6], (700, 1, 2**31 - 1, 8), *tiny[6:]]),
        "tiff: tiles": tiff([*tiny, (322, 4, 1, 2**31 - 16), (323, 4, 1, 2**31 - 16), (324, 4, 1, 8), (325, 4, 1, 8)]),
    }
    for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP"):
        data = photo(kind)
        found |= {f"{kind.lower()}: {share} % of it": data[: len(data) * share // 100] for share in (1, 50, 99)}
    return found


def matlab(shape: tuple[int, int]) -> bytes:
    """A compressed variable LabelMap that says it has that shape, and 400 MB of zeros for its numbers."""
    flags = struct.pack("<IIII", 6, 8, 9, 0)
    dims = struct.pack("<IIii", 5, 8, *shape)
    name = struct.pack("<II", 1, 8) + b"LabelMap"
    head = flags + dims + name + struct.pack("<II", 2, MUCH)
    packer = zlib.compressobj(9)
    parts = [packer.compress(struct.pack("<II", 14, len(head) + MUCH) + head)]
    parts += [packer.compress(bytes(10_000_000)) for _ in range(MUCH // 10_000_000)]
    body = b"".join([*parts, packer.flush()])
    return b"MATLAB 5.0".ljust(124) + struct.pack("<H2s", 0x0100, b"IM") + struct.pack("<II", 15, len(body)) + body


def archive(entries: dict[str, bytes], compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return buffer.getvalue()


class _Loud:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return bytearray, (MUCH,)


def checkpoints() -> dict[str, bytes]:
    buffer = io.BytesIO()
    torch.save({"format_version": 1, "model": {"a": torch.zeros(1).expand(10**6, 10**6)}, "ema": None}, buffer)
    return {
        "packed zeros": archive({"archive/data.pkl": bytes(MUCH)}, zipfile.ZIP_DEFLATED),
        "packed twice": archive(
            {"archive/data.pkl": archive({"a": bytes(MUCH)}, zipfile.ZIP_DEFLATED)}, zipfile.ZIP_DEFLATED
        ),
        "a pickle that asks for memory": pickle.dumps(_Loud()),
        "a tensor larger than its storage": buffer.getvalue(),
    }


def weights() -> dict[str, bytes]:
    """Safetensors files: the length of a header, the header, the numbers."""
    huge = json.dumps({"a": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 4 * 2**40]}}).encode()
    deep = b"[" * 1_000_000
    return {
        "a header of 8 EB": struct.pack("<Q", 2**63 - 1) + b"{}",
        "a header of 99 MB that is not there": struct.pack("<Q", 99_000_000) + b"{}",
        "a tensor of 4 TB": struct.pack("<Q", len(huge)) + huge,
        "nested": struct.pack("<Q", len(deep)) + deep,
    }
