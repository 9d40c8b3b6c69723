"""The compute floor: how long the multiply-adds of a network would take at this machine's best convolution rate."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fastseg.engine.timing import Stopwatch

CHANNELS, HEIGHT, WIDTH = 256, 64, 128  # 3x3 from 256 to 256 channels: the shape that libraries run best
FLOP = 2 * 9 * CHANNELS * CHANNELS * HEIGHT * WIDTH
REPETITIONS = 8


@torch.inference_mode()
def convolution_rate(
    device: torch.device, dtype: torch.dtype, watch: Stopwatch, *, repetitions: int = REPETITIONS
) -> float:
    """FLOP/s of a 3x3 convolution of 256 channels at 64x128, the best of several; oneDNN's on CPUs, cuDNN's on CUDA.

    A multiply-add is two FLOP. With the threads that torch is set to.
    """
    images, weights = (
        torch.full(shape, 0.01, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        for shape in ((1, CHANNELS, HEIGHT, WIDTH), (CHANNELS, CHANNELS, 3, 3))
    )
    F.conv2d(images, weights, padding=1)  # chooses its kernel
    times = []
    for _ in range(repetitions):
        watch.start()
        F.conv2d(images, weights, padding=1)
        watch.lap("convolution")
        times.append(watch.take()["convolution"])
    return FLOP / min(times)
