"""PASCAL-Context in small: as mmsegmentation converts it (PNG) and as its authors released it (.mat of 459 labels)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from fastseg.data.pascal_context import CLASS_NAMES, CLASSES
from fastseg.data.road_scenes import ROAD_SCENES
from trees import scene

ROWS: Mapping[str, tuple[str, ...]] = {"train": ("2008_000002", "2008_000008"), "val": ("2008_000003",)}
LABELS = {  # class of road scenes -> its name among the 459; some are none of the 59
    "road": "road",
    "sidewalk": "sidewalk",
    "building": "building",
    "pole": "pole",
    "traffic sign": "sign",
    "vegetation": "tree",
    "terrain": "grass",
    "sky": "sky",
    "person": "person",
    "car": "car",
}
POLE, UNKNOWN = 303, 431  # numbers of labels.txt that are background
# VOC's 20 go first in 59_labels.txt, and three classes have other names than in labels.txt
# fmt: off
VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "table", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
OTHER_NAMES = {"table": "diningtable", "bedclothes": "bedcloth", "cloth": "clothes"}
TYPES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 9, "i8": 12, "u8": 13}
ARRAYS = {"f8": 6, "f4": 7, "i1": 8, "u1": 9, "i2": 10, "u2": 11, "i4": 12, "u4": 13, "i8": 14, "u8": 15}


def write_png(root: Path, *, size: tuple[int, int] = (33, 47)) -> Path:
    """Write VOC2010 as `root` with mmsegmentation's label maps and lists."""
    for names in ROWS.values():
        for index, name in enumerate(names):
            numbers = _write_image(root, name, index, size)
            values = np.zeros(460, np.uint8)
            for value, label in enumerate(CLASS_NAMES, start=1):
                values[CLASSES[label]] = value
            save(root / "SegmentationClassContext" / f"{name}.png", values[numbers])
    _write_lists(root / "ImageSets/SegmentationContext")
    return root


def write_mat(root: Path, *, size: tuple[int, int] = (33, 47), names: bool = True, compressed: bool = True) -> Path:
    """Write VOC2010 as `root` with the authors' trainval/*.mat and VOC's lists; `names` adds both label lists."""
    for rows in ROWS.values():
        for index, name in enumerate(rows):
            numbers = _write_image(root, name, index, size)
            (root / "trainval").mkdir(exist_ok=True)
            content = matlab_file({"LabelMap": numbers}, compressed=compressed)
            (root / "trainval" / f"{name}.mat").write_bytes(content)
    _write_lists(root / "ImageSets/Main")
    (root / "ImageSets/Main/car_train.txt").write_text("2008_000002  1\n2008_000008 -1\n")
    if names:
        known = {number: name for name, number in CLASSES.items()}
        rows_459 = [f"{number}: {known.get(number, f'other {number}')}\n" for number in range(1, 460)]
        (root / "labels.txt").write_text("".join(rows_459))
        ordered = [*VOC, *(name for name in CLASS_NAMES if name not in VOC)]
        rows_59 = [f"{index}: {OTHER_NAMES.get(name, name)}\n" for index, name in enumerate(ordered, start=1)]
        (root / "59_labels.txt").write_text("".join(rows_59))
    return root


def matlab_file(
    variables: Mapping[str, np.ndarray], *, compressed: bool = True, order: str = "<", stored: str | None = None
) -> bytes:
    """A MATLAB level-5 file. `order` is '<' or '>'; `stored` the type of the numbers in the file, such as 'u1'."""
    content = b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8)
    content += struct.pack(f"{order}H", 0x0100) + {"<": b"IM", ">": b"MI"}[order]
    for name, array in variables.items():
        kind = array.dtype.str[1:]
        numbers = array.ravel(order="F").astype(f"{order}{stored or kind}").tobytes()
        parts = _element(6, struct.pack(f"{order}II", ARRAYS[kind], 0), order)
        parts += _element(5, struct.pack(f"{order}{array.ndim}i", *array.shape), order)
        parts += _element(1, name.encode(), order)
        parts += _element(TYPES[stored or kind], numbers, order)
        matrix = struct.pack(f"{order}II", 14, len(parts)) + parts
        if compressed:
            packed = zlib.compress(matrix)
            matrix = struct.pack(f"{order}II", 15, len(packed)) + packed
        content += matrix
    return content


def _element(kind: int, data: bytes, order: str) -> bytes:
    """A data element, in the short form where it fits, padded to 64 bits."""
    if 0 < len(data) <= 4:
        return struct.pack(f"{order}I", len(data) << 16 | kind) + data.ljust(4, b"\0")
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def _write_image(root: Path, name: str, index: int, size: tuple[int, int]) -> np.ndarray:
    """An image; returns its numbers of the 459 labels."""
    image, classes = scene(index, *size)
    save(root / "JPEGImages" / f"{name}.jpg", image)
    numbers = np.full(classes.shape, UNKNOWN, np.uint16)
    for place, road_scenes_name in enumerate(ROAD_SCENES.class_names):
        numbers[classes == place] = CLASSES.get(LABELS[road_scenes_name], POLE)
    return numbers


def _write_lists(folder: Path) -> None:
    folder.mkdir(parents=True)
    for split, names in ROWS.items():
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
