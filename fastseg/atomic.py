"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

from fastseg.errors import FastsegError, OutputError, printable


def write_atomically(path: Path, data: bytes, *, error: type[FastsegError] = OutputError) -> None:
    """Put `data` at `path`, so that a crash leaves the old file or the new one, never a part; folders are made.

    Raises `error` when the folder cannot be written or the disk is full; the old file then stands.
    """
    # beside the target, named after it for whoever finds it; short, so that a 255-byte target works
    temporary = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:  # open() keeps the user's umask
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except (OSError, ValueError) as problem:  # ValueError: a name that no file can have
        with contextlib.suppress(OSError, ValueError):  # gone already, or never made
            temporary.unlink()
        raise error(
            f"{printable(path)} cannot be written ({len(data) / 1e6:.1f} MB): {problem}; check free space, permissions "
            "and the folder's name, or choose another"
        ) from problem


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where folders can be opened (not on Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
