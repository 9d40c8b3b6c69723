"""A configuration tried out without its data."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastseg.config import Config
from fastseg.engine import build
from fastseg.engine.distributed import Processes
from fastseg.engine.step import backward
from fastseg.engine.training_data import check_names, check_part
from fastseg.errors import ConfigError
from fastseg.layers.norm import resolve_norm_kind
from fastseg.types import IGNORE_INDEX

NUM_CLASSES = 5
STEPS = 2
SIDE = 64  # pixels: enough for every network, and a dilated ResNet-101 takes seconds
BLOCK = 8  # pixels a side of one label: classes have insides and edges, as losses of edges need
IGNORED_SHARE = 0.125  # of the blocks


def dry_run(config: Config, procs: Processes) -> None:
    """Two steps on random images, at the configured crop or 64 pixels a side, whichever is smaller.

    No file is read or written, so what only files can tell (the data's folder and classes, the weights that init_from
    or model.args.backbone_weights name) is not checked. Raises FastsegError for the rest as `engine.train.train` does.
    """
    check_names(config.data.name, config.data.args, "data", config.source)
    for number, part in enumerate(config.data.extra):
        check_part(part, f"data.extra[{number}]", config.source)
    num_classes = len(config.loss.args.get("class_weights") or ()) or NUM_CLASSES
    norm = resolve_norm_kind(config.train.norm, world_size=procs.world_size, device_type=procs.device.type)
    build.check_batch_norm(config, num_classes, build.images_per_norm(config, procs, norm))
    model = build.build_model(config, num_classes).to(procs.device).train()
    seg_loss = build.build_loss(config, model, None)
    optimizer = build.build_optimizer(config, model)
    height, width = (min(side, SIDE) for side in config.augment.crop)
    for _ in range(STEPS):
        images = torch.randn(2, 3, height, width, device=procs.device)
        labels = random_labels(num_classes, height, width).to(procs.device)
        optimizer.zero_grad(set_to_none=True)
        result = backward(model, seg_loss, [(images, labels)], procs, autocast=build.autocast(config, procs.device))
        losses = " ".join(f"{name} {value:.4g}" for name, value in result.losses.items())
        if not result.finite:
            raise ConfigError(
                f"{config.source}: the loss is not finite on random images: {losses}; lower optim.lr (now "
                f"{config.optim.lr}), or look at the term that is nan or inf"
            )
        optimizer.step()
    if procs.is_main:
        key = build.BACKBONE_WEIGHTS if config.init_from is None else "init_from"
        start = config.init_from or config.model.args.get(build.BACKBONE_WEIGHTS)
        unread = f"; not checked: {key}={start}, read when training begins" if start else ""
        print(f"{config.source}: dry run passed; {losses} on random images{unread}", flush=True)


def random_labels(num_classes: int, height: int, width: int) -> Tensor:
    """Labels int64 (2,height,width): blocks of one random class each, some of them ignored, the first never."""
    blocks = (2, math.ceil(height / BLOCK), math.ceil(width / BLOCK))
    ignored = torch.rand(blocks) < IGNORED_SHARE
    ignored[:, 0, 0] = False
    labels = torch.randint(0, num_classes, blocks).masked_fill(ignored, IGNORE_INDEX)
    return labels.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)[:, :height, :width]
