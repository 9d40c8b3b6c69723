"""From decoded images to what the network was trained on."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from fastseg import native
from fastseg.errors import ConfigError
from fastseg.layers.resize import resize
from fastseg.types import Preprocessing

PIXELS_PER_THREAD = 32 * 1024  # that are worth waking one more thread


def normalize_images(
    images: Tensor, preprocessing: Preprocessing, *, scale: float | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """uint8 RGB images (N,H,W,3) -> network input (N,3,H',W') of `dtype` on the same device, channels last in memory.

    `scale` is the factor from the image to the network input, `preprocessing.input_scale` unless given; each side
    becomes `max(1, round(side * scale))`. The arithmetic is float32's; a narrower `dtype` rounds its result.
    Raises ConfigError for an unknown channel order.
    """
    if preprocessing.channel_order not in ("rgb", "bgr"):
        raise ConfigError(f"channel_order is {preprocessing.channel_order!r}; allowed: 'rgb', 'bgr'")
    if preprocessing.channel_order == "bgr":
        images = images.flip(-1)
    mean = _numbers(preprocessing.mean, torch.float32, images.device) * 255
    std = _numbers(preprocessing.std, torch.float32, images.device) * 255
    factor = preprocessing.input_scale if scale is None else scale
    if factor == 1:
        return _normalized(images, mean, std, dtype).permute(0, 3, 1, 2)  # a view: NHWC memory is channels_last
    height, width = images.shape[1:3]
    x = _normalized(images, mean, std, torch.float32).permute(0, 3, 1, 2)
    return resize(x, (max(1, round(height * factor)), max(1, round(width * factor)))).to(dtype)


def _normalized(images: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Tensor:
    """(images - mean) / std in float32, as `dtype`; images (N,H,W,3)."""
    if images.dtype == torch.uint8 and images.device.type == "cpu" and not _is_recorded(images):
        fits = dtype in (torch.float32, torch.bfloat16) and images.shape[3] == len(mean) == len(std) == 3
        kernels = native.library() if fits else None
        if kernels is not None:
            images, out = images.contiguous(), torch.empty(images.shape, dtype=dtype, device="cpu")
            pixels = images.numel() // 3
            kernels.fastseg_normalize(
                ctypes.c_void_p(images.data_ptr()),
                ctypes.c_void_p(out.data_ptr()),
                ctypes.c_int64(pixels),
                ctypes.c_void_p(mean.data_ptr()),
                ctypes.c_void_p(std.data_ptr()),
                ctypes.c_int(dtype == torch.bfloat16),
                ctypes.c_int(max(1, min(torch.get_num_threads(), pixels // PIXELS_PER_THREAD))),
            )
            return out
    return ((images.to(torch.float32) - mean) / std).to(dtype)


def _is_recorded(images: Tensor) -> bool:
    """Whether somebody compiles, traces or records operations, of which a kernel of ours would be none."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(images) is not Tensor:
        return True
    return torch._C._len_torch_dispatch_stack() > 0


def denormalize_images(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Network input (N,3,H,W) -> RGB images (N,3,H,W) as floats that are whole numbers in 0..255.

    The inverse of `normalize_images`, except that sizes stay. Input of fewer than 32 bits gives float32.
    """
    wide = images if images.dtype == torch.float64 else images.float()
    mean = _numbers(preprocessing.mean, wide.dtype, wide.device)[:, None, None] * 255
    std = _numbers(preprocessing.std, wide.dtype, wide.device)[:, None, None] * 255
    x = (wide * std + mean).round().clamp(0, 255)
    return x.flip(1) if preprocessing.channel_order == "bgr" else x


def _numbers(values: tuple[float, float, float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Values (3,) on a device. A GPU writes them itself: a copy from the host cannot be part of a CUDA graph."""
    if device.type == "cuda":
        return torch.stack([torch.full((), value, dtype=dtype, device=device) for value in values])
    return torch.tensor(values, dtype=dtype, device=device)
