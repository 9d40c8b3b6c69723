"""Files that one process holds, and that say which."""

from __future__ import annotations

import os
import socket
from typing import IO, Any


def try_lock(file: IO[Any]) -> bool | None:
    """Whether this open file is ours now, until it is closed or we die: the kernel keeps such locks.

    None on file systems and platforms that have no locks.
    """
    try:
        import fcntl
    except ImportError:  # not POSIX
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def sign(file: IO[str]) -> None:
    """Write into a file that is ours who we are."""
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()


def holder(file: IO[str]) -> str:
    """Who has signed a file."""
    file.seek(0)
    return file.read().strip() or "another process"
