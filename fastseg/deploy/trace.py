"""Who uses what inside a network: one forward pass, written down call by call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

# asking a tensor for these does not read its numbers
METADATA = frozenset(
    {Tensor.size, Tensor.dim, Tensor.numel, Tensor.stride, Tensor.is_floating_point, Tensor.is_contiguous}
    | {
        getattr(Tensor, name).__get__
        for name in ("shape", "dtype", "device", "ndim", "layout", "is_mkldnn", "is_meta", "requires_grad")
    }
)


@dataclass(frozen=True)
class Call:
    """A call of one of torch's functions, inside `module`, the innermost one of those watched.

    Tensors are told apart by number: `inputs` are those among its arguments, `outputs` those among its results. One
    changed in place has a new number afterwards.
    """

    function: Callable[..., object]
    module: nn.Module | None
    arguments: tuple[object, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass
class Trace:
    """The calls of one forward pass. `image` is the number of its input."""

    calls: list[Call] = field(default_factory=list)
    image: int = 0
    uses: Counter[int] = field(default_factory=Counter)  # of a tensor: arguments it was, and results of the network
    strangers: set[int] = field(default_factory=set)  # ids of modules whose parameters others touched

    def users(self, number: int) -> list[Call]:
        """Calls that take this tensor; their number is below `uses[number]` where the network hands it out, too."""
        return [call for call in self.calls if number in call.inputs]


class Recorder(TorchFunctionMode):
    """Writes every call down, while it is entered, with the module of a watched type that it happens in."""

    def __init__(self, network: nn.Module, watched: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self.trace = Trace()
        self._modules = [module for module in network.modules() if isinstance(module, watched)]
        self._owners = {
            id(tensor): module
            for module in self._modules
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
        }
        self._numbers: dict[int, int] = {}
        self._alive: list[Tensor] = []  # a tensor that is freed would hand its id to another
        self._inside: list[nn.Module] = []
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Recorder:
        for module in self._modules:
            self._hooks.append(module.register_forward_pre_hook(lambda module, _: self._inside.append(module)))
            self._hooks.append(module.register_forward_hook(lambda *_: self._leave(), always_call=True))
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        for hook in self._hooks:
            hook.remove()

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        inputs = tensors_in((args, kwargs))
        module = self._inside[-1] if self._inside else None
        for tensor in inputs:
            owner = self._owners.get(id(tensor))
            if owner is not None and owner is not module:
                self.trace.strangers.add(id(owner))
        numbers = tuple(self.number(tensor) for tensor in inputs)
        result = function(*args, **(kwargs or {}))
        if function not in METADATA:
            outputs = tuple(self._new_number(tensor) for tensor in tensors_in(result))
            self.trace.calls.append(Call(function, module, args, numbers, outputs))
            self.trace.uses.update(numbers)
        return result

    def number(self, tensor: Tensor) -> int:
        """The number of this tensor as it is now."""
        return self._numbers[id(tensor)] if id(tensor) in self._numbers else self._new_number(tensor)

    def _new_number(self, tensor: Tensor) -> int:
        self._alive.append(tensor)
        self._numbers[id(tensor)] = len(self._alive)
        return len(self._alive)

    def _leave(self) -> None:
        self._inside.pop()


def trace(network: nn.Module, images: Tensor, watched: tuple[type[nn.Module], ...]) -> Trace:
    """What `network` does with `images` (N,C,H,W), in which modules of the types `watched`. Without gradient."""
    with torch.no_grad(), Recorder(network, watched) as recorder:
        recorder.trace.image = recorder.number(images)
        result = network(images)
    recorder.trace.uses.update(recorder.number(tensor) for tensor in tensors_in(result))
    return recorder.trace


def tensors_in(value: object) -> list[Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []
