"""PASCAL-Context with its 59 frequent classes: 4,998 train and 5,105 val images of PASCAL VOC 2010, in two layouts.

root/JPEGImages/*.jpg, where root is VOCdevkit/VOC2010 (or a folder that holds VOC2010/ or VOCdevkit/VOC2010/), and

- root/SegmentationClassContext/*.png: 0 is background, 1..59 are the classes; and
  root/ImageSets/SegmentationContext/{train,val}.txt: the names of a split's images, one a line, without suffix.
  mmsegmentation's tools/dataset_converters/pascal_context.py makes both, with the Detail API; or
- root/trainval/*.mat as the authors released them: LabelMap, numbers of 459 labels, and (optional) labels.txt and
  59_labels.txt beside the folder. Lists are then VOC's own, ImageSets/Main/{train,val}.txt, which name the same images.

The classes are in alphabetical order, as mmsegmentation has them; FCN and 59_labels.txt have VOC's 20 first. Background
is every label that is none of the 59. Both layouts give the same classes.

Source: Mottaghi et al., "The Role of Context for Object Detection and Semantic Segmentation in the Wild", CVPR 2014;
numbers of the 459 labels: labels.txt of its release (data/pascal-context/classes-400.txt in
shelhamer/fcn.berkeleyvision.org); the colours are those of the PASCAL VOC development kit.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fastseg.data import listing
from fastseg.data.class_table import numbered_colour
from fastseg.data.coding import LabelCoding, Values
from fastseg.data.dataset import DATASETS, FileDataset, SegDataset
from fastseg.data.matlab import read_matrix
from fastseg.errors import DataError, LabelError, MissingFileError, printable, suggest
from fastseg.types import IGNORE_INDEX, DataFile, DatasetInfo, Sample

NAME = "pascal_context"
SPLITS = ("train", "val")
LISTS = "ImageSets/SegmentationContext"
VOC_LISTS = "ImageSets/Main"
PNG, MAT = "SegmentationClassContext", "trainval"
EXPECTED = ("JPEGImages/", f"{PNG}/", f"{LISTS}/", f"or {MAT}/*.mat")
INSIDE = (".", "VOC2010", "VOCdevkit/VOC2010")
BACKGROUND = 0
VARIABLE = "LabelMap"
LABELS_459 = 459

# fmt: off
# class -> its number among the 459 labels
CLASSES = {
    "aeroplane": 2, "bag": 9, "bed": 18, "bedclothes": 19, "bench": 22, "bicycle": 23, "bird": 25, "boat": 31,
    "book": 33, "bottle": 34, "building": 44, "bus": 45, "cabinet": 46, "car": 59, "cat": 65, "ceiling": 68,
    "chair": 72, "cloth": 80, "computer": 85, "cow": 98, "cup": 104, "curtain": 105, "dog": 113, "door": 115,
    "fence": 144, "floor": 158, "flower": 159, "food": 162, "grass": 187, "ground": 189, "horse": 207, "keyboard": 220,
    "light": 232, "motorbike": 258, "mountain": 259, "mouse": 260, "person": 284, "plate": 295, "platform": 296,
    "pottedplant": 308, "road": 324, "rock": 326, "sheep": 347, "shelves": 349, "sidewalk": 354, "sign": 355,
    "sky": 360, "snow": 366, "sofa": 368, "table": 397, "track": 415, "train": 416, "tree": 420, "truck": 424,
    "tvmonitor": 427, "wall": 440, "water": 445, "window": 454, "wood": 458,
}
# fmt: on
CLASS_NAMES = tuple(CLASSES)
# what 59_labels.txt calls classes that labels.txt names otherwise
OTHER_NAMES = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}


def _info(values: range, class_names: tuple[str, ...]) -> DatasetInfo:
    return DatasetInfo(NAME, class_names, tuple(map(numbered_colour, values)), official_ids=tuple(values))


# how many classes -> what they are: with 59 the background is ignored, with 60 it is class 0
INFOS = {59: _info(range(1, 60), CLASS_NAMES), 60: _info(range(60), ("background", *CLASS_NAMES))}


CODINGS = {
    classes: Values.of(info.official_ids, {BACKGROUND, IGNORE_INDEX} - set(info.official_ids), NAME)
    for classes, info in INFOS.items()
}


class MatlabValues(Values):
    """The numbers of the 459 labels in MATLAB files, of which 59 are classes; the rest, and 0, are background."""

    @classmethod
    def of_numbers(cls, numbers: Iterable[int], classes: int) -> MatlabValues:
        """`numbers[i]` is the number of class i of the 59; `classes` is 59 or 60."""
        table = np.full(LABELS_459 + 1, IGNORE_INDEX if classes == 59 else 0, np.uint8)
        table[list(numbers)] = np.arange(59) + (classes == 60)
        return cls(table, NAME, hint=f"{VARIABLE} holds numbers of labels.txt, from 1")

    def read(self, file: DataFile) -> np.ndarray:
        values = read_matrix(file, VARIABLE)
        if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.round(values))).all():
            raise LabelError(f"{printable(file)}: {VARIABLE} holds fractions; allowed are whole numbers 0-{LABELS_459}")
        if values.min() < 0 or values.max() > 65535:
            raise LabelError(
                f"{printable(file)}: {VARIABLE} has values {values.min():g}..{values.max():g}; "
                f"allowed are 0-{LABELS_459}"
            )
        return values.astype(np.uint16)


@DATASETS.register
def pascal_context(root: str, split: str, classes: int = 59, labels: str | None = None) -> SegDataset:
    """PASCAL-Context below `root`, with label maps from its folder `labels` and the images that a split's list names.

    `labels` is SegmentationClassContext where that exists, else trainval; .mat files are known by their suffix.
    `classes` is 59, where the background is ignored, or 60, where it is class 0; papers report either. Raises
    MissingFileError for a root, folder, list or listed file that does not exist, DataError for another number of
    classes, an unknown split, an empty list, a row that is not one name, and label lists of other classes.
    """
    folder = listing.require_root(root, NAME, EXPECTED)
    if classes not in INFOS:
        raise DataError(f"{NAME} has no {classes!r} classes (data.args.classes); allowed: 59, 60 (with the background)")
    voc = next((folder / name for name in INSIDE if (folder / name / "JPEGImages").is_dir()), folder)
    images = listing.require_folder(voc / "JPEGImages", NAME, EXPECTED)
    maps = _maps(folder, voc, labels)
    samples = _samples(_list_file(folder, voc, split), images, maps, ".mat" if _is_matlab(maps) else ".png")
    return FileDataset(INFOS[classes], samples, _coding(maps, classes))


def _maps(folder: Path, voc: Path, labels: str | None) -> Path:
    """The folder of label maps. Raises MissingFileError."""
    names = (PNG, MAT) if labels is None else (labels,)
    found = (place / name for name in names for place in (voc, folder) if (place / name).is_dir())
    return next(found, None) or listing.require_folder(voc / names[0], NAME, EXPECTED)


def _is_matlab(maps: Path) -> bool:
    with os.scandir(maps) as entries:
        return any(entry.name.endswith(".mat") for entry in entries)


def _coding(maps: Path, classes: int) -> LabelCoding:
    """What stands in the maps of a folder. Raises DataError for lists beside it that name other classes."""
    if not _is_matlab(maps):
        return CODINGS[classes]
    names_59, names_459 = maps.parent / "59_labels.txt", maps.parent / "labels.txt"
    if names_59.is_file():
        named = {OTHER_NAMES.get(name, name) for name in _names(names_59)} - {"background"}
        if named != set(CLASS_NAMES):
            raise DataError(
                f"{printable(names_59)} does not name {NAME}'s 59 classes: "
                f"{listing.first(sorted(named ^ set(CLASS_NAMES)))} differ; fetch the file of the release again"
            )
    numbers = CLASSES
    if names_459.is_file():
        numbers = _names(names_459)
        wrong = [name for name in CLASS_NAMES if not 0 < numbers.get(name, 0) <= LABELS_459]
        if wrong:
            raise DataError(
                f"{printable(names_459)} gives no number in 1-{LABELS_459} to {listing.first(wrong)}; fetch the file "
                "of the release again, or remove it: the numbers are known"
            )
    return MatlabValues.of_numbers((numbers[name] for name in CLASS_NAMES), classes)


def _names(path: Path) -> dict[str, int]:
    """Rows '23: bicycle' -> {'bicycle': 23}; spaces in names do not count. Raises DataError for another row."""
    found = {}
    for number, columns in listing.read_list(path):
        index, colon, name = " ".join(columns).partition(":")
        if not colon or not index.strip().isdecimal() or not name.strip():
            raise DataError(f"{printable(path)} line {number} is {' '.join(columns)!r}; allowed is '23: bicycle'")
        found[name.replace(" ", "")] = int(index)
    return found


def _list_file(folder: Path, voc: Path, split: str) -> Path:
    """Raises MissingFileError when a known split has no list, DataError for any other name without one."""
    own = voc / LISTS
    places = [place for place in (own, voc / VOC_LISTS, folder) if place.is_dir()]
    # VOC's folder has lists of objects, too, and the folder of the data set has those of labels
    found = {path.stem for path in own.glob("*.txt")} | set(SPLITS)
    if split not in found:
        raise DataError(f"{NAME} has no split {split!r}; {suggest(split, found)}")
    list_file = next((place / f"{split}.txt" for place in places if (place / f"{split}.txt").is_file()), None)
    if list_file is None:
        listing.require_folder(own, NAME, EXPECTED)
        raise MissingFileError(
            f"{printable(own / split)}.txt does not exist; {printable(own)} contains: {listing.contents(own)}; make "
            f"the lists with mmsegmentation's tools/dataset_converters/pascal_context.py, or take those of {VOC_LISTS}"
        )
    return list_file


def _samples(list_file: Path, images: Path, maps: Path, suffix: str) -> list[Sample]:
    """The listed images with their label maps, in the order of the list. Raises as `pascal_context` does."""
    samples, missing = [], []
    for number, columns in listing.read_list(list_file):
        if len(columns) > 1:
            raise DataError(
                f"{printable(list_file)} line {number} has {len(columns)} columns ({printable(', '.join(columns))}); "
                "allowed is the name of one image, without suffix, such as 2008_000002"
            )
        image, label = images / f"{columns[0]}.jpg", maps / f"{columns[0]}{suffix}"
        missing += [f"line {number}: {path}" for path in (image, label) if not os.path.isfile(path)]
        samples.append(Sample(image, label))
    if not samples:
        raise DataError(f"0 samples found in {printable(list_file)}: it has no line that names an image")
    if missing:
        raise MissingFileError(
            f"{len(missing)} files named by {printable(list_file)} ({len(samples)} rows) do not exist: "
            f"{listing.first(missing)}; complete the download, or name the folder of label maps (data.args.labels)"
        )
    return samples
