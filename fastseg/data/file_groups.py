"""Files of one folder that are called alike, and what they look like: pictures, maps of numbers, paintings."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fastseg.data.label_survey import NUMBERS
from fastseg.data.readers import FORMATS, read_image
from fastseg.errors import FastsegError

MANY_SIBLINGS = 8  # folders that are looked at once for all, such as the cities of Cityscapes


@dataclass(frozen=True)
class Group:
    """Files of one folder whose names are `head`, something, `tail` and `suffix`."""

    folder: str
    head: str
    tail: str
    suffix: str


class Looks:
    """What a few files of a group look like; each file is read once."""

    def __init__(self, root: Path, groups: dict[Group, dict[str, str]]) -> None:
        self._root, self._groups = root, groups
        self._siblings = Counter(os.path.dirname(folder) for folder in {group.folder for group in groups})
        self._files: dict[str, float | None] = {}
        self._known: dict[tuple[str, ...], float] = {}

    def flatness(self, group: Group) -> float:
        """The share of pixels that equal their right neighbour."""
        parent = os.path.dirname(group.folder)
        many = self._siblings[parent] > MANY_SIBLINGS
        key = (parent if many else group.folder, str(many), group.head, group.tail, group.suffix)
        if key not in self._known:
            names = sorted(self._groups[group].values())
            seen = [self._of_file(name) for name in dict.fromkeys((names[0], names[len(names) // 2], names[-1]))]
            readable = [value for value in seen if value is not None]
            self._known[key] = sum(readable) / len(readable) if readable else 0.0
        return self._known[key]

    def _of_file(self, name: str) -> float | None:
        if name not in self._files:
            try:
                pixels = read_image(self._root / name, apply_exif=False)
                equal = (pixels[:, 1:] == pixels[:, :-1]).all(axis=-1)
                self._files[name] = float(np.mean(equal)) if equal.size else None
            except FastsegError:  # reported when everything is read
                self._files[name] = None
        return self._files[name]

    def numbered(self, group: Group) -> bool:
        """Whether the first file of the group holds numbers, not colours."""
        try:
            with Image.open(self._root / min(self._groups[group].values()), formats=FORMATS) as header:
                return header.mode in NUMBERS
        except (OSError, Image.DecompressionBombError):
            return False
