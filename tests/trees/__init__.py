"""Small trees in the layout of each data set, byte-faithful in names, modes and ids; pictures are road scenes.

One module per data set: `from trees.cityscapes import write_cityscapes`.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from fastseg.data.road_scenes import road_scenes


@cache
def scene(index: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Road scene `index`: uint8 image (H,W,3) and classes (H,W), 0..9 or 255; both shared, not to be written."""
    return road_scenes("train", height=height, width=width).load(index)
