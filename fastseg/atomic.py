"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterable
from pathlib import Path

from fastseg.errors import FastsegError, OutputError, printable


def write_atomically(path: Path, data: bytes, *, error: type[FastsegError] = OutputError) -> None:
    """Put `data` at `path`, so that a crash leaves the old file or the new one, never a part; folders are made.

    Raises `error` when the folder cannot be written or the disk is full; the old file then stands.
    """
    temporary = path.with_name(f"{_begin(path)}{uuid.uuid4().hex[:12]}.tmp")
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


def remove_abandoned(paths: Iterable[Path]) -> None:
    """Delete what a process that was killed while writing these files has left beside them.

    Only for files that nobody writes now.
    """
    begins: dict[Path, set[str]] = {}
    for path in paths:
        begins.setdefault(path.parent, set()).add(_begin(path))
    for folder, names in begins.items():
        with contextlib.suppress(OSError, ValueError):
            for found in list(folder.iterdir()):
                if re.fullmatch(r"[0-9a-f]{12}\.tmp", found.name[-16:]) and found.name[:-16] in names:
                    found.unlink(missing_ok=True)


def _begin(path: Path) -> str:
    """Of temporary files beside a target, named after it for whoever finds one; short, for targets of 255 bytes."""
    return f".{path.name[:40]}."


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where folders can be opened (not on Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
