"""Weights that a run begins with: those of another run, whose classes may be others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import torch

from fastseg.config import Config
from fastseg.engine import build
from fastseg.engine.distributed import Processes
from fastseg.engine.training_data import first_difference, only_numbered
from fastseg.errors import CheckpointError, ConfigError, FastsegError, MissingFileError, printable
from fastseg.types import DatasetInfo, Preprocessing, SegModel, WeightsInfo
from fastseg.weights.files import load_state, read_weights, strip_wrappers
from fastseg.weights.zoo import published_weights

SHOWN = 2  # names of tensors in the log line
TOLERANCE = 1e-4  # of mean and std: a fortieth of a grey level, far more than rounding, far less than another choice
AUX_HEADS = "aux_heads."


def begin(config: Config, model: SegModel, dataset: DatasetInfo, procs: Processes) -> str:
    """Start `model`, the configured one for `dataset`, from `init_from` or `backbone_weights`; say what was loaded.

    What `init_from` names, published weights of the network or a file, must be of the same network and the same
    preprocessing. Where its classes are others, in number, names or order, or only numbered and of another data set,
    every tensor whose shape depends on their number begins anew; so do auxiliary heads that the file lacks. All other
    tensors must fit. One process reads; the others copy. Returns one line for the
    log, '' where there is nothing to say. Raises on every process: ConfigError for another network or preprocessing,
    MissingFileError, CheckpointError for a file that cannot be read or whose tensors do not fit.
    """
    if config.init_from is None:
        build.load_backbone_weights(config, model, procs)
        return ""
    said: str | FastsegError = ""
    if procs.is_main:
        try:
            said = _load(config, model, dataset)
        except FastsegError as error:
            said = error
    said = procs.from_main(said)
    if isinstance(said, FastsegError):
        raise said
    procs.copy_from_main(model.state_dict().values())
    return said


def _load(config: Config, model: SegModel, dataset: DatasetInfo) -> str:
    given = printable(config.init_from)
    key = f"{config.source}: init_from={given}"
    published = {info.name: info.file for info in published_weights() if info.model == config.model.name}
    try:
        state, info = read_weights(published.get(str(config.init_from), str(config.init_from)))
    except MissingFileError as error:
        named = f", or one of its published weights: {', '.join(published)}" if published else ""
        raise MissingFileError(
            f"{config.source}: init_from: {error}; train it first, or name a weights file, checkpoint or run folder of "
            f"{config.model.name!r}{named}"
        ) from None
    except FastsegError as error:
        raise type(error)(f"{config.source}: init_from: {error}") from None
    if info.model != config.model.name:
        raise ConfigError(
            f"{key} holds weights of {info.model!r} and model.name is {config.model.name!r}; begin with weights of "
            f"{config.model.name!r}, or set model.name={info.model}"
        )
    _require_same_preprocessing(info.preprocessing, config.preprocessing, key)

    own = model.state_dict()
    loaded = {strip_wrappers(name): tensor for name, tensor in state.items()}
    # equal numbers of other classes are no reason to keep a classifier
    different, numbered = first_difference(info.dataset, dataset) is not None, only_numbered(info.dataset, dataset)
    new = _class_tensors(config, dataset, info.dataset) if different or numbered else []
    left_out, lacking = sorted(_heads(loaded) - _heads(own)), sorted(_heads(own) - _heads(loaded))
    kept = {name: tensor for name, tensor in loaded.items() if not _belongs(name, left_out) and name not in new}
    anew = {name: own[name] for name in own if name in new or _belongs(name, lacking)}
    try:
        load_state(model, kept | anew, key)
    except CheckpointError as error:
        raise CheckpointError(f"{error}{_other_arguments(info, config)}") from None

    line = f"init_from {given} ({info.dataset.name}, {info.dataset.num_classes} classes): {len(kept)} tensors loaded"
    if new:
        names = [name for name in new if name in own and not _belongs(name, lacking)]
        more = f" (+{len(names) - SHOWN} more)" if len(names) > SHOWN else ""
        why = "" if different else "; names like class_0 say nothing"
        line += f"; new for {dataset.num_classes} classes ({dataset.name}{why}): {', '.join(names[:SHOWN])}{more}"
    if lacking:
        line += f"; auxiliary heads that the file lacks, new: {', '.join(lacking)}"
    if left_out:
        line += f"; auxiliary heads that this run lacks, left out: {', '.join(left_out)}"
    start = config.model.args.get(build.BACKBONE_WEIGHTS)
    return line + (f"; model.args.{build.BACKBONE_WEIGHTS}={start} not read" if start else "")


def _class_tensors(config: Config, *datasets: DatasetInfo) -> list[str]:
    """Names of the tensors whose shape or existence depends on the number of classes: the network is built for several.

    Existence: ESPNet's blocks share their channels among five branches, so that of three classes two have none.
    """
    numbers = sorted({dataset.num_classes for dataset in datasets})
    shapes = []
    with torch.device("meta"):
        for number in (*numbers, numbers[-1] + 1):
            shapes.append({name: t.shape for name, t in build.build_model(config, number).state_dict().items()})
    names = dict.fromkeys(itertools.chain(*shapes))
    return [name for name in names if len({table.get(name) for table in shapes}) > 1]


def _heads(names: Iterable[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith(AUX_HEADS)}


def _belongs(name: str, heads: Iterable[str]) -> bool:
    return not _heads([name]).isdisjoint(heads)


def _require_same_preprocessing(theirs: Preprocessing, ours: Preprocessing, key: str) -> None:
    """Raise ConfigError where images would reach the loaded layers otherwise than they did in training.

    `input_scale` may differ: training shows objects at many sizes anyway.
    """
    near = all(
        math.isclose(a, b, rel_tol=0, abs_tol=TOLERANCE)
        for a, b in zip((*theirs.mean, *theirs.std), (*ours.mean, *ours.std), strict=True)
    )
    if near and theirs.channel_order == ours.channel_order:
        return
    raise ConfigError(
        f"{key} was trained on images with {_described(theirs)}, and this run has {_described(ours)}; set those of the "
        f"weights, or begin with others"
    )


def _described(preprocessing: Preprocessing) -> str:
    mean, std = (",".join(map(str, values)) for values in (preprocessing.mean, preprocessing.std))
    return f"input.mean=[{mean}] input.std=[{std}] input.channel_order={preprocessing.channel_order}"


def _other_arguments(info: WeightsInfo, config: Config) -> str:
    """End of an error sentence: how the networks were built, where that differs."""
    ours = {key: value for key, value in config.model.args.items() if key != build.BACKBONE_WEIGHTS}
    if dict(info.model_args) == ours:
        return ""
    return f"; it was trained with model.args={dict(info.model_args)}, and this run has {ours}"
