"""The first bytes of a PNG."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastseg.data.files import ArchiveMember, FileInMemory, read_head
from fastseg.data.png import GREY, GREY_ALPHA, HEADER, PALETTE, RGB, RGB_ALPHA, PNGHeader, png_header
from fastseg.types import DataFile


def encoded(mode: str, file_format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (7, 3)).save(stream, file_format)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("mode", "bits", "colour_type"),
    [
        ("1", 1, GREY),
        ("L", 8, GREY),
        ("I;16", 16, GREY),
        ("P", 8, PALETTE),
        ("LA", 8, GREY_ALPHA),
        ("RGB", 8, RGB),
        ("RGBA", 8, RGB_ALPHA),
    ],
)
def test_size_and_storage_stand_in_the_header(mode: str, bits: int, colour_type: int) -> None:
    header = png_header(encoded(mode)[: HEADER.size])
    assert header is not None
    # Pillow may store a palette of one colour in one bit
    assert header == PNGHeader(7, 3, header.bits if mode == "P" else bits, colour_type)


@pytest.mark.parametrize("content", [b"", encoded("L", "BMP"), encoded("L")[: HEADER.size - 1], b"\x89PNG" + bytes(60)])
def test_what_is_no_png_has_no_header(content: bytes) -> None:
    assert png_header(content) is None


def test_the_head_of_a_file_is_read_wherever_it_is(tmp_path: Path) -> None:
    import zipfile

    content = np.arange(99, dtype=np.uint8).tobytes()
    (tmp_path / "a.bin").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b/a.bin", content)
    files: list[DataFile] = [
        tmp_path / "a.bin",
        ArchiveMember(tmp_path / "a.zip", "b/a.bin"),
        FileInMemory("b/a.bin", content),
    ]
    for file in files:
        assert file.name == "a.bin"
        assert read_head(file, 9) == content[:9]
        assert read_head(file, 1000) == content
