"""Label maps in colours, and maps of wide ids, as the one reader gives them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fastseg.data.readers import read_colour_label, read_ids
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
