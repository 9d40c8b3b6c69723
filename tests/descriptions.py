"""Weights of a model for a description of it in torch.nn.functional, which calls no part of the model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def uneven(model: nn.Module, seed: int = 0) -> None:
    """Make it float64 in eval mode; weights, norms and running statistics are random, so that none is neutral."""
    model.double().eval()
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        if value.dim() > 1:  # convolutions and linear layers: outputs vary about as inputs do
            value.normal_(0, value[0].numel() ** -0.5, generator=generator)
        elif name.endswith(("running_var", "weight")):
            value.uniform_(0.5, 1.5, generator=generator)
        else:
            value.normal_(0, 0.5, generator=generator)


class Weights:
    """A state dict, read by functions of torch. `unread` tells which entries no description has asked for."""

    def __init__(self, model: nn.Module) -> None:
        self._state = model.state_dict()
        self.unread = {name for name in self._state if not name.endswith("num_batches_tracked")}

    def __getitem__(self, name: str) -> Tensor:
        self.unread.discard(name)
        return self._state[name]

    def conv(self, name: str, x: Tensor, *, stride: int = 1, dilation: int = 1) -> Tensor:
        """Convolution with so much padding that only the stride changes the size; groups follow from the shapes."""
        weight = self[f"{name}.weight"]
        bias = self[f"{name}.bias"] if f"{name}.bias" in self._state else None
        padding = dilation * (weight.shape[2] // 2)
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups=x.shape[1] // weight.shape[1])

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, variance, weight, bias = (
            self[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=1e-5)

    def conv_norm(self, name: str, x: Tensor, *, stride: int = 1, dilation: int = 1) -> Tensor:
        return self.norm(f"{name}.bn", self.conv(f"{name}.conv", x, stride=stride, dilation=dilation))

    def conv_norm_relu(self, name: str, x: Tensor, *, stride: int = 1, dilation: int = 1) -> Tensor:
        return F.relu(self.conv_norm(name, x, stride=stride, dilation=dilation))

    def norm_relu_conv(self, name: str, x: Tensor) -> Tensor:
        return self.conv(f"{name}.conv", F.relu(self.norm(f"{name}.bn", x)))


def upsample(x: Tensor, like: Tensor, *, align_corners: bool = False) -> Tensor:
    """Bilinear, to the size of `like`."""
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=align_corners)


def assert_same(actual: Tensor | dict[str, Tensor], expected: Tensor | dict[str, Tensor]) -> None:
    """Equal but for float64's rounding."""
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
