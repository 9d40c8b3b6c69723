"""The doctor: reads every file of the configured splits and says all that is wrong with them, not the first thing.

`check` reads everything; `glance` reads a few samples of each split, as every training does before its first step.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastseg.config import Config, DataPart
from fastseg.data.dataset import DATASETS, ConcatDataset, SegDataset, build_dataset
from fastseg.data.findings import Finding, Report, SplitCounts
from fastseg.data.look import Look, files_of, look_at
from fastseg.environment import usable_cores
from fastseg.errors import DataError, FastsegError, MissingFileError, printable
from fastseg.types import DatasetInfo, plain_name

GLANCES = 16  # samples of a split that a training looks at before its first step

# What adapters say of a split without labels or an argument that they do not have; the rest is about files.
_OF_THE_REQUEST = re.compile(
    r" has no split |^data\.args\.|\(data\.args\.\w+\)|are not public|no labels for its testing|coarse labels only"
)


@dataclass(frozen=True)
class Split:
    """One split on the disk and what the configuration uses it for."""

    name: str
    dataset: SegDataset
    trained: bool
    held_out: bool


def check(
    config: Config,
    splits: Sequence[str] | None = None,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Read every sample of the configured data and report all that is wrong.

    `splits` of data.name replace those that the configuration trains and scores on; data.extra is read in any case.
    `workers` threads read (default: one a core), and `progress` hears (read, of how many). Raises FastsegError for a
    data set, a split or an argument that does not exist, and when the root does not and nothing else can be read;
    everything else that is wrong is a finding.
    """
    found: list[Finding] = []
    opened = _open_splits(config, splits, found)
    jobs = [(split, index) for split in opened for index in range(len(split.dataset))]
    counts = {split.name: SplitCounts(split.name, split.dataset.info, len(split.dataset)) for split in opened}
    copies: dict[bytes, list[tuple[Split, int, bytes]]] = defaultdict(list)
    looks = _look_at_all([(split.dataset, index) for split, index in jobs], workers or usable_cores())
    for done, ((split, index), look) in enumerate(zip(jobs, looks, strict=True), start=1):
        found += [replace(finding, split=split.name) for finding in look.findings]
        if look.pixels is not None:
            counts[split.name].add(look.size, look.pixels)
        if look.digests is not None:
            image, label = look.digests
            copies[image].append((split, index, label))
        if progress is not None:
            progress(done, len(jobs))
    found += _copy_findings(group for group in copies.values() if len(group) > 1)
    found += _class_findings(opened, counts)
    found += _padding_findings(config, [counts[split.name] for split in opened if split.trained])
    return Report(f"{config.source}: {config.data.name}", tuple(found), tuple(counts.values()))


def glance(splits: Mapping[str, SegDataset], *, count: int = GLANCES) -> dict[str, list[Look]]:
    """Looks at `count` evenly spaced samples of each split, by its name, and of each part of joined ones.

    Draws no random numbers. What only the whole can show (copies, classes that never occur) is left to `check`.
    """
    looks = {}
    for name, dataset in splits.items():
        jobs = []
        for part in _parts(dataset):
            indices = np.linspace(0, len(part) - 1, min(count, len(part))).astype(int)
            jobs += [(part, index) for index in map(int, indices)]
        looks[name] = list(_look_at_all(jobs, min(4, usable_cores())))
    return looks


def _parts(dataset: SegDataset) -> Iterator[SegDataset]:
    if isinstance(dataset, ConcatDataset):
        for part in dataset.parts:
            yield from _parts(part)
    else:
        yield dataset


