"""Splits joined by '+', in the layout of every data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fastseg.data.dataset import build_dataset
from fastseg.errors import DataError
from trees.ade20k import write_ade20k
from trees.camvid import write_original, write_segnet
from trees.cityscapes import write_cityscapes
from trees.mapillary import write_mapillary
from trees.pascal_context import write_mat, write_png

SIZE = (16, 24)
Case = tuple[str, Callable[[Path], object], Mapping[str, object]]
CASES: dict[str, Case] = {
    "ade20k": ("ade20k", partial(write_ade20k, size=SIZE), {}),
    "camvid11_480": ("camvid11_480", partial(write_segnet, size=SIZE), {}),
    "camvid11_960": ("camvid11_960", partial(write_original, size=SIZE), {}),
    "camvid32": ("camvid32", partial(write_original, size=SIZE), {}),
    "cityscapes": ("cityscapes", partial(write_cityscapes, size=SIZE), {}),
    "cityscapes, zipped": ("cityscapes", partial(write_cityscapes, size=SIZE, zipped=True), {}),
    "mapillary v1.2": ("mapillary", partial(write_mapillary, size=SIZE), {"classes": "cityscapes"}),
    "mapillary v2.0": ("mapillary", partial(write_mapillary, size=SIZE, version="v2.0"), {}),
    "pascal_context, png": ("pascal_context", partial(write_png, size=SIZE), {}),
    "pascal_context, mat": ("pascal_context", partial(write_mat, size=SIZE), {}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_trainval_is_train_and_then_val_without_a_sample_twice(tmp_path: Path, case: Case) -> None:
    name, write, args = case
    write(tmp_path)
    train, val, both = (
        build_dataset(name, split, root=str(tmp_path), args=dict(args)) for split in ("train", "val", "train+val")
    )
    parts = [(part, index) for part in (train, val) for index in range(len(part))]
    assert len(train) > 0
    assert len(val) > 0
    assert len(both) == len(parts)
    assert both.info == train.info
    assert len({both.identity(index) for index in range(len(both))}) == len(both)
    for place, (part, index) in enumerate(parts):
        assert both.sample_name(place) == part.sample_name(index)
        assert both.identity(place) == part.identity(index)
        for one, other in zip(both.load(place), part.load(index), strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_misspelt_part_of_a_joined_split_is_named(tmp_path: Path, case: Case) -> None:
    name, write, args = case
    write(tmp_path)
    with pytest.raises(DataError, match="vall"):
        build_dataset(name, "train+vall", root=str(tmp_path), args=dict(args))
