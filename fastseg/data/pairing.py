"""Pairs of images and labels by patterns: what the wildcards of the two patterns match says which belong together.

`images/train` is every image file below that folder; `photos/*.jpg` and `photos/*_mask.png` are files of one folder;
`**` stands for any number of folders, as in `**/rgb/*.png` and `**/labels/*.png`. A pattern that ends in no image
suffix takes all of them. `*` is the only special character.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fastseg.data import listing
from fastseg.data.readers import IMAGE_SUFFIXES
from fastseg.errors import ConfigError, DataError, MissingFileError, printable
from fastseg.types import Sample

ANY_SUFFIX = "(?i:" + "|".join(re.escape(suffix) for suffix in IMAGE_SUFFIXES) + ")"


@dataclass(frozen=True)
class Pattern:
    """Files below `folder` whose path from there `expression` matches; its groups, joined by '/', are a file's key."""

    text: str
    folder: Path
    expression: re.Pattern[str]
    depth: int | None  # components of a path that can match; None: any number

    @classmethod
    def parse(cls, root: Path, text: str) -> Pattern:
        """Raises ConfigError for a text that names no set of files, MissingFileError for a folder that is not there."""
        parts = PurePosixPath(text).parts
        fixed = next((place for place, part in enumerate(parts) if "*" in part), len(parts))
        folder, rest = root.joinpath(*parts[:fixed]), list(parts[fixed:])
        if not folder.is_dir():
            above = next((parent for parent in folder.parents if parent.is_dir()), folder.parent)
            if folder.is_file():
                raise ConfigError(f"{text!r} is one file; name its folder, or a pattern with *, or a `list`")
            raise MissingFileError(
                f"{printable(folder)} does not exist; {printable(above)} contains: {listing.contents(above)}; "
                "correct data.root or data.args.splits"
            )
        rest = rest or ["**", "*"]
        if rest[-1] == "**":
            rest.append("*")
        expression = "".join(
            "((?:[^/]+/)*)" if part == "**" else _component(part) + "/" for part in rest[:-1]
        ) + _last_component(rest[-1])
        return cls(text, folder, re.compile(expression), None if "**" in rest else len(rest))

    def files(self) -> dict[str, Path]:
        """Matching files by key, sorted. Raises DataError where two share a key, which makes their pair ambiguous."""
        found: dict[str, Path] = {}
        for name in sorted(files_below(self.folder, self.depth)):
            match = self.expression.fullmatch(name)
            if match is None:
                continue
            key = "/".join(group.strip("/") for group in match.groups() if group.strip("/"))
            if key in found:
                raise DataError(
                    f"{printable(self.folder / name)} and {printable(found[key])} are both {printable(key)!r} to the "
                    f"pattern {self.text!r}, so their pair is ambiguous; write the suffix (*.png), or keep one of them"
                )
            found[key] = self.folder / name
        return found


def files_below(folder: Path, depth: int | None = None) -> Iterator[str]:
    """Paths from `folder` of all files, '/' between the components, at most `depth` of them; hidden ones are left out.

    Links to folders are followed, each folder once.
    """
    seen = {os.path.realpath(folder)}
    for place, folders, names in os.walk(folder, followlinks=True):
        inner = os.path.relpath(place, folder)
        above = [] if inner == "." else inner.split(os.sep)
        kept = []
        for name in sorted(folders):
            real = os.path.realpath(os.path.join(place, name))
            if not name.startswith(".") and real not in seen and (depth is None or len(above) + 1 < depth):
                seen.add(real)
                kept.append(name)
        folders[:] = kept
        yield from ("/".join([*above, name]) for name in names if not name.startswith("."))


@dataclass(frozen=True)
class Pairs:
    """Samples by key, and the files of either kind without a partner."""

    samples: dict[str, Sample]
    images_alone: list[Path]
    labels_alone: list[Path]


def find_pairs(root: Path, images: str, labels: str) -> Pairs:
    """Pairs of the two patterns below `root`. A file that both match belongs to the more literal one.

    Raises ConfigError for two patterns that cannot tell images from labels, otherwise as `Pattern`.
    """
    of_images, of_labels = Pattern.parse(root, images).files(), Pattern.parse(root, labels).files()
    shared = set(of_images.values()) & set(of_labels.values())
    if shared:
        literal = [len(text.replace("*", "")) for text in (images, labels)]
        if literal[0] == literal[1]:
            raise ConfigError(
                f"the patterns {images!r} (images) and {labels!r} (labels) match the same {len(shared)} files; write "
                "what tells them apart, as in *.jpg and *_mask.png"
            )
        loser = of_images if literal[0] < literal[1] else of_labels
        for key in [key for key, path in loser.items() if path in shared]:
            del loser[key]
    return Pairs(
        {key: Sample(of_images[key], of_labels[key]) for key in of_images if key in of_labels},
        [path for key, path in of_images.items() if key not in of_labels],
        [path for key, path in of_labels.items() if key not in of_images],
    )


