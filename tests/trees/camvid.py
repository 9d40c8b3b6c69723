"""CamVid in small, in each of its variants and packings: names, folders, modes and codes of the originals.

Road scenes' classes become several of the 32 labels each, in blocks, so that grouping them shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fastseg.data.camvid_colours import LABELS, RAW_VOID, class_of
from fastseg.data.road_scenes import ROAD_SCENES
from fastseg.types import IGNORE_INDEX
from trees import scene

FRAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("0001TP_006690", "0006R0_f00930", "0016E5_00901"),
    "val": ("0016E5_07959", "0016E5_07961"),
    "test": ("0001TP_008550", "Seq05VD_f00000"),
}
RELATIVES = {  # class of road scenes -> labels that its blocks get, in turn
    "road": ("Road", "LaneMkgsDriv", "LaneMkgsNonDriv"),
    "sidewalk": ("Sidewalk", "ParkingBlock", "RoadShoulder"),
    "building": ("Building", "Wall", "Bridge", "Archway", "Tunnel"),
    "pole": ("Column_Pole", "TrafficCone", "Fence"),
    "traffic sign": ("SignSymbol", "TrafficLight", "Misc_Text"),
    "vegetation": ("Tree", "Tree", "VegetationMisc"),
    "terrain": ("VegetationMisc",),
    "sky": ("Sky",),
    "person": ("Pedestrian", "Child", "Bicyclist", "MotorcycleScooter", "CartLuggagePram", "Animal"),
    "car": ("Car", "SUVPickupTruck", "Truck_Bus", "OtherMoving", "Train"),
}
BLOCK = 4  # pixels
NAMES = [name for name, *_ in LABELS]
# packing -> folder of images, folder of label images, what ends a label's stem
PACKINGS = {
    "original": ("701_StillsRaw_full", "LabeledApproved_full", "_L"),
    "mathworks": ("images/701_StillsRaw_full", "labels", "_L"),
    "lih627": ("CamVid_RGB", "CamVid_Label", "_L"),
    "fastai": ("images", "labels", "_P"),
    "kaggle": ("{split}", "{split}_labels", "_L"),
}


def write_segnet(
    root: Path,
    *,
    size: tuple[int, int] = (36, 48),
    frames: Mapping[str, Sequence[str]] = FRAMES,
    lists: bool = False,
    suffix: str = ".png",
) -> Path:
    """Write SegNet's layout below `root`, images of `size` (height, width); with its list files on request."""
    for split, names in frames.items():
        for index, name in enumerate(names):
            image, labels = frame(index, size)
            save(root / split / f"{name}{suffix}", image)
            save(root / f"{split}annot" / f"{name}.png", segnet_values(labels))
        if lists:
            rows = [f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png\n" for name in names]
            (root / f"{split}.txt").write_text("".join(rows))
    return root


def write_original(
    root: Path,
    *,
    size: tuple[int, int] = (36, 48),
    packing: str = "original",
    frames: Mapping[str, Sequence[str]] = FRAMES,
    lists: bool = True,
) -> Path:
    """Write the original files below `root` in a `packing` of PACKINGS, with a list of frames per split on request."""
    images, labels, ending = PACKINGS[packing]
    for split, names in frames.items():
        for index, name in enumerate(names):
            image, places = frame(index, size)
            save(root / images.format(split=split) / f"{name}.png", image)
            pixels = places if ending == "_P" else painted(places)
            save(root / labels.format(split=split) / f"{name}{ending}.png", pixels)
        if lists and packing != "kaggle":
            (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    if packing == "fastai":
        (root / "codes.txt").write_text("\n".join(NAMES))
        (root / "valid.txt").write_text("".join(f"{name}.png\n" for name in frames["test"]))
    return root


def frame(index: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The image of a frame, and for every pixel the place of its label in label_colors.txt."""
    image, classes = scene(index, *size)
    rows, columns = np.indices(classes.shape) // BLOCK
    places = np.full(classes.shape, NAMES.index("Void"), np.uint8)
    for index, name in enumerate(ROAD_SCENES.class_names):
        table = np.array([NAMES.index(label) for label in RELATIVES[name]], np.uint8)
        here = classes == index
        places[here] = table[(rows + columns)[here] % len(table)]
    return image, places


def painted(places: np.ndarray) -> np.ndarray:
    """Places in label_colors.txt -> the colours there (H,W,3)."""
    return np.array([colour for _, colour, _ in LABELS], np.uint8)[places]


def segnet_values(places: np.ndarray) -> np.ndarray:
    """Places in label_colors.txt -> SegNet's values, 0..10 and 11 for void."""
    classes = np.array([class_of(index, 11) for index in range(len(LABELS))], np.uint8)[places]
    classes[classes == IGNORE_INDEX] = RAW_VOID
    return classes


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
