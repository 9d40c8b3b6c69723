"""The one reader: every mode and damage gives RGB, label values or a named error."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from fastseg.data import notes, readers
from fastseg.data.readers import image_from, read_image, read_label
from fastseg.errors import FastsegError, ImageReadError, LabelError, MissingFileError, printable

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (9, 13, 3), dtype=np.uint8)
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM")


@pytest.fixture(autouse=True)
def _nothing_noted_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notes, "_said", set())


def encoded(image: Image.Image, file_format: str = "PNG", orientation: int | None = None, **options: object) -> bytes:
    if orientation is not None:
        exif = Image.Exif()
        exif[readers.ORIENTATION_TAG] = orientation
        options["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def photo() -> bytes:
    return encoded(Image.fromarray(PIXELS).resize((64, 48)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_every_mode_in_every_format_that_holds_it_becomes_rgb(mode: str) -> None:
    source = Image.fromarray(PIXELS).convert(mode)
    files: list[bytes] = []
    for file_format in FORMATS:
        with contextlib.suppress(OSError, KeyError, ValueError):  # how Pillow says that a format cannot hold a mode
            files.append(encoded(source, file_format))
    assert files
    for image in (image_from(source), *map(read_image, files)):
        assert image.shape == (9, 13, 3)
        assert image.dtype == np.uint8
        assert image.flags.writeable


def test_lossless_rgb_comes_back_exactly() -> None:
    assert np.array_equal(read_image(encoded(Image.fromarray(PIXELS))), PIXELS)


def test_grey_repeats_its_value_in_all_channels() -> None:
    image = read_image(encoded(Image.fromarray(PIXELS[..., 0])))
    assert np.array_equal(image, np.repeat(PIXELS[..., :1], 3, axis=2))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_scaled_and_rounded_not_clipped(file_format: str) -> None:
    values = np.array([[0, 128, 129, 256, 257, 32768, 65406, 65407, 65535]], np.uint16)
    image = read_image(encoded(Image.fromarray(values), file_format))
    assert image[0, :, 0].tolist() == [0, 0, 1, 1, 1, 128, 254, 255, 255]


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_modes_without_a_defined_white_are_refused_by_name(mode: str) -> None:
    image = Image.new(mode, (3, 2))
    with pytest.raises(ImageReadError, match=f"mode {mode}, which have no defined white"):
        read_image(encoded(image, "TIFF"))


def test_alpha_is_dropped_and_said_once_per_process(caplog: pytest.LogCaptureFixture) -> None:
    alpha = np.dstack([PIXELS, np.zeros((9, 13), np.uint8)])  # fully transparent: the colours still count
    for _ in range(3):
        assert np.array_equal(read_image(encoded(Image.fromarray(alpha))), PIXELS)
    assert [record.message for record in caplog.records if "transparency" in record.message] == [caplog.messages[0]]


@pytest.mark.parametrize("transparency", [0, bytes(range(200))])
def test_transparency_in_a_palette_keeps_the_palette_colours(transparency: int | bytes) -> None:
    image = Image.fromarray(PIXELS).quantize(200)
    assert np.array_equal(read_image(encoded(image, transparency=transparency)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("file_format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_of_several_frames_the_first_is_read_and_it_is_said(file_format: str, caplog: pytest.LogCaptureFixture) -> None:
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    options = {"lossless": True} if file_format == "WEBP" else {}
    image = read_image(encoded(first, file_format, save_all=True, append_images=[second], **options))
    assert (image == (255, 0, 0)).all()
    assert sum("several frames" in message for message in caplog.messages) == 1


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_exif_is_applied_when_asked_and_pixels_are_as_stored_otherwise(file_format: str, orientation: int) -> None:
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(Image.fromarray(PIXELS), file_format, orientation, **options)
    tagged = Image.fromarray(PIXELS)
    tagged.getexif()[readers.ORIENTATION_TAG] = orientation
    assert np.array_equal(read_image(data), np.asarray(ImageOps.exif_transpose(tagged)))
    assert np.array_equal(read_image(data, apply_exif=False), PIXELS)


def test_labels_ignore_exif_also_in_tiff() -> None:
    data = encoded(Image.fromarray(PIXELS[..., 0]), "TIFF", 6)
    assert np.array_equal(read_label(data), PIXELS[..., 0])


def test_palette_labels_give_indices_not_colours() -> None:
    label = Image.fromarray(PIXELS[..., 0])
    label.putpalette(RANDOM.integers(0, 256, 768, dtype=np.uint8).tobytes())
    assert label.mode == "P"
    assert np.array_equal(read_label(encoded(label)), PIXELS[..., 0])


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bit_labels_below_256_keep_their_value(file_format: str) -> None:
    values = PIXELS[..., 0].astype(np.uint16)
    assert np.array_equal(read_label(encoded(Image.fromarray(values), file_format)), PIXELS[..., 0])


def test_one_bit_labels_are_zero_and_one() -> None:
    data = encoded(Image.fromarray(PIXELS[..., 0] > 127))
    assert np.array_equal(read_label(data), (PIXELS[..., 0] > 127).astype(np.uint8))


def test_labels_above_255_are_refused_with_their_range() -> None:
    with pytest.raises(LabelError, match=r"7\.\.26001; allowed are 0\.\.255"):
        read_label(encoded(Image.fromarray(np.array([[7, 26001]], np.uint16))))


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("RGBA", 4), ("LA", 2), ("CMYK", 4)])
def test_colour_masks_are_refused_naming_the_file(mode: str, channels: int, tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    path.write_bytes(encoded(Image.fromarray(PIXELS).convert(mode), "TIFF"))
    with pytest.raises(LabelError, match=rf"mask\.tif is a {channels}-channel label"):
        read_label(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"<!DOCTYPE html><html>404</html>", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_image_is_named_with_its_size(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match=rf"photo\.png \({len(content)} bytes\)"):
        read_image(path)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"])
def test_a_truncated_file_is_an_error_or_whole(file_format: str) -> None:
    data = encoded(Image.fromarray(PIXELS).resize((64, 48)), file_format)
    whole = read_image(data)
    refused = 0
    for length in np.linspace(0, len(data) - 1, 60, dtype=int):
        try:
            image = read_image(data[:length])
        except ImageReadError:
            refused += 1
        else:  # only bytes after the pixels were lost
            assert np.array_equal(image, whole)
    assert refused >= 55
    with pytest.raises(ImageReadError, match=rf"\({len(data) // 2} bytes\) is damaged or incomplete"):
        read_image(data[: len(data) // 2])


@settings(max_examples=150, deadline=None)
@given(
    file_format=st.sampled_from(FORMATS),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    tail=st.binary(max_size=8),
)
def test_a_damaged_file_never_raises_anything_but_our_errors(
    file_format: str, flips: list[tuple[float, int]], tail: bytes
) -> None:
    data = bytearray(encoded(Image.fromarray(PIXELS), file_format))
    for place, value in flips:
        data[int(place**3 * len(data))] = value  # mostly in the header, where it hurts
    for read in (read_image, read_label):
        try:
            array = read(bytes(data) + tail, max_pixels=1_000_000)
        except FastsegError:
            continue
        assert array.dtype == np.uint8
        assert array.shape[2:] == ((3,) if read is read_image else ())


def test_a_bomb_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(encoded(Image.new("1", (20_000, 10_000))))  # 25 kB
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageReadError, match=r"bomb\.png is 20000x10000 = 200000000 .* --max-pixels 200000000"):
        read_image(path)
    assert limit == Image.MAX_IMAGE_PIXELS


def test_max_pixels_replaces_pillows_limit_without_touching_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow alone would raise above 20 pixels
    assert read_image(photo(), max_pixels=64 * 48).shape == (48, 64, 3)
    with pytest.raises(ImageReadError, match="above the limit of 3071"):
        read_image(photo(), max_pixels=64 * 48 - 1)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_a_missing_file_names_the_nearest_existing_parent(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError) as caught:
        read_image(tmp_path / "gone" / "deeper" / "a.png")
    assert f"nearest existing parent is {tmp_path}" in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("name", ["nul\0byte.png", "x" * 300 + ".png", "lone\ud800.png"])
def test_impossible_names_are_missing_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="does not exist"):
        read_image(tmp_path / name)


def test_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match="is a folder"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageReadError, match="pipe"):  # opening it would wait for ever
        read_image(tmp_path / "pipe.png")


@settings(max_examples=60, deadline=None)
@given(raw=st.binary(min_size=1, max_size=200).filter(lambda name: b"\0" not in name and b"/" not in name))
def test_any_file_name_is_read_and_printed_on_one_line(raw: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / os.fsdecode(b"n" + raw)
    path.write_bytes(photo())
    assert read_image(path).shape == (48, 64, 3)
    path.write_bytes(b"text")
    with pytest.raises(ImageReadError) as caught:
        read_image(str(path))
    path.unlink()
    str(caught.value).encode("utf-8")
    assert len(str(caught.value).splitlines()) == 1


def test_printable_escapes_what_terminals_would_act_on() -> None:
    assert printable(os.fsdecode(b"caf\xc3\xa9 \xff\n\x1b[2J.png")) == "café \\udcff\\n\\x1b[2J.png"


def test_image_from_takes_paths_bytes_pillow_and_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(PIXELS), orientation=6))
    upright = np.rot90(PIXELS, -1)
    for source in (path, str(path), path.read_bytes(), Image.open(path)):
        assert np.array_equal(image_from(source), upright)
    assert np.array_equal(image_from(PIXELS), PIXELS)
    assert np.array_equal(image_from(PIXELS[..., 0]), np.repeat(PIXELS[..., :1], 3, axis=2))


def test_image_from_leaves_the_callers_pillow_image_alone() -> None:
    image = Image.fromarray(PIXELS).quantize(16)
    image.info["transparency"] = 3
    image_from(image)
    assert image.mode == "P"
    assert image.info["transparency"] == 3


@pytest.mark.parametrize(
    ("array", "fix"),
    [
        (PIXELS / 255, "astype"),
        (PIXELS.transpose(2, 0, 1), "transpose"),
        (np.dstack([PIXELS, PIXELS[..., 0]]), "drop an alpha"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
        ([1, 2], "NumPy array"),
    ],
)
def test_image_from_says_how_to_mend_a_wrong_array(array: object, fix: str) -> None:
    with pytest.raises(ImageReadError, match=fix):
        image_from(array)  # type: ignore[arg-type]


def test_a_truncated_pillow_image_is_our_error() -> None:
    data = photo()
    with pytest.raises(ImageReadError, match="damaged or incomplete"):
        image_from(Image.open(io.BytesIO(data[: len(data) // 2])))


def test_a_file_too_large_for_its_pixels_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "a.png", "wb") as file:
        file.truncate(70 << 20)  # without taking room on the disk
    with pytest.raises(ImageReadError, match=r"a\.png has 73400320 bytes, more than an image of 1000 pixels can need"):
        read_image(tmp_path / "a.png", max_pixels=1000)