def listed(path: Path, samples: Mapping[str, Sample]) -> list[tuple[str, Sample]]:
    """Those of `samples` that the rows of a list file name, by key or path, with or without suffix; with their keys.

    A row that comes twice counts twice. Raises MissingFileError for the file, or with the rows that name none;
    DataError for an empty list, and for rows that give one image different labels.
    """
    if not path.is_file():
        raise MissingFileError(f"the list {printable(path)} does not exist; correct data.args.splits")
    chosen, missing = [], []
    labels = OneLabel(path)
    for number, columns in listing.read_list(path):
        key = next((key for key in _spellings(columns[0]) if key in samples), None)
        if key is None:
            missing.append(f"line {number}: {columns[0]}")
        else:
            if len(columns) > 1:
                labels.check(number, columns[0], key, columns[1])
            chosen.append((key, samples[key]))
    if missing:
        raise MissingFileError(
            f"{len(missing)} of {len(missing) + len(chosen)} rows of {printable(path)} name no pair of an image and a "
            f"label: {listing.first(missing)}; correct the list, or the folders"
        )
    if not chosen:
        raise DataError(f"0 samples found in {printable(path)}: it has no line that names a file")
    return chosen


def listed_alone(path: Path, root: Path) -> list[tuple[str, Sample]]:
    """Samples of a list file with rows `image label`, each with its image's path from `root` as a key.

    An image outside `root` has its folder's name and its own. Raises as `listed`.
    """
    if not path.is_file():
        raise MissingFileError(f"the list {printable(path)} does not exist; correct data.args.splits")
    samples = listing.samples_from_list(path, root, lambda image: None)
    labels = OneLabel(path)
    found = []
    for (number, columns), sample in zip(listing.read_list(path), samples, strict=True):
        image = Path(str(sample.image))
        labels.check(number, columns[0], os.path.abspath(image), os.path.abspath(str(sample.label)))
        found.append((path_from(root, image) or f"{image.absolute().parent.name}/{image.name}", sample))
    return found


@dataclass(frozen=True)
class OneLabel:
    """Sees that no two rows of the list `path` give one image different labels."""

    path: Path
    rows: dict[str, tuple[int, str]] = field(default_factory=dict)  # image -> line and label

    def check(self, number: int, shown: str, image: str, label: str) -> None:
        """Raises DataError when an earlier row has another label for `image`, which the list calls `shown`."""
        before, earlier = self.rows.setdefault(image, (number, label))
        if earlier != label:
            raise DataError(
                f"{printable(self.path)} lines {before} and {number} give {printable(shown)} two labels, "
                f"{printable(earlier)} and {printable(label)}; keep one of the lines"
            )


def path_from(root: Path, file: Path) -> str | None:
    """The path of `file` from `root`, the same however both are spelled; None for a file that is not below it."""
    for spelled in (os.path.abspath, os.path.realpath):
        place, above = spelled(file), os.path.join(spelled(root), "")
        if place.startswith(above):
            return place[len(above) :]
    return None


def held_back(keys: Sequence[str], share: float) -> set[str]:
    """About `share` of `keys`: those whose digest is low, so that a file keeps its part when others come and go.

    At least one key and not all of them; a key that comes twice is one. Raises DataError for fewer than two.
    """
    keys = list(dict.fromkeys(keys))
    if len(keys) < 2:
        raise DataError(f"{len(keys)} sample cannot be divided by val_share; label more images")
    ranked = sorted((_digest(key), key) for key in keys)
    count = sum(digest < share for digest, _ in ranked)
    return {key for _, key in ranked[: min(max(count, 1), len(keys) - 1)]}


def _digest(key: str) -> float:
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:8], "big") / 2**64


def _component(part: str) -> str:
    return "([^/]*)".join(re.escape(literal) for literal in part.split("*"))


def _last_component(part: str) -> str:
    part = part.removesuffix(".*")
    suffix = PurePosixPath(part).suffix
    if suffix.lower() in IMAGE_SUFFIXES:
        return _component(part.removesuffix(suffix)) + f"(?i:{re.escape(suffix)})"
    return _component(part) + ANY_SUFFIX


def _spellings(entry: str) -> Iterator[str]:
    """What a list may mean by `entry`: 'a/b/x.png' -> 'a/b/x.png', 'a/b/x', 'b/x.png', 'b/x', 'x.png', 'x'."""
    parts = PurePosixPath(entry.replace("\\", "/")).parts
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        yield tail
        suffix = PurePosixPath(tail).suffix
        if suffix.lower() in IMAGE_SUFFIXES:
            yield tail[: -len(suffix)]
