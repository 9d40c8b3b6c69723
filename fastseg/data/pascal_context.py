"""PASCAL-Context with its 59 frequent classes: 4,998 train and 5,105 val images of PASCAL VOC 2010.

root/JPEGImages/*.jpg
root/SegmentationClassContext/*.png: 0 is background, 1..59 are the classes
root/ImageSets/SegmentationContext/{train,val}.txt: the names of a split's images, one a line, without suffix

Root is VOCdevkit/VOC2010; mmsegmentation's tools/dataset_converters/pascal_context.py makes labels and lists there.
Source: Mottaghi et al., "The Role of Context for Object Detection and Semantic Segmentation in the Wild", CVPR 2014;
the colours are those of the PASCAL VOC development kit.
"""

from __future__ import annotations

import os
from pathlib import Path

from fastseg.data import listing
from fastseg.data.coding import Values
from fastseg.data.dataset import DATASETS, FileDataset, SegDataset
from fastseg.errors import DataError, MissingFileError, printable, suggest
from fastseg.types import IGNORE_INDEX, DatasetInfo, Sample

NAME = "pascal_context"
SPLITS = ("train", "val")
LISTS = "ImageSets/SegmentationContext"
EXPECTED = ("JPEGImages/", "SegmentationClassContext/", f"{LISTS}/")
BACKGROUND = 0

# fmt: off
CLASS_NAMES = (
    "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat", "book", "bottle", "building", "bus",
    "cabinet", "car", "cat", "ceiling", "chair", "cloth", "computer", "cow", "cup", "curtain", "dog", "door", "fence",
    "floor", "flower", "food", "grass", "ground", "horse", "keyboard", "light", "motorbike", "mountain", "mouse",
    "person", "plate", "platform", "pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign", "sky", "snow",
    "sofa", "table", "track", "train", "tree", "truck", "tvmonitor", "wall", "water", "window", "wood",
)
# fmt: on


def _voc_colour(value: int) -> tuple[int, int, int]:
    """The colour of a raw value: its bits in turn, least first, are the highest bits of red, green, blue, red, ..."""
    red, green, blue = (sum((value >> (3 * i + channel) & 1) << (7 - i) for i in range(3)) for channel in range(3))
    return red, green, blue


def _info(values: range, class_names: tuple[str, ...]) -> DatasetInfo:
    return DatasetInfo(NAME, class_names, tuple(map(_voc_colour, values)), official_ids=tuple(values))


# how many classes -> what they are: with 59 the background is ignored, with 60 it is class 0
INFOS = {59: _info(range(1, 60), CLASS_NAMES), 60: _info(range(60), ("background", *CLASS_NAMES))}


CODINGS = {
    classes: Values.of(info.official_ids, {BACKGROUND, IGNORE_INDEX} - set(info.official_ids), NAME)
    for classes, info in INFOS.items()
}


@DATASETS.register
def pascal_context(root: str, split: str, classes: int = 59, labels: str = "SegmentationClassContext") -> SegDataset:
    """PASCAL-Context below `root`, with label maps from its folder `labels` and the images that a split's list names.

    `classes` is 59, where the background is ignored, or 60, where it is class 0; papers report either. Raises
    MissingFileError for a root, folder, list or listed file that does not exist, DataError for another number of
    classes, an unknown split, an empty list and a row that is not one name.
    """
    folder = listing.require_root(root, NAME, EXPECTED)
    if classes not in INFOS:
        raise DataError(f"{NAME} has no {classes!r} classes (data.args.classes); allowed: 59, 60 (with the background)")
    images = listing.require_folder(folder / "JPEGImages", NAME, EXPECTED)
    maps = listing.require_folder(folder / labels, NAME, EXPECTED)
    lists = listing.require_folder(folder / LISTS, NAME, EXPECTED)
    _require_split(lists, split)
    return FileDataset(INFOS[classes], _samples(lists / f"{split}.txt", images, maps), CODINGS[classes])


def _require_split(lists: Path, split: str) -> None:
    """Raises MissingFileError when a known split has no list, DataError for any other name without one."""
    found = {path.stem for path in lists.glob("*.txt")}
    if split in found:
        return
    if split in SPLITS:
        raise MissingFileError(
            f"{printable(lists / split)}.txt does not exist; {printable(lists)} contains: {listing.contents(lists)}; "
            "make the lists with mmsegmentation's tools/dataset_converters/pascal_context.py"
        )
    raise DataError(f"{NAME} has no split {split!r}; {suggest(split, found | set(SPLITS))}")


def _samples(list_file: Path, images: Path, maps: Path) -> list[Sample]:
    """The listed images with their label maps, in the order of the list. Raises as `pascal_context` does."""
    samples, missing = [], []
    for number, columns in listing.read_list(list_file):
        if len(columns) > 1:
            raise DataError(
                f"{printable(list_file)} line {number} has {len(columns)} columns ({printable(', '.join(columns))}); "
                "allowed is the name of one image, without suffix, such as 2008_000002"
            )
        image, label = images / f"{columns[0]}.jpg", maps / f"{columns[0]}.png"
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
