"""Whatever stands in a label file of whatever data set becomes a class, is ignored, or is refused with its file.

Every adapter that is registered has to be here: add its tree to CASES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fastseg.data.camvid_colours import LABELS
from fastseg.data.dataset import DATASETS, FileDataset, build_dataset
from fastseg.data.matlab import read_matrix
from fastseg.data.road_scenes import road_scenes
from fastseg.errors import DataError, LabelError
from fastseg.types import IGNORE_INDEX
from trees.ade20k import write_ade20k
from trees.camvid import write_original, write_segnet
from trees.cityscapes import write_cityscapes
from trees.mapillary import write_mapillary
from trees.pascal_context import matlab_file, write_mat, write_png

SIZE = (16, 24)
WITHOUT_FILES = {"road_scenes"}  # drawn; tested at the end
SEGNET_SPLITS = {"val": {"images": "val", "labels": "valannot"}}
ORIGINAL_SPLITS = {"val": {"images": "701_StillsRaw_full", "labels": "LabeledApproved_full/*_L.png"}}
CORNERS = ([0, -1], [0, -1])  # what is painted: two pixels


@dataclass(frozen=True)
class Case:
    """A data set on disk. Labels are painted in `colours`, or numbers; `detects`: which, is seen when it is built."""

    dataset: str
    write: Callable[[Path], object]
    args: Mapping[str, object] = field(default_factory=dict)
    colours: bool = False
    detects: bool = False

    def build(self, root: Path) -> FileDataset:
        dataset = build_dataset(self.dataset, "val", root=str(root), args=dict(self.args))
        assert isinstance(dataset, FileDataset)
        return dataset


camvid_values, camvid_colours = partial(write_segnet, size=SIZE), partial(write_original, size=SIZE)
camvid_numbers = partial(camvid_colours, packing="fastai")
coarse = partial(write_cityscapes, size=SIZE, coarse=True)
train_ids = partial(write_cityscapes, size=SIZE, kinds=("labelTrainIds",))
MAPILLARY: Sequence[tuple[Literal["v1.2", "v2.0"], str, Literal["palette", "raw", "colour"]]] = (
    ("v1.2", "own", "palette"),
    ("v1.2", "all", "raw"),
    ("v1.2", "cityscapes", "palette"),
    ("v1.2", "cityscapes", "colour"),
    ("v2.0", "own", "palette"),
    ("v2.0", "all", "raw"),
    ("v2.0", "cityscapes", "palette"),
)
CASES = {
    "ade20k": Case("ade20k", partial(write_ade20k, size=SIZE)),
    "camvid, SegNet's": Case("camvid", camvid_values),
    "camvid, original": Case("camvid", camvid_colours, colours=True),
    "camvid11_480": Case("camvid11_480", camvid_values),
    "camvid11_960": Case("camvid11_960", camvid_colours, colours=True),
    "camvid11_960, fast.ai's": Case("camvid11_960", camvid_numbers),
    "camvid32": Case("camvid32", camvid_colours, colours=True),
    "camvid32, fast.ai's": Case("camvid32", camvid_numbers),
    "cityscapes": Case("cityscapes", partial(write_cityscapes, size=SIZE), detects=True),
    "cityscapes, labelIds": Case("cityscapes", partial(write_cityscapes, size=SIZE), {"labels": "labelIds"}),
    "cityscapes, train ids": Case("cityscapes", train_ids, detects=True),
    "cityscapes, labelTrainIds": Case("cityscapes", train_ids, {"labels": "labelTrainIds"}),
    "cityscapes, coarse": Case("cityscapes", coarse, {"annotations": "coarse"}, detects=True),
    "folder of values": Case(
        "folder",
        camvid_values,
        {"splits": SEGNET_SPLITS, "classes": {**{v: f"class {v}" for v in range(11)}, 11: "ignore"}},
    ),
    "folder of colours": Case(
        "folder",
        camvid_colours,
        {
            "splits": ORIGINAL_SPLITS,
            "classes": {"#{:02x}{:02x}{:02x}".format(*c): name if group else "ignore" for name, c, group in LABELS},
            "unpaired": "skip",
        },
        colours=True,
    ),
    **{
        f"mapillary {version}, {classes}, {labels}": Case(
            "mapillary",
            partial(write_mapillary, size=SIZE, version=version, labels=labels),
            {"version": version, "classes": classes},
            colours=labels == "colour",
        )
        for version, classes, labels in MAPILLARY
    },
    **{
        f"pascal_context {classes}, {kind}": Case("pascal_context", partial(write, size=SIZE), {"classes": classes})
        for classes in (59, 60)
        for kind, write in (("png", write_png), ("mat", write_mat))
    },
}


class Painted:
    """The first sample of a case, on disk, and what its label is before anything is painted."""

    def __init__(self, case: Case, root: Path) -> None:
        case.write(root)
        self.case, self.root = case, root
        self.dataset = case.build(root)
        self.file = Path(str(self.dataset.samples[0].label))
        self.content = self.file.read_bytes()
        self.before = self.dataset.load(0)[1]
        self.palette: list[int] | None = None
        if self.file.suffix == ".mat":
            self.pixels = read_matrix(self.file, "LabelMap")
        else:
            with Image.open(self.file) as image:
                self.pixels, self.palette = np.array(image), image.getpalette()
        assert (self.pixels.ndim == 3) == case.colours

    @contextmanager
    def restored(self) -> Iterator[None]:
        """The label file is afterwards what it was."""
        try:
            yield
        finally:
            self.file.write_bytes(self.content)

    def check(self, value: int | tuple[int, int, int]) -> None:
        """Paint two corners: they become one class, or are ignored, and nothing else changes; or both are named."""
        self._paint(value)
        for anew in (False, True) if self.case.detects else (False,):
            try:
                label = (self.case.build(self.root) if anew else self.dataset).load(0)[1]
            except LabelError as error:
                message = str(error)
                assert self.file.name in message, message
                assert f"{value}: 2 px" in message or f"(value {value})" in message, message
                continue
            (found,) = {int(pixel) for pixel in label[CORNERS]}
            assert found in {*range(self.dataset.info.num_classes), IGNORE_INDEX}
            if not anew:  # another kind, once detected, gives other pixels other classes, too
                expected = self.before.copy()
                expected[CORNERS] = found
                assert np.array_equal(label, expected)

    def _paint(self, value: int | tuple[int, int, int]) -> None:
        pixels = self.pixels.copy()
        pixels[CORNERS] = value
        if self.file.suffix == ".mat":
            self.file.write_bytes(matlab_file({"LabelMap": pixels}))
            return
        image = Image.fromarray(pixels)
        if self.palette is not None:
            image.putpalette(self.palette)
        image.save(self.file)


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Painted]:
    made: dict[str, Painted] = {}

    def get(name: str) -> Painted:
        if name not in made:
            made[name] = Painted(CASES[name], tmp_path_factory.mktemp("tree"))
        return made[name]

    return get


def test_every_data_set_that_is_registered_is_here() -> None:
    assert {case.dataset for case in CASES.values()} == set(DATASETS.names()) - WITHOUT_FILES


@pytest.mark.parametrize("name", CASES)
def test_every_value_is_a_class_or_ignored_or_refused_with_its_file(
    painted: Callable[[str], Painted], name: str
) -> None:
    target = painted(name)
    with target.restored():
        for value in range(256):
            target.check((value, value, value) if target.case.colours else value)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.colours])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(colour=st.tuples(*[st.integers(0, 255)] * 3), known=st.booleans(), beside=st.sampled_from([0, 1, 255]))
def test_any_colour_is_a_class_or_ignored_or_refused_with_its_file(
    painted: Callable[[str], Painted], name: str, colour: tuple[int, int, int], known: bool, beside: int
) -> None:
    target = painted(name)
    if known:  # one of the table, or right beside it
        palette = target.dataset.info.palette
        red, green, blue = palette[sum(colour) % len(palette)]
        colour = red, green, (blue + beside) % 256
    with target.restored():
        target.check(colour)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.integers(0, 65535), classes=st.sampled_from([59, 60]))
def test_any_number_in_a_mat_file(painted: Callable[[str], Painted], value: int, classes: int) -> None:
    target = painted(f"pascal_context {classes}, mat")
    with target.restored():
        target.check(value)


@pytest.mark.parametrize("name", CASES)
def test_a_label_of_the_other_kind_is_refused_with_its_file(painted: Callable[[str], Painted], name: str) -> None:
    """A colour picture where numbers are expected, and grey numbers where colours are."""
    target = painted(name)
    other = np.full(SIZE, 77, np.uint8) if target.case.colours else np.full((*SIZE, 3), (1, 2, 3), np.uint8)
    with target.restored():
        Image.fromarray(other).save(target.file, format="PNG")
        with pytest.raises(DataError, match=target.file.name):
            target.dataset.load(0)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_drawn_labels_are_classes_or_ignored(split: str) -> None:
    dataset = road_scenes(split, height=48, width=96)
    for index in range(0, len(dataset), max(1, len(dataset) // 8)):
        found = {int(value) for value in np.unique(dataset.load(index)[1])}
        assert found <= {*range(dataset.info.num_classes), IGNORE_INDEX}
