"""Batch norms and ReLUs put into the convolutions before them, wherever nothing else sees the maps in between.

What may be put together is read off one forward pass (`fastseg.deploy.trace`); no network is known by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastseg.deploy.conv import InferenceConv2d
from fastseg.deploy.trace import Call, Trace, trace

USUAL_CHANNELS = 4  # of images at most; what has more may be a later convolution's input
RELUS = (F.relu, torch.relu, torch.relu_, F.relu_)
PROBE_SIZES = ((64, 96), (49, 83))  # at one size alone, maps may happen to agree that elsewhere are resized


def fold_norms(network: nn.Module) -> None:
    """Put every batch norm that follows one convolution alone into it, in place, computed in float64."""
    pairs = _followers(network, nn.Conv2d, F.conv2d, _BatchNorm, (F.batch_norm,))
    replacements: dict[nn.Module, nn.Module] = {}
    for conv, norm in pairs.items():
        _fold(conv, norm)
        replacements[norm] = nn.Identity()
    replace(network, replacements)


def fuse_activations(network: nn.Module) -> None:
    """Exchange every convolution for an `InferenceConv2d`, which does the ReLU that follows, if one does, as well."""
    pairs = _followers(network, nn.Conv2d, F.conv2d, nn.ReLU, RELUS)
    replacements: dict[nn.Module, nn.Module] = {}
    for module in network.modules():
        if type(module) is nn.Conv2d:
            conv = replacements[module] = InferenceConv2d.of(module)
            if module in pairs:
                conv.activation = "relu"
                replacements[pairs[module]] = nn.Identity()
    replace(network, replacements)


def replace(network: nn.Module, replacements: dict[nn.Module, nn.Module]) -> None:
    """Put modules of `network` into the places of others, wherever those stand."""
    for parent in list(network.modules()):
        for name, child in parent._modules.items():
            if child in replacements:
                setattr(parent, name, replacements[child])


def probe_images(network: nn.Module) -> Iterator[Tensor]:
    """Images of little work, of every size that a forward pass must have been seen at."""
    like = next(network.parameters(), torch.zeros(0))
    channels = _image_channels(network)
    for size in PROBE_SIZES:
        yield torch.zeros(1, channels, *size, dtype=like.dtype, device=like.device)


def _image_channels(network: nn.Module) -> int:
    """The channels of the first convolution that runs, which need not be the first that was built."""
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    first = convs[0].in_channels if convs else 3
    if first <= USUAL_CHANNELS:
        return first
    like = next(network.parameters())
    for channels in sorted({conv.in_channels for conv in convs}):
        with contextlib.suppress(RuntimeError), torch.no_grad():
            network(torch.zeros(1, channels, *PROBE_SIZES[0], dtype=like.dtype, device=like.device))
            return channels
    return first


def _followers(
    network: nn.Module,
    first_type: type[nn.Module],
    first_function: Callable[..., object],
    second_type: type[nn.Module],
    second_functions: tuple[Callable[..., object], ...],
) -> dict[nn.Module, nn.Module]:
    """Modules of the first type whose results only one module of the second type sees, which sees nothing else."""
    found: list[dict[nn.Module, nn.Module]] = []
    for images in probe_images(network):
        seen = trace(network, images, (first_type, second_type))
        found.append(_pairs(seen, first_type, first_function, second_type, second_functions))
    first, *others = found
    return {a: b for a, b in first.items() if all(other.get(a) is b for other in others)}


def _pairs(
    seen: Trace,
    first_type: type[nn.Module],
    first_function: Callable[..., object],
    second_type: type[nn.Module],
    second_functions: tuple[Callable[..., object], ...],
) -> dict[nn.Module, nn.Module]:
    followers: dict[nn.Module, set[nn.Module | None]] = {}
    leaders: dict[nn.Module, set[nn.Module | None]] = {}
    made_by: dict[int, nn.Module] = {}
    users: dict[int, Call] = {}
    for call in seen.calls:
        users.update(dict.fromkeys(call.inputs, call))
        module = call.module
        if isinstance(module, first_type) and call.function is first_function and _is_its_own(call, module):
            made_by[call.outputs[0]] = module
        if isinstance(module, second_type) and call.function in second_functions:
            leaders.setdefault(module, set()).add(made_by.get(call.inputs[0]))
    for number, module in made_by.items():
        user = users.get(number)
        fits = user is not None and seen.uses[number] == 1 and user.function in second_functions
        follower = user.module if fits and user is not None and user.inputs[0] == number else None
        followers.setdefault(module, set()).add(follower)
    pairs = {}
    for module, seconds in followers.items():
        second = next(iter(seconds))
        if second is None or len(seconds) > 1 or leaders.get(second) != {module}:
            continue
        if {id(module), id(second)} & seen.strangers or not _can_go(second):
            continue
        pairs[module] = second
    return pairs


def _is_its_own(call: Call, conv: nn.Module) -> bool:
    """Whether the convolution is done with the module's own weights, and not with something computed from them."""
    own = (conv._parameters.get("weight"), conv._parameters.get("bias"))
    return (
        own[0] is not None and len(call.arguments) > 2 and call.arguments[1] is own[0] and call.arguments[2] is own[1]
    )


def _can_go(module: nn.Module) -> bool:
    """Whether the module's work is that of one function in eval mode, with fixed numbers."""
    if isinstance(module, _BatchNorm):
        if type(module).forward is not _BatchNorm.forward:
            return False
        return not module.training and module.running_mean is not None and module.running_var is not None
    return type(module) is nn.ReLU


def _fold(conv: nn.Module, norm: nn.Module) -> None:
    """conv(x) * scale + shift as a convolution: weights times scale, and shift in the bias."""
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, _BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    if conv.bias is not None:
        shift = shift + conv.bias.double() * scale
    weight = conv.weight.double() * scale[:, None, None, None]
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    conv.bias = nn.Parameter(shift.to(dtype), requires_grad=False)
