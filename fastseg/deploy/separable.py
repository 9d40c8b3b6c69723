"""Depthwise-separable convolutions and inverted residuals computed row by row in the processor's cache.

Layer by layer, the map between a 1x1 and a depthwise convolution travels to memory and back, which takes longer than
the depthwise convolution itself. The kernel keeps a few rows of it (csrc/separable_body.h).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace as replace_fields
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from fastseg.deploy.conv import InferenceConv2d, PacksWeights, state_of
from fastseg.deploy.fold import probe_images, replace
from fastseg.deploy.row_bands import RowBands
from fastseg.deploy.separable_kernel import MAX_STAGES, PackedChain, Separable, kernel_runs
from fastseg.layers.separable import InvertedResidual, SeparableFeatureFusion

MAX_DILATION = 8  # the rows kept are 2 * dilation + 1
MAX_PATCH_CHANNELS = 4  # a 3x3 convolution of more channels is oneDNN's


class _Fused(PacksWeights):
    """Stands in the place of `block`, and computes it with the kernel where that applies."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def chain(self) -> list[Separable]:
        """What the block consists of."""
        raise NotImplementedError

    def kernel(self, *maps: Tensor) -> PackedChain | None:
        """The kernel with this block's weights, or None where the block itself has to run."""
        packed = self._packed
        if not _is_plain_inference(*maps) or (torch.is_grad_enabled() and self._wants_gradients(*maps)):
            return None
        if packed is not None and packed.made_of != state_of(self.parameters()):
            packed = self._packed = None
        if packed is None:
            chain = self.chain()
            weight = chain[0].product.weight
            if weight.device.type != "cpu" or not kernel_runs(weight.dtype):
                return None
            if not all(each.fits(weight.dtype) for each in chain):
                return None
            with torch.no_grad():
                packed = self._packed = PackedChain(chain)
                packed.made_of = state_of(self.parameters())
        return packed if packed.takes(*maps) else None

    def _wants_gradients(self, *maps: Tensor) -> bool:
        return any(tensor.requires_grad for tensor in (*maps, *self.parameters()))


class FusedSeparable(_Fused):
    """A sequence of separable convolutions, or an `InvertedResidual`: (N,C,H,W) -> (N,C',ceil(H/s),ceil(W/s))."""

    def chain(self) -> list[Separable]:
        return _chain_of(self.block) or []

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel(x)
        if kernel is None:
            return self.block(x)
        x = _readable(x, kernel.dtype)
        identity = isinstance(self.block, InvertedResidual) and self.block.use_identity
        return kernel(x, addend=x if identity else None)


class FusedFeatureFusion(_Fused):
    """`SeparableFeatureFusion`: detail (N,C,H,W) and context (N,C',h,w) -> (N,C'',H,W)."""

    block: SeparableFeatureFusion

    def chain(self) -> list[Separable]:
        fusion = _fusion_of(self.block)
        return [fusion] if fusion else []

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        kernel = self.kernel(detail, context)
        if kernel is None:
            return self.block(detail, context)
        context, detail = _readable(context, kernel.dtype), _readable(detail, kernel.dtype)
        return kernel(context, side=detail, align_corners=self.block.align_corners)


def fuse_separable(network: nn.Module) -> None:
    """Put the blocks of `network`, whose norms are folded, that the kernel can compute into modules that use it.

    In place, and only where this machine has the kernel. Blocks are those that a forward pass runs as a whole, never
    their parts alone.
    """
    if not kernel_runs(next((weight.dtype for weight in network.parameters()), torch.float64)):
        return
    calls: Counter[nn.Module] = Counter()
    hooks = [module.register_forward_hook(lambda module, *_: calls.update([module])) for module in network.modules()]
    with torch.no_grad():
        network(next(probe_images(network)))
    for hook in hooks:
        hook.remove()
    replacements: dict[nn.Module, nn.Module] = {}
    _find(network, calls, replacements)
    replace(network, replacements)


def _find(parent: nn.Module, calls: Counter[nn.Module], replacements: dict[nn.Module, nn.Module]) -> None:
    for child in parent.children():
        whole = calls[child] and all(calls[part] == calls[child] for part in child.modules())
        if whole and _has_forward_of(child, SeparableFeatureFusion) and _fusion_of(child):
            replacements[child] = FusedFeatureFusion(child)
        elif whole and _chain_of(child):
            replacements[child] = FusedSeparable(child)
        else:
            _find(child, calls, replacements)


