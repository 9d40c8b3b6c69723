"""Cityscapes in small: its folders, names, modes and ids, and on request its archives.

Road scenes' classes become Cityscapes' ids. Some parts of a class become its relatives, and unlabelled parts one void
id or another, so that ids occur that are no class. Vehicles and people are instances by connected components.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fastseg.data.cityscapes import CITYSCAPES
from fastseg.data.dataset import FileDataset, SegDataset
from fastseg.data.road_scenes import ROAD_SCENES
from fastseg.types import IGNORE_INDEX
from trees import scene

CITIES: Mapping[str, tuple[str, ...]] = {
    "train": ("aachen", "bochum"),
    "val": ("munster",),
    "test": ("berlin",),
    "train_extra": ("bayreuth", "troisdorf"),
}
FRAMES = 2  # images of a city
ARCHIVES = {  # archive -> package, splits
    "leftImg8bit_trainvaltest.zip": ("leftImg8bit", ("train", "val", "test")),
    "leftImg8bit_trainextra.zip": ("leftImg8bit", ("train_extra",)),
    "gtFine_trainvaltest.zip": ("gtFine", ("train", "val", "test")),
    "gtCoarse.zip": ("gtCoarse", ("train", "val", "train_extra")),
}
EGO_VEHICLE, RECTIFICATION_BORDER, OUT_OF_ROI = 1, 2, 3
VOID_IDS = (4, 5, 6, 0, 9, 10, 14, 15, 16, 18, 29, 30)  # in turn, by component
IDS = {  # class of road scenes -> ids its components get, in turn
    "road": (7,),
    "sidewalk": (8,),
    "building": (11, 11, 12, 13),
    "pole": (17, 17, 19),
    "traffic sign": (20,),
    "vegetation": (21,),
    "terrain": (22,),
    "sky": (23,),
    "person": (24, 25),
    "car": (26, 27, 26, 28, 26, 31, 32, 33),
}
HAVE_INSTANCES = range(24, 34)  # helpers/labels.py, hasInstances
SMALLEST = 3  # pixels: smaller components are groups, whose instance id is the plain id


def write_cityscapes(
    root: Path,
    *,
    size: tuple[int, int] = (32, 64),
    cities: Mapping[str, tuple[str, ...]] = CITIES,
    splits: Collection[str] = ("train", "val", "test"),
    kinds: Collection[str] = ("labelIds", "labelTrainIds", "instanceIds"),
    coarse: bool = False,
    zipped: bool | Collection[str] = False,
) -> Path:
    """Write the tree below `root`, images of `size` (height, width), two of each city; returns `root`.

    `coarse` adds gtCoarse and the split train_extra. `zipped` packs every package into its archives and removes the
    folders; or only the packages that it names ('gtFine').
    """
    index = 0
    for split in (*splits, *(("train_extra",) if coarse else ())):
        for city in cities[split]:
            for frame in range(FRAMES):
                name = f"{city}_{frame:06d}_000019"
                image, classes = scene(index, *size)
                ids = official_ids(classes)
                _save(root, "leftImg8bit", split, f"{name}_leftImg8bit.png", image)
                if split != "train_extra":
                    _save_labels(root, "gtFine", split, name, camera_only(ids) if split == "test" else ids, kinds)
                if coarse and split != "test":
                    _save_labels(root, "gtCoarse", split, name, coarsened(ids), kinds)
                index += 1
    packages = {package for package, _ in ARCHIVES.values()} if zipped is True else set(zipped or ())
    for package in packages:
        pack(root, package)
    return root


def pack(root: Path, package: str) -> None:
    """Move root/<package>/ into the archives that the project publishes."""
    for archive, (name, splits) in ARCHIVES.items():
        folders = [root / package / split for split in splits if (root / package / split).is_dir()]
        if name != package or not folders:
            continue
        with zipfile.ZipFile(root / archive, "w", zipfile.ZIP_DEFLATED) as target:
            target.writestr("README", "Cityscapes, in small\n")
            target.writestr("license.txt", "made from road scenes\n")
            for folder in folders:
                for path in sorted(folder.rglob("*")):
                    target.write(path, path.relative_to(root).as_posix())
    shutil.rmtree(root / package, ignore_errors=True)


def write_list(root: Path, split: str, name: str, *, kind: str = "labelIds", reverse: bool = False) -> Path:
    """Write Fast_Seg's list of a split with fine labels: image, tab, label."""
    rows = []
    for city in CITIES[split]:
        for frame in range(FRAMES):
            base = f"{split}/{city}/{city}_{frame:06d}_000019"
            rows.append(f"leftImg8bit/{base}_leftImg8bit.png\tgtFine/{base}_gtFine_{kind}.png\n")
    path = root / name
    path.write_text("".join(rows[::-1] if reverse else rows))
    return path


