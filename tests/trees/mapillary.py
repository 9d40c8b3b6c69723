"""Mapillary Vistas as its archives unpack: `write_mapillary(root, version="v2.0")`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fastseg.data.road_scenes import ROAD_SCENES
from trees import scene
from trees.mapillary_labels import LABELS

# names of 22 characters, as in the archives' {key:.{22}}
NAMES = {
    "training": ("--jRsD9anHdGxv4ZOCQktA", "_0a9kT3eW5yqVbNcL2mXzQ", "Zk8rPq1LwD_t6vYhJ0sBnA"),
    "validation": ("-2bZ6cFvM1uHdXqR8tJwLg", "s7YpA0oKe3_iGhU5fNzTxw"),
}
# what stands for each class of road scenes
STAND_IN = {
    "road": ("construction--flat--road",),
    "sidewalk": ("construction--flat--sidewalk",),
    "building": ("construction--structure--building",),
    "pole": ("object--support--pole",),
    "traffic sign": ("object--traffic-sign--front",),
    "vegetation": ("nature--vegetation",),
    "terrain": ("nature--terrain",),
    "sky": ("nature--sky",),
    "person": ("human--person", "human--person--individual"),
    "car": ("object--vehicle--car",),
}
INSTANCE_FACTOR = 256


def document(version: str) -> dict[str, Any]:
    """The content of the JSON beside the images, whose other keys are those of the archives."""
    mapping = {"v1.2": "public", "v2.0": "mvd20"}[version]
    return {
        "labels": LABELS[version],
        "version": {"v1.2": 1.2, "v2.0": "2.0"}[version],
        "mapping": mapping,
        "folder_structure": "{split}/{content}/{key:.{22}}.{ext}",
    }


def numbers(version: str, index: int, size: tuple[int, int]) -> np.ndarray:
    """Label numbers uint8 (H,W) of scene `index`."""
    names = [label["name"] for label in LABELS[version]]
    table = np.full(256, names.index("void--unlabeled"), np.uint8)
    for value, name in enumerate(ROAD_SCENES.class_names):
        table[value] = next(names.index(stand_in) for stand_in in STAND_IN[name] if stand_in in names)
    raw: np.ndarray = table[scene(index, *size)[1]]
    return raw


def write_mapillary(
    root: Path,
    *,
    version: str = "v1.2",
    size: tuple[int, int] = (32, 64),
    labels: str = "palette",
    json_name: str = "",
) -> Path:
    """The data set below `root`, which is returned: three training and two validation images of `size` (H,W), and one
    for testing.

    `version` is 'v1.2' or 'v2.0', whose archive holds the label maps of v1.2, too. `labels` are 'palette' images as in
    the archives, the bare numbers ('raw'), or painted in the colours of the JSON ('colour').
    """
    versions = ("v1.2", "v2.0") if version == "v2.0" else ("v1.2",)
    for each in versions:
        name = json_name if json_name and each == version else f"config_{each}.json"
        root.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(document(each), indent=2))
    for split, names in NAMES.items():
        for index, name in enumerate(names):
            folder = root / split
            _save(Image.fromarray(scene(index, *size)[0]), folder / "images" / f"{name}.jpg")
            for each in versions:
                place = folder / each if version == "v2.0" else folder
                raw = numbers(each, index, size)
                save_labels(raw, place / "labels" / f"{name}.png", each, labels)
                _save(Image.fromarray(raw.astype(np.uint16) * INSTANCE_FACTOR), place / "instances" / f"{name}.png")
    _save(Image.fromarray(scene(7, *size)[0]), root / "testing/images/Qw3eR5tY7uI9oP1aS2dF4g.jpg")
    return root


def save_labels(raw: np.ndarray, path: Path, version: str, kind: str) -> None:
    """Write a map of label numbers uint8 (H,W) in one of the kinds that `write_mapillary` knows."""
    colours = np.array([label["color"] for label in LABELS[version]], np.uint8)
    if kind == "colour":
        _save(Image.fromarray(colours[raw]), path)
        return
    image = Image.fromarray(raw)
    if kind == "palette":
        image.putpalette(colours.tobytes())  # turns the mode into P and keeps the values
    _save(image, path)


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
