"""ADE20K's scene parsing release in small, its test images, and the full data set that is something else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from fastseg.data.ade20k import ADE20K
from fastseg.data.road_scenes import ROAD_SCENES
from trees import scene

STEMS: Mapping[str, tuple[str, ...]] = {
    "training": ("ADE_train_00000001", "ADE_train_00000002"),
    "validation": ("ADE_val_00000001",),
}
CLASSES = {  # class of road scenes -> class of ADE20K; 'traffic sign' is none of them: value 0
    "road": "road",
    "sidewalk": "sidewalk",
    "building": "building",
    "pole": "pole",
    "vegetation": "tree",
    "terrain": "grass",
    "sky": "sky",
    "person": "person",
    "car": "car",
}


def write_ade20k(root: Path, *, size: tuple[int, int] = (33, 47)) -> Path:
    """Write the folder ADEChallengeData2016 as `root`: JPEG images, 8-bit grey labels, objectInfo150.txt."""
    for folder, stems in STEMS.items():
        for index, stem in enumerate(stems):
            image, classes = scene(index, *size)
            save(root / "images" / folder / f"{stem}.jpg", image)
            save(root / "annotations" / folder / f"{stem}.png", official(classes))
    rows = [f"{index}\t0.1\t1\t1\t{name}\n" for index, name in enumerate(ADE20K.class_names, start=1)]
    (root / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n" + "".join(rows))
    return root


def write_test_release(root: Path) -> Path:
    """release_test as the benchmark gives it: images alone."""
    save(root / "testing" / "ADE_test_00000001.jpg", scene(0, 32, 32)[0])
    return root


def write_full(root: Path, *, year: int = 2021) -> Path:
    """ADE20K_2021_17_01, or ADE20K_2016_07_26 with `year` 2016: classes in red and green, instances in blue."""
    folders = {2021: "images/ADE/training/urban/street", 2016: "images/training/a/abbey"}
    image, classes = scene(0, 32, 32)
    save(root / folders[year] / "ADE_train_00000970.jpg", image)
    ids = classes.astype(np.uint16) * 257 % 3000
    save(root / folders[year] / "ADE_train_00000970_seg.png", np.stack([ids // 256 * 10, ids % 256, classes], 2))
    (root / f"index_ade20k.{'pkl' if year == 2021 else 'mat'}").write_bytes(b"")
    return root


def official(classes: np.ndarray) -> np.ndarray:
    """Road scenes' classes as values of the release."""
    values = np.zeros(256, np.uint8)
    for index, name in enumerate(ROAD_SCENES.class_names):
        if name in CLASSES:
            values[index] = ADE20K.class_names.index(CLASSES[name]) + 1
    return values[classes]


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
