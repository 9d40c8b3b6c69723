"""Cityscapes in its official folder layout: 2,975 train and 500 val images of 2048x1024, 19 classes.

root/leftImg8bit/<split>/<city>/<city>_<seq>_<frame>_leftImg8bit.png
root/gtFine/<split>/<city>/<city>_<seq>_<frame>_gtFine_labelIds.png (or labelTrainIds.png)

Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", arXiv 1604.01685; names, ids and
colours are those of helpers/labels.py in mcordts/cityscapesScripts.
"""

from __future__ import annotations

import os
from pathlib import Path

from fastseg.data import listing
from fastseg.data.coding import Values
from fastseg.data.dataset import DATASETS, FileDataset, SegDataset
from fastseg.errors import DataError, MissingFileError, printable, suggest
from fastseg.types import IGNORE_INDEX, DatasetInfo, Sample

SPLITS = ("train", "val")
EXPECTED = ("leftImg8bit/", "gtFine/")
IMAGE_ENDING = "_leftImg8bit.png"
HINT = "data.args.labels says which files hold the labels: labelIds (0-33) or labelTrainIds (0-18 and 255)"
RAW_IDS = range(34)  # of which 19 are classes; -1, the license plate, is in no label image

CITYSCAPES = DatasetInfo(
    name="cityscapes",
    class_names=(
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
        "sky",
        "person",
        "rider",
        "car",
        "truck",
        "bus",
        "train",
        "motorcycle",
        "bicycle",
    ),
    palette=(
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ),
    official_ids=(7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33),
)


# what stands in the pixels of *_gtFine_<name>.png -> class
CODINGS = {
    "labelIds": Values.of(CITYSCAPES.official_ids, RAW_IDS, CITYSCAPES.name, hint=HINT),
    "labelTrainIds": Values.of(range(CITYSCAPES.num_classes), (IGNORE_INDEX,), CITYSCAPES.name, hint=HINT),
}


@DATASETS.register
def cityscapes(root: str, split: str, labels: str = "labelIds") -> SegDataset:
    """Cityscapes below `root`, with fine labels from the files that end in `labels`: 'labelIds' or 'labelTrainIds'.

    Raises MissingFileError for a root or folder that does not exist and for images and labels without a partner,
    DataError for an unknown split or kind of labels, for the test split, whose labels are not public, and for folders
    without an image.
    """
    folder = listing.require_root(root, CITYSCAPES.name, EXPECTED)
    if labels not in CODINGS:
        raise DataError(f"cityscapes has no labels {labels!r} (data.args.labels); {suggest(labels, CODINGS)}")
    images = listing.require_folder(folder / "leftImg8bit", CITYSCAPES.name, EXPECTED)
    annotations = listing.require_folder(folder / "gtFine", CITYSCAPES.name, EXPECTED)
    _require_split(images, split)
    listing.require_folder(annotations / split, CITYSCAPES.name, EXPECTED)
    samples = _samples(images / split, annotations / split, f"_gtFine_{labels}.png")
    return FileDataset(CITYSCAPES, samples, CODINGS[labels])


def _require_split(images: Path, split: str) -> None:
    """Raises DataError for the test split and for a name that is no split, MissingFileError for one not on disk."""
    if split == "test":
        raise DataError(
            "the labels of cityscapes' test images are not public (gtFine/test marks the ego vehicle and the "
            "border only); score on val, or label the images with `fastseg predict` for the benchmark's server"
        )
    folders = {path.name for path in images.iterdir() if path.is_dir()}
    if split not in folders | set(SPLITS):
        raise DataError(f"cityscapes has no split {split!r}; {suggest(split, (folders | set(SPLITS)) - {'test'})}")
    listing.require_folder(images / split, CITYSCAPES.name, EXPECTED)


def _samples(images: Path, labels: Path, label_ending: str) -> list[Sample]:
    """Images with their labels, city by city. Raises as `cityscapes` does for pairs."""
    by_name = _files(images, IMAGE_ENDING)
    labels_by_name = _files(labels, label_ending)
    if not by_name:
        raise DataError(
            f"0 samples found under {printable(images)}/*/*{IMAGE_ENDING}; that folder contains: "
            f"{listing.contents(images)}; unpack leftImg8bit_trainvaltest.zip into data.root"
        )
    for ours, theirs, kind, place in (
        (by_name, labels_by_name, "label", f"{printable(labels)}/*/*{label_ending}"),
        (labels_by_name, by_name, "image", f"{printable(images)}/*/*{IMAGE_ENDING}"),
    ):
        alone = [str(path) for name, path in ours.items() if name not in theirs]
        if alone:
            raise MissingFileError(
                f"{len(alone)} of {len(ours)} files have no {kind} {place}: {listing.first(alone)}; complete the "
                f"download{_remedy(kind, label_ending)}"
            )
    return [Sample(path, labels_by_name[name]) for name, path in by_name.items()]


def _files(folder: Path, ending: str) -> dict[str, Path]:
    """Files folder/<city>/<name><ending> by 'city/name', sorted."""
    found = {}
    for city in sorted(path for path in folder.iterdir() if path.is_dir()):
        names = sorted(name for name in os.listdir(city) if name.endswith(ending) and not name.startswith("."))
        found.update({f"{city.name}/{name.removesuffix(ending)}": city / name for name in names})
    return found


def _remedy(kind: str, label_ending: str) -> str:
    """Where labels come from that no archive holds."""
    if kind == "label" and "labelTrainIds" in label_ending:
        return ", make these files with cityscapesScripts' csCreateTrainIdLabelImgs, or set data.args.labels=labelIds"
    return ""
