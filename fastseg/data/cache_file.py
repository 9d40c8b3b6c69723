"""Decoded samples in one file that is mapped into memory: its format, reading and writing.

| bytes | content |
|---|---|
| 40 | magic, format version, number of samples, size of the file, digest of the table |
| 48 per sample | key (32 hexadecimal digits), place, height, width |
| rest | per sample, on a page of its own: image (H,W,3) in rows, then label (H,W), uint8 |

The header is written last and its digest covers the table, so that only a whole file opens.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastseg.errors import DataError, printable

MAGIC = b"fastsegD"
VERSION = 1  # of the format, and of what reading a file means: a higher one has every cache rebuilt
PAGE = 4096
HEADER = struct.Struct("<8sIIQ16s")
TABLE = np.dtype([("key", "S32"), ("place", "<u8"), ("height", "<u4"), ("width", "<u4")])
CHANNELS = 4  # bytes per pixel: red, green, blue, label


def sample_key(identity: str) -> bytes:
    """The key of a sample whose arrays `identity` decides."""
    return hashlib.blake2b(identity.encode(errors="surrogatepass"), digest_size=16).hexdigest().encode()


def planned(keys: Sequence[bytes], sizes: Sequence[tuple[int, int]]) -> tuple[np.ndarray, int]:
    """The table of samples of these keys and sizes (H,W), and the size in bytes of the file."""
    table = np.zeros(len(keys), TABLE)
    place = _pages(HEADER.size + table.nbytes)
    for row, key, (height, width) in zip(table, keys, sizes, strict=True):
        row["key"], row["place"], row["height"], row["width"] = key, place, height, width
        place += _pages(CHANNELS * height * width)
    return table, place


class CacheFile:
    """A whole cache, mapped. It is opened again, not copied, where another process takes over the object.

    What `fits` into memory (by default: half of this machine's is enough) is soon there and stays; of a larger file
    every sample is fetched by one long read. Raises DataError for a file that is no whole cache of this version,
    FileNotFoundError for none.
    """

    def __init__(self, path: Path, *, fits: bool | None = None) -> None:
        self.path = path
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(HEADER.size)
            magic, version, count, total, digest = HEADER.unpack(head.ljust(HEADER.size, b"\0"))
            if magic != MAGIC:
                raise DataError(f"{printable(path)} does not begin like a cache")
            if version != VERSION:
                raise DataError(f"{printable(path)} has the cache format {version}; this is {VERSION}")
            table = file.read(count * TABLE.itemsize)
            if total != size:
                raise DataError(f"{printable(path)} is damaged: it has {size} bytes instead of {total}")
            if _digest(table) != digest:
                raise DataError(f"{printable(path)} is damaged: its table of samples is not the one that was written")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._fetch = hasattr(mmap, "MADV_RANDOM") and not (_fits_in_memory(size) if fits is None else fits)
        if self._fetch:  # the sample after this one is not the next
            self._map.madvise(mmap.MADV_RANDOM)
        self._digest = digest
        self.table = np.frombuffer(table, TABLE)
        self.size = size

    def holds(self, keys: Sequence[bytes]) -> bool:
        """Whether the samples are those of `keys`, in this order."""
        return self.table["key"].tolist() == list(keys)

    def sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 (H,W,3) and label uint8 (H,W): views of the map, which cannot be written to."""
        _, place, height, width = self.table[index].item()
        pixels = height * width
        if self._fetch:  # one long read instead of one for every page that a crop touches
            self._map.madvise(mmap.MADV_WILLNEED, place, CHANNELS * pixels)
        image = np.frombuffer(self._map, np.uint8, 3 * pixels, place).reshape(height, width, 3)
        return image, np.frombuffer(self._map, np.uint8, pixels, place + 3 * pixels).reshape(height, width)

    def __getstate__(self) -> tuple[Path, bytes]:
        return self.path, self._digest

    def __setstate__(self, state: tuple[Path, bytes]) -> None:
        path, digest = state
        self.__init__(path)  # type: ignore[misc] # one way to open
        if self._digest != digest:
            raise DataError(f"{printable(path)} was built anew while it was in use; start again")


class CacheWriter:
    """A cache that grows: samples in any order, from any thread, then `finish`. All bytes are claimed at once.

    Raises OSError, for a disk that is full in particular.
    """

    def __init__(self, path: Path, table: np.ndarray, size: int) -> None:
        self._file = open(path, "xb")  # noqa: SIM115 - closed by `close`
        self._lock = threading.Lock()
        self._table = table
        self._size = size
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._file.fileno(), 0, size)
        else:
            self._file.truncate(size)

    def put(self, index: int, image: np.ndarray, label: np.ndarray) -> None:
        """Sample `index`. Raises DataError when it has not the number of pixels that was planned."""
        row = self._table[index]
        height, width = label.shape
        if image.shape != (height, width, 3) or height * width != int(row["height"]) * int(row["width"]):
            raise DataError(
                f"sample {index} is {width}x{height} and its image's header says {row['width']}x{row['height']}; "
                "if the data set changed just now, start again"
            )
        row["height"], row["width"] = height, width
        with self._lock:
            self._file.seek(int(row["place"]))
            self._file.write(np.ascontiguousarray(image).data)
            self._file.write(np.ascontiguousarray(label).data)

    def finish(self) -> None:
        """Make it a whole cache, on the disk."""
        table = self._table.tobytes()
        self._file.seek(0)
        self._file.write(HEADER.pack(MAGIC, VERSION, len(self._table), self._size, _digest(table)) + table)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _fits_in_memory(size: int) -> bool:
    try:
        return size < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    except (AttributeError, ValueError, OSError):  # not on every system
        return True


def _digest(table: bytes) -> bytes:
    return hashlib.blake2b(table, digest_size=16).digest()


def _pages(size: int) -> int:
    """`size` rounded up to whole pages."""
    return -(-size // PAGE) * PAGE
