"""Whether the kernel in Triton can be used: the package has to be there, and to find a compiler for the GPU."""

from __future__ import annotations

import functools
import logging
from importlib.util import find_spec

import torch
from torch import Tensor

logger = logging.getLogger(__name__)


def upsample_argmax_fused(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor | None:
    """Labels (N,H,W) of logits (N,K,h,w) on a GPU, by one kernel; None where that does not work, which is said once.

    Programs that are compiled or exported are torch's alone, so it is None there, too.
    """
    if not logits.is_cuda or logits.numel() == 0 or torch.compiler.is_compiling() or not _works(logits.get_device()):
        return None
    from fastseg.ops.triton_upsample_argmax import upsample_argmax_triton

    return upsample_argmax_triton(logits, size, align_corners)


@functools.cache
def _works(device: int) -> bool:
    """Whether the kernel gives the right labels on this device, on its smallest case."""
    if find_spec("triton") is None:
        return False  # builds of torch for CUDA bring it, where there is one
    try:
        from fastseg.ops.triton_upsample_argmax import upsample_argmax_triton

        logits = torch.arange(2.0, device=f"cuda:{device}").view(1, 2, 1, 1)
        if bool((upsample_argmax_triton(logits, (2, 2)) == 1).all()):
            return True
        problem = "wrong labels"
    except Exception as error:  # no C compiler, a GPU that is too old, a driver that is: each has an error of its own
        problem = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    logger.warning("the kernel for labels does not run on cuda:%d (%s); plain torch makes them", device, problem)
    return False
