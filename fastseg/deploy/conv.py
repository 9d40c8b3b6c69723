"""A convolution that only predicts: with its activation inside, and its weights laid out for the processor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.layers.precision import without_autocast

PACKED_DTYPES = (torch.float32, torch.bfloat16)
NARROW = 2  # columns


class PacksWeights(nn.Module):
    """Keeps something made of its weights, which is made anew when these move, and neither copied nor stored."""

    _packed: Any = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PacksWeights:
        self._packed = None
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._packed = None
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}  # layouts of a library, or addresses


class InferenceConv2d(PacksWeights, nn.Conv2d):
    """`nn.Conv2d`, whose arguments it takes, followed by `activation`: 'relu', or None for none.

    Maps of another precision than the weights are converted first. On a CPU weights are laid out once, at the first
    call, in the order that oneDNN wants them, and the activation is done where the sums are; results are the same bit
    for bit. That copy of the weights takes as much memory again. Where it does not apply (gradients, autocast, other
    devices and precisions, compiling and exporting), the plain functions run.
    """

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if activation not in (None, "relu"):
            raise ValueError(f"activation is {activation!r}; allowed: 'relu' or None")
        self.activation = activation
        self._packed_of: tuple[tuple[int, int], ...] = ()  # the state of the weights that were laid out

    @classmethod
    def of(cls, conv: nn.Conv2d) -> InferenceConv2d:
        """The same convolution, on the same parameters."""
        with torch.device("meta"):
            new = cls(
                conv.in_channels,
                conv.out_channels,
                conv.kernel_size,
                conv.stride,
                conv.padding,
                conv.dilation,
                conv.groups,
                conv.bias is not None,
                padding_mode=conv.padding_mode,
            )
        new.weight, new.bias = conv.weight, conv.bias
        return new.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            if not self._too_narrow(x, torch.get_autocast_dtype(x.device.type)):
                return self._activated(super().forward(x))
            with without_autocast(x):
                return self._activated(self._in_float32(x).to(torch.bfloat16))
        x = x.to(self.weight.dtype)  # itself where nothing is to do
        if self._too_narrow(x, x.dtype):
            return self._activated(self._in_float32(x).to(torch.bfloat16))
        if self._packs(x):
            return self._pointwise(x)
        return self._activated(super().forward(x))

    def _activated(self, x: Tensor) -> Tensor:
        return F.relu(x, inplace=True) if self.activation else x

    def _too_narrow(self, x: Tensor, dtype: torch.dtype) -> bool:
        """Whether bfloat16 is wrong here: oneDNN 3.13 leaves out parts of narrow maps (docs/log.md, 2026-11-21)."""
        if dtype != torch.bfloat16 or x.device.type != "cpu" or self.kernel_size == (1, 1):
            return False
        return not torch.compiler.is_compiling() and int(x.shape[-1]) <= NARROW

    def _in_float32(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return self._conv_forward(x.float(), self.weight.float(), bias)

    def _packs(self, x: Tensor) -> bool:
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # first: what follows would cut a graph in pieces
            return False
        if type(x) is not Tensor or x.device.type != "cpu" or x.ndim != 4 or x.dtype not in PACKED_DTYPES:
            return False
        if self.padding_mode != "zeros" or isinstance(self.padding, str) or not _onednn_has_the_functions():
            return False
        return not (torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad))

    def _pointwise(self, x: Tensor) -> Tensor:
        state = state_of([self.weight])
        weight = self._packed if self._packed_of == state else None
        if weight is None:
            self._packed_of = state
            weight = self._packed = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, self.padding, self.stride, self.dilation, self.groups, list(x.shape)
            )
        # by its full name: choosing among namesakes takes as long as a small convolution
        return torch.ops.mkldnn._convolution_pointwise.default(
            x,
            weight,
            self.bias,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
            self.activation or "none",
            [],
            "",
        )

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", activation={self.activation}" if self.activation else "")


def state_of(tensors: Iterable[Tensor]) -> tuple[tuple[int, int], ...]:
    """What changes when tensors do, in place or by others in their place (those of inference_mode have no version)."""
    return tuple((each.data_ptr(), 0 if each.is_inference() else each._version) for each in tensors)


def _onednn_has_the_functions() -> bool:
    """They are not documented: torch's compiler uses them, and another version of torch may have others."""
    names = ("_convolution_pointwise", "_reorder_convolution_weight")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)
