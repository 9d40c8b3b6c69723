"""Labels of bilinearly upsampled logits, without the full-size logit map."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor, nn

from fastseg.layers.resize import resize
from fastseg.ops.confidence import confidence_of
from fastseg.ops.native_upsample_argmax import upsample_argmax_native
from fastseg.ops.triton_choice import upsample_argmax_fused
from fastseg.ops.uniform_cells import upsample_argmax_torch

MOST_CLASSES = 1 << 15  # that int16 can tell apart


@overload
def upsample_argmax(
    logits: Tensor, size: tuple[int, int], *, align_corners: bool = ..., confidence: Literal[False] = ...
) -> Tensor: ...
@overload
def upsample_argmax(
    logits: Tensor, size: tuple[int, int], *, align_corners: bool = ..., confidence: Literal[True]
) -> tuple[Tensor, Tensor]: ...


def upsample_argmax(
    logits: Tensor, size: tuple[int, int], *, align_corners: bool = False, confidence: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Logits (N,K,h,w) -> labels (N,H,W): bilinear upsampling to `size` = (H, W), then argmax, ties to the lowest.

    Exactly so, as if every value were computed in float64 or better, whatever dtype, memory format and device
    (`uniform_cells` has the proof). Labels are uint8 up to 256 classes, int16 beyond. With `confidence` the answer is
    (labels, the largest softmax probability (N,H,W) as float32). Where logits are not finite, any label may come out.
    A compiled kernel is used where there is one for the device. While a program is traced or exported, and for tensors
    without values, logits are resized and argmax is taken, in float32: one form for all sizes.
    Raises ValueError unless there are 1 to 32768 classes and every side has a pixel.
    """
    shape = tuple(logits.shape)
    if len(shape) != 4:
        raise ValueError(f"upsample_argmax needs logits (N,K,h,w); they have shape {shape}")
    if shape[1] == 0:
        raise ValueError(f"upsample_argmax needs at least one class; logits have shape {shape}")
    if shape[1] > MOST_CLASSES:
        raise ValueError(f"upsample_argmax takes at most {MOST_CLASSES} classes; logits have shape {shape}")
    logits = logits.detach()
    if _is_traced(logits):
        return _traced(logits, size, align_corners, confidence)
    size = (int(size[0]), int(size[1]))
    if min(*shape[2:], *size) < 1:
        raise ValueError(f"upsample_argmax needs a pixel or more per side; logits have shape {shape}, size is {size}")
    labels = upsample_argmax_native(logits, size, align_corners)
    if labels is None:
        labels = upsample_argmax_fused(logits, size, align_corners)
    if labels is None:
        labels = upsample_argmax_torch(logits, size, align_corners)
    return (labels, confidence_of(logits, size, align_corners)) if confidence else labels


def _is_traced(logits: Tensor) -> bool:
    """Whether what is done to these logits is recorded, or has no numbers to depend on."""
    recorded = torch.compiler.is_compiling() or torch.compiler.is_exporting() or torch.jit.is_tracing()
    return recorded or logits.is_meta or type(logits) not in (Tensor, nn.Parameter)


def _traced(
    logits: Tensor, size: tuple[int, int], align_corners: bool, confidence: bool
) -> Tensor | tuple[Tensor, Tensor]:
    full = resize(logits.float(), size, align_corners=align_corners)
    labels = full.argmax(1).to(torch.uint8 if logits.shape[1] <= 256 else torch.int16)
    return (labels, full.softmax(1).amax(1)) if confidence else labels
