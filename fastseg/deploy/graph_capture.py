"""A deployed network as a list of operations with known shapes: what it computes at one size, and nothing else.

PyTorch's own tracer runs the network on tensors without memory, so capturing costs about a second at any size.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from fastseg.deploy.graph_blocks import with_opaque_blocks
from fastseg.deploy.model import DeployedModel
from fastseg.layers.resize import resize

aten = torch.ops.aten

# operations that change nothing about the numbers, when nothing is changed in place
SAME = (aten.alias.default, aten.clone.default, aten.detach.default, aten.lift_fresh_copy.default)
# their result is a tensor of its own, on which a ReLU may work in place
FRESH = (aten.convolution.default, aten.native_batch_norm.default, aten.add.Tensor, aten.cat.default)


@dataclass(eq=False)
class Node:
    """One operation: `function` of `args` and `kwargs`, in which other nodes stand for their values.

    `function` is None for the normalised image. `relu` says that a ReLU follows.
    """

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]
    dtype: torch.dtype
    relu: bool = False
    users: list[Node] = field(default_factory=list)

    @property
    def inputs(self) -> list[Node]:
        """Nodes among the arguments, each once."""
        return list(dict.fromkeys(nodes_in((self.args, *self.kwargs.values()))))

    @property
    def bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def call(self, value_of: Callable[[Node], Tensor]) -> Tensor:
        """The operation's (first) result."""
        result = self.function(*substituted(self.args, value_of), **self.kwargs)
        result = result[0] if isinstance(result, tuple) else result
        return result.relu_() if self.relu else result


@dataclass(frozen=True)
class Captured:
    """Operations in an order in which they can be done: `nodes[0]` is the image, `output` makes the logits."""

    nodes: list[Node]
    output: Node


def nodes_in(argument: object) -> Iterator[Node]:
    if isinstance(argument, Node):
        yield argument
    elif isinstance(argument, tuple | list):
        for each in argument:
            yield from nodes_in(each)


def substituted(argument: Any, value_of: Callable[[Node], Tensor]) -> Any:
    """The argument with values for its nodes."""
    if isinstance(argument, Node):
        return value_of(argument)
    if isinstance(argument, tuple | list):
        return type(argument)(substituted(each, value_of) for each in argument)
    return argument


def input_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Height and width of the network's input for an image, as `normalize_images` scales it."""
    return (height, width) if scale == 1 else (max(1, round(height * scale)), max(1, round(width * scale)))


def capture(deployed: DeployedModel, height: int, width: int, device: torch.device) -> Captured:
    """What `deployed` does between the normalised image (1,3,height,width), not yet scaled, and its logits.

    A block that a kernel computes in one go is one operation, `fastseg::fused_block` of a map and the block.
    """
    with torch.inference_mode(False), torch.no_grad():  # inference mode hides operations from the tracer
        network, blocks = with_opaque_blocks(deployed, device)
        traced = _traced(network, height, width, device)
        captured = _simplified(traced)
    for node in captured.nodes:
        if node.function is torch.ops.fastseg.fused_block.default:
            node.args = (node.args[0], blocks[node.args[1]])
    return captured


def _traced(network: DeployedModel, height: int, width: int, device: torch.device) -> fx.GraphModule:
    size = input_size(height, width, network.preprocessing.input_scale)
    pixel = network.inputs(torch.zeros(1, 1, 1, 3, dtype=torch.uint8, device=device), scale=1.0)
    # no memory is touched: the tracer copies shape and strides only
    image = pixel.expand(1, pixel.shape[1], height, width)

    def logits(inputs: Tensor) -> Tensor:
        return network.logits(resize(inputs.contiguous(memory_format=torch.channels_last), size))

    traced = make_fx(logits, tracing_mode="fake", _allow_non_fake_inputs=True)(image)
    traced.graph.eliminate_dead_code()
    return traced


def _simplified(traced: fx.GraphModule) -> Captured:
    """Without what depends on weights only, which is computed now, and without operations that change nothing."""
    values: dict[fx.Node, Any] = {}
    nodes: dict[Node, None] = {}  # in order
    output: Any = None
    for traced_node in traced.graph.nodes:
        if traced_node.op == "get_attr":
            values[traced_node] = getattr(traced, str(traced_node.target))
            continue
        if traced_node.op == "output":
            output = values[traced_node.args[0]]
            continue
        value = _image(traced_node) if traced_node.op == "placeholder" else _value(traced_node, values)
        values[traced_node] = value
        if isinstance(value, Node):
            nodes.setdefault(value)
    return Captured(_with_relus_inside(_needed(list(nodes), output), output), output)


def _image(traced: fx.Node) -> Node:
    return Node(None, (), {}, tuple(traced.meta["val"].shape), traced.meta["val"].dtype)


def _value(traced: fx.Node, values: dict[fx.Node, Any]) -> Any:
    """What a traced operation stands for: a tensor where only weights go in, an earlier node, or a new one."""
    args: tuple[Any, ...] = tuple(fx.map_arg(list(traced.args), values.__getitem__))
    kwargs: Any = dict(fx.map_arg(traced.kwargs, values.__getitem__))
    if traced.target is operator.getitem:
        if isinstance(args[0], Node) and args[1] != 0:
            raise NotImplementedError(f"result {args[1]} of {args[0].function} cannot be computed in bands")
        return args[0] if isinstance(args[0], Node) else args[0][args[1]]
    function = _out_of_place(traced.target)
    if next(nodes_in((args, *kwargs.values())), None) is None:
        return function(*args, **kwargs)
    meta = traced.meta["val"]
    meta = meta[0] if isinstance(meta, tuple | list) else meta
    unchanged = function in SAME or (function is aten._to_copy.default and meta.dtype == args[0].dtype)
    return args[0] if unchanged else Node(function, tuple(args), kwargs, tuple(meta.shape), meta.dtype)


def _out_of_place(function: Any) -> Any:
    """`relu` for `relu_`: the tracer gives whoever comes later the result of the change, so that both mean the same."""
    if not isinstance(function, torch._ops.OpOverload) or not function._schema.is_mutable:
        return function
    name = function.overloadpacket.__name__
    return getattr(getattr(aten, name.removesuffix("_")), function._overloadname)


def _needed(nodes: list[Node], output: Node) -> list[Node]:
    """Nodes that the output depends on, with their `users`."""
    needed = {output}
    for node in reversed(nodes):
        if node in needed:
            needed.update(node.inputs)
    kept = [node for node in nodes if node in needed]
    for node in kept:
        for each in node.inputs:
            each.users.append(node)
    return kept


def _with_relus_inside(nodes: list[Node], output: Node) -> list[Node]:
    """A ReLU takes the operation before it into itself, where nothing else sees the map in between."""
    absorbed = set()
    for node in nodes:
        source = node.args[0] if node.function is aten.relu.default else None
        if source is None or source.function not in FRESH or source.users != [node] or source is output:
            continue
        node.function, node.args, node.kwargs, node.relu = source.function, source.args, source.kwargs, True
        for each in node.inputs:
            each.users[each.users.index(source)] = node
        absorbed.add(source)
    return [node for node in nodes if node not in absorbed]
