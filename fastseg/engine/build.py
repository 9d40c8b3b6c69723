"""From a configuration to its parts, with complaints that name the key."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

from fastseg.config import Config
from fastseg.data import SegDataset, build_dataset
from fastseg.data.statistics import class_weights
from fastseg.engine import optimizer
from fastseg.engine.distributed import Processes
from fastseg.errors import ConfigError, DistributedError, UnknownNameError, suggest
from fastseg.losses import LOSSES, TERMS, OutputLoss, PixelLoss, SegLoss
from fastseg.models import MODELS
from fastseg.types import DatasetInfo, SegModel, WeightsInfo
from fastseg.weights.files import load_state

BACKBONE_WEIGHTS = "backbone_weights"  # the argument of every network whose backbone has published weights


def build_model(config: Config, num_classes: int, *, backbone_weights: bool = False) -> SegModel:
    """The configured network, untrained, or with `backbone_weights` from what model.args.backbone_weights names.

    Only the start of a run needs those: they may have to be fetched, and any trained weights replace them. Raises
    ConfigError naming model.name or the argument, CheckpointError for backbone weights that cannot be had.
    """
    arguments = dict(config.model.args)
    if "num_classes" in arguments:
        raise ConfigError(f"{config.source}: model.args.num_classes comes from the data set ({num_classes}); remove it")
    if arguments.get("in_channels", 3) != 3:
        raise ConfigError(
            f"{config.source}: model.args.in_channels is {arguments['in_channels']!r}; training reads RGB: remove it"
        )
    if BACKBONE_WEIGHTS in arguments and not backbone_weights:
        arguments[BACKBONE_WEIGHTS] = None  # not left out: a model without the argument refuses it
    try:
        return MODELS.build(config.model.name, num_classes=num_classes, **arguments)
    except (UnknownNameError, TypeError, ValueError) as error:
        key = "model.args" if config.model.name in MODELS else "model.name"
        raise ConfigError(f"{config.source}: {key}: {error}") from None


def load_backbone_weights(config: Config, model: SegModel, procs: Processes) -> None:
    """Start `model`, the configured one, from the weights that model.args.backbone_weights names, if it names any.

    One process fetches and reads them; the others copy. Raises as `build_model`.
    """
    if config.model.args.get(BACKBONE_WEIGHTS) is None:
        return
    if procs.is_main:
        start = build_model(config, model.num_classes, backbone_weights=True)
        load_state(model, start.state_dict(), f"{config.source}: model.args.{BACKBONE_WEIGHTS}")
    procs.copy_from_main(model.state_dict().values())


def build_optimizer(config: Config, model: SegModel) -> torch.optim.Optimizer:
    """The configured optimiser. Raises ConfigError naming the key that does not fit the model."""
    try:
        return optimizer.build_optimizer(model, config.optim)
    except ConfigError as error:
        raise ConfigError(f"{config.source}: {error}") from None


def build_split(config: Config, split: str) -> SegDataset:
    """A split of the configured data set. Raises ConfigError naming data.name or the argument; the adapter its own."""
    try:
        return build_dataset(config.data.name, split, root=config.data.root, args=dict(config.data.args))
    except UnknownNameError as error:
        hint = ""
        if config.data.name == "folder" and "missing a required argument" in str(error):
            hint = f"; `fastseg data inspect {config.data.root or 'DIR'}` writes them all"
        raise ConfigError(f"{config.source}: data: {error}{hint}") from None


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
        _require_kind(loss, {"classes"}, f"loss.name: {config.loss.name}", "the main output")
        shared = _aux_loss(config.loss.name, arguments, config.loss.aux_stride)
        return SegLoss(
            loss,
            aux_weights=config.loss.aux,
            aux_names=model.aux_names,
            aux_losses=dict.fromkeys(model.aux_names, shared) | _own_losses(config, model),
            align_corners=model.align_corners,
            aux_stride=config.loss.aux_stride,
            terms=_terms(config),
        )
    except ConfigError as error:
        raise ConfigError(f"{config.source}: {error}") from None
    except (UnknownNameError, TypeError, ValueError) as error:
        raise ConfigError(f"{config.source}: loss: {error}") from None


def _own_losses(config: Config, model: SegModel) -> dict[str, PixelLoss]:
    """The losses of auxiliary outputs that have one of their own: the configuration's choice, else the network's."""
    named = {**model.aux_losses, **config.loss.aux_losses}
    arguments = config.loss.aux_args
    for name in arguments:
        if name not in named:
            raise ConfigError(
                f"loss.aux_args.{name}: that output has no loss of its own; name it, as in loss.aux_losses.{name}="
                "cross_entropy"
                if name in model.aux_names
                else f"loss.aux_args.{name}: the model has no such auxiliary output; {suggest(name, model.aux_names)}"
            )
    losses = {}
    for name, loss in named.items():
        # the network names a loss for outputs that it may have been built without
        if name not in model.aux_names and name not in config.loss.aux_losses:
            continue
        try:
            losses[name] = _aux_loss(loss, dict(arguments.get(name, {})), config.loss.aux_stride)
        except (UnknownNameError, TypeError, ValueError) as error:
            key = f"loss.aux_args.{name}" if loss in LOSSES else f"loss.aux_losses.{name}"
            raise ConfigError(f"{key}: {error}") from None
        kind = LOSSES.build(model.aux_losses[name]).learns if name in model.aux_losses else "classes"
        fitting = {"classes", "contours"} if kind in ("classes", "contours") else {kind}
        _require_kind(losses[name], fitting, f"loss.aux_losses.{name}: {loss}", f"the output {name!r}")
    return losses


def _require_kind(loss: PixelLoss, fitting: set[str], what: str, output: str) -> None:
    """Raise ConfigError unless what the loss learns is what the output stands for."""
    if loss.learns not in fitting:
        allowed = [name for name in LOSSES.names() if LOSSES.build(name).learns in fitting]
        raise ConfigError(
            f"{what} learns {loss.learns}, and {output} has logits of {' or '.join(sorted(fitting))}; "
            f"allowed: {', '.join(allowed)}"
        )


def _terms(config: Config) -> dict[str, tuple[float, OutputLoss]]:
    """Weights and losses of loss.terms."""
    for name in config.loss.term_args:
        if name not in config.loss.terms:
            raise ConfigError(f"loss.term_args.{name}: loss.terms has no {name}; give it a weight there: {name}: 1")
    terms = {}
    for name, weight in config.loss.terms.items():
        try:
            terms[name] = weight, TERMS.build(name, **config.loss.term_args.get(name, {}))
        except (UnknownNameError, TypeError, ValueError) as error:
            key = f"loss.term_args.{name}" if name in TERMS else f"loss.terms.{name}"
            raise ConfigError(f"{key}: {error}") from None
    return terms


def _aux_loss(name: str, arguments: dict[str, Any], stride: int) -> PixelLoss:
    """The loss `name` for every `stride`-th label: what its arguments count in labels shrinks alike."""
    whole = LOSSES.build(name, **arguments)
    if stride == 1:
        return whole
    shrunk = {
        key: arguments.get(key, parameter.default)
        for key, parameter in LOSSES.arguments(name).items()
        if key in ("min_kept", "radius")
    }
    if "min_kept" in shrunk:
        shrunk["min_kept"] //= stride**2
    if "radius" in shrunk:
        shrunk["radius"] = max(1, shrunk["radius"] // stride)
    return LOSSES.build(name, **(arguments | shrunk))


def autocast(config: Config, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """The context in which the network runs at train.precision."""
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[config.train.precision]
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def weights_info(config: Config, dataset: DatasetInfo) -> WeightsInfo:
    """What the trained weights are: written into every checkpoint and weights file. What they began from is no part."""
    return WeightsInfo(
        model=config.model.name,
        name=dataset.name,
        file="",
        sha256="",
        dataset=dataset,
        preprocessing=config.preprocessing,
        model_args={key: value for key, value in config.model.args.items() if key != BACKBONE_WEIGHTS},
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
