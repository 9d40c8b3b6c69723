"""Somebody's own data set: pictures beside labels, in whatever folders and under whatever names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from fastseg.data.class_table import numbered_colour
from trees import scene

SIZE = (48, 64)
VOC_COLOURS = np.array([numbered_colour(index) for index in range(256)], np.uint8)
Paint = Callable[[np.ndarray], Image.Image]


def values(classes: np.ndarray) -> Image.Image:
    """Grey: the classes 0..9, and 11 for void, as SegNet's CamVid has it."""
    return Image.fromarray(np.where(classes == 255, 11, classes).astype(np.uint8))


def colours(classes: np.ndarray) -> Image.Image:
    """RGB in PASCAL VOC's colours; void has that of 255."""
    return Image.fromarray(VOC_COLOURS[classes])


def palette(classes: np.ndarray) -> Image.Image:
    """As `colours`, by index."""
    picture = Image.fromarray(classes)
    picture.putpalette(VOC_COLOURS.tobytes())
    return picture


def write_pairs(
    root: Path,
    images: str,
    labels: str,
    names: Iterable[str] = ("a", "b", "c", "d"),
    *,
    paint: Paint = values,
    size: tuple[int, int] = SIZE,
) -> None:
    """A road scene for every name that replaces '{}' in the two paths; `size` is (H,W)."""
    for index, name in enumerate(names):
        image, classes = scene(index, *size)
        for path, picture in ((images, Image.fromarray(image)), (labels, paint(classes))):
            file = root / path.replace("{}", name)
            file.parent.mkdir(parents=True, exist_ok=True)
            picture.save(file)


def write_segnet(root: Path, splits: Iterable[str] = ("train", "val")) -> None:
    """Folders called like those of CamVid in SegNet's layout."""
    for split in splits:
        write_pairs(root, f"{split}/{{}}.png", f"{split}annot/{{}}.png", [f"{split}_{n}" for n in "abcd"])


def write_binary(root: Path, names: str = "abcdef", *, strays: int = 0) -> None:
    """Foreground is 255; `strays` pixels of the fourth file (or the last) are 128."""
    write_pairs(root, "i/{}.jpg", "l/{}.png", names, size=(160, 240))
    for index, name in enumerate(names):
        mask = np.where(scene(index, 160, 240)[1] > 2, 255, 0).astype(np.uint8)
        if index == min(3, len(names) - 1):
            mask[0, :strays] = 128
        Image.fromarray(mask).save(root / f"l/{name}.png")
