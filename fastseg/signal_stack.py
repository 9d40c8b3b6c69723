"""The stack on which Python's signal handlers run, kept from libraries that exchange it.

OpenVINO's CPU plugin gives the calling thread a signal stack of its own and unmaps it when the plugin goes, and what is
restored then may be the stack of another plugin that went before: the next Ctrl-C, or the end of a child process, is a
segmentation fault.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SS_DISABLE = 2


class _Stack(ctypes.Structure):
    """Linux's stack_t."""

    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Afterwards this thread has the signal stack that it had before, or none where the kernel refuses that one."""
    exchange = getattr(ctypes.CDLL(None), "sigaltstack", None) if sys.platform == "linux" else None
    if exchange is None:
        yield
        return
    before = _Stack()
    exchange(None, ctypes.byref(before))
    try:
        yield
    finally:
        if exchange(ctypes.byref(before), None) != 0:  # too small for registers that were switched on meanwhile (AMX)
            exchange(ctypes.byref(_Stack(None, SS_DISABLE, 0)), None)