def official_ids(classes: np.ndarray) -> np.ndarray:
    """Road scenes' classes -> Cityscapes' ids, uint8 (H,W), with the borders and the bonnet that every image has."""
    ids = np.zeros_like(classes)
    for place, name in enumerate(ROAD_SCENES.class_names):
        _fill(ids, classes == place, IDS[name])
    void = classes == IGNORE_INDEX
    _fill(ids, void, VOID_IDS)
    count, components = cv2.connectedComponents(void.astype(np.uint8))
    for component in range(1, count):
        where = components == component
        if where[-1].any():
            ids[where] = EGO_VEHICLE
    ids[:, [0, -1]] = RECTIFICATION_BORDER
    ids[0] = OUT_OF_ROI
    ids[-1] = EGO_VEHICLE
    return ids


def camera_only(ids: np.ndarray) -> np.ndarray:
    """What the published labels of test images hold: the ego vehicle and the border, the rest unlabelled."""
    return np.where(np.isin(ids, (EGO_VEHICLE, RECTIFICATION_BORDER, OUT_OF_ROI)), ids, 0).astype(np.uint8)


def coarsened(ids: np.ndarray) -> np.ndarray:
    """Labels without the pixels next to another label, which coarse polygons leave out."""
    kernel = np.ones((3, 3), np.uint8)
    return np.where(cv2.erode(ids, kernel) == cv2.dilate(ids, kernel), ids, 0).astype(np.uint8)


def train_ids(ids: np.ndarray) -> np.ndarray:
    """Ids -> classes 0..18, or 255: what cityscapesScripts' csCreateTrainIdLabelImgs makes."""
    table = np.full(256, IGNORE_INDEX, np.uint8)
    table[list(CITYSCAPES.official_ids)] = np.arange(CITYSCAPES.num_classes)
    return table[ids]


def instance_ids(ids: np.ndarray) -> np.ndarray:
    """Ids -> uint16 (H,W): id * 1000 + number for instances, the plain id for groups and everything else."""
    instances = ids.astype(np.uint16)
    for each in HAVE_INSTANCES:
        count, components = cv2.connectedComponents((ids == each).astype(np.uint8))
        sizes = np.bincount(components.ravel(), minlength=count)
        for number, component in enumerate(c for c in range(1, count) if sizes[c] >= SMALLEST):
            instances[components == component] = each * 1000 + number
    return instances


def _fill(ids: np.ndarray, where: np.ndarray, values: tuple[int, ...]) -> None:
    """Write `values` into the components of a mask, in turn."""
    _, components = cv2.connectedComponents(where.astype(np.uint8))
    ids[where] = np.array(values, np.uint8)[(components[where] - 1) % len(values)]


def _save_labels(root: Path, package: str, split: str, name: str, ids: np.ndarray, kinds: Collection[str]) -> None:
    made = {"labelIds": lambda: ids, "labelTrainIds": lambda: train_ids(ids), "instanceIds": lambda: instance_ids(ids)}
    for kind in kinds:
        _save(root, package, split, f"{name}_{package}_{kind}.png", made[kind]())


def _save(root: Path, package: str, split: str, name: str, pixels: np.ndarray) -> None:
    path = root / package / split / name.partition("_")[0] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)  # uint8 (H,W) is mode L, uint16 is I;16, (H,W,3) is RGB


def samples_of(dataset: SegDataset) -> list[tuple[str, str, str | None]]:
    """The names of image, label and instance map of each sample."""
    assert isinstance(dataset, FileDataset)
    return [(s.image.name, s.label.name, s.instances.name if s.instances else None) for s in dataset.samples]


def assert_same_samples(ours: SegDataset, theirs: SegDataset) -> None:
    """The same files in the same order, with the same pixels, classes and instances."""
    assert samples_of(ours) == samples_of(theirs)
    for index in range(len(ours)):
        for one, other in zip(ours.load(index), theirs.load(index), strict=True):
            assert np.array_equal(one, other)
        one_map, other_map = ours.load_instances(index), theirs.load_instances(index)
        assert one_map is not None
        assert other_map is not None
        assert np.array_equal(one_map, other_map)
