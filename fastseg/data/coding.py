"""How label files code classes: numbers or colours. Every pixel becomes a class or ignored, or the file is refused.

There are no flags such as 'reduce zero label': a data set is one table from what stands in a pixel to a class.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fastseg.data.opencv import single_threaded_cv2
from fastseg.data.readers import read_colour_label, read_label
from fastseg.errors import LabelError, printable
from fastseg.types import IGNORE_INDEX, DataFile

INVALID = 254  # in a table: no class, and not to be ignored either
SHOWN = 5


class LabelCoding(ABC):
    """From a label file to classes. `dataset` is the data set's name, for messages."""

    dataset: str

    @abstractmethod
    def load(self, file: DataFile) -> np.ndarray:
        """Classes uint8 (H,W): 0..K-1, or 255 where ignored. Raises LabelError naming file, values and counts."""

    @abstractmethod
    def classes(self) -> set[int]:
        """The classes that a file may hold, without what is ignored."""

    @abstractmethod
    def key(self) -> str:
        """A digest of the table: equal for codings that read every file alike."""


class Values(LabelCoding):
    """One number a pixel. `table`, uint8 (256,) or longer, maps numbers to classes, 255 (ignored) or INVALID."""

    def __init__(self, table: np.ndarray, dataset: str, *, hint: str = "") -> None:
        self.table = table
        self.dataset = dataset
        self.hint = hint or "Map the values to classes, or paint them as void"

    @classmethod
    def of(cls, classes: Sequence[int], ignored: Iterable[int], dataset: str, *, hint: str = "") -> Values:
        """`classes[i]` is the number of class i; `ignored` are those that stand for none; the rest is INVALID."""
        table = np.full(256, INVALID, np.uint8)
        table[list(ignored)] = IGNORE_INDEX
        table[list(classes)] = np.arange(len(classes))
        return cls(table, dataset, hint=hint)

    def load(self, file: DataFile) -> np.ndarray:
        return self.decode(self.read(file), file)

    def read(self, file: DataFile) -> np.ndarray:
        """The numbers (H,W) as they are stored."""
        return read_label(file)

    def decode(self, raw: np.ndarray, file: DataFile) -> np.ndarray:
        """Numbers to classes. Raises as `load`."""
        if raw.dtype == np.uint8 and len(self.table) == 256:
            label: np.ndarray = single_threaded_cv2().LUT(raw, self.table)  # four times as fast as an index
        else:
            raw = raw.astype(np.int64)
            label = self.table[np.minimum(raw, len(self.table) - 1)]
            label[raw >= len(self.table)] = INVALID
        wrong = label == INVALID
        if wrong.any():
            values, counts = np.unique(raw[wrong], return_counts=True)
            raise LabelError(
                f"{printable(file)} has values {{{counted(values, counts)}}} that {self.dataset} does not define; "
                f"allowed are {ranges(np.flatnonzero(self.table != INVALID))}. {self.hint}"
            )
        return label

    def classes(self) -> set[int]:
        return set(np.unique(self.table).tolist()) - {IGNORE_INDEX, INVALID}

    def key(self) -> str:
        return hashlib.sha256(b"values" + self.table.tobytes()).hexdigest()


class Colours(LabelCoding):
    """One colour a pixel. `table` maps RGB triples to classes or 255 (ignored); other colours are refused."""

    def __init__(self, table: Mapping[tuple[int, int, int], int], dataset: str, *, hint: str = "") -> None:
        self.dataset = dataset
        self.hint = hint or "Add the colour to the table, or repaint it"
        coded = sorted((packed(colour), value) for colour, value in table.items())
        self._codes = np.array([code for code, _ in coded], np.uint32)
        self._classes = np.array([value for _, value in coded], np.uint8)

    def load(self, file: DataFile) -> np.ndarray:
        return self.decode(read_colour_label(file), file)

    def decode(self, pixels: np.ndarray, file: DataFile) -> np.ndarray:
        """RGB uint8 (H,W,3) to classes. Raises as `load`."""
        codes = packed_pixels(pixels)
        place = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        wrong = self._codes[place] != codes
        if wrong.any():
            found, counts = np.unique(codes[wrong], return_counts=True)
            colours = [str(unpacked(int(code))) for code in found[:SHOWN]]
            more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            pairs = ", ".join(f"{colour}: {count} px" for colour, count in zip(colours, counts, strict=False))
            raise LabelError(
                f"{printable(file)} has colours {{{pairs}{more}}} that {self.dataset} does not define, which has "
                f"{len(self._codes)}. {self.hint}"
            )
        return self._classes[place]

    def classes(self) -> set[int]:
        return set(self._classes.tolist()) - {IGNORE_INDEX}

    def key(self) -> str:
        return hashlib.sha256(b"colours" + self._codes.tobytes() + self._classes.tobytes()).hexdigest()


def packed(colour: Sequence[int]) -> int:
    """(red, green, blue) as one number."""
    red, green, blue = colour
    return (red << 16) | (green << 8) | blue


def unpacked(code: int) -> tuple[int, int, int]:
    """Inverse of `packed`."""
    return code >> 16, code >> 8 & 255, code & 255


def packed_pixels(pixels: np.ndarray) -> np.ndarray:
    """RGB uint8 (H,W,3) -> uint32 (H,W), each colour as one number."""
    wide = pixels.astype(np.uint32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def counted(values: Sequence[int] | np.ndarray, counts: Sequence[int] | np.ndarray) -> str:
    """'9: 3 px, 200: 3 px', the first few of them."""
    more = f", and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return ", ".join(f"{v}: {c} px" for v, c in zip(values[:SHOWN], counts[:SHOWN], strict=True)) + more


def ranges(values: Sequence[int] | np.ndarray) -> str:
    """Sorted integers as runs: 0-18, 255."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = int(value)
        else:
            runs.append([int(value), int(value)])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
