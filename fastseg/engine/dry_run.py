"""A configuration tried out without its data."""

from __future__ import annotations

import torch

from fastseg.config import Config
from fastseg.data import DATASETS
from fastseg.engine import build
from fastseg.engine.distributed import Processes
from fastseg.engine.step import backward
from fastseg.errors import ConfigError, UnknownNameError, suggest
from fastseg.layers.norm import resolve_norm_kind

NUM_CLASSES = 5
STEPS = 2
SIDE = 64  # pixels: enough for every network, and a dilated ResNet-101 takes seconds


def dry_run(config: Config, procs: Processes) -> None:
    """Two steps on random images, at the configured crop or 64 pixels a side, whichever is smaller.

    No file is read or written, so what only the data can tell (its folder, its number of classes) is not checked.
    Raises FastsegError for the rest as `engine.train.train` does.
    """
    try:
        arguments = DATASETS.arguments(config.data.name)
    except UnknownNameError as error:
        raise ConfigError(f"{config.source}: data.name: {error}") from None
    for key in config.data.args:
        if key not in arguments:
            raise ConfigError(
                f"{config.source}: data.args.{key}: data set {config.data.name!r} has no argument {key!r}; "
                f"{suggest(key, arguments)}"
            )
    num_classes = len(config.loss.args.get("class_weights") or ()) or NUM_CLASSES
    norm = resolve_norm_kind(config.train.norm, world_size=procs.world_size, device_type=procs.device.type)
    build.check_batch_norm(config, num_classes, build.images_per_norm(config, procs, norm))
    model = build.build_model(config, num_classes).to(procs.device).train()
    seg_loss = build.build_loss(config, model, None)
    optimizer = build.build_optimizer(config, model)
    height, width = (min(side, SIDE) for side in config.augment.crop)
    for _ in range(STEPS):
        images = torch.randn(2, 3, height, width, device=procs.device)
        labels = torch.randint(0, num_classes, (2, height, width), device=procs.device)
        optimizer.zero_grad(set_to_none=True)
        result = backward(model, seg_loss, [(images, labels)], procs, autocast=build.autocast(config, procs.device))
        optimizer.step()
    if procs.is_main:
        print(f"{config.source}: dry run passed; loss {result.losses['loss']:.3f} on random images", flush=True)
