"""Your own data set: images beside labels in any folders, described by a configuration.

data:
  name: folder
  root: /data/mine
  args:
    splits:
      train: {images: train, labels: trainannot}       # folders or patterns (`data/pairing.py`), below root
      val: {images: val, labels: valannot}             # {list: val.txt} takes 'image label' rows, or names with both
    classes: {0: sky, 1: building, 11: ignore}         # value or '#rrggbb' -> class or ignore; others are refused
    colours: {sky: '#808080'}                          # for pictures; optional

`fastseg data inspect DIR` writes one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastseg.data import listing
from fastseg.data.class_table import ClassTable
from fastseg.data.dataset import DATASETS, FileDataset, SegDataset
from fastseg.data.pairing import Pairs, files_below, find_pairs, held_back, listed, listed_alone, path_from
from fastseg.errors import ConfigError, DataError, MissingFileError, UnknownNameError, printable, suggest
from fastseg.types import DatasetInfo, Sample

SPLIT_KEYS = ("images", "labels", "list")
UNPAIRED = ("refuse", "skip")


@DATASETS.register
def folder(
    root: str,
    split: str,
    splits: Mapping[str, Mapping[str, str]],
    classes: Mapping[int | str, str],
    colours: Mapping[str, str] | None = None,
    val_share: float = 0.0,
    unpaired: str = "refuse",
    exclude: Sequence[str] = (),
    name: str | None = None,
) -> SegDataset:
    """Samples of `splits[split]` below `root`, whose label values or colours `classes` maps to classes or 'ignore'.

    The classes are numbered as they first appear. `val_share` 0.1 holds a tenth of the split 'train' back as 'val',
    by a digest of the names. `unpaired='skip'` leaves files without a partner out; `exclude` names images to leave out
    (paths from `root`). Raises ConfigError for arguments that do not fit, DataError and MissingFileError for files
    that do not.
    """
    place = listing.require_root(root, "folder", ["what data.args.splits names"])
    title = name or printable(place.absolute().name) or "folder"
    if title in DATASETS:  # its weights would pass for those of that data set
        title = f"{title} (folder)"
    if unpaired not in UNPAIRED:
        raise ConfigError(f"data.args.unpaired is {unpaired!r}; {suggest(str(unpaired), UNPAIRED)}")
    table = ClassTable.parse(classes, colours)
    info = DatasetInfo(title, table.names, table.palette(), table.official_ids())
    share = _checked_share(val_share, _checked(splits))
    divided = share > 0 and split in ("train", "val")
    source = "train" if divided else split
    if source not in splits:
        known = {*splits, "val"} if share else set(splits)
        raise DataError(f"data.args.splits has no split {split!r}; {suggest(split, known)}")
    try:
        found = _split(place, splits[source], skip=unpaired == "skip")
    except ConfigError as error:
        raise ConfigError(f"data.args.splits.{source}: {error}") from None
    leave_out = _excluded(exclude)
    _check_excluded(leave_out, [_from_root(sample, place) for _, sample in found], place)
    samples = [(key, sample) for key, sample in found if _from_root(sample, place) not in leave_out]
    if not samples:
        raise DataError(
            f"data.args.exclude names all {len(found)} samples of split {source!r} of {printable(place)}; shorten it"
        )
    if divided:
        back = held_back([key for key, _ in samples], share)
        samples = [(key, sample) for key, sample in samples if (key in back) == (split == "val")]
    return FileDataset(info, [sample for _, sample in samples], table.coding(title))


def _split(root: Path, entry: Mapping[str, str], *, skip: bool) -> list[tuple[str, Sample]]:
    """Samples with their keys, which are the same wherever `root` is and however it is spelled."""
    if "images" not in entry:
        return listed_alone(root / entry["list"], root)
    pairs = find_pairs(root, entry["images"], entry["labels"])
    if not pairs.samples:
        raise DataError(
            f"0 samples found below {printable(root)}: {entry['images']!r} matches {len(pairs.images_alone)} images, "
            f"{entry['labels']!r} {len(pairs.labels_alone)} labels, no two of the same name; "
            f"{_examples(pairs)}`fastseg data inspect {printable(root)}` looks for pairs"
        )
    if "list" in entry:
        return listed(root / entry["list"], pairs.samples)
    for alone, kind in ((pairs.images_alone, "label"), (pairs.labels_alone, "image")):
        if alone and not skip:
            raise MissingFileError(
                f"{len(alone)} of {len(alone) + len(pairs.samples)} files have no {kind} of the same name: "
                f"{listing.first([str(path) for path in alone])}; complete them, remove them, or set "
                "data.args.unpaired=skip"
            )
    return list(pairs.samples.items())


def _examples(pairs: Pairs) -> str:
    files = [*pairs.images_alone[:1], *pairs.labels_alone[:1]]
    return f"such as {' and '.join(map(printable, files))}; " if files else ""


def _checked(splits: object) -> Mapping[str, Mapping[str, str]]:
    example = "such as {train: {images: train, labels: trainannot}}"
    if not isinstance(splits, Mapping) or not splits:
        raise ConfigError(f"data.args.splits is {splits!r}; it is a table of splits, {example}")
    for name, entry in splits.items():
        key = f"data.args.splits.{name}"
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{key} is {entry!r}; it takes {', '.join(SPLIT_KEYS)}, {example}")
        for word, text in entry.items():
            if word not in SPLIT_KEYS:
                raise UnknownNameError(f"{key} has no key {word!r}; {suggest(str(word), SPLIT_KEYS)}")
            if not isinstance(text, str) or not text or "\0" in text:
                raise ConfigError(f"{key}.{word} is {text!r}; it takes a folder, pattern or file below data.root")
        if ("images" in entry) != ("labels" in entry) or not entry:
            raise ConfigError(f"{key} has {', '.join(entry) or 'nothing'}; it needs both images and labels, or a list")
    return splits


def _checked_share(share: object, splits: Mapping[str, object]) -> float:
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise ConfigError(f"data.args.val_share is {share!r}; allowed: 0 (none) up to below 1")
    if share and ("val" in splits or "train" not in splits):
        raise ConfigError(
            f"data.args.val_share={share} makes the split 'val' of 'train', and data.args.splits has "
            f"{', '.join(map(str, splits))}; remove val_share, or name exactly one of the two splits"
        )
    return float(share)


def _excluded(exclude: object) -> set[str]:
    if isinstance(exclude, str) or not isinstance(exclude, Sequence):
        raise ConfigError(f"data.args.exclude is {exclude!r}; it takes a list of images, as paths from data.root")
    return {str(name) for name in exclude}


def _check_excluded(leave_out: set[str], images: Sequence[str], root: Path) -> None:
    """Raises MissingFileError for names that are neither images of this split nor other files."""
    gone = sorted(name for name in leave_out.difference(images) if not os.path.exists(root / name))
    if gone:
        there = {printable(name) for name in files_below(root)}  # as `_from_root` spells them
        gone = [name for name in gone if name not in there]
    if gone:
        raise MissingFileError(
            f"data.args.exclude names {len(gone)} of {len(leave_out)} files that do not exist below {printable(root)}: "
            f"{listing.first([printable(name) for name in gone])}; paths are from data.root; correct or remove them; "
            f"{suggest(gone[0], images)}"
        )


def _from_root(sample: Sample, root: Path) -> str:
    """The image's path from `root` as one printable line, which a configuration can hold whatever the file's bytes."""
    image = Path(str(sample.image))
    return printable(path_from(root, image) or str(image))
