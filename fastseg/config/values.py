"""Values that have the right type and cannot work."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from fastseg.config.schema import Config
from fastseg.errors import ConfigError


def check_values(config: Config, where: str) -> None:
    """Raise ConfigError, naming `where` and the key, for the first value that cannot work."""
    for key, number in _numbers(asdict(config)):
        if not math.isfinite(number):
            raise ConfigError(f"{where}: {key} is {number}; allowed: a finite number")
    low, high = config.augment.scale
    problems = [
        (min(config.augment.crop) < 1, "augment.crop", config.augment.crop, "two positive sizes, height then width"),
        (not 0 < low <= high, "augment.scale", config.augment.scale, "0 < smallest <= largest"),
        (not 0 <= config.augment.flip <= 1, "augment.flip", config.augment.flip, "a probability in 0..1"),
        (config.input.scale <= 0, "input.scale", config.input.scale, "a positive factor"),
        (min(config.input.std) <= 0, "input.std", config.input.std, "positive numbers"),
        (config.optim.lr <= 0, "optim.lr", config.optim.lr, "a positive number"),
        (config.loss.aux_stride < 1, "loss.aux_stride", config.loss.aux_stride, "1 (every label) or more"),
        (config.train.total_batch < 1, "train.total_batch", config.train.total_batch, "at least 1"),
        (config.train.accumulate < 1, "train.accumulate", config.train.accumulate, "at least 1"),
        (not 0 <= config.train.ema_decay < 1, "train.ema_decay", config.train.ema_decay, "0 (off) up to below 1"),
        (config.train.clip_grad_norm < 0, "train.clip_grad_norm", config.train.clip_grad_norm, "0 (off) or more"),
        (config.train.checkpoint_every < 1, "train.checkpoint_every", config.train.checkpoint_every, "at least 1"),
        (config.train.timeout < 1, "train.timeout", config.train.timeout, "at least 1 second"),
        (config.train.log_every < 1, "train.log_every", config.train.log_every, "at least 1"),
        (config.train.eval_every <= 0, "train.eval_every", config.train.eval_every, "a positive number of epochs"),
        (config.data.workers < 0, "data.workers", config.data.workers, "0 or more"),
        (config.data.repeat < 1, "data.repeat", config.data.repeat, "at least 1"),
        (not 0 <= config.data.class_uniform <= 1, "data.class_uniform", config.data.class_uniform, "a share in 0..1"),
        (not 0 < config.augment.cat_max_ratio <= 1, "augment.cat_max_ratio", config.augment.cat_max_ratio, "0..1"),
        (config.schedule.epochs <= 0, "schedule.epochs", config.schedule.epochs, "a positive number"),
        (
            config.schedule.iterations is not None and config.schedule.iterations < 1,
            "schedule.iterations",
            config.schedule.iterations,
            "at least 1, or leave it out and set schedule.epochs",
        ),
        (config.schedule.warmup < 0, "schedule.warmup", config.schedule.warmup, "0 or more iterations"),
        (config.schedule.power < 0, "schedule.power", config.schedule.power, "0 or more"),
        (config.schedule.steps < 1, "schedule.steps", config.schedule.steps, "at least 1"),
        (
            not 0 <= config.schedule.step_factor <= 1,
            "schedule.step_factor",
            config.schedule.step_factor,
            "a factor in 0..1",
        ),
        (not 0 <= config.augment.blur <= 1, "augment.blur", config.augment.blur, "a probability in 0..1"),
        (not 0 <= config.optim.momentum < 1, "optim.momentum", config.optim.momentum, "0 up to below 1"),
        (
            config.optim.nesterov and not config.optim.momentum,
            "optim.nesterov",
            config.optim.nesterov,
            "false, or true with optim.momentum above 0",
        ),
        (
            not all(0 <= beta < 1 for beta in config.optim.betas),
            "optim.betas",
            config.optim.betas,
            "two numbers from 0 up to below 1",
        ),
        (not 0 <= config.train.seed < 2**63, "train.seed", config.train.seed, "0 up to 2**63 - 1"),
    ]
    not_negative: list[tuple[str, Any, tuple[str, ...]]] = [
        ("augment", config.augment, ("aspect", "rotate", "brightness", "contrast", "saturation", "hue")),
        ("optim", config.optim, ("weight_decay", "head_lr_multiplier", "head_decay_multiplier")),
        ("schedule", config.schedule, ("warmup_factor", "final_factor")),
    ]
    for section, table, names in not_negative:
        problems += [(getattr(table, n) < 0, f"{section}.{n}", getattr(table, n), "0 or more") for n in names]
    for key, weights in (("loss.aux", config.loss.aux), ("loss.terms", config.loss.terms)):
        problems += [(weight < 0, f"{key}.{name}", weight, "0 or more") for name, weight in weights.items()]
    for wrong, key, value, allowed in problems:
        if wrong:
            raise ConfigError(f"{where}: {key} is {value}; allowed: {allowed}")


def _numbers(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Dotted key and value of every floating number, those in tuples included."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}.")
        else:
            items = value if isinstance(value, (list, tuple)) else (value,)
            yield from ((f"{prefix}{key}", item) for item in items if isinstance(item, float))
