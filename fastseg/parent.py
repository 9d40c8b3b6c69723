"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys


def die_with_parent(number: signal.Signals) -> bool:
    """Have the kernel send this process a signal when its parent dies. Whether the parent lives still.

    Linux only; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return True
    pr_set_pdeathsig = 1
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, number)
    return os.getppid() == parent
