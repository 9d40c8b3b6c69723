"""From a configuration to its parts, with complaints that name the key."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from fastseg.config import Config
from fastseg.data import SegDataset, build_dataset
from fastseg.data.statistics import class_weights
from fastseg.engine.distributed import Processes
from fastseg.errors import ConfigError, DistributedError, UnknownNameError
from fastseg.losses import LOSSES, SegLoss
from fastseg.models import MODELS
from fastseg.types import DatasetInfo, SegModel, WeightsInfo


def build_model(config: Config, num_classes: int) -> SegModel:
    """The configured network, untrained. Raises ConfigError naming model.name or the argument."""
    if "num_classes" in config.model.args:
        raise ConfigError(f"{config.source}: model.args.num_classes comes from the data set ({num_classes}); remove it")
    try:
        return MODELS.build(config.model.name, num_classes=num_classes, **config.model.args)
    except (UnknownNameError, TypeError, ValueError) as error:
        key = "model.args" if config.model.name in MODELS else "model.name"
        raise ConfigError(f"{config.source}: {key}: {error}") from None


def build_split(config: Config, split: str) -> SegDataset:
    """A split of the configured data set. Raises ConfigError naming data.name or the argument; the adapter its own."""
    try:
        return build_dataset(config.data.name, split, root=config.data.root, args=dict(config.data.args))
    except UnknownNameError as error:
        raise ConfigError(f"{config.source}: data: {error}") from None


def build_loss(config: Config, model: SegModel, train_data: SegDataset | None) -> SegLoss:
    """The configured loss. Raises ConfigError for unknown names, arguments and auxiliary outputs."""
    arguments: dict[str, Any] = dict(config.loss.args)
    if config.loss.class_weights != "none":
        if "class_weights" in arguments:
            raise ConfigError(
                f"{config.source}: loss.args.class_weights and loss.class_weights={config.loss.class_weights} are both "
                f"given; keep one"
            )
        equal = [1.0] * model.num_classes  # a dry run has no labels to count
        arguments["class_weights"] = class_weights(train_data, config.loss.class_weights) if train_data else equal
    given = arguments.get("class_weights")
    if given is not None and len(given) != model.num_classes:
        raise ConfigError(
            f"{config.source}: loss.args.class_weights has {len(given)} values and the data set {model.num_classes} "
            f"classes; give one weight per class"
        )
    try:
        loss = LOSSES.build(config.loss.name, **arguments)
        if "min_kept" in LOSSES.arguments(config.loss.name):  # counted in pixels, of which there are fewer
            default = LOSSES.arguments(config.loss.name)["min_kept"].default
            arguments["min_kept"] = arguments.get("min_kept", default) // config.loss.aux_stride**2
        return SegLoss(
            loss,
            aux_weights=config.loss.aux,
            aux_names=model.aux_names,
            aux_loss=LOSSES.build(config.loss.name, **arguments),
            align_corners=model.align_corners,
            aux_stride=config.loss.aux_stride,
        )
    except ConfigError as error:
        raise ConfigError(f"{config.source}: {error}") from None
    except (UnknownNameError, TypeError, ValueError) as error:
        raise ConfigError(f"{config.source}: loss: {error}") from None


def autocast(config: Config, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which the network runs at train.precision."""
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.train.precision]
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def weights_info(config: Config, dataset: DatasetInfo) -> WeightsInfo:
    """What the trained weights are: written into every checkpoint and weights file."""
    return WeightsInfo(
        model=config.model.name,
        name=dataset.name,
        file="",
        sha256="",
        dataset=dataset,
        preprocessing=config.preprocessing,
        model_args=dict(config.model.args),
    )


def split_batch(config: Config, procs: Processes) -> int:
    """Images per process and micro-batch. Raises DistributedError when the total batch cannot be split evenly."""
    shares = procs.world_size * config.train.accumulate
    if config.train.total_batch % shares:
        fitting = max(shares, round(config.train.total_batch / shares) * shares)
        raise DistributedError(
            f"train.total_batch={config.train.total_batch} cannot be split over {procs.world_size} processes x "
            f"{config.train.accumulate} accumulation steps; use train.total_batch={fitting}"
        )
    return config.train.total_batch // shares


def images_per_norm(config: Config, procs: Processes, norm: str) -> int:
    """How many images a batch norm of kind `norm` sees at once. Raises as `split_batch`."""
    return split_batch(config, procs) * (1 if norm == "bn" else procs.world_size)


def check_batch_norm(config: Config, num_classes: int, images_per_norm: int) -> None:
    """Raise DistributedError when a norm would see one value per channel: a batch of 1 and a globally pooled map."""
    if images_per_norm > 1:
        return
    with torch.device("meta"):
        probe = build_model(config, num_classes).train()
        images = torch.zeros(1, 3, *config.augment.crop)
    try:
        probe(images)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise DistributedError(
            f"{config.source}: model {config.model.name!r} pools the whole image before a batch norm, which cannot "
            f"train on one image at a time; set train.total_batch so that a norm sees 2 images or more "
            f"(train.total_batch=2 on one process; train.norm=auto shares statistics between processes)"
        ) from None
