"""Label maps in colours, and maps of wide ids, as the one reader gives them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fastseg.data.readers import read_colour_label, read_ids, read_label
from fastseg.errors import ImageReadError, LabelError

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 11


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def test_a_colour_mask_comes_back_exactly() -> None:
    assert (read_colour_label(encoded(Image.fromarray(PIXELS))) == PIXELS).all()


def test_a_palette_mask_gives_its_palettes_colours() -> None:
    image = Image.fromarray(np.array([[0, 2]], np.uint8), "P")
    image.putpalette([9, 8, 7, 0, 0, 0, 1, 2, 3])
    assert read_colour_label(encoded(image)).tolist() == [[[9, 8, 7], [1, 2, 3]]]


def test_grey_and_one_bit_masks_give_their_value_three_times() -> None:
    grey = Image.fromarray(np.array([[0, 77]], np.uint8))
    assert read_colour_label(encoded(grey)).tolist() == [[[0] * 3, [77] * 3]]
    assert read_colour_label(encoded(grey.convert("1", dither=Image.Dither.NONE))).tolist() == [[[0] * 3, [0] * 3]]


def test_exif_does_not_turn_a_colour_mask() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert (read_colour_label(encoded(Image.fromarray(PIXELS), exif=exif)) == PIXELS).all()


def test_opaque_alpha_is_dropped_and_transparency_is_refused() -> None:
    alpha = np.full((2, 3), 255, np.uint8)
    opaque = np.dstack([PIXELS, alpha])
    assert (read_colour_label(encoded(Image.fromarray(opaque))) == PIXELS).all()
    alpha[1, 2] = 254
    with pytest.raises(LabelError, match="transparent pixels"):
        read_colour_label(encoded(Image.fromarray(np.dstack([PIXELS, alpha]))))


def test_jpeg_cannot_hold_a_mask() -> None:
    with pytest.raises(LabelError, match="JPEG, which changes colours"):
        read_colour_label(encoded(Image.fromarray(PIXELS), "JPEG"))


@pytest.mark.parametrize("mode", ["I;16", "CMYK"])
def test_other_modes_are_no_colour_masks(mode: str) -> None:
    image = Image.fromarray(PIXELS).convert("CMYK") if mode == "CMYK" else Image.fromarray(PIXELS[..., 0].astype("<u2"))
    with pytest.raises(LabelError, match=f"mode {mode}"):
        read_colour_label(encoded(image, "TIFF" if mode == "CMYK" else "PNG"))


@pytest.mark.parametrize(("dtype", "values"), [(np.uint8, [0, 255]), (np.uint16, [26001, 65535])])
def test_ids_are_read_as_sixteen_bits(dtype: type, values: list[int]) -> None:
    ids = read_ids(encoded(Image.fromarray(np.array([values], dtype))))
    assert ids.dtype == np.uint16
    assert ids.tolist() == [values]


def test_ids_beyond_sixteen_bits_are_refused() -> None:
    with pytest.raises(LabelError, match=r"ids 0\.\.70000; allowed are 0\.\.65535"):
        read_ids(encoded(Image.fromarray(np.array([[0, 70000]], np.int32)), "TIFF"))


def test_colours_are_no_ids() -> None:
    with pytest.raises(LabelError, match="3-channel label"):
        read_ids(encoded(Image.fromarray(PIXELS)))


@pytest.mark.parametrize("read", [read_colour_label, read_ids])
def test_a_damaged_map_is_an_image_read_error(read: object) -> None:
    with pytest.raises(ImageReadError, match="damaged or incomplete"):
        read(encoded(Image.fromarray(np.random.default_rng(0).integers(0, 99, (64, 64), np.uint8)))[:-900])  # type: ignore[operator]


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(numbers: np.ndarray, bits: int, *, colour_type: int = 0, interlaced: bool = False) -> bytes:
    """A PNG of one channel, after its specification: `colour_type` 0 is grey, 3 a palette (of colours 255 - i)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b""
    for left, top, step_x, step_y in ADAM7 if interlaced else ((0, 0, 1, 1),):
        for row in numbers[top::step_y, left::step_x] if left < numbers.shape[1] else ():
            digits = "".join(f"{number:0{bits}b}" for number in row)
            digits += "0" * (-len(digits) % 8)
            rows += b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big")
    height, width = numbers.shape
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, interlaced)
    palette = chunk(b"PLTE", bytes(255 - i for i in range(2**bits) for _ in range(3))) if colour_type == 3 else b""
    image = chunk(b"IHDR", header) + palette + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + image


def every_number(bits: int) -> np.ndarray:
    """Each number that fits, up to 255, in rows that end within a byte."""
    largest = min(2**bits, 256) - 1
    return (np.arange(19 * 21).reshape(19, 21) % (largest + 1)).astype(int)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("bits", "colour_type"), [*((b, 0) for b in (1, 2, 4, 8, 16)), *((b, 3) for b in (1, 2, 4, 8))]
)
def test_the_numbers_are_those_in_the_file_whatever_its_bits(bits: int, colour_type: int, interlaced: bool) -> None:
    numbers = every_number(bits)
    data = png(numbers, bits, colour_type=colour_type, interlaced=interlaced)
    for read in (read_label, read_ids):
        assert np.array_equal(read(data), numbers)


def test_wide_ids_of_sixteen_bits_are_those_in_the_file() -> None:
    numbers = np.array([[0, 1, 26001, 65535]])
    assert np.array_equal(read_ids(png(numbers, 16)), numbers)


@pytest.mark.parametrize("maxval", [1, 2, 3, 14, 100, 254, 255])
def test_the_numbers_of_a_pgm_are_those_in_the_file_whatever_its_white(maxval: int) -> None:
    row = range(maxval + 1)
    head = f"{len(row)} 1 {maxval}\n"
    for data in (f"P5 {head}".encode() + bytes(row), f"P2 {head}{' '.join(map(str, row))}\n".encode()):
        assert read_label(data).tolist() == [list(row)]


@pytest.mark.parametrize("maxval", [256, 1000, 40000, 65535])
def test_so_are_the_wide_numbers_of_a_pgm(maxval: int) -> None:
    row = np.unique(np.linspace(0, maxval, 300).astype(int))
    assert read_ids(f"P5 {len(row)} 1 {maxval}\n".encode() + row.astype(">u2").tobytes()).tolist() == [row.tolist()]


@pytest.mark.parametrize("bits", [2, 4])
def test_the_numbers_of_a_tiff_of_few_bits_are_those_in_the_file(bits: int) -> None:
    entries = [(256, 8), (257, 1), (258, bits), (259, 1), (262, 1), (273, 200), (277, 1), (278, 1), (279, bits)]
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    row = [0, 1, 2, 3, 2**bits - 1, 0, 1, 2]
    pixels = int("".join(f"{number:0{bits}b}" for number in row), 2).to_bytes(bits, "big")
    data = (b"II*\0" + struct.pack("<IH", 8, len(entries)) + tags + bytes(4)).ljust(200, b"\0") + pixels
    assert read_label(data).tolist() == [row]


@pytest.mark.parametrize(("bits", "shown"), [(1, [0, 255]), (2, [0, 85, 170, 255]), (4, list(range(0, 256, 17)))])
def test_a_grey_mask_of_few_bits_has_the_colours_that_a_viewer_shows(bits: int, shown: list[int]) -> None:
    assert read_colour_label(png(np.arange(2**bits)[None], bits)).tolist() == [[[value] * 3 for value in shown]]
