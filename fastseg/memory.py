"""Memory that stays with the process, so that the next image finds it warm."""

from __future__ import annotations

import ctypes
import functools
import sys

# parameters of glibc's mallopt, from malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
KEPT = 2**31 - 1  # bytes, the largest that mallopt takes
TOP_PAD = 64 * 2**20  # bytes asked of the system at a time


@functools.cache
def tune_cpu() -> bool:
    """Let the allocator keep what this process frees, instead of handing it back; True if that took effect.

    glibc gives every block of more than 32 MB back to the system when it is freed, and the next one is filled with
    zeros page by page as it is first touched. At 1024x2048 that concerns most maps of a network, for every image anew.
    With this, freed memory is used again. It holds for the whole process and all of its libraries until it ends, and
    costs memory: up to 2 GB of what was freed stay with the process, and large blocks leave gaps between smaller ones.
    Calling it again changes nothing. Elsewhere (musl, macOS, Windows, another malloc) nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    process = ctypes.CDLL(None)
    if not hasattr(process, "gnu_get_libc_version") or not hasattr(process, "mallopt"):
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEPT), (M_TOP_PAD, TOP_PAD))
    return all(process.mallopt(parameter, value) == 1 for parameter, value in settings)


def pages_are_kept() -> bool:
    """Whether `tune_cpu` took effect in this process."""
    return bool(tune_cpu.cache_info().currsize) and tune_cpu()
