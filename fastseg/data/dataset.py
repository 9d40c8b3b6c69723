"""What a data set is to the rest of fastseg, and the registry of adapters."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from fastseg.data.coding import LabelCoding
from fastseg.data.files import file_identity
from fastseg.data.readers import read_ids, read_image
from fastseg.errors import ConfigError, LabelError, printable
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

    def load_instances(self, index: int) -> np.ndarray | None:
        """The instance ids of sample `index`, uint16 (H,W) as the data set defines them, or None where it has none."""
        return None

    def identity(self, index: int) -> str | None:
        """What changes when `load(index)` would give other arrays: the key of a cache. None: not to be cached."""
        return None


DATASETS: Registry[SegDataset] = Registry("data set")


class FileDataset(SegDataset):
    """Images and label maps in files; `coding` says what stands in the label files."""

    def __init__(self, info: DatasetInfo, samples: Sequence[Sample], coding: LabelCoding) -> None:
        self.info = info
        self.samples = list(samples)
        self.coding = coding

    def __len__(self) -> int:
        return len(self.samples)

    def sample_name(self, index: int) -> str:
        return self.samples[index].image.name

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Raises LabelError for a size that differs from the image's, or values outside the data set."""
        sample = self.samples[index]
        image = read_image(sample.image, apply_exif=False)
        label = self.coding.load(sample.label)
        if label.shape != image.shape[:2]:
            raise LabelError(
                f"{printable(sample.label)} is {label.shape[1]}x{label.shape[0]} but its image "
                f"{printable(sample.image)} is {image.shape[1]}x{image.shape[0]}; export both at one size"
                + (
                    " (the image was rotated by its EXIF tag: save it upright)"
                    if label.shape == image.shape[1::-1]
                    else ""
                )
            )
        return image, label

    def load_instances(self, index: int) -> np.ndarray | None:
        file = self.samples[index].instances
        return None if file is None else read_ids(file)

    def identity(self, index: int) -> str | None:
        sample = self.samples[index]
        return f"{file_identity(sample.image)}|{file_identity(sample.label)}|{self.coding.key()}"


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

    def load_instances(self, index: int) -> np.ndarray | None:
        part, inner = self._locate(index)
        return part.load_instances(inner)

    def identity(self, index: int) -> str | None:
        part, inner = self._locate(index)
        return part.identity(inner)


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

    def load_instances(self, index: int) -> np.ndarray | None:
        return self._dataset.load_instances(index)


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
