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

_open: dict[tuple[int, Path], zipfile.ZipFile] = {}
_lock = threading.RLock()


@dataclass(frozen=True)
class ArchiveMember:
    """A file inside a zip archive."""

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
                if archive.getinfo(self.member).file_size > LARGEST_MEMBER:
                    raise ImageReadError(f"{printable(self)} unpacks to more than {LARGEST_MEMBER} bytes; refused")
                return archive.read(self.member)
        except FastsegError:
            raise
        except KeyError:
            raise MissingFileError(f"{printable(self)} does not exist: the archive has no such member") from None
        except Exception as error:  # zipfile, zlib and the disk have a family of errors each
            raise ImageReadError(f"{printable(self)} is damaged: {error}; fetch the archive again") from error


def open_archive(path: Path) -> zipfile.ZipFile:
    """The archive, opened once per process: a forked process must not share its parent's place in the file.

    Raises MissingFileError, or ImageReadError for what is no zip archive.
    """
    key = os.getpid(), path
    with _lock:
        if key not in _open:
            try:
                _open[key] = zipfile.ZipFile(path)
            except FileNotFoundError:
                raise MissingFileError(f"{printable(path)} does not exist") from None
            except (zipfile.BadZipFile, OSError) as error:
                raise ImageReadError(f"{printable(path)} is no zip archive that can be read: {error}") from None
        return _open[key]


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
        info = open_archive(path).getinfo(file.member)
        identity += f"|{file.member}|{info.CRC}|{info.file_size}"
    return identity


def stem(file: DataFile) -> str:
    """The name without its suffix."""
    return PurePosixPath(file.name).stem
