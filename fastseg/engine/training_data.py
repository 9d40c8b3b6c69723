"""What a run trains on: its split, further data sets of the same classes, how often each is shown, and which crops."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from fastseg.config import Config, DataPart
from fastseg.data import DATASETS, ConcatDataset, SegDataset, build_dataset
from fastseg.data.class_uniform import ClassUniform, find_places, places_as_shown
from fastseg.data.dataset import FileDataset, RepeatedDataset
from fastseg.engine.build import build_split
from fastseg.engine.distributed import Processes
from fastseg.errors import ConfigError, FastsegError, UnknownNameError, suggest
from fastseg.types import DatasetInfo, is_placeholder, plain_name

THREADS = 8  # that read labels, on all processes of a machine together


class Source(NamedTuple):
    """A part of the training data: what it is called, its number of images, and how often an epoch shows each."""

    name: str
    images: int
    times: int


def build_training_data(config: Config) -> tuple[SegDataset, list[Source]]:
    """All images that a run trains on, each once: those of data.train_split, then of every part of data.extra.

    Raises ConfigError naming the key of what is wrong with a part, its classes included; the adapters their own.
    """
    data = config.data
    datasets = [build_split(config, data.train_split)]
    sources = [Source(f"{data.name} {data.train_split}", len(datasets[0]), data.repeat)]
    for number, part in enumerate(data.extra):
        key = f"data.extra[{number}]"
        check_part(part, key, config.source)
        try:
            dataset = build_dataset(part.name, part.split, root=part.root, args=dict(part.args), key=key)
        except FastsegError as error:
            raise type(error)(f"{config.source}: {key}: {error}") from None
        _require_same_classes(datasets[0].info, dataset.info, part, key, config.source)
        datasets.append(dataset)
        sources.append(Source(f"{part.name} {part.split}", len(dataset), part.repeat))
    return (ConcatDataset(datasets) if data.extra else datasets[0]), sources


def repeated(dataset: SegDataset, sources: list[Source]) -> RepeatedDataset:
    """The images of `dataset` as an epoch shows them."""
    return RepeatedDataset(dataset, [(source.images, source.times) for source in sources])


def described(sources: list[Source]) -> str:
    """' (2975 cityscapes train + 2 x 367 camvid train)' for the header; '' where every image comes from one split."""
    if len(sources) == 1 and sources[0].times == 1:
        return ""
    parts = [f"{f'{s.times} x ' if s.times > 1 else ''}{s.images} {s.name}" for s in sources]
    return f" ({' + '.join(parts)})"


def notes(config: Config, train: SegDataset, val: SegDataset) -> list[str]:
    """What a run may well do and its user should know, for the header; `train` as from `build_training_data`."""
    said = []
    keys = {"data.train_split": config.data.train_split, "data.val_split": config.data.val_split}
    keys |= {f"data.extra[{number}].split": part.split for number, part in enumerate(config.data.extra)}
    for key, split in keys.items():
        words = _words(split)
        said += [f"{key}={split} has {word} {n} times" for word in dict.fromkeys(words) if (n := words.count(word)) > 1]
    shared = [word for word in dict.fromkeys(_words(config.data.val_split)) if word in _words(config.data.train_split)]
    files = _image_files(val)
    both = len(files & _image_files(train))
    if shared or both:
        what = f"{'+'.join(shared)} is" if shared else f"{both} of the {len(files)} images of data.val_split are"
        said.append(f"{what} trained on, too: its score says nothing about new images")
    if isinstance(train, ConcatDataset) and config.data.extra:
        for number, dataset in enumerate(train.parts[1:]):
            if only_numbered(train.info, dataset.info):
                said.append(
                    f"names like class_0 do not tell whether the classes of data.extra[{number}] ({dataset.info.name}) "
                    f"are those of {train.info.name}"
                )
    height, width = (side * config.input.scale * config.augment.scale[1] for side in train.size(0))
    crop = config.augment.crop
    if crop[0] > height and crop[1] > width:
        said.append(
            f"augment.crop is {crop[1]}x{crop[0]} and the first image {width:.0f}x{height:.0f} at its largest scale: "
            f"padding surrounds it in every crop"
        )
    return [f"note: {line}" for line in said]


def _words(split: str) -> list[str]:
    return [word.strip() for word in split.split("+")]


def _image_files(dataset: SegDataset) -> set[str]:
    """Where the images lie, of the samples that are files."""
    if isinstance(dataset, ConcatDataset):
        return set().union(*map(_image_files, dataset.parts))
    return {str(sample.image) for sample in dataset.samples} if isinstance(dataset, FileDataset) else set()


def check_part(part: DataPart, key: str, source: str) -> None:
    """Raise ConfigError unless a part of data.extra names a data set and its arguments, and is shown at least once."""
    if not part.name:
        raise ConfigError(f"{source}: {key}.name is missing; allowed: {', '.join(DATASETS.names())}")
    if part.repeat < 1:
        raise ConfigError(f"{source}: {key}.repeat is {part.repeat}; allowed: at least 1")
    check_names(part.name, part.args, key, source)


def check_names(name: str, args: Mapping[str, object], key: str, source: str) -> None:
    """Raise ConfigError unless `name` is a data set and takes `args`; `key` is where the configuration has them."""
    try:
        arguments = DATASETS.arguments(name)
    except UnknownNameError as error:
        raise ConfigError(f"{source}: {key}.name: {error}") from None
    for argument in args:
        if argument not in arguments:
            raise ConfigError(
                f"{source}: {key}.args.{argument}: data set {name!r} has no argument {argument!r}; "
                f"{suggest(argument, arguments)}"
            )


def first_difference(one: DatasetInfo, other: DatasetInfo) -> int | None:
    """The first class that the two call otherwise, or that one of them lacks; None when their classes are the same."""
    for index, pair in enumerate(itertools.zip_longest(one.class_names, other.class_names)):
        if None in pair or plain_name(pair[0]) != plain_name(pair[1]):
            return index
    return None


def only_numbered(one: DatasetInfo, other: DatasetInfo) -> bool:
    """Whether equal names do not make their classes the same: of two data sets, one has classes such as class_0."""
    return one.name != other.name and any(map(is_placeholder, (*one.class_names, *other.class_names)))


def _require_same_classes(main: DatasetInfo, other: DatasetInfo, part: DataPart, key: str, source: str) -> None:
    index = first_difference(main, other)
    if index is None:
        return
    ours, theirs = (repr(i.class_names[index]) if index < i.num_classes else "none" for i in (main, other))
    choice = DATASETS.arguments(part.name).get("classes")
    by_name = choice is not None and choice.annotation in (str, "str")  # elsewhere it is a number, or a table
    mapped = f"set {key}.args.classes={main.name}, or " if by_name else ""
    raise ConfigError(
        f"{source}: {key} ({other.name}) has other classes than {main.name}, the main data set: class {index} is "
        f"{theirs} of {other.num_classes} there and {ours} of {main.num_classes} here; {mapped}leave the part out"
    )


def class_uniform(
    config: Config, dataset: RepeatedDataset, procs: Processes, say: Callable[[str], None]
) -> ClassUniform | None:
    """Where the classes of the training labels occur, the same on every process; None without data.class_uniform.

    Every process reads its share of the labels, so that none waits for one longer than the processes' time limit.
    Raises what reading a label raises, on every process.
    """
    share = config.data.class_uniform
    if not share:
        return None
    began, total = time.monotonic(), len(dataset.dataset)
    say(f"data.class_uniform={share}: reading {total} labels to find where classes occur")
    threads = max(1, min(THREADS, os.cpu_count() or 1) // procs.world_size)
    mine: np.ndarray | FastsegError
    try:
        mine = find_places(dataset.dataset, range(procs.rank, total, procs.world_size), threads=threads, say=say)
    except FastsegError as error:
        mine = error
    found: list[np.ndarray] = []
    for answer in procs.gather(mine):
        if isinstance(answer, FastsegError):
            raise answer
        assert isinstance(answer, np.ndarray)
        found.append(answer)
    chosen = ClassUniform(places_as_shown(np.concatenate(found), dataset), share)
    names = dataset.info.class_names
    never = [name for index, name in enumerate(names) if index not in chosen.classes]
    missing = f" (never: {', '.join(never)})" if never else ""
    say(
        f"data.class_uniform={share}: {len(chosen.classes)} of {len(names)} classes occur{missing}, at "
        f"{len(chosen.table)} places; {time.monotonic() - began:.0f} s"
    )
    return chosen
