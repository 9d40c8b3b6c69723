"""Labels of bilinearly upsampled logits by the kernel in C (csrc/upsample_argmax.c), where it was built."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from fastseg import native


def upsample_argmax_native(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor | None:
    """Logits (N,K,h,w) on a CPU -> labels (N,H,W), uint8 up to 256 classes, int16 beyond; None without the kernel.

    The same labels as `upsample_argmax_torch`. Logits of 64 bits are not for it: it reads float32, in any layout.
    """
    kernels = native.library()
    if kernels is None or logits.device.type != "cpu" or logits.dtype == torch.float64:
        return None
    if torch._C._len_torch_dispatch_stack():  # somebody records operations, of which this would be none
        return None
    values = logits.float()
    labels = torch.empty(
        (len(logits), *size), dtype=torch.uint8 if logits.shape[1] <= 256 else torch.int16, device="cpu"
    )
    failed = kernels.fastseg_upsample_argmax(
        ctypes.c_void_p(values.data_ptr()),
        (ctypes.c_int64 * 6)(*values.shape, *size),
        (ctypes.c_int64 * 4)(*values.stride()),
        ctypes.c_int(align_corners),
        ctypes.c_void_p(labels.data_ptr()),
        ctypes.c_int(labels.itemsize),
        ctypes.c_int(torch.get_num_threads()),
    )
    return None if failed else labels
