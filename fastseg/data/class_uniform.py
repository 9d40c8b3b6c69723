"""Class-uniform sampling: where classes occur, so that crops can show rare ones as often as common ones.

After arXiv 1812.01593, whose authors (NVIDIA/semantic-segmentation, datasets/uniform.py) record the centroid of every
class in every tile of every image.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from fastseg.data.dataset import RepeatedDataset, SegDataset
from fastseg.errors import ConfigError
from fastseg.types import IGNORE_INDEX

TILES = (2, 4)  # rows and columns: a class has at most one place in each, 8 in an image
SAY_EVERY = 20.0  # seconds


class Place(NamedTuple):
    """A pixel that shows the class drawn: `x`, `y` in `sample`."""

    sample: int
    x: int
    y: int


class ClassUniform:
    """Draws places: a class uniformly among those that occur, then one of its places. `share` is that of the crops.

    `table`, int (P,4), has class, sample, x and y of every place.
    """

    def __init__(self, table: np.ndarray, share: float) -> None:
        if not len(table):
            raise ConfigError(f"data.class_uniform is {share} and no training label shows a class; set it to 0")
        self.share = share
        self.table = table[np.lexsort(table.T[::-1])]  # the same order whoever found them
        self.classes, starts = np.unique(self.table[:, 0], return_index=True)
        self._ends = [*starts.tolist(), len(self.table)]

    def draw(self, random: np.random.Generator) -> Place | None:
        """A place; or None for a crop like any other, where the share says so."""
        if random.random() >= self.share:
            return None
        which = int(random.integers(len(self.classes)))
        row = int(random.integers(self._ends[which], self._ends[which + 1]))
        _, sample, x, y = self.table[row].tolist()
        return Place(sample, x, y)


def find_places(
    dataset: SegDataset, indices: Sequence[int], *, threads: int, say: Callable[[str], None] | None = None
) -> np.ndarray:
    """Class, sample, x and y, int32 (P,4), of every class in every tile of the samples `indices`.

    Every label is read once, by `threads` threads: per image the time of decoding its label and about as much again,
    14 ms on one core for a road scene of 1024x2048. `say` is told from time to time how far it has come. Raises what
    reading a label raises.
    """
    found, said = [], time.monotonic()

    def read(index: int) -> np.ndarray:
        places = places_of(dataset.load_label(index))
        return np.insert(places, 1, index, axis=1)

    with ThreadPoolExecutor(threads, thread_name_prefix="class-uniform") as pool:
        try:
            for done, places in enumerate(pool.map(read, indices), 1):
                found.append(places)
                if say is not None and time.monotonic() - said > SAY_EVERY:
                    said = time.monotonic()
                    say(f"data.class_uniform: {done} of {len(indices)} labels read")
        finally:
            pool.shutdown(cancel_futures=True)
    return np.concatenate([np.empty((0, 4), np.int32), *found])


def places_of(label: np.ndarray) -> np.ndarray:
    """Class, x and y, int32 (P,3), of each class in each tile of a label uint8 (H,W): the pixel of that class which has
    as many before it, row by row, as after it. Unlike a centroid it always shows the class."""
    height, width = label.shape
    rows = [height * i // TILES[0] for i in range(TILES[0] + 1)]
    columns = [width * i // TILES[1] for i in range(TILES[1] + 1)]
    found = []
    for top, bottom in itertools.pairwise(rows):
        for left, right in itertools.pairwise(columns):
            pixels = label[top:bottom, left:right].ravel()
            counts = np.bincount(pixels, minlength=IGNORE_INDEX)
            classes = np.flatnonzero(counts[:IGNORE_INDEX])
            middles = (np.cumsum(counts) - counts + counts // 2)[classes]
            y, x = np.divmod(np.argsort(pixels, kind="stable")[middles], max(right - left, 1))
            found.append(np.stack([classes, x + left, y + top], axis=1).astype(np.int32))
    return np.concatenate(found)


def places_as_shown(table: np.ndarray, dataset: RepeatedDataset) -> np.ndarray:
    """Places in `dataset.dataset` as places in `dataset`: those in a sample that is shown twice count twice."""
    _, first, times = np.unique(dataset.shown, return_index=True, return_counts=True)
    shown = table.copy()
    shown[:, 1] = first[table[:, 1]]
    return np.repeat(shown, times[table[:, 1]], axis=0)
