"""Blocks that a kernel computes in one go, as single operations of a captured network."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fastseg.deploy.fold import replace
from fastseg.deploy.model import DeployedModel
from fastseg.deploy.row_bands import RowBands
from fastseg.deploy.separable import FusedSeparable
from fastseg.deploy.separable_kernel import kernel_runs


@torch.library.custom_op("fastseg::fused_block", mutates_args=())
def fused_block(x: Tensor, index: int, channels: int, stride: int, dtype: torch.dtype) -> Tensor:
    """Stands for block `index` in a captured network, and is never run."""
    raise NotImplementedError("a fused block is computed by its rule")


@fused_block.register_fake
def _(x: Tensor, index: int, channels: int, stride: int, dtype: torch.dtype) -> Tensor:
    height, width = (-(-side // stride) for side in x.shape[2:])
    result = x.new_empty((x.shape[0], channels, height, width), dtype=dtype)
    return result.contiguous(memory_format=torch.channels_last)


class _Opaque(nn.Module):
    """In the place of a block while a network is captured."""

    def __init__(self, index: int, block: FusedSeparable) -> None:
        super().__init__()
        chain = block.chain()
        self.index = index
        self.channels = chain[-1].product.out_channels
        self.stride = stride_of(block)
        self.dtype = chain[0].product.weight.dtype

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.fastseg.fused_block(x, self.index, self.channels, self.stride, self.dtype)


def with_opaque_blocks(deployed: DeployedModel, device: torch.device) -> tuple[DeployedModel, list[FusedSeparable]]:
    """A copy on the same weights whose fused blocks are single operations, and these blocks by their index.

    Blocks that the kernel cannot compute here stay as they are, and are captured in their parts, and so do stages that
    the network computes in bands of its own.
    """
    in_place = deployed.input_dtype is not None and device.type == "cpu"
    found = [module for module in deployed.modules() if in_place and isinstance(module, FusedSeparable)]
    blocks = [block for block in found if _runs(block)]
    same: dict[int, Any] = {id(tensor): tensor for tensor in (*deployed.parameters(), *deployed.buffers())}
    same.update({id(block): _Opaque(index, block) for index, block in enumerate(blocks)})
    copied = copy.deepcopy(deployed, same)
    replace(copied, {module: module.stage for module in copied.modules() if isinstance(module, RowBands)})
    return copied, blocks


def stride_of(block: FusedSeparable) -> int:
    stride = 1
    for stage in block.chain():
        stride *= stage.stride
    return stride


def _runs(block: FusedSeparable) -> bool:
    chain = block.chain()
    dtype = chain[0].product.weight.dtype
    return kernel_runs(dtype) and all(stage.fits(dtype) for stage in chain)
