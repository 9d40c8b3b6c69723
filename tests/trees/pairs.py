"""A tree of random pictures in SegNet's layout of CamVid, sound in every respect, and files in it to spoil."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from fastseg.config import Config

SIZE = (12, 20)
SPLITS = {"train": 3, "val": 2, "test": 1}


def write_pairs(root: Path, counts: Mapping[str, int] = SPLITS, *, size: tuple[int, int] = SIZE) -> Path:
    """`counts` images of `size` (height, width) of noise per split, from 0.png on; labels show every class and void."""
    random = np.random.default_rng(0)
    for split, count in counts.items():
        for index in range(count):
            write(root / split / f"{index}.png", random.integers(0, 256, (*size, 3), dtype=np.uint8))
            write(root / f"{split}annot" / f"{index}.png", np.resize(np.arange(12, dtype=np.uint8), size))
    return root


def write(path: Path, pixels: np.ndarray) -> None:
    """An image file, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def read(path: Path) -> np.ndarray:
    """The pixels as they are stored."""
    return np.array(Image.open(path))


def truncate(path: Path) -> None:
    """Cut off the second half, as a broken download does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def config_for(root: Path) -> Config:
    """A configuration that trains on `train` and scores on `val`, with crops that the images fill."""
    config = Config(source="garden.yaml", run_dir=str(root / "run"))
    config.data.name = "camvid"
    config.data.root = str(root)
    config.data.workers = 0
    config.augment.crop = (8, 12)
    return config
