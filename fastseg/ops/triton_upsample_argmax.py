"""Labels of bilinearly upsampled logits on a GPU, in one kernel. The module is for where triton is installed.

A program makes the labels of a tile of output pixels: it goes through the classes, blends the four logits around every
pixel and keeps the best class, so that logits are read and labels are written, and nothing between them is.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

# The tile: rows lie side by side in memory, and rows that share their source rows find them in the cache.
BLOCK_H, BLOCK_W = 4, 128
# Blends in float32 are off by less than 14 roundings of 2**-24 of the largest logit, and a fraction by 2 more where the
# hardware divides roughly; two values together by less than this share. Classes that come closer are told apart anew.
NEAR = tl.constexpr(64 * 2.0**-24)


@triton.jit
def _between(index, step, offset, denominator, source_size):  # type: ignore[no-untyped-def]
    """Where pixels of the output stand in the source: the pixel before, the one after, and the way from one to the
    other in parts of `denominator`. Whole numbers, so that nothing is rounded."""
    way = tl.maximum(index.to(tl.int64) * step + offset, 0)
    before = way // denominator
    return tl.minimum(before, source_size - 1), tl.minimum(before + 1, source_size - 1), way - before * denominator


@triton.jit(
    do_not_specialize=[
        *("num_classes", "source_height", "source_width", "height", "width"),
        *("step_y", "offset_y", "denominator_y", "step_x", "offset_x", "denominator_x"),
    ]
)
def _upsample_argmax(  # type: ignore[no-untyped-def]
    logits,
    labels,
    num_classes,
    source_height,
    source_width,
    height,
    width,
    step_y,
    offset_y,
    denominator_y,
    step_x,
    offset_x,
    denominator_x,
    stride_n,
    stride_k,
    stride_h,
    stride_w,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    rows = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    columns = tl.program_id(0) * BLOCK_W + tl.arange(0, BLOCK_W)
    image = tl.program_id(2).to(tl.int64)
    top, bottom, part_y = _between(rows, step_y, offset_y, denominator_y, source_height)
    left, right, part_x = _between(columns, step_x, offset_x, denominator_x, source_width)
    first = logits + image * stride_n
    top, bottom = top[:, None] * stride_h, bottom[:, None] * stride_h
    left, right = left[None, :] * stride_w, right[None, :] * stride_w
    inside = (rows < height)[:, None] & (columns < width)[None, :]

    y = (part_y.to(tl.float32) / denominator_y.to(tl.float32))[:, None]
    x = (part_x.to(tl.float32) / denominator_x.to(tl.float32))[None, :]
    best = tl.full((BLOCK_H, BLOCK_W), float("-inf"), tl.float32)
    second = best
    largest = tl.zeros((BLOCK_H, BLOCK_W), tl.float32)
    label = tl.zeros((BLOCK_H, BLOCK_W), tl.int32)
    plane = first
    for k in range(num_classes):
        a, b = tl.load(plane + top + left).to(tl.float32), tl.load(plane + top + right).to(tl.float32)
        c, d = tl.load(plane + bottom + left).to(tl.float32), tl.load(plane + bottom + right).to(tl.float32)
        upper, lower = a + x * (b - a), c + x * (d - c)
        value = upper + y * (lower - upper)
        second = tl.maximum(second, tl.minimum(value, best))
        label = tl.where(value > best, k, label)
        best = tl.maximum(best, value)
        largest = tl.maximum(largest, tl.maximum(tl.maximum(tl.abs(a), tl.abs(b)), tl.maximum(tl.abs(c), tl.abs(d))))
        plane += stride_k

    near = inside & (best - second <= NEAR * largest)
    if tl.max(tl.max(near.to(tl.int32), 1), 0) > 0:
        # whole numbers instead of fractions: products and sums of logits with them are exact in float64
        y1, x1 = part_y.to(tl.float64)[:, None], part_x.to(tl.float64)[None, :]
        y0, x0 = denominator_y - y1, denominator_x - x1
        exact = tl.full((BLOCK_H, BLOCK_W), float("-inf"), tl.float64)
        label = tl.zeros((BLOCK_H, BLOCK_W), tl.int32)
        plane = first
        for k in range(num_classes):
            a, b = tl.load(plane + top + left).to(tl.float64), tl.load(plane + top + right).to(tl.float64)
            c, d = tl.load(plane + bottom + left).to(tl.float64), tl.load(plane + bottom + right).to(tl.float64)
            precise = y0 * (x0 * a + x1 * b) + y1 * (x0 * c + x1 * d)
            label = tl.where(precise > exact, k, label)
            exact = tl.maximum(exact, precise)
            plane += stride_k

    place = labels + (image * height + rows[:, None]) * width + columns[None, :]
    tl.store(place, label.to(labels.dtype.element_ty), mask=inside)


def upsample_argmax_triton(logits: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Logits (N,K,h,w) in any memory format -> labels (N,H,W): bilinear upsampling to `size`, then argmax.

    Finite logits get the labels of exact arithmetic, ties going to the lowest class: blends are made in float32, and
    where the two best classes come closer than its rounding, in float64 with whole numbers for fractions. Those are
    exact where logits around a pixel differ in size by less than 2**29 / (d_y d_x), d being the denominators of the
    fractions in lowest terms, as 16 and 16 at stride 8; beyond, they are off by less than 2**-50 of the largest.
    Labels are uint8 up to 256 classes, int16 beyond.
    """
    num_images, num_classes, *source = logits.shape
    dtype = torch.uint8 if num_classes <= 256 else torch.int16
    labels = torch.empty(num_images, *size, dtype=dtype, device=logits.device)
    ways = [
        number
        for source_size, target_size in zip(source, size, strict=True)
        for number in _way(source_size, target_size, align_corners)
    ]
    grid = (triton.cdiv(size[1], BLOCK_W), triton.cdiv(size[0], BLOCK_H), num_images)
    with torch.accelerator.device_index(logits.get_device() if logits.is_cuda else None):
        # fused or not, multiplications and additions keep to the bounds above
        options = {"BLOCK_H": BLOCK_H, "BLOCK_W": BLOCK_W, "num_warps": 4, "enable_fp_fusion": True}
        _upsample_argmax[grid](logits.detach(), labels, num_classes, *source, *size, *ways, *logits.stride(), **options)
    return labels


def _way(source_size: int, target_size: int, align_corners: bool) -> tuple[int, int, int]:
    """Step, offset and denominator, in lowest terms: pixel i stands at (i * step + offset) / denominator, or at 0."""
    if align_corners:
        numbers = source_size - 1, 0, max(1, target_size - 1)
    else:
        numbers = 2 * source_size, source_size - target_size, 2 * target_size
    common = math.gcd(*numbers)
    return numbers[0] // common, numbers[1] // common, numbers[2] // common
