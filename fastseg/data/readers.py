"""The library's one reader of images and one reader of label maps.

Files become bytes first and Pillow decodes the bytes, so any file name works (OpenCV crashes on names that are not
UTF-8), damaged files are errors instead of grey areas, and size limits hold before a pixel is decoded.

Modes of an image, and what `read_image` makes of them:

| mode | becomes |
|---|---|
| 1, L, P, RGB, CMYK, YCbCr, HSV | RGB |
| LA, PA, RGBA, La, RGBa, RGBX, any transparency | RGB without the alpha, logged once per process |
| I;16, and I from PNG or PPM (16-bit grey) | value / 257 rounded, so white stays white |
| I, F, LAB, others | ImageReadError: such pixels have no defined white |

Of several frames or pages the first is read, logged once per process.
"""

from __future__ import annotations

import io
import logging
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile
from PIL.Image import Transpose

from fastseg.data.notes import say_once
from fastseg.data.stored import stored_numbers
from fastseg.errors import FastsegError, ImageReadError, LabelError, MissingFileError, printable
from fastseg.types import DataFile

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
MAX_PIXELS = 100_000_000
# Only raster formats that Pillow decodes by itself: no EPS (runs Ghostscript), no fonts, no icons.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP")

ORIENTATION_TAG = 0x0112
UPRIGHT = {  # EXIF orientation -> what shows the image as the photographer saw it
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
AS_STORED = {**UPRIGHT, 6: Transpose.ROTATE_90, 8: Transpose.ROTATE_270}  # the inverses; the others are their own


def read_image(source: DataFile | str | bytes, *, apply_exif: bool = True, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The image in a file (Path, str) or in memory (the file's bytes) -> uint8 (H,W,3) RGB.

    With `apply_exif` H and W are those a person sees; without it the pixels are as stored. Raises MissingFileError
    for a path that does not exist, ImageReadError for everything else, `max_pixels` (H x W, by the header) included.
    """
    data, name = _load_bytes(source, max_pixels)
    with _reading(name, len(data)):
        return _to_rgb(_decode(data, name, max_pixels, apply_exif=apply_exif), name)


def read_label(source: DataFile | str | bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A label map, in a file or in its bytes -> uint8 (H,W): the stored values, palette indices for a palette image.

    Grey of 1, 2 and 4 bits gives 0..1, 0..3 and 0..15. EXIF orientation is not applied. Raises LabelError for colour or
    alpha (a painted mask holds colours, not classes) and for values outside 0..255, otherwise as `read_image`.
    """
    values, name = _read_numbers(source, max_pixels)
    if values.size and (int(values.min()) < 0 or int(values.max()) > 255):
        raise LabelError(
            f"{name} has label values {int(values.min())}..{int(values.max())}; allowed are 0..255. "
            "If these are instance ids, use the file of class ids instead"
        )
    return np.array(values, dtype=np.uint8)


def read_ids(source: DataFile | str | bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A map of ids up to 65,535, such as those of instances -> uint16 (H,W), otherwise as `read_label`."""
    values, name = _read_numbers(source, max_pixels)
    if values.size and (int(values.min()) < 0 or int(values.max()) > 65535):
        raise LabelError(f"{name} has ids {int(values.min())}..{int(values.max())}; allowed are 0..65535")
    return np.array(values, dtype=np.uint16)


def _read_numbers(source: DataFile | str | bytes, max_pixels: int) -> tuple[np.ndarray, str]:
    """The numbers in a map's one channel, of whatever integer type, and what to call the map in messages."""
    data, name = _load_bytes(source, max_pixels)
    with _reading(name, len(data)):
        image = _decode(data, name, max_pixels, apply_exif=False)
        if image.mode not in ("1", "L", "P", "I", "I;16", "I;16L", "I;16B", "I;16N"):
            kind = "label of fractions" if image.mode == "F" else f"{len(image.getbands())}-channel label"
            raise LabelError(
                f"{name} is a {kind} (mode {image.mode}); a label map has one channel of class values: "
                "save class ids as 8-bit grey or palette PNG (a colour rendering is not a label)"
            )
        header = _identify(data) if image.mode in ("L", "I") else None
        return np.asarray(image) if header is None else stored_numbers(np.asarray(image), header), name


def read_colour_label(source: DataFile | str | bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A label map painted in colours, in a file or in its bytes -> uint8 (H,W,3) RGB, exactly as stored.

    A palette image gives its palette's colours, a grey one its brightness three times (of 2 bits: 0, 85, 170, 255).
    EXIF orientation is not applied. Raises LabelError for JPEG, which changes colours, and for partly transparent
    pixels, otherwise as `read_image`.
    """
    data, name = _load_bytes(source, max_pixels)
    with _reading(name, len(data)):
        image = _decode(data, name, max_pixels, apply_exif=False)
        if image.format in ("JPEG", "MPO"):
            raise LabelError(f"{name} is a JPEG, which changes colours near edges; a colour mask has to be a PNG")
        if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "La", "RGBa"):
            pixels = np.array(image.convert("RGBA"))
            if (pixels[..., 3] != 255).any():
                raise LabelError(
                    f"{name} has transparent pixels, whose colour is not defined; save the mask without transparency"
                )
            return np.ascontiguousarray(pixels[..., :3])
        if image.mode not in ("1", "L", "P", "RGB"):
            raise LabelError(f"{name} has mode {image.mode}; a colour mask is an 8-bit RGB or palette PNG")
        return np.array(image.convert("RGB"))


def image_from(source: Path | str | bytes | Image.Image | np.ndarray, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A path, a file's bytes, a Pillow image, or an array uint8 (H,W,3) RGB or (H,W) grey -> uint8 (H,W,3) RGB.

    Files and Pillow images come out as a person sees them (EXIF applied); arrays are taken as they are. Raises as
    `read_image`, and ImageReadError for an array of other type or shape.
    """
    if isinstance(source, Path | str | bytes):
        return read_image(source, max_pixels=max_pixels)
    if isinstance(source, Image.Image):
        name = printable(getattr(source, "filename", "") or "the Pillow image")
        with _reading(name, None):
            _check_pixels(source.size, name, max_pixels)
            return _to_rgb(_load(source, name, apply_exif=True), name)
    if not isinstance(source, np.ndarray):
        raise ImageReadError(
            f"cannot take an image from {type(source).__name__}; give a path, the file's bytes, a Pillow image, "
            "or a NumPy array uint8 (H,W,3) RGB or (H,W) grey"
        )
    if source.dtype != np.uint8:
        raise ImageReadError(
            f"the image array has type {source.dtype}; only uint8 (0..255) is taken: for floats in 0..1 pass "
            "(image * 255).round().astype(numpy.uint8)"
        )
    if source.ndim not in (2, 3) or (source.ndim == 3 and source.shape[2] != 3):
        raise ImageReadError(
            f"the image array has shape {source.shape}; allowed are (H,W,3) RGB and (H,W) grey: drop an alpha channel "
            "with image[..., :3], turn (3,H,W) with image.transpose(1, 2, 0)"
        )
    if source.size == 0:
        raise ImageReadError(f"the image array has shape {source.shape}; it needs at least one pixel")
    return np.ascontiguousarray(source if source.ndim == 3 else np.repeat(source[..., None], 3, axis=2))


def check_exists(path: Path) -> os.stat_result:
    """The status of an existing path. Raises MissingFileError with the nearest parent that does exist."""
    try:
        return path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL or a lone surrogate, which no file name can hold
        if isinstance(error, PermissionError):
            raise ImageReadError(f"{printable(path)} cannot be read: {error.strerror}; check its permissions") from None
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise MissingFileError(
            f"{printable(path)} does not exist ({reason}); the nearest existing parent is "
            f"{printable(_nearest_parent(path))}"
        ) from None


def _nearest_parent(path: Path) -> Path:
    for parent in path.absolute().parents:
        try:
            if parent.is_dir():
                return parent
        except (OSError, ValueError):
            continue
    return Path(path.anchor or ".")


def _load_bytes(source: DataFile | str | bytes, max_pixels: int) -> tuple[bytes, str]:
    """The file's bytes, and what to call it in messages."""
    if isinstance(source, bytes):
        return source, "the image in memory"
    if not isinstance(source, Path | str):  # a member of an archive, which checks itself
        return source.read_bytes(), printable(source)
    path = Path(source)
    name = printable(path)
    status = check_exists(path)
    if stat.S_ISDIR(status.st_mode):
        raise ImageReadError(f"{name} is a folder, not an image; give one of the files in it")
    if not stat.S_ISREG(status.st_mode):
        raise ImageReadError(f"{name} is a device, pipe or socket, not an image file")
    largest = 16 * max_pixels + (64 << 20)  # four 32-bit channels, and room for metadata
    if status.st_size > largest:
        raise ImageReadError(
            f"{name} has {status.st_size} bytes, more than an image of {max_pixels} pixels can need ({largest}); "
            "raise the limit with --max-pixels"
        )
    try:
        return path.read_bytes(), name
    except OSError as error:
        raise ImageReadError(f"{name} cannot be read: {error.strerror}; check its permissions and the disk") from None


@contextmanager
def _reading(name: str, size: int | None) -> Iterator[None]:
    """Turn whatever a decoder raises into an ImageReadError: broken files reach Pillow's inner parts, which raise
    OSError, SyntaxError, struct.error, ValueError, KeyError, MemoryError and more."""
    try:
        yield
    except FastsegError:
        raise
    except Image.DecompressionBombError as error:  # tiles of TIFF and whole WebP files, checked by Pillow itself
        raise ImageReadError(
            f"{name} is above a limit that Pillow keeps for this format, beside max_pixels: {error}; save it as PNG or "
            "JPEG, or set PIL.Image.MAX_IMAGE_PIXELS in your program"
        ) from error
    except Exception as error:
        length = "" if size is None else f" ({size} bytes)"
        detail = printable(error) or type(error).__name__
        raise ImageReadError(
            f"{name}{length} is damaged or incomplete: {detail}; fetch or save the file again"
        ) from error


def _decode(data: bytes, name: str, max_pixels: int, *, apply_exif: bool) -> Image.Image:
    """The first frame, loaded, in its own mode."""
    image = _identify(data)
    if image is None:
        begin = f"it begins with {data[:16]!r}" if data else "it is empty"
        raise ImageReadError(
            f"{name} ({len(data)} bytes) is no image that fastseg reads ({', '.join(FORMATS)}): {begin}; "
            "fetch or save the file again"
        )
    _check_pixels(image.size, name, max_pixels)
    return _load(image, name, apply_exif=apply_exif)


def _identify(data: bytes) -> ImageFile.ImageFile | None:
    """The image whose header fits, not yet decoded, or None.

    Pillow's own `Image.open` would also apply its process-wide pixel limit, which `max_pixels` replaces here without
    touching that limit for the rest of the process.
    """
    Image.init()
    for name in FORMATS:
        if name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[name]
        if accept is not None and accept(data[:16]) is not True:  # a str means: known, but not built into this Pillow
            continue
        try:
            return factory(io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error):  # how a plugin says "not mine"
            continue
    return None


def _check_pixels(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageReadError(f"{name} is {width}x{height}; it needs at least one pixel")
    if width * height > max_pixels:
        raise ImageReadError(
            f"{name} is {width}x{height} = {width * height} pixels, above the limit of {max_pixels}; "
            f"make it smaller, or raise the limit with --max-pixels {width * height} (max_pixels=)"
        )


def _load(image: Image.Image, name: str, *, apply_exif: bool) -> Image.Image:
    """Decode, turned upright or as stored."""
    if image.format not in ("JPEG", "MPO") and getattr(image, "is_animated", False):  # an MPO's others are previews
        _warn_once("frames", f"{name} has several frames or pages; only the first is used")
    tagged = _orientation(image)
    image.load()
    pending = _orientation(image)  # Pillow turns TIFF files by itself while it loads them, and then drops the tag
    if apply_exif:
        return image.transpose(UPRIGHT[pending]) if pending in UPRIGHT else image
    return image.transpose(AS_STORED[tagged]) if tagged in UPRIGHT and pending not in UPRIGHT else image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # a broken EXIF block says nothing about orientation, and the pixels may be whole
        return 1


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    """A loaded image -> uint8 (H,W,3), by the table at the top of this file."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        grey = ((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        _warn_once("alpha", f"{name} has transparency (mode {mode}); it is dropped, and hidden colours count")
    if "transparency" in image.info:
        image = image.copy()  # a Pillow image may be the caller's own
        del image.info["transparency"]  # else converting would look for the transparent colour's new value
    if mode in ("La", "RGBa"):  # premultiplied: restore the colours first
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[mode])
    if mode not in ("1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LA", "PA", "RGBA", "La", "RGBa", "RGBX"):
        raise ImageReadError(
            f"{name} has pixels of mode {mode}, which have no defined white; save it as 8-bit or 16-bit grey or RGB"
        )
    return np.array(image if mode == "RGB" else image.convert("RGB"))  # a copy: torch wants memory it may write to


def _warn_once(topic: str, message: str) -> None:
    say_once(f"{message} (said once; other files may be alike)", topic=topic, level=logging.WARNING)
