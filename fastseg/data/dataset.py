"""What a data set is to the rest of fastseg, and the registry of adapters."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from fastseg.data.readers import read_image, read_label
from fastseg.errors import ConfigError, LabelError
from fastseg.registry import Registry
from fastseg.types import DatasetInfo, Sample


class SegDataset(ABC):
    """Labelled images by index. Loading is a pure function of the index: same index, same arrays, in any process."""

    info: DatasetInfo

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 (H,W,3) RGB and label uint8 (H,W): class indices 0..K-1, or the ignore index."""

    @abstractmethod
    def sample_name(self, index: int) -> str:
        """What to call sample `index` in messages and output files."""


DATASETS: Registry[SegDataset] = Registry("data set")


class FileDataset(SegDataset):
    """Images and label maps on disk. `lut`, uint8 (256,), maps raw label values to classes; `INVALID` refuses one."""

    INVALID = 254

    def __init__(self, info: DatasetInfo, samples: Sequence[Sample], lut: np.ndarray) -> None:
        self.info = info
        self.samples = list(samples)
        self.lut = lut

    def __len__(self) -> int:
        return len(self.samples)

    def sample_name(self, index: int) -> str:
        return self.samples[index].image.name

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Raises LabelError for a size that differs from the image's, or values outside the data set."""
        sample = self.samples[index]
        image = read_image(sample.image, apply_exif=False)
        raw = read_label(sample.label)
        if raw.shape != image.shape[:2]:
            raise LabelError(
                f"{sample.label} is {raw.shape[1]}x{raw.shape[0]} but its image {sample.image} is "
                f"{image.shape[1]}x{image.shape[0]}; export both at one size"
                + (
                    " (the image was rotated by its EXIF tag: save it upright)"
                    if raw.shape == image.shape[1::-1]
                    else ""
                )
            )
        label = self.lut[raw]
        if (label == self.INVALID).any():
            values, counts = np.unique(raw[label == self.INVALID], return_counts=True)
            found = ", ".join(f"{v}: {c} px" for v, c in zip(values[:5], counts[:5], strict=True))
            allowed = [int(v) for v in np.flatnonzero(self.lut != self.INVALID)]
            raise LabelError(
                f"{sample.label} has values {{{found}}} that {self.info.name} does not define; "
                f"allowed are {_ranges(allowed)}. Map the values to classes, or paint them as void"
            )
        return image, label


class ConcatDataset(SegDataset):
    """Several data sets of the same classes, one after the other."""

    def __init__(self, parts: Sequence[SegDataset]) -> None:
        self.parts = list(parts)
        self.info = self.parts[0].info
        self._ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _locate(self, index: int) -> tuple[SegDataset, int]:
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self.parts[part], index - (int(self._ends[part - 1]) if part else 0)

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        part, inner = self._locate(index)
        return part.load(inner)

    def sample_name(self, index: int) -> str:
        part, inner = self._locate(index)
        return part.sample_name(inner)


class CachedDataset(SegDataset):
    """Keeps every decoded sample in memory after its first load."""

    def __init__(self, dataset: SegDataset) -> None:
        self.info = dataset.info
        self._dataset = dataset
        self._samples: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index not in self._samples:
            self._samples[index] = self._dataset.load(index)
        return self._samples[index]

    def sample_name(self, index: int) -> str:
        return self._dataset.sample_name(index)


def build_dataset(
    name: str, split: str, *, root: str | None = None, args: dict[str, object] | None = None
) -> SegDataset:
    """The data set `name`; `split` may join several with '+' ('train+val').

    Raises UnknownNameError for the name or an argument, ConfigError when a root is needed, DataError and
    MissingFileError from the adapter.
    """
    kwargs = dict(args or {})
    if "split" in kwargs:
        raise ConfigError("data.args.split comes from data.train_split and data.val_split; remove it")
    root_parameter = DATASETS.arguments(name).get("root")
    if root_parameter is not None:
        if root is not None:
            kwargs["root"] = root
        elif root_parameter.default is inspect.Parameter.empty and "root" not in kwargs:
            raise ConfigError(
                f"data set {name!r} needs the folder that holds it: data.root=/path/to/{name} (fastseg eval: --root)"
            )
    try:
        parts = [DATASETS.build(name, split=part.strip(), **kwargs) for part in split.split("+")]
    except TypeError as error:  # a word where the adapter takes a number
        raise ConfigError(f"data set {name!r} cannot take data.args {args}: {error}") from error
    return parts[0] if len(parts) == 1 else ConcatDataset(parts)


def _ranges(values: Sequence[int]) -> str:
    """Sorted integers as runs: 0-18, 255."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