def _chain_of(block: nn.Module) -> list[Separable] | None:
    """The block as a chain for the kernel, or None where it is none."""
    if _has_forward_of(block, InvertedResidual):
        chain = _parsed(_joined(block.expand, block.depthwise, block.project))
        return chain if chain and len(chain) == 1 and not chain[0].relu else None
    return _parsed(_convolutions(block))


def _convolutions(block: nn.Module) -> list[InferenceConv2d] | None:
    """The convolutions of a sequence of nothing else."""
    if isinstance(block, RowBands):
        block = block.stage
    if type(block) is InferenceConv2d:
        return [block]
    if isinstance(block, nn.Identity):
        return []
    if not isinstance(block, nn.Sequential) or type(block).forward is not nn.Sequential.forward:
        return None
    return _joined(*(child for child in block._modules.values() if child is not None))


def _joined(*blocks: nn.Module) -> list[InferenceConv2d] | None:
    """The convolutions of blocks that run one after another."""
    joined: list[InferenceConv2d] = []
    for block in blocks:
        found = _convolutions(block)
        if found is None:
            return None
        joined += found
    return joined


def _parsed(convs: list[InferenceConv2d] | None) -> list[Separable] | None:
    """Convolutions in their order as stages; None unless the kernel has them all and one is depthwise."""
    chain: list[Separable] = []
    left = list(convs or [])
    while left:
        expand = depthwise = None
        if not chain and len(left) > 2 and _is_pointwise(left[0]) and _is_depthwise(left[1]):
            expand = left.pop(0)
        if len(left) > 1 and _is_depthwise(left[0]) and _is_pointwise(left[1]):
            depthwise = left.pop(0)
        product = left.pop(0)
        if not _is_pointwise(product) and (chain or expand or depthwise or not _takes_patches(product)):
            return None
        chain.append(Separable(expand, depthwise, product, relu=product.activation is not None))
    fits = 0 < len(chain) <= MAX_STAGES and any(each.depthwise is not None for each in chain)
    return chain if fits else None


def _has_forward_of(block: nn.Module, kind: type[nn.Module]) -> TypeGuard[Any]:
    """Whether the block is of that kind, and does with its parts what the kind does."""
    return isinstance(block, kind) and type(block).forward is kind.forward


def _fusion_of(block: SeparableFeatureFusion) -> Separable | None:
    """The block as one stage for the kernel, or None where it is none."""
    chain = _parsed(_joined(block.depthwise, block.context))
    detail = _convolutions(block.detail) or []
    if not chain or len(chain) != 1 or len(detail) != 1 or not _is_pointwise(detail[0]):
        return None
    if chain[0].stride > 1 or chain[0].relu or detail[0].activation or type(block.act) is not nn.ReLU:
        return None
    return replace_fields(chain[0], side=detail[0], relu=True, resized=True)


def _is_pointwise(conv: InferenceConv2d) -> bool:
    return _is_plain(conv, 1) and conv.groups == 1 and conv.stride == (1, 1)


def _is_depthwise(conv: InferenceConv2d) -> bool:
    return (
        _is_plain(conv, 3) and conv.groups == conv.in_channels == conv.out_channels and conv.dilation[0] <= MAX_DILATION
    )


def _takes_patches(conv: InferenceConv2d) -> bool:
    return (
        _is_plain(conv, 3) and conv.groups == 1 and conv.dilation == (1, 1) and conv.in_channels <= MAX_PATCH_CHANNELS
    )


def _is_plain(conv: InferenceConv2d, kernel_size: int) -> bool:
    """Square, of stride 1 or 2, and padded with zeros so that strides round up."""
    if conv.kernel_size != (kernel_size, kernel_size) or conv.padding_mode != "zeros":
        return False
    if conv.stride not in ((1, 1), (2, 2)) or conv.dilation[0] != conv.dilation[1]:
        return False
    return conv.padding == ((kernel_size - 1) // 2 * conv.dilation[0],) * 2


def _is_plain_inference(*maps: Tensor) -> bool:
    """Whether these are maps on a CPU, whose memory may be read: nobody traces, exports or compiles."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.is_autocast_enabled("cpu"):
        return False
    if torch._C._len_torch_function_stack() or torch._C._len_torch_dispatch_stack():
        return False
    return all(type(x) is Tensor and x.device.type == "cpu" and x.ndim == 4 and x.numel() > 0 for x in maps)


def _readable(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype).contiguous(memory_format=torch.channels_last)