def _look_at_all(jobs: Sequence[tuple[SegDataset, int]], workers: int) -> Iterator[Look]:
    """The looks at all samples, in order. By threads: decoders and digests, most of the work, run side by side."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(lambda job: look_at(*job), jobs)
    finally:
        pool.shutdown(cancel_futures=True)  # who interrupts does not wait for the rest


class _Role(NamedTuple):
    part: DataPart
    key: str  # where the configuration names the data set
    trained: bool
    held_out: bool


def _open_splits(config: Config, names: Sequence[str] | None, found: list[Finding]) -> list[Split]:
    """The splits to read, each once, joined ones apart; those that cannot be listed become findings.

    Files without a partner are a finding, too, and the pairs are read where the adapter can skip the rest.
    """
    opened: list[Split] = []
    unlisted: dict[str, list[str]] = {}  # what is wrong with several splits is one mistake
    rootless: FastsegError | None = None
    for name, (part, key, trained, held_out) in _roles(config, names).items():
        dataset: SegDataset | None
        try:
            dataset = build_dataset(part.name, part.split, root=part.root, args=dict(part.args), key=key)
        except FastsegError as error:
            refusal = type(error)(f"{config.source}: {key}: {error}")
            if not isinstance(error, DataError) or (type(error) is DataError and _OF_THE_REQUEST.search(str(error))):
                raise refusal from None
            if part.root is not None and not Path(part.root).expanduser().is_dir():
                rootless = rootless or refusal
            dataset = _pairs_alone(part, key) if isinstance(error, MissingFileError) else None
            message = str(error) if dataset else f"{error}. Nothing of it was read: mend this first, then check again"
            unlisted.setdefault(message, []).append(name)
            if dataset is None:
                continue
        opened.append(Split(name, dataset, trained, held_out))
        if trained and held_out:
            message = "its scores are those of images that were trained on; score on another split to compare networks"
            found.append(Finding("joined", name, message))
    if rootless is not None and not opened:
        raise rootless
    found += [Finding("listing", ", ".join(splits), message) for message, splits in unlisted.items()]
    return opened


def _pairs_alone(part: DataPart, key: str) -> SegDataset | None:
    """The split without the files that have no partner, if its adapter can skip them and that is what it lacks."""
    if "unpaired" not in DATASETS.arguments(part.name):
        return None
    try:
        return build_dataset(part.name, part.split, root=part.root, args={**part.args, "unpaired": "skip"}, key=key)
    except FastsegError:
        return None


def _roles(config: Config, names: Sequence[str] | None) -> dict[str, _Role]:
    """Every split to read, by what the report calls it."""
    data = config.data
    first = DataPart(data.name, data.root, data.args)
    trained, held_out = _parted([data.train_split]), _parted([data.val_split])
    roles = {}
    for split in _parted([data.train_split, data.val_split] if names is None else names):
        # a split that training does not read is held out, whatever for
        is_trained = split in trained
        roles[split] = _Role(replace(first, split=split), "data", is_trained, not is_trained or split in held_out)
    for number, part in enumerate(data.extra):
        for split in _parted([part.split]):
            is_same = replace(part, split=split, repeat=1) == replace(first, split=split)
            name = split if is_same else f"{part.name} {split}"
            while name in roles and not is_same and roles[name].part != replace(part, split=split):
                name += "'"  # the same data set and split at another root, or with other arguments
            known = name in roles and roles[name].held_out
            roles[name] = _Role(replace(part, split=split), f"data.extra[{number}]", True, known)
    return roles


def _parted(splits: Iterable[str]) -> list[str]:
    """'train+val' and 'val' -> train, val."""
    return list(dict.fromkeys(part.strip() for split in splits for part in split.split("+")))


def _copy_findings(groups: Iterable[list[tuple[Split, int, bytes]]]) -> Iterator[Finding]:
    """One finding for each picture that occurs more than once: a leak where one is trained on and another held out."""
    for group in groups:
        trained = [member for member in group if member[0].trained]
        unseen = [member for member in group if not member[0].trained]
        kind = "leak" if trained and unseen else "duplicate"
        (split, index, label), (other, place, other_label) = (
            (unseen[0], trained[0]) if kind == "leak" else (group[1], group[0])
        )
        file, same = files_of(split.dataset, index)[0], files_of(other.dataset, place)[0]
        rest = f" (and {len(group) - 2} more)" if len(group) > 2 else ""
        what = f"{file} is listed twice" if file == same else f"{file} shows the same picture as {same}"
        if file == same and split is not other:
            what = f"{file} is in {other.name} as well"
        labels = "; their labels differ" if label != other_label else ""
        yield Finding(kind, split.name, f"{what}{rest}{labels}", file)


def _class_findings(splits: Sequence[Split], counts: Mapping[str, SplitCounts]) -> Iterator[Finding]:
    """Data sets whose classes differ, and classes that no label shows: in training, when scored, or at all."""
    alike = []
    for split in splits:
        theirs, ours = (list(map(plain_name, each.dataset.info.class_names)) for each in (split, splits[0]))
        if theirs != ours:
            yield Finding("classes", split.name, _difference(split.dataset.info, splits[0].dataset.info))
        elif counts[split.name].readable:
            alike.append(split)
    if not alike:
        return
    groups = [[split for split in alike if split.trained], *([split] for split in alike if not split.trained)]
    for index, name in enumerate(alike[0].dataset.info.class_names):
        if not any(counts[split.name].pixels[index] for split in alike):
            yield Finding("absent", "all", f"{printable(name)} is in no label at all")
            continue
        for group in groups:
            if group and not any(counts[split.name].pixels[index] for split in group):
                meaning = "cannot be learned" if group[0].trained else "has no score there"
                names = "+".join(split.name for split in group)
                yield Finding("absent", names, f"{printable(name)} is in no label and {meaning}")


def _difference(theirs: DatasetInfo, ours: DatasetInfo) -> str:
    pairs = zip(theirs.class_names, ours.class_names, strict=False)
    first = next(
        (f"; the first that differs is {a!r} instead of {b!r}" for a, b in pairs if plain_name(a) != plain_name(b)), ""
    )
    return (
        f"{theirs.name} has {theirs.num_classes} classes and {ours.name} {ours.num_classes}{first}; map one to the "
        "other, or leave it out of data.extra"
    )


def _padding_findings(config: Config, trained: Sequence[SplitCounts]) -> Iterator[Finding]:
    """Crops that an image, enlarged as it is on average, cannot fill."""
    low, high = config.augment.scale
    scale = config.input.scale * math.sqrt(low * high)  # drawn log-uniformly, so this is the middle
    crop_height, crop_width = config.augment.crop
    for counts in trained:
        small = {
            (height, width): count
            for (height, width), count in counts.sizes.items()
            if height * scale < crop_height - 0.5 or width * scale < crop_width - 0.5
        }
        if not small:
            continue
        height, width = min(small, key=lambda size: size[0] * size[1])
        filled = min(1.0, height * scale / crop_height) * min(1.0, width * scale / crop_width)
        yield Finding(
            "padding",
            counts.name,
            f"augment.crop is {crop_width}x{crop_height}, and {sum(small.values())} of {counts.readable} images are "
            f"smaller at the middle of augment.scale x input.scale ({scale:.2g}); of the smallest, {width}x{height}, "
            f"{100 * (1 - filled):.0f} % of such a crop is padding, which is ignored",
        )
