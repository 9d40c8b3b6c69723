"""What a data set is to the rest of fastseg, and the registry of adapters."""

from __future__ import annotations

import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from fastseg.data.coding import LabelCoding, ranges
from fastseg.data.files import file_identity
from fastseg.data.headers import image_size
from fastseg.data.readers import read_ids, read_image
from fastseg.errors import ConfigError, LabelError, printable
from fastseg.registry import Registry
from fastseg.types import DatasetInfo, Sample


class SegDataset(ABC):
    """Labelled images by index. Loading is a pure function of the index: same index, same arrays, in any process."""

    info: DatasetInfo
    origin: str = ""  # name, split and arguments that it was built from, where it was

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image uint8 (H,W,3) RGB and label uint8 (H,W): class indices 0..K-1, or the ignore index."""

    @abstractmethod
    def sample_name(self, index: int) -> str:
        """What to call sample `index` in messages and output files."""

    def load_label(self, index: int) -> np.ndarray:
        """The label of `load(index)` alone, where the image is not needed."""
        return self.load(index)[1]

    def size(self, index: int) -> tuple[int, int]:
        """(H,W) of sample `index`, if possible without decoding it."""
        height, width = self.load_label(index).shape
        return height, width

    def load_instances(self, index: int) -> np.ndarray | None:
        """The instance ids of sample `index`, uint16 (H,W) as the data set defines them, or None where it has none."""
        return None

    def identity(self, index: int) -> str | None:
        """What changes when `load(index)` would give other arrays: the key of a cache. None: not to be cached."""
        return None


DATASETS: Registry[SegDataset] = Registry("data set")


class FileDataset(SegDataset):
    """Images and label maps in files; `coding` says what stands in the label files.

    Raises LabelError for a coding with classes that `info` does not have.
    """

    def __init__(self, info: DatasetInfo, samples: Sequence[Sample], coding: LabelCoding) -> None:
        beyond = sorted(value for value in coding.classes() if value >= info.num_classes)
        if beyond:
            raise LabelError(
                f"{info.name} has {info.num_classes} classes and its coding gives {ranges(beyond)}; correct the table"
            )
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

    def load_label(self, index: int) -> np.ndarray:
        return self.coding.load(self.samples[index].label)

    def size(self, index: int) -> tuple[int, int]:
        return image_size(self.samples[index].image)

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

    def locate(self, index: int) -> tuple[SegDataset, int]:
        """The part that sample `index` is in, and its index there."""
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self.parts[part], index - (int(self._ends[part - 1]) if part else 0)

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        part, inner = self.locate(index)
        return part.load(inner)

    def load_label(self, index: int) -> np.ndarray:
        part, inner = self.locate(index)
        return part.load_label(inner)

    def size(self, index: int) -> tuple[int, int]:
        part, inner = self.locate(index)
        return part.size(inner)

    def sample_name(self, index: int) -> str:
        part, inner = self.locate(index)
        return part.sample_name(inner)

    def load_instances(self, index: int) -> np.ndarray | None:
        part, inner = self.locate(index)
        return part.load_instances(inner)

    def identity(self, index: int) -> str | None:
        part, inner = self.locate(index)
        return part.identity(inner)


class RepeatedDataset(SegDataset):
    """Parts of a data set several times over. `parts` are (samples, times) in the order of the data set.

    A sample that is shown twice stays one sample of `dataset`, so that a cache beneath keeps it once.
    """

    def __init__(self, dataset: SegDataset, parts: Sequence[tuple[int, int]]) -> None:
        if sum(count for count, _ in parts) != len(dataset):
            raise ValueError(f"the parts {list(parts)} do not make up {len(dataset)} samples")
        self.dataset = dataset
        self.info = dataset.info
        ends = np.cumsum([count for count, _ in parts])
        orders = [np.tile(np.arange(end - count, end), times) for (count, times), end in zip(parts, ends, strict=True)]
        self.shown = np.concatenate(orders)  # the sample of `dataset` that stands at every index

    def __len__(self) -> int:
        return len(self.shown)

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.dataset.load(int(self.shown[index]))

    def load_label(self, index: int) -> np.ndarray:
        return self.dataset.load_label(int(self.shown[index]))

    def size(self, index: int) -> tuple[int, int]:
        return self.dataset.size(int(self.shown[index]))

    def sample_name(self, index: int) -> str:
        return self.dataset.sample_name(int(self.shown[index]))

    def load_instances(self, index: int) -> np.ndarray | None:
        return self.dataset.load_instances(int(self.shown[index]))

    def identity(self, index: int) -> str | None:
        return self.dataset.identity(int(self.shown[index]))


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

    def load_label(self, index: int) -> np.ndarray:
        return self._samples[index][1] if index in self._samples else self._dataset.load_label(index)

    def sample_name(self, index: int) -> str:
        return self._dataset.sample_name(index)

    def load_instances(self, index: int) -> np.ndarray | None:
        return self._dataset.load_instances(index)


def build_dataset(
    name: str, split: str, *, root: str | None = None, args: dict[str, object] | None = None, key: str = "data"
) -> SegDataset:
    """The data set `name`; `split` may join several with '+' ('train+val'). `key` is where a configuration asks for it.

    Raises UnknownNameError for the name or an argument, ConfigError when a root is needed or has no use, DataError and
    MissingFileError from the adapter.
    """
    kwargs = dict(args or {})
    if "split" in kwargs:
        splits = "data.train_split and data.val_split" if key == "data" else f"{key}.split"
        raise ConfigError(f"{key}.args.split comes from {splits}; remove it")
    root_parameter = DATASETS.arguments(name).get("root")
    if root is not None and root_parameter is None:
        raise ConfigError(
            f"{key}.root={root} would be ignored: data set {name!r} has no folder; leave it out, or name the data set "
            f"that lies there with {key}.name=..."
        )
    if root_parameter is not None:
        if root is not None:
            kwargs["root"] = root
        elif root_parameter.default is inspect.Parameter.empty and "root" not in kwargs:
            raise ConfigError(
                f"data set {name!r} needs the folder that holds it: {key}.root=/path/to/{name}"
                + (" (fastseg eval: --root)" if key == "data" else "")
            )
    try:
        parts = [DATASETS.build(name, split=part.strip(), **kwargs) for part in split.split("+")]
    except TypeError as error:  # a word where the adapter takes a number
        raise ConfigError(f"data set {name!r} cannot take {key}.args {args}: {error}") from error
    if isinstance(kwargs.get("root"), str):
        kwargs["root"] = os.path.abspath(str(kwargs["root"]))
    for part, word in zip(parts, split.split("+"), strict=True):
        part.origin = f"{name} {word.strip()} {sorted(kwargs.items())}"
    return parts[0] if len(parts) == 1 else ConcatDataset(parts)
