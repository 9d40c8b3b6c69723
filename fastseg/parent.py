"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

# loaded before anything forks: a child must not wait for the loader's lock, which a thread of its parent may have held
_C = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent(number: signal.Signals) -> bool:
    """Have the kernel send this process a signal when its parent dies. Whether the parent lives still.

    Linux only; elsewhere nothing happens.
    """
    if _C is None:
        return True
    pr_set_pdeathsig = 1
    parent = os.getppid()
    _C.prctl(pr_set_pdeathsig, number)
    return os.getppid() == parent
