"""Initial weights."""

from __future__ import annotations

from torch import nn


def kaiming_convolutions(module: nn.Module) -> None:
    """Draw every convolution's weights as ResNet's authors do, by fan-out (arXiv 1502.01852)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
