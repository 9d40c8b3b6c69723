"""The compiled kernels: one shared library of plain C, built by setup.py where there is a compiler, and never required.

Every kernel has a form in plain torch that gives the same result; `FASTSEG_NATIVE=0` in the environment chooses it.
The library is called through ctypes, which releases the interpreter's lock, and shares torch's OpenMP threads: a second
pool would compete with torch's, whose threads wait busily for a while after their work.
"""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

VERSION = 2  # of the functions' arguments; csrc/module.c has the same number
SWITCH = "FASTSEG_NATIVE"


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, or None where they were not built, do not load, are of another version or are switched off."""
    if os.environ.get(SWITCH, "1") == "0":
        return None
    for path in sorted(Path(__file__).parent.glob("_native.*")):
        if path.suffix not in (".so", ".dylib", ".pyd"):
            continue
        try:
            _show_openmp()
            kernels = ctypes.CDLL(str(path))
            if kernels.fastseg_native_version() == VERSION:
                return kernels
        except (OSError, AttributeError):  # made for another machine, or by another version
            continue
    return None


def _show_openmp() -> None:
    """Make the OpenMP library that torch has loaded visible to ours, which names none itself."""
    import torch

    for folder in (Path(torch.__file__).parent / "lib", Path(torch.__file__).parent.parent / "torch.libs"):
        for path in sorted(folder.glob("libgomp*.so*")):
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
            return
