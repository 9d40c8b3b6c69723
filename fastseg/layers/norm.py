"""Batch norm across processes: torch's SyncBatchNorm on CUDA, our own over gloo on CPU, NVIDIA apex where wanted.

Models are built with plain `nn.BatchNorm2d`; `convert_norm` exchanges it for training on several processes. All
kinds share parameter names, so checkpoints are the same.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastseg.errors import DistributedError, MissingPackageError, suggest
from fastseg.layers.precision import widened

NORM_KINDS = ("bn", "sync", "gloo", "apex", "auto")


class _SynchronizedNorm(torch.autograd.Function):
    """Batch norm with statistics over all processes; the backward pass shares its two sums as the forward its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dims = (0, 2, 3)
        local_count = x.new_full((1,), x.numel() // x.shape[1])
        # plain reductions, corrected once: as exact as torch.var_mean, which takes several times as long on the CPU
        local_mean = x.mean(dims)
        deviation = x - local_mean[None, :, None, None]
        rest = deviation.mean(dims)
        local_mean = local_mean + rest
        local_var = deviation.square_().mean(dims) - rest * rest
        local = torch.cat([local_count, local_mean, local_var])
        gathered = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, local)
        stacked = torch.stack(gathered)
        channels = x.shape[1]
        counts, means, variances = stacked[:, :1], stacked[:, 1 : 1 + channels], stacked[:, 1 + channels :]
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        # about the common mean, so that nothing cancels: E[x^2] - E[x]^2 would lose digits in float32
        var = (counts * (variances + (means - mean) ** 2)).sum(0) / count
        inverse_std = (var + eps).rsqrt()
        scale = weight * inverse_std
        ctx.save_for_backward(x, weight, mean, inverse_std, count)
        out = torch.addcmul((bias - mean * scale)[None, :, None, None], x, scale[None, :, None, None])
        ctx.mark_non_differentiable(mean, var, count)
        return out, mean, var, count

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse_std, count = ctx.saved_tensors
        grad_bias = grad.sum((0, 2, 3))
        grad_weight = ((x - mean[None, :, None, None]) * grad).sum((0, 2, 3)) * inverse_std
        sums = torch.cat([grad_bias, grad_weight])
        dist.all_reduce(sums)
        mean_grad, mean_grad_normalized = (sums / count).chunk(2)
        # grad_x = scale * (grad - mean(grad) - x_hat * mean(grad * x_hat)), gathered into one multiply-add on x
        scale = weight * inverse_std
        slope = -scale * inverse_std * mean_grad_normalized
        offset = -scale * mean_grad - slope * mean
        grad_x = torch.addcmul(offset[None, :, None, None], grad, scale[None, :, None, None])
        grad_x.addcmul_(x, slope[None, :, None, None])
        return grad_x, grad_weight, grad_bias, None


class GlooBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose training statistics cover all processes, over any backend and on CPU.

    Processes may hold different numbers of pixels. Equal to `nn.BatchNorm2d` on the joined batch up to rounding;
    in eval, or on one process, it is `nn.BatchNorm2d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        out, mean, var, count = _SynchronizedNorm.apply(widened(x), self.weight, self.bias, self.eps)
        if count <= 1:
            raise DistributedError(_SINGLE_VALUE)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum  # type: ignore[arg-type]
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)  # type: ignore[union-attr]
            unbiased = var * (count / (count - 1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)  # type: ignore[union-attr]
        return out.to(x.dtype)


_SINGLE_VALUE = (
    "batch norm would see a single value per channel: the total batch is 1 and a layer pools the whole image; "
    "use a total batch of 2 or more"
)


def resolve_norm_kind(kind: str, *, world_size: int, device_type: str) -> str:
    """What `kind` means here: 'auto' is plain 'bn' on one process, 'sync' on CUDA and 'gloo' on CPU.

    Raises DistributedError for an unknown kind, or one that cannot run on this device.
    """
    if kind not in NORM_KINDS:
        raise DistributedError(f"train.norm is {kind!r}; {suggest(kind, NORM_KINDS)}")
    if kind == "auto":
        return "bn" if world_size == 1 else "sync" if device_type == "cuda" else "gloo"
    if kind in ("sync", "apex") and device_type != "cuda":
        raise DistributedError(
            f"train.norm={kind} runs on CUDA only and this is {device_type}; use train.norm=auto (gloo on CPU)"
        )
    return kind


def convert_norm(model: nn.Module, kind: str) -> nn.Module:
    """Exchange every BatchNorm2d of `model` for the norm `kind` (resolved: not 'auto'). Weights are kept.

    Raises MissingPackageError when 'apex' is asked for and NVIDIA apex is not there.
    """
    if kind == "bn":
        return model
    if kind == "sync":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if kind == "apex":
        return _apex_parallel().convert_syncbn_model(model)
    if type(model) is nn.BatchNorm2d:
        return _gloo_norm_like(model)
    for name, child in model.named_children():
        setattr(model, name, convert_norm(child, kind))
    return model


def _gloo_norm_like(norm: nn.BatchNorm2d) -> GlooBatchNorm2d:
    new = GlooBatchNorm2d(norm.num_features, eps=norm.eps, momentum=norm.momentum)
    new.weight, new.bias = norm.weight, norm.bias
    new.running_mean, new.running_var = norm.running_mean, norm.running_var
    new.num_batches_tracked = norm.num_batches_tracked
    return new.train(norm.training)


def _apex_parallel() -> Any:
    """`apex.parallel` of NVIDIA apex; PyPI's `apex` is an unrelated package."""
    try:
        parallel = importlib.import_module("apex.parallel")
    except ImportError as error:
        raise MissingPackageError(
            f"train.norm=apex needs NVIDIA apex ({error}); PyPI's 'apex' is another package. Install it from "
            "github.com/NVIDIA/apex, or use train.norm=sync, which is torch's own"
        ) from None
    if not hasattr(parallel, "SyncBatchNorm"):
        raise MissingPackageError(
            "the installed 'apex' is not NVIDIA apex (no apex.parallel.SyncBatchNorm); "
            "pip uninstall apex, then use train.norm=sync or install github.com/NVIDIA/apex"
        )
    return parallel
