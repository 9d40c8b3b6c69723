"""ADE20K in the layout of the scene parsing benchmark: 20,210 train and 2,000 val images, 150 classes.

root/images/{training,validation}/*.jpg
root/annotations/{training,validation}/*.png: 0 is everything else and ignored, 1..150 are the classes

root is the folder ADEChallengeData2016, which ADEChallengeData2016.zip holds. The full data set (ADE20K_2021_17_01, or
ADE20K_2016_07_26) has other classes in other files and is refused.

Source: Zhou et al., "Semantic Understanding of Scenes through the ADE20K Dataset", arXiv 1608.05442; names (the first
of each class's synonyms) and colours are those of objectInfo150.txt and color150.mat in CSAILVision's
semantic-segmentation-pytorch, where road and skyscraper share a colour.
"""

from __future__ import annotations

from pathlib import Path

from fastseg.data import listing
from fastseg.data.coding import Values
from fastseg.data.dataset import DATASETS, FileDataset, SegDataset
from fastseg.errors import DataError, printable, suggest
from fastseg.types import IGNORE_INDEX, DatasetInfo

FOLDERS = {"train": "training", "val": "validation"}
EXPECTED = tuple(f"{kind}/{folder}/" for folder in FOLDERS.values() for kind in ("images", "annotations"))
RAW_OTHER = 0
TEST = ("test", "testing")

# fmt: off
ADE20K = DatasetInfo(
    name="ade20k",
    class_names=(
        "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet",
        "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water",
        "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk",
        "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column", "signboard",
        "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path",
        "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge", "bookcase",
        "blind", "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove", "palm",
        "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus", "towel", "light",
        "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television receiver", "airplane",
        "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet", "poster",
        "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool", "stool",
        "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step", "tank",
        "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture",
        "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate", "monitor",
        "bulletin board", "shower", "radiator", "glass", "clock", "flag",
    ),
    palette=(
        (120, 120, 120), (180, 120, 120), (6, 230, 230), (80, 50, 50), (4, 200, 3), (120, 120, 80), (140, 140, 140),
        (204, 5, 255), (230, 230, 230), (4, 250, 7), (224, 5, 255), (235, 255, 7), (150, 5, 61), (120, 120, 70),
        (8, 255, 51), (255, 6, 82), (143, 255, 140), (204, 255, 4), (255, 51, 7), (204, 70, 3), (0, 102, 200),
        (61, 230, 250), (255, 6, 51), (11, 102, 255), (255, 7, 71), (255, 9, 224), (9, 7, 230), (220, 220, 220),
        (255, 9, 92), (112, 9, 255), (8, 255, 214), (7, 255, 224), (255, 184, 6), (10, 255, 71), (255, 41, 10),
        (7, 255, 255), (224, 255, 8), (102, 8, 255), (255, 61, 6), (255, 194, 7), (255, 122, 8), (0, 255, 20),
        (255, 8, 41), (255, 5, 153), (6, 51, 255), (235, 12, 255), (160, 150, 20), (0, 163, 255), (140, 140, 140),
        (250, 10, 15), (20, 255, 0), (31, 255, 0), (255, 31, 0), (255, 224, 0), (153, 255, 0), (0, 0, 255),
        (255, 71, 0), (0, 235, 255), (0, 173, 255), (31, 0, 255), (11, 200, 200), (255, 82, 0), (0, 255, 245),
        (0, 61, 255), (0, 255, 112), (0, 255, 133), (255, 0, 0), (255, 163, 0), (255, 102, 0), (194, 255, 0),
        (0, 143, 255), (51, 255, 0), (0, 82, 255), (0, 255, 41), (0, 255, 173), (10, 0, 255), (173, 255, 0),
        (0, 255, 153), (255, 92, 0), (255, 0, 255), (255, 0, 245), (255, 0, 102), (255, 173, 0), (255, 0, 20),
        (255, 184, 184), (0, 31, 255), (0, 255, 61), (0, 71, 255), (255, 0, 204), (0, 255, 194), (0, 255, 82),
        (0, 10, 255), (0, 112, 255), (51, 0, 255), (0, 194, 255), (0, 122, 255), (0, 255, 163), (255, 153, 0),
        (0, 255, 10), (255, 112, 0), (143, 255, 0), (82, 0, 255), (163, 255, 0), (255, 235, 0), (8, 184, 170),
        (133, 0, 255), (0, 255, 92), (184, 0, 255), (255, 0, 31), (0, 184, 255), (0, 214, 255), (255, 0, 112),
        (92, 255, 0), (0, 224, 255), (112, 224, 255), (70, 184, 160), (163, 0, 255), (153, 0, 255), (71, 255, 0),
        (255, 0, 163), (255, 204, 0), (255, 0, 143), (0, 255, 235), (133, 255, 0), (255, 0, 235), (245, 0, 255),
        (255, 0, 122), (255, 245, 0), (10, 190, 212), (214, 255, 0), (0, 204, 255), (20, 0, 255), (255, 255, 0),
        (0, 153, 255), (0, 41, 255), (0, 255, 204), (41, 0, 255), (41, 255, 0), (173, 0, 255), (0, 245, 255),
        (71, 0, 255), (122, 0, 255), (0, 255, 184), (0, 92, 255), (184, 255, 0), (0, 133, 255), (255, 214, 0),
        (25, 194, 194), (102, 255, 0), (92, 0, 255),
    ),
    official_ids=tuple(range(1, 151)),
)
# fmt: on

CODING = Values.of(ADE20K.official_ids, (RAW_OTHER, IGNORE_INDEX), ADE20K.name)


@DATASETS.register
def ade20k(root: str, split: str) -> SegDataset:
    """ADE20K below `root`, the folder ADEChallengeData2016 of the release; `split` is 'train' or 'val'.

    Raises MissingFileError for a root or folder that does not exist and for images and labels without a partner,
    DataError for the full data set, an unknown split, the test split, whose labels are not public, and for folders
    without a pair.
    """
    folder = listing.require_root(root, ADE20K.name, EXPECTED)
    if split in TEST:
        raise DataError(
            "the labels of ade20k's test images are not public (release_test/testing holds images alone); score on "
            "val, or label the images with `fastseg predict` for the benchmark's server"
        )
    if split not in FOLDERS:
        raise DataError(f"ade20k has no split {split!r}; {suggest(split, FOLDERS)}")
    _refuse_full(folder)
    images = listing.require_folder(folder / "images" / FOLDERS[split], ADE20K.name, EXPECTED)
    labels = listing.require_folder(folder / "annotations" / FOLDERS[split], ADE20K.name, EXPECTED)
    return FileDataset(ADE20K, listing.samples_from_folders(images, labels, image_suffixes=(".jpg",)), CODING)


def _refuse_full(folder: Path) -> None:
    """Raises DataError for the full data set: thousands of classes, in files *_seg.png beside the images."""
    marks = ("ADE20K_2021_17_01", "images/ADE", "index_ade20k.pkl", "index_ade20k.mat", "images/training/a")
    found = next((folder / mark for mark in marks if (folder / mark).exists()), None)
    if found is not None and not (folder / "annotations").is_dir():
        raise DataError(
            f"{printable(found)} belongs to the full ADE20K, whose labels (*_seg.png) are not the benchmark's 150 "
            "classes; fetch ADEChallengeData2016.zip (scene parsing, http://sceneparsing.csail.mit.edu) and set "
            "data.root to the folder ADEChallengeData2016 in it"
        )
