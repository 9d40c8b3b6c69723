"""Files that one process holds."""

from __future__ import annotations

from typing import IO, Any


def try_lock(file: IO[Any]) -> bool:
    """Whether this open file is ours now, until it is closed or we die: the kernel keeps such locks.

    True, too, on file systems and platforms that have no locks.
    """
    try:
        import fcntl
    except ImportError:  # not POSIX
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
