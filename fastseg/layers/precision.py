"""Arithmetic that autocast must not narrow: sums over whole maps, differences of near numbers."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """A context in which operations on the device of `x` keep the precision of what they are given."""
    # shapes only on the meta device: there is no autocast to switch off, and asking for it raises
    return contextlib.nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)


def widened(x: Tensor) -> Tensor:
    """`x` itself in float64, else in float32."""
    return x if x.dtype == torch.float64 else x.float()
