"""Files where they are: on the disk, or inside a zip archive that nobody has to unpack."""

from __future__ import annotations

import os
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fastseg.errors import FastsegError, ImageReadError, MissingFileError, printable
from fastseg.types import DataFile

LARGEST_MEMBER = 1 << 30  # bytes: no image of a data set needs as many, and a bomb would
ENCRYPTED = 0x1  # of a member's flags

# One handle per archive and process, with the size and the time of the last change of the file that was opened.
_open: dict[Path, tuple[tuple[int, int], zipfile.ZipFile]] = {}
_lock = threading.RLock()


@dataclass(frozen=True)
class ArchiveMember:
    """A file inside a zip archive. It may be read from several threads and forked processes at once."""

    archive: Path
    member: str

    @property
    def name(self) -> str:
        return PurePosixPath(self.member).name

    def __str__(self) -> str:
        return f"{self.archive}!{self.member}"

    def read_bytes(self) -> bytes:
        """Its content. Raises MissingFileError when there is no such member, ImageReadError for a damaged one."""
        try:
            with _lock:
                archive = open_archive(self.archive)
                info = self._info(archive)
                stream = archive.open(info)
            try:
                return stream.read()  # outside the lock: threads inflate side by side, zipfile guards its place itself
            finally:
                with _lock:
                    stream.close()
        except FastsegError:
            raise
        except NotImplementedError as error:  # such as the Deflate64 of Windows' own zip folders
            raise ImageReadError(f"{printable(self)} cannot be unpacked here: {error}; unpack it elsewhere") from None
        except Exception as error:  # zipfile, zlib and the disk have a family of errors each
            raise ImageReadError(f"{printable(self)} is damaged: {error}; fetch the archive again") from error

    def _info(self, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
        """Its entry in the archive's directory. Raises as `read_bytes`."""
        try:
            info = archive.getinfo(self.member)
        except KeyError:
            raise MissingFileError(f"{printable(self)} does not exist: the archive has no such member") from None
        if info.flag_bits & ENCRYPTED:
            raise ImageReadError(f"{printable(self)} is encrypted; unpack the archive with its password")
        if info.file_size > LARGEST_MEMBER:
            raise ImageReadError(f"{printable(self)} unpacks to more than {LARGEST_MEMBER} bytes; refused")
        return info


@dataclass(frozen=True)
class FileInMemory:
    """A file that has been read already, or is not written yet; `place` says where it belongs."""

    place: str
    content: bytes

    @property
    def name(self) -> str:
        return PurePosixPath(self.place).name

    def __str__(self) -> str:
        return self.place

    def read_bytes(self) -> bytes:
        return self.content


def read_head(file: DataFile, size: int) -> bytes:
    """The first `size` bytes of a file, or all of a shorter one. Raises OSError, zipfile.BadZipFile or FastsegError."""
    if isinstance(file, ArchiveMember):
        with open_archive(file.archive).open(file.member) as stream:
            return stream.read(size)
    if isinstance(file, Path):
        with open(file, "rb") as stream:
            return stream.read(size)
    return file.read_bytes()[:size]


def open_archive(path: Path) -> zipfile.ZipFile:
    """The archive, opened once per process and again when its file has changed.

    Raises MissingFileError, or ImageReadError for what is no whole zip archive.
    """
    with _lock:
        try:
            status = os.stat(path)
            state = status.st_size, status.st_mtime_ns
            if path not in _open or _open[path][0] != state:
                _open[path] = state, zipfile.ZipFile(path)
        except FileNotFoundError:
            raise MissingFileError(f"{printable(path)} does not exist") from None
        except Exception as error:  # zipfile raises OSError, BadZipFile, NotImplementedError, struct.error and more
            size = f" ({os.path.getsize(path)} bytes)" if os.path.isfile(path) else ""
            raise ImageReadError(
                f"{printable(path)}{size} is no zip archive that can be read: {error}; a zip's directory stands at its "
                "end, so wait for the download to finish, or fetch the archive again"
            ) from None
        return _open[path][1]


def _after_fork() -> None:
    """A forked process must share neither its parent's place in the files nor a lock that a thread there holds."""
    global _lock
    _lock = threading.RLock()
    _open.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)


def file_identity(file: DataFile) -> str:
    """What changes when the file does: place, size and time of the last change; of a member, the archive's and the CRC.

    Raises MissingFileError for a file that does not exist.
    """
    path = file.archive if isinstance(file, ArchiveMember) else Path(str(file))
    try:
        status = os.stat(path)
    except OSError as error:
        raise MissingFileError(f"{printable(path)} does not exist ({error.strerror})") from None
    identity = f"{path.absolute()}|{status.st_size}|{status.st_mtime_ns}"
    if isinstance(file, ArchiveMember):
        info = file._info(open_archive(path))
        identity += f"|{file.member}|{info.CRC}|{info.file_size}"
    return identity


def stem(file: DataFile) -> str:
    """The name without its suffix."""
    return PurePosixPath(file.name).stem
