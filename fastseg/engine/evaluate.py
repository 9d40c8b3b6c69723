"""Score a predictor on a data set, over as many processes as there are: each image once, one exact sum at the end."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from fastseg.atomic import write_atomically
from fastseg.data.dataset import SegDataset
from fastseg.data.notes import say_once
from fastseg.engine.boundary_score import BoundaryScore
from fastseg.engine.instance_score import InstanceScore, scores_instances
from fastseg.engine.training_data import only_numbered
from fastseg.errors import DataError, DistributedError, FastsegError, LabelError, OutputError
from fastseg.metrics import ConfusionMatrix, Scores, check_protocol, sum_over_ranks
from fastseg.pipeline import read_ahead
from fastseg.predict import Predictor
from fastseg.types import DatasetInfo, plain_name

NO_CLASS = ("void", "background", "unlabelled", "unlabeled")  # what a network may know beyond the data set's classes


class EvaluationStoppedError(Exception):
    """`should_stop` became true on some rank, so there is no score: part of a data set has none worth recording."""


def evaluate(
    predictor: Predictor,
    dataset: SegDataset,
    *,
    protocol: str = "void_ignored",
    boundary_thresholds: Sequence[float] = (),
    instances: bool = False,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Scores:
    """Scores of `predictor` on the first `limit` samples of `dataset`, or on all; the same on every rank.

    Under torch.distributed rank r takes samples r, r + world, ..., so none is counted twice, and ranks meet only after
    their last sample. `progress(done, total)` is called per image of this rank, `should_stop` before each.

    A network may know more than the data set's classes: void or background (`NO_CLASS`), after them. Predicted on a
    labelled pixel, it is a miss of that pixel's class; on void ground truth, it counts in no protocol.

    With `boundary_thresholds`, in pixels, the scores have the boundary F-score, too (see `boundary_score`, whose
    PAPER_THRESHOLDS are Gated-SCNN's). It takes time on one CPU core per process: about 0.02 s for an image of 360x480
    with 11 classes, 0.2 s to 0.7 s for 1024x2048 with 19.

    With `instances`, they have the iIoU (see `instance_score`) where it is defined and the first sample has a map of
    instances; then every sample must have one. It takes about 0.05 s of one core per image of 1024x2048.

    Raises FastsegError when model and data set differ in classes, UnknownNameError for a protocol, ConfigError for a
    threshold that is not finite and above 0, DataError for nothing to evaluate or a bad sample (DistributedError on the
    other ranks), EvaluationStoppedError on every rank.
    """
    check_protocol(protocol)
    boundary = BoundaryScore(dataset.info.num_classes, boundary_thresholds)
    check_classes(predictor, dataset.info)
    total = _count(dataset, limit)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)
    share = range(rank, total, world)

    matrix = ConfusionMatrix(dataset.info.num_classes)
    objects = InstanceScore(dataset.info) if instances and scores_instances(dataset.info) else None
    has_maps = False
    images = pixels = 0
    stopped = False
    failure: FastsegError | None = None
    try:
        # every rank asks the first sample, so that all of them agree
        has_maps = objects is not None and dataset.load_instances(0) is not None

        def load(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
            return *dataset.load(index), dataset.load_instances(index) if has_maps else None

        with closing(read_ahead(load, share)) as samples:
            for index, sample in samples:
                if should_stop is not None and should_stop():
                    stopped = True
                    break
                image, label, instance_ids = sample.result()
                prediction = predictor.predict_array(image)
                try:
                    matrix.update(_as_tensor(label), _as_tensor(prediction))
                    if objects is not None and has_maps:
                        objects.update(prediction, _require_instances(instance_ids))
                except LabelError as error:
                    raise LabelError(f"{dataset.sample_name(index)}: {error}") from error
                if boundary.thresholds:
                    boundary.update(label, prediction)
                images += 1
                pixels += label.size
                if progress is not None:
                    progress(images, len(share))
    except FastsegError as error:
        failure = error  # raised below: the other ranks wait for this one's counts

    matrix.all_reduce()
    boundary.all_reduce()
    if objects is not None:
        objects.all_reduce()
    images, pixels, stops, failures = sum_over_ranks(
        torch.tensor([images, pixels, stopped, failure is not None], dtype=torch.int64)
    ).tolist()
    if failure is not None:
        raise failure
    if failures:
        raise DistributedError(f"evaluation failed on {failures} of {world} processes; their messages name the sample")
    if stops:
        raise EvaluationStoppedError(f"stopped after {images} of {total} images")
    if (images, pixels) != (total, matrix.pixels):
        raise RuntimeError(f"counted {matrix.pixels} of {pixels} pixels in {images} of {total} images")
    return replace(
        matrix.scores(dataset.info.class_names, protocol, dataset.info.categories),
        boundary_f=boundary.scores() if boundary.thresholds else None,
        instance_iou=objects.scores(matrix) if objects is not None and has_maps else None,
    )


def write_json(path: Path | str, scores: Scores, **context: object) -> None:
    """Write scores (fractions; null where there is none) and `context` (model, command, date ...) to a JSON file.

    The file appears whole or not at all. Missing folders are made. Raises OutputError when `path` is taken by something
    other than a file, or when a key of `context` is that of a score.
    """
    path = Path(path)
    content = scores.to_dict()
    taken = sorted(content.keys() & context.keys())
    if taken:
        raise OutputError(f"context keys {', '.join(taken)} are scores already; rename them")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} exists and is not a file; name another output")
    text = json.dumps({**context, **content}, indent=2, allow_nan=False, default=str) + "\n"
    write_atomically(path, text.encode())


def check_classes(predictor: Predictor, info: DatasetInfo) -> None:
    """Raises FastsegError unless the data set's classes are the model's first, and what it has beyond stands for none.

    Names are compared where the model knows them; where they are only numbers of another data set's classes, a warning
    says so.
    """
    labelled, predicted = info.num_classes, predictor.model.num_classes
    known = predictor.model.weights_info
    # a model in memory, or weights that others made, may have numbers for names: then only the count can tell
    names = known.dataset.class_names if known is not None and known.dataset.name != "unnamed" else ()
    extra = names[labelled:]
    instead = f"use weights trained on {info.name}, or the data set of the model (data.name=...)"
    if predicted != labelled and not (extra and all(plain_name(name) in NO_CLASS for name in extra)):
        raise FastsegError(f"the model predicts {predicted} classes and {info.name} has {labelled}; {instead}")
    for index, (ours, theirs) in enumerate(zip(names, info.class_names, strict=False)):
        if plain_name(ours) != plain_name(theirs):
            raise FastsegError(f"class {index} is {ours!r} to the model and {theirs!r} in {info.name}; {instead}")
    if known is not None and names and only_numbered(known.dataset, info):
        say_once(
            f"the model was trained on {known.dataset.name} and is scored on {info.name}: names like class_0 do not "
            f"tell whether their classes are the same; name them where you can (data.args.classes)",
            level=logging.WARNING,
        )


def _count(dataset: SegDataset, limit: int | None) -> int:
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}; give at least 1 image, or leave it out for all {len(dataset)}")
    if not len(dataset):
        raise DataError(f"{dataset.info.name} has no samples in this split; nothing to evaluate")
    return len(dataset) if limit is None else min(limit, len(dataset))


def _require_instances(instances: np.ndarray | None) -> np.ndarray:
    if instances is None:
        raise LabelError(
            "there is no map of instances, but the first sample has one; complete the download, or leave the iIoU out "
            "(--no-instances)"
        )
    return instances


def _as_tensor(array: np.ndarray) -> Tensor:
    """Shares memory where PyTorch allows: contiguous and writable."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))
