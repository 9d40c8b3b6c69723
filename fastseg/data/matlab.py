"""Reads one matrix of numbers from a MATLAB level-5 file, what MATLAB's `save -v6` and `-v7` write.

Source of the format: The MathWorks, "MAT-File Format" (matfile_format.pdf), chapter 1. Of it this file knows what a
label map needs: real two-dimensional arrays of numbers, compressed or not, in either byte order. Cells, structures,
text, sparse arrays and complex numbers beside the wanted variable are passed over.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastseg.data.readers import MAX_PIXELS, check_exists
from fastseg.errors import FastsegError, ImageReadError, LabelError, printable
from fastseg.types import DataFile

HEADER = 128  # bytes: text, then version and byte order
LEVEL_5 = 0x0100
HDF5 = 0x0200  # what MATLAB calls version 7.3
MATRIX, COMPRESSED = 14, 15  # types of data elements
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
# classes of arrays; what is stored may be of a narrower type than the class, so as to save space
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
COMPLEX = 0x0800
ROOM = 4096  # bytes of an element that are no pixels: flags, sizes, name and paddings, generously


class _Element(NamedTuple):
    type: int
    data: bytes


def read_matrix(source: DataFile | bytes, variable: str, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The matrix called `variable` in a MATLAB file, or in its bytes -> (H,W) of the type it has in MATLAB.

    Raises MissingFileError for a path that does not exist, LabelError when there is no such variable or it is no real
    matrix of numbers, ImageReadError for a damaged file, another version of the format and more than `max_pixels`.
    """
    data, name = _load(source)
    try:
        order = _byte_order(data, name)
        found = []
        for kind, shape, title, unpacked in _variables(data, order):
            if title != variable:
                found.append(title)
                continue
            if kind & 0xFF not in CLASSES or kind & COMPLEX or len(shape) != 2:
                raise LabelError(f"{name}: {variable} is no real matrix of numbers, but of class {kind & 0xFF} {shape}")
            if shape[0] * shape[1] > max_pixels:
                raise ImageReadError(
                    f"{name} is {shape[1]}x{shape[0]} = {shape[0] * shape[1]} pixels, above the limit of {max_pixels}"
                )
            if 0 in shape:
                raise ImageReadError(f"{name} is {shape[1]}x{shape[0]}; it needs at least one pixel")
            parts = _elements(unpacked(8 * shape[0] * shape[1] + ROOM), order)
            _head(parts, order)
            stored = next(parts)
            numbers = np.frombuffer(stored.data, f"{order}{NUMBERS[stored.type]}")
            # MATLAB stores column after column
            return np.ascontiguousarray(numbers.reshape(shape, order="F"), CLASSES[kind & 0xFF])
    except FastsegError:
        raise
    except (struct.error, zlib.error, ValueError, KeyError, IndexError, StopIteration) as error:
        detail = printable(error) or type(error).__name__
        raise ImageReadError(
            f"{name} ({len(data)} bytes) is damaged or incomplete: {detail}; fetch the file again"
        ) from error
    raise LabelError(f"{name} has no variable {variable}; it has {printable(', '.join(found)) or 'none'}")


def _load(source: DataFile | bytes) -> tuple[bytes, str]:
    """The file's bytes, and what to call it in messages."""
    if isinstance(source, bytes):
        return source, "the MATLAB file in memory"
    name = printable(source)
    if isinstance(source, Path):
        check_exists(source)
    try:
        return source.read_bytes(), name
    except OSError as error:
        raise ImageReadError(f"{name} cannot be read: {error.strerror}; check its permissions and the disk") from None


def _byte_order(data: bytes, name: str) -> str:
    """'<' or '>'. Raises ImageReadError for what is no level-5 file."""
    order = {b"IM": "<", b"MI": ">"}.get(data[HEADER - 2 : HEADER], "")
    version = struct.unpack_from(f"{order}H", data, HEADER - 4)[0] if order else 0
    if version == HDF5:
        raise ImageReadError(f"{name} is a MATLAB 7.3 file (HDF5); load it in MATLAB and save it with -v7")
    if version != LEVEL_5:
        begin = f"it begins with {data[:16]!r}" if data else "it is empty"
        raise ImageReadError(f"{name} ({len(data)} bytes) is no MATLAB level-5 file: {begin}; fetch the file again")
    return order


class _Variable(NamedTuple):
    """Flags with the class in the lowest byte, shape and name of a matrix; `unpacked(largest)` gives its element's
    bytes and raises ValueError where these are more than `largest`."""

    kind: int
    shape: tuple[int, ...]
    title: str
    unpacked: Callable[[int], bytes]


def _variables(data: bytes, order: str) -> Iterator[_Variable]:
    """The matrices of a file. Of compressed ones no more is unpacked than says what they are."""
    for element in _elements(data[HEADER:], order):
        kind, begin = element.type, element.data
        unpacked = partial(_whole, element.data)
        if kind == COMPRESSED:
            stream = zlib.decompressobj()
            kind, size = struct.unpack(f"{order}II", stream.decompress(element.data, 8))
            begin = stream.decompress(stream.unconsumed_tail, ROOM)
            unpacked = partial(_unpacked, element.data, size)
        if kind == MATRIX:
            yield _Variable(*_head(_elements(begin, order), order), unpacked)


def _whole(data: bytes, largest: int) -> bytes:
    if len(data) > largest:
        raise ValueError(f"a variable of {len(data)} bytes, where {largest} are enough")
    return data


def _unpacked(data: bytes, size: int, largest: int) -> bytes:
    """The `size` bytes of a compressed element, after its tag."""
    if size > largest:  # before it takes memory
        raise ValueError(f"a variable of {size} bytes, where {largest} are enough")
    stream = zlib.decompressobj()
    stream.decompress(data, 8)
    content = stream.decompress(stream.unconsumed_tail, max(size, 1))
    if len(content) != size:
        raise ValueError(f"{len(content)} of {size} bytes of a variable")
    return content


def _elements(data: bytes, order: str) -> Iterator[_Element]:
    """Data elements one after the other. Raises ValueError or struct.error where they end too early."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # small: type and size share the first word, up to four bytes of data are the second
            kind, size = kind & 0xFFFF, kind >> 16
            if size > 4:
                raise ValueError(f"a small element of {size} bytes")
            begin, end = at + 4, at + 8
        else:
            begin = at + 8
            end = begin + size if kind == COMPRESSED else begin + -(-size // 8) * 8  # padded to 64 bits
        # the last paddings of a file may be missing
        if begin + size > len(data):
            raise ValueError(f"{len(data) - begin} of {size} bytes of an element")
        yield _Element(kind, data[begin : begin + size])
        at = end


def _head(parts: Iterator[_Element], order: str) -> tuple[int, tuple[int, ...], str]:
    """Flags with the class in the lowest byte, shape and name of a matrix, whose numbers are the next part."""
    head = list(itertools.islice(parts, 3))
    if len(head) < 3:
        raise ValueError(f"{len(head)} of the 3 parts that say what a matrix is")
    flags, dimensions, name = head
    shape = struct.unpack(f"{order}{len(dimensions.data) // 4}i", dimensions.data)
    if any(size < 0 for size in shape):
        raise ValueError(f"a matrix of {shape}")
    return struct.unpack_from(f"{order}I", flags.data)[0], shape, name.data.decode("latin-1")
