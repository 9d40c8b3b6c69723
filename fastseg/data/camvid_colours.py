"""CamVid's colours and what they mean: the 32 labels of its authors, and the 11 classes that papers report.

Names and colours: label_colors.txt of Brostow et al., "Semantic object classes in video: a high-definition ground truth
database", Pattern Recognition Letters 30(2), 2009. The 11 classes: Sturgess et al., "Combining appearance and structure
from motion features for road scene understanding", BMVC 2009. Which of the 32 belong to which of the 11 was not
published with them; the groups here are those of MathWorks' camvidPixelLabelIDs.m ("following the original SegNet
training methodology"), which lih627/CamVid also uses. Others leave most labels outside the 11 of the same name void
(zhouyuan888888/Public-datasets-preprocessing), and then road markings, trucks and children do not count.
"""

from __future__ import annotations

import numpy as np

from fastseg.data.coding import Colours, Values, packed, packed_pixels
from fastseg.data.notes import say_once
from fastseg.errors import printable
from fastseg.types import IGNORE_INDEX, DataFile, DatasetInfo

VOID = "Void"
RAW_VOID = 11  # in SegNet's label maps

# fmt: off
# the 32 labels in the order of label_colors.txt: name, colour, which of the 11 it is part of
LABELS = (
    ("Animal", (64, 128, 64), "pedestrian"),
    ("Archway", (192, 0, 128), "building"),
    ("Bicyclist", (0, 128, 192), "bicyclist"),
    ("Bridge", (0, 128, 64), "building"),
    ("Building", (128, 0, 0), "building"),
    ("Car", (64, 0, 128), "car"),
    ("CartLuggagePram", (64, 0, 192), "pedestrian"),
    ("Child", (192, 128, 64), "pedestrian"),
    ("Column_Pole", (192, 192, 128), "pole"),
    ("Fence", (64, 64, 128), "fence"),
    ("LaneMkgsDriv", (128, 0, 192), "road"),
    ("LaneMkgsNonDriv", (192, 0, 64), "road"),
    ("Misc_Text", (128, 128, 64), "sign symbol"),
    ("MotorcycleScooter", (192, 0, 192), "bicyclist"),
    ("OtherMoving", (128, 64, 64), "car"),
    ("ParkingBlock", (64, 192, 128), "pavement"),
    ("Pedestrian", (64, 64, 0), "pedestrian"),
    ("Road", (128, 64, 128), "road"),
    ("RoadShoulder", (128, 128, 192), "pavement"),
    ("Sidewalk", (0, 0, 192), "pavement"),
    ("SignSymbol", (192, 128, 128), "sign symbol"),
    ("Sky", (128, 128, 128), "sky"),
    ("SUVPickupTruck", (64, 128, 192), "car"),
    ("TrafficCone", (0, 0, 64), "pole"),
    ("TrafficLight", (0, 64, 64), "sign symbol"),
    ("Train", (192, 64, 128), "car"),
    ("Tree", (128, 128, 0), "tree"),
    ("Truck_Bus", (192, 128, 192), "car"),
    ("Tunnel", (64, 0, 64), "building"),
    ("VegetationMisc", (192, 192, 0), "tree"),
    (VOID, (0, 0, 0), None),
    ("Wall", (64, 192, 0), "building"),
)

# the 11 in SegNet's order, with the colours of its demonstration
ELEVEN = (
    ("sky", (128, 128, 128)), ("building", (128, 0, 0)), ("pole", (192, 192, 128)), ("road", (128, 64, 128)),
    ("pavement", (60, 40, 222)), ("tree", (128, 128, 0)), ("sign symbol", (192, 128, 128)), ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)), ("pedestrian", (64, 64, 0)), ("bicyclist", (0, 128, 192)),
)
# fmt: on

CLASS_NAMES = tuple(name for name, _ in ELEVEN)
THIRTY_TWO = [index for index, (name, *_) in enumerate(LABELS) if name != VOID]  # the values that are classes

# The release's one label image with blended colours, about 175 pixels of them, listed in lih627/CamVid's README.
BLENDED = "Seq05VD_f02610_L.png"
MOST_BLENDED = 200


def eleven(name: str) -> DatasetInfo:
    """The 11 classes as data set `name`."""
    return DatasetInfo(name, CLASS_NAMES, tuple(colour for _, colour in ELEVEN), official_ids=tuple(range(len(ELEVEN))))


def thirty_two(name: str) -> DatasetInfo:
    """The 32 labels as data set `name`: 31 classes, since Void is none; ids are places in label_colors.txt."""
    rows = [LABELS[index] for index in THIRTY_TWO]
    return DatasetInfo(name, tuple(row[0] for row in rows), tuple(row[1] for row in rows), tuple(THIRTY_TWO))


def class_of(label: int, classes: int) -> int:
    """The class of the label at a place in LABELS, with 11 or with 32 of them; 255 for Void."""
    group = LABELS[label][2]
    if group is None:
        return IGNORE_INDEX
    return CLASS_NAMES.index(group) if classes == len(ELEVEN) else THIRTY_TWO.index(label)


class OriginalColours(Colours):
    """The colours of the release's label images. In the one file whose edges were blended, other colours are void."""

    def decode(self, pixels: np.ndarray, file: DataFile) -> np.ndarray:
        if file.name == BLENDED:
            other = ~np.isin(packed_pixels(pixels), [packed(colour) for _, colour, _ in LABELS])
            count = int(other.sum())
            if 0 < count <= MOST_BLENDED:
                say_once(f"{printable(file)}: {count} px of blended colours are taken as void")
                pixels = np.where(other[..., None], np.uint8(0), pixels)
        return super().decode(pixels, file)

    def key(self) -> str:
        return f"{super().key()}, {BLENDED} up to {MOST_BLENDED}"


def colours(dataset: str, classes: int) -> OriginalColours:
    """The coding of label images painted in the 32 colours."""
    table = {colour: class_of(index, classes) for index, (_, colour, _) in enumerate(LABELS)}
    return OriginalColours(table, dataset, hint="A mask that was resized or saved as JPEG has blended colours")


def numbers(dataset: str, classes: int) -> Values:
    """The coding of label images whose values are places in label_colors.txt, as fast.ai packs CamVid (codes.txt)."""
    table = Values.of((), (IGNORE_INDEX,), dataset).table
    table[: len(LABELS)] = [class_of(index, classes) for index in range(len(LABELS))]
    return Values(table, dataset)


def segnet(dataset: str) -> Values:
    """The coding of SegNet's label maps."""
    return Values.of(range(len(ELEVEN)), (RAW_VOID, IGNORE_INDEX), dataset)
