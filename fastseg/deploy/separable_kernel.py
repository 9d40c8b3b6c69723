"""The kernel of fused separable convolutions (csrc/separable_body.h): its arguments, and weights as it wants them."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fastseg import native
from fastseg.deploy.conv import InferenceConv2d

LANES = 16  # channels in a vector
PANEL = 4  # vectors of outputs that a product makes at a time
MAX_STAGES = 4
PRECISIONS = {torch.float32: 1, torch.bfloat16: 2}
COPY, EXPAND, PATCHES, RESIZE = range(4)  # what a ring of rows is filled with

_WEIGHTS = (
    "expand_weight",
    "expand_bias",
    "depthwise_weight",
    "depthwise_bias",
    "product_weight",
    "product_bias",
)
_NUMBERS = (
    "source",
    "in_channels",
    "middle_channels",
    "side_channels",
    "out_channels",
    "stride",
    "dilation",
    "expand_relu",
    "depthwise_relu",
    "product_relu",
)


class _Stage(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in _WEIGHTS] + [(name, ctypes.c_int64) for name in _NUMBERS]


class _Chain(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("input", "side", "addend", "output")),
        *((name, ctypes.c_int64) for name in ("images", "height", "width")),
        *((name, ctypes.c_int64) for name in ("source_height", "source_width", "align_corners")),
        ("stages", ctypes.POINTER(_Stage)),
        ("count", ctypes.c_int64),
        ("threads", ctypes.c_int64),
    ]


@dataclass(frozen=True)
class Separable:
    """What the kernel does in one go: [expand 1x1,] [depthwise 3x3,] and a 1x1 product, or a product of 3x3 patches.

    The product adds that of a second map, `side`, and `relu` says whether a ReLU follows. With `resized` the first map
    is resized bilinearly to the second one's size.
    """

    expand: InferenceConv2d | None
    depthwise: InferenceConv2d | None
    product: InferenceConv2d
    side: InferenceConv2d | None = None
    relu: bool = False
    resized: bool = False

    @property
    def patches(self) -> bool:
        return self.product.kernel_size != (1, 1)

    @property
    def stride(self) -> int:
        return self.product.stride[0] if self.depthwise is None else self.depthwise.stride[0]

    def fits(self, dtype: torch.dtype) -> bool:
        """Whether maps of this precision can be read: two halves are read at a time, so they have to come in pairs."""
        pairs = [conv.in_channels for conv in (self.expand, self.side) if conv is not None]
        if self.patches:
            pairs.append(self.stride * self.product.in_channels)
        return dtype == torch.float32 or all(count % 2 == 0 for count in pairs)


@functools.cache
def kernel_runs(dtype: torch.dtype) -> bool:
    """Whether this machine has the kernel, for maps and weights of this precision."""
    kernels = native.library()
    if kernels is None or not hasattr(kernels, "fastseg_separable_precisions"):
        return False
    return bool(kernels.fastseg_separable_precisions() & PRECISIONS.get(dtype, 0))


class PackedChain:
    """Weights of a chain of separable convolutions, laid out for the kernel; call it with maps."""

    def __init__(self, chain: list[Separable]) -> None:
        self.made_of: tuple[tuple[int, int], ...] = ()  # the state of the weights that were laid out
        first, side = chain[0].expand or chain[0].depthwise or chain[0].product, chain[0].side
        self.in_channels = [first.in_channels] if side is None else [side.in_channels, first.in_channels]
        self.strides = [each.stride for each in chain]
        self.out_channels = chain[-1].product.out_channels
        self.dtype = chain[0].product.weight.dtype
        self._tensors = [_packed(each) for each in chain]  # which the stages point into
        stages = [_stage(each, weights) for each, weights in zip(chain, self._tensors, strict=True)]
        self._stages = (_Stage * len(chain))(*stages)

    def takes(self, *maps: Tensor) -> bool:
        """Whether maps, a fusion's finer one first, have the weights' channels and all the same number of images."""
        return [x.shape[1] for x in maps] == self.in_channels and len({len(x) for x in maps}) == 1

    def __call__(
        self,
        x: Tensor,
        *,
        side: Tensor | None = None,
        addend: Tensor | None = None,
        align_corners: bool = False,
    ) -> Tensor:
        """Maps (N,C,H,W) through the chain; `side` and `addend` belong to its last stage.

        All maps have the weights' precision and channels_last memory. Where the chain resizes, it does to the size of
        `side`. Raises MemoryError.
        """
        size = x.shape[2:] if side is None else side.shape[2:]
        out_height, out_width = size
        for stride in self.strides:
            out_height, out_width = (out_height - 1) // stride + 1, (out_width - 1) // stride + 1
        output = x.new_empty((x.shape[0], out_height, out_width, self.out_channels))
        chain = _Chain(
            input=x.data_ptr(),
            side=None if side is None else side.data_ptr(),
            addend=None if addend is None else addend.data_ptr(),
            output=output.data_ptr(),
            images=x.shape[0],
            height=size[0],
            width=size[1],
            source_height=x.shape[2],
            source_width=x.shape[3],
            align_corners=align_corners,
            stages=self._stages,
            count=len(self.strides),
            threads=torch.get_num_threads(),
        )
        kernels = native.library()
        if kernels is None or kernels.fastseg_separable(ctypes.byref(chain), PRECISIONS[self.dtype]):
            raise MemoryError("no memory for the rows of a separable convolution")
        return output.permute(0, 3, 1, 2)


def _stage(separable: Separable, weights: dict[str, Tensor]) -> _Stage:
    expand, depthwise, product = separable.expand, separable.depthwise, separable.product
    source = EXPAND if expand else PATCHES if separable.patches else RESIZE if separable.resized else COPY
    first = expand or depthwise or product
    return _Stage(
        **{name: weights[name].data_ptr() if name in weights else None for name in _WEIGHTS},
        source=source,
        in_channels=first.in_channels,
        middle_channels=product.in_channels,
        side_channels=separable.side.in_channels if separable.side else 0,
        out_channels=product.out_channels,
        stride=separable.stride,
        dilation=depthwise.dilation[0] if depthwise else int(separable.patches),
        expand_relu=bool(expand and expand.activation),
        depthwise_relu=bool(depthwise and depthwise.activation),
        product_relu=separable.relu,
    )


def _packed(separable: Separable) -> dict[str, Tensor]:
    """The stage's weights by the names of its arguments."""
    packed = {}
    if separable.expand is not None:
        packed["expand_weight"] = _panels(_matrix(separable.expand, separable.expand.in_channels))
        packed["expand_bias"] = _bias(separable.expand)
    if separable.depthwise is not None:
        weight = separable.depthwise.weight.float().flatten(1)  # (C,9) -> [vector][9][LANES]
        weight = F.pad(weight, (0, 0, 0, -len(weight) % LANES))
        packed["depthwise_weight"] = weight.unflatten(0, (-1, LANES)).transpose(1, 2).contiguous()
        packed["depthwise_bias"] = _bias(separable.depthwise)
    if separable.patches:
        weight = separable.product.weight.permute(2, 3, 1, 0).flatten(1, 2)  # (3, 3*C, out)
        odd = weight.shape[1] % 2 if weight.dtype == torch.bfloat16 else 0
        matrix = F.pad(weight, (0, -weight.shape[2] % LANES, 0, odd)).flatten(0, 1)
    else:
        middle = separable.product.in_channels
        matrix = _matrix(separable.product, middle + -middle % LANES)
    bias = _bias(separable.product)
    if separable.side is not None:
        matrix = torch.cat([matrix, _matrix(separable.side, separable.side.in_channels)])
        bias = bias + _bias(separable.side)
    packed["product_weight"] = _panels(matrix)
    packed["product_bias"] = bias
    return packed


def _matrix(conv: InferenceConv2d, rows: int) -> Tensor:
    """Weights of a 1x1 convolution as (inputs, outputs), zeros up to `rows` inputs and whole vectors of outputs."""
    weight = conv.weight.flatten(1).T
    return F.pad(weight, (0, -weight.shape[1] % LANES, 0, rows - len(weight)))


def _bias(conv: InferenceConv2d) -> Tensor:
    bias = conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias
    return F.pad(bias.float(), (0, -len(bias) % LANES))


def _panels(matrix: Tensor) -> Tensor:
    """(inputs, outputs) -> panels of outputs, one after another; halves in pairs of inputs."""
    panels = [panel.contiguous() for panel in matrix.split(PANEL * LANES, dim=1)]
    if matrix.dtype == torch.bfloat16:
        panels = [panel.unflatten(0, (-1, 2)).transpose(1, 2) for panel in panels]
    return torch.cat([panel.flatten() for panel in panels])
