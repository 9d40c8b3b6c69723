"""The one family of errors a user can cause, and the spelling help they share.

Every message says what was given (with its file or key), what is allowed, and what to do next. The CLI prints
these without a traceback; anything else is a defect of fastseg.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable


class FastsegError(Exception):
    """A mistake in input, configuration or environment that the user can mend."""


class UnknownNameError(FastsegError, ValueError):
    """A name that is not in a registry, or an argument that a builder does not take."""


class ArgumentTypeError(FastsegError, TypeError, ValueError):
    """An argument of a type that its builder does not take."""


class ConfigError(FastsegError, ValueError):
    """A configuration file or override that does not fit the schema."""


class DataError(FastsegError, ValueError):
    """A data set whose files, lists or sizes do not fit together."""


class ImageReadError(DataError):
    """An image that cannot be decoded, or is refused (size, mode)."""


class LabelError(DataError):
    """A label map with values, mode or size that the data set does not define."""


class MissingFileError(DataError, FileNotFoundError):
    """A file or folder that does not exist."""

    def __str__(self) -> str:  # FileNotFoundError would format (errno, text) tuples
        return str(self.args[0]) if self.args else ""


class LoadingError(FastsegError):
    """Processes that load data and have no room, were killed, or stand still."""


class CheckpointError(FastsegError):
    """A checkpoint or weights file that is damaged, unsafe or made for something else."""


class OutputError(FastsegError):
    """A result that cannot be written without overwriting or leaving the output folder."""


class DistributedError(FastsegError):
    """Processes that cannot work together: backend, batch split, norm kind."""


class MissingPackageError(FastsegError, ImportError):
    """An optional package that the requested feature needs."""


def suggest(name: str, allowed: Iterable[str]) -> str:
    """End of an error sentence: the nearest spelling of `name` in any case, and everything allowed (when short)."""
    names = sorted(allowed)
    spellings = {each.casefold(): each for each in names}
    near = [spellings[key] for key in difflib.get_close_matches(name.casefold(), spellings, n=3, cutoff=0.5)]
    parts = []
    if near:
        parts.append(f"did you mean {' or '.join(map(repr, near))}?")
    if names and (not near or len(names) <= 12):
        parts.append(f"allowed: {', '.join(names)}")
    return "; ".join(parts) if parts else "nothing is registered"


def printable(name: object) -> str:
    """A file name as one printable line: bytes that are no UTF-8, newlines and control characters as escapes."""
    text = os.fsdecode(name) if isinstance(name, bytes | os.PathLike) else str(name)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
