"""Which operation follows which rule of `graph_rows`; one that follows none is computed on whole maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.deploy.conv import InferenceConv2d
from fastseg.deploy.graph_capture import Node, aten, nodes_in
from fastseg.deploy.graph_rows import FusedRows, Padding, Pointwise, Resampled, Rule, Slice, Transposed, Window

Arguments = dict[str, Any]


def rule_for(node: Node) -> Rule | None:
    """How `node` is computed by rows, or None where it cannot be."""
    if node.function is None or len(node.shape) != 4:
        return None
    if any(0 in each.shape for each in (node, *node.inputs)):
        return None  # maps without a row come in no band
    if node.function is torch.ops.fastseg.fused_block.default:
        return FusedRows(node, node.args[1])
    make = RULES.get(node.function)
    if make is None:
        return _pointwise(node) if torch.Tag.pointwise in node.function.tags else None
    source = node.args[0]
    return make(node, _arguments(node)) if isinstance(source, list) or len(source.shape) == 4 else None


def _arguments(node: Node) -> Arguments:
    """By their names, with defaults."""
    schema = node.function._schema.arguments
    given = {argument.name: argument.default_value for argument in schema}
    given.update(zip(given, node.args, strict=False))
    return {**given, **node.kwargs}


def _pointwise(node: Node) -> Rule | None:
    """Inputs with one row for all rows of the result are read whole."""
    rows = node.shape[2]
    by_rows = [each for each in node.inputs if len(each.shape) == 4 and each.shape[2] == rows]
    others = [each for each in (*node.args, *node.inputs) if isinstance(each, Tensor | Node) and each not in by_rows]
    if rows > 1 and any(len(each.shape) >= 2 and each.shape[-2] != 1 for each in others):
        return None  # numbers for each row that are no map
    return Pointwise(node, by_rows) if by_rows else None


def _one_by_one(node: Node, given: Arguments) -> Rule:
    return Pointwise(node, [node.args[0]])


def _batch_norm(node: Node, given: Arguments) -> Rule | None:
    return None if given["training"] else Pointwise(node, [node.args[0]])


def _concatenation(node: Node, given: Arguments) -> Rule | None:
    maps = list(nodes_in(given["tensors"]))
    if given["dim"] % 4 == 2 or len(maps) != len(given["tensors"]):
        return None
    return Pointwise(node, list(dict.fromkeys(maps)))


def _over_other_dimensions(node: Node, given: Arguments) -> Rule | None:
    dimensions = given["dim"] if isinstance(given["dim"], list | tuple) else [given["dim"]]
    over_rows = not dimensions or any(each % 4 == 2 for each in dimensions)
    return None if over_rows else Pointwise(node, [node.args[0]])


def _roll(node: Node, given: Arguments) -> Rule | None:
    around = not given["dims"] or any(each % 4 == 2 for each in given["dims"])
    return None if around else Pointwise(node, [node.args[0]])


def _slice(node: Node, given: Arguments) -> Rule:
    if given["dim"] % 4 != 2:
        return Pointwise(node, [node.args[0]])
    start, rows = given["start"] or 0, node.args[0].shape[2]
    return Slice(node, max(0, start + rows) if start < 0 else start, given["step"])


def _constant_padding(node: Node, given: Arguments) -> Rule | None:
    padding = (*given["pad"], 0, 0)[:4]
    if len(given["pad"]) > 4 or min(padding) < 0:
        return None
    return Padding(node, padding, "constant", float(given["value"]))


def _replicated_padding(node: Node, given: Arguments) -> Rule | None:
    padding = tuple(given["padding"])
    return Padding(node, padding, "replicate", None) if len(padding) == 4 and min(padding) >= 0 else None


def _resizing(mode: str) -> Callable[[Node, Arguments], Rule | None]:
    def make(node: Node, given: Arguments) -> Rule | None:
        by_scale = given["scales_h"] is not None or given["scales_w"] is not None
        return None if by_scale else Resampled(node, mode, given["align_corners"])

    return make


def _convolution(node: Node, given: Arguments) -> Rule | None:
    """As the deployed network computes it; rows are padded by the rule."""
    weight, bias, padding = given["weight"], given["bias"], given["padding"]
    if not isinstance(weight, Tensor) or isinstance(bias, Node):
        return None
    if given["transposed"]:
        return _transposed(node, given)
    with torch.device("meta"):
        conv = InferenceConv2d(
            weight.shape[1] * given["groups"],
            weight.shape[0],
            tuple(weight.shape[2:]),
            tuple(given["stride"]),
            (0, padding[-1]),
            tuple(given["dilation"]),
            given["groups"],
            bias is not None,
            activation="relu" if node.relu else None,
        ).eval()
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    size, stride, dilation = weight.shape[2], given["stride"][0], given["dilation"][0]
    return Window(node, conv, size=size, stride=stride, padding=padding[0], dilation=dilation)


def _transposed(node: Node, given: Arguments) -> Rule | None:
    padding, extra = given["padding"], given["output_padding"]
    size, stride, dilation = given["weight"].shape[2], given["stride"][0], given["dilation"][0]
    if extra[0] > 0 or dilation * (size - 1) + 1 < stride:
        return None  # some rows are no row's

    def apply(x: Tensor) -> Tensor:
        y = F.conv_transpose2d(
            x,
            given["weight"],
            given["bias"],
            given["stride"],
            (0, padding[-1]),
            (0, extra[-1]),
            given["groups"],
            given["dilation"],
        )
        return y.relu_() if node.relu else y

    return Transposed(node, apply, size=size, stride=stride, padding=padding[0], dilation=dilation)


def _max_pool(node: Node, given: Arguments) -> Rule:
    size, padding, dilation = _pair(given["kernel_size"]), _pair(given["padding"]), _pair(given["dilation"])
    stride, ceil = _pair(given["stride"] or size), given["ceil_mode"]

    def apply(x: Tensor) -> Tensor:
        return F.max_pool2d(x, size, stride, (0, padding[1]), dilation, ceil)

    # PyTorch also writes where each maximum was, eight bytes a pixel
    wide = 8 / node.dtype.itemsize
    return Window(
        node,
        apply,
        size=size[0],
        stride=stride[0],
        padding=padding[0],
        dilation=dilation[0],
        fill=-float("inf"),
        wide=wide,
    )


def _average_pool(node: Node, given: Arguments) -> Rule | None:
    size, padding = _pair(given["kernel_size"]), _pair(given["padding"])
    stride = _pair(given["stride"] or size)
    pads_count = given["count_include_pad"] or given["divisor_override"] is not None
    if given["ceil_mode"] or (padding[0] > 0 and not pads_count):
        return None  # windows at the border divide by another number

    def apply(x: Tensor) -> Tensor:
        return F.avg_pool2d(
            x, size, stride, (0, padding[1]), False, given["count_include_pad"], given["divisor_override"]
        )

    return Window(node, apply, size=size[0], stride=stride[0], padding=padding[0])


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    both = [value] if isinstance(value, int) else value
    return both[0], both[-1]


RULES: dict[Any, Callable[[Node, Arguments], Rule | None]] = {
    aten._to_copy.default: _one_by_one,
    aten._prelu_kernel.default: _one_by_one,
    aten.hardswish.default: _one_by_one,
    aten.native_batch_norm.default: _batch_norm,
    aten.cat.default: _concatenation,
    aten._softmax.default: _over_other_dimensions,
    aten.amax.default: _over_other_dimensions,
    aten.roll.default: _roll,
    aten.slice.Tensor: _slice,
    aten.constant_pad_nd.default: _constant_padding,
    aten.replication_pad2d.default: _replicated_padding,
    aten.upsample_bilinear2d.default: _resizing("bilinear"),
    aten.upsample_bicubic2d.default: _resizing("bicubic"),
    aten.convolution.default: _convolution,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.avg_pool2d.default: _average_pool,
}
