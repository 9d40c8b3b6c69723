"""Optimisers, learning rates, and the moving average of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fastseg.config import OptimConfig, ScheduleConfig
from fastseg.errors import ConfigError


def learning_rate_factor(schedule: ScheduleConfig, iteration: int, total: int) -> float:
    """Factor on the base learning rate at step `iteration` of `total`: a pure function, so there is no state to save.

    Poly: (1 - t)^power; cosine: half a wave; both from 1 to 0. Step: step_factor^k in part k of `steps` equal parts.
    Their range 0 to 1 becomes `final_factor` to 1, and a linear warm-up from `warmup_factor` multiplies the result.
    """
    progress = min(iteration / max(total, 1), 1.0)
    if schedule.name == "poly":
        decay = (1 - progress) ** schedule.power
    elif schedule.name == "cosine":
        decay = (1 + math.cos(math.pi * progress)) / 2
    else:
        part = min(iteration * schedule.steps // max(total, 1), schedule.steps - 1)
        decay = schedule.step_factor**part
    factor = schedule.final_factor + (1 - schedule.final_factor) * decay
    if iteration < schedule.warmup:
        factor *= schedule.warmup_factor + (1 - schedule.warmup_factor) * iteration / schedule.warmup
    return factor


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, object]]:
    """Groups of parameters: weights with decay, norms and biases without; what is no backbone apart, when it differs.

    Raises ConfigError for a head multiplier where the model has no `backbone` to tell its heads from.
    """
    lr_multiplier, decay_multiplier = config.head_lr_multiplier, config.head_decay_multiplier
    differs = lr_multiplier != 1 or decay_multiplier != 1
    if differs and not hasattr(model, "backbone"):
        key = "head_lr_multiplier" if lr_multiplier != 1 else "head_decay_multiplier"
        raise ConfigError(
            f"optim.{key} is {getattr(config, key)}, for parameters outside the model's backbone, and "
            f"{type(model).__name__} has no part called backbone; leave it out"
        )
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_head = differs and not name.startswith("backbone.")
            groups.setdefault((is_head, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": config.weight_decay * (decay_multiplier if is_head else 1) if decayed else 0.0,
            "lr_multiplier": lr_multiplier if is_head else 1.0,
        }
        for (is_head, decayed), parameters in groups.items()
    ]


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW over `parameter_groups`. Raises as that does."""
    groups = parameter_groups(model, config)
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
    adam = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return adam(groups, lr=config.lr, betas=config.betas)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set `lr` times each group's multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_multiplier"]


class WeightAverage:
    """Exponential moving average of a model's tensors, buffers included.

    The decay grows from 0.1 to `decay` as (1 + t) / (10 + t), so that early steps are not dominated by random weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.state: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the model's present tensors. Integer buffers are copied."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        mine: list[Tensor] = []
        theirs: list[Tensor] = []
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                mine.append(self.state[name])
                theirs.append(value)
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(mine, theirs, 1 - decay)


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether no tensor holds a NaN or an infinity."""
    largest = torch.nn.utils.get_total_norm(tensors, float("inf"))  # read back once, not once per tensor
    return bool(torch.isfinite(largest))
