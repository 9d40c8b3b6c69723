"""Data sets that fastseg reads by name, recognised by what their folders are called, and then by their label files.

People call their own folders so, too. What a value means is taken from the data set only where the files are called as
its files are and hold what only its files hold; a wrong guess would train on nonsense, or leave a class out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fastseg.data.ade20k import ADE20K
from fastseg.data.camvid import CAMVID
from fastseg.data.camvid_colours import RAW_VOID as CAMVID_VOID
from fastseg.data.cityscapes import CITYSCAPES
from fastseg.data.cityscapes_labels import PROOFS as CITYSCAPES_PROOFS
from fastseg.data.class_table import IGNORE
from fastseg.errors import printable
from fastseg.types import IGNORE_INDEX, DatasetInfo

Size = tuple[int, int]


@dataclass(frozen=True)
class KnownLayout:
    """`adapter` reads folders that have every part of `parts`.

    `tables` say what values are, by kind of label file, where all label files are called `files` and all images are of
    `size` (width, height). Of several kinds, the one holds that alone has a value of its `proofs`.
    """

    title: str
    adapter: str
    parts: tuple[str, ...]
    info: DatasetInfo | None = None
    tables: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    files: str = ""
    size: Size | None = None
    proofs: Mapping[str, Collection[int]] = field(default_factory=dict)

    def names(
        self, values: Collection[int], labels: Collection[str], sizes: Collection[Size]
    ) -> tuple[dict[int, str], str]:
        """What `values` mean there, 'ignore' included, and ''; or no names and what speaks against them.

        `labels` are the names of the label files, `sizes` those of the images. Neither where no values are known.
        """
        if not self.tables:
            return {}, ""
        strange = next((name for name in labels if not re.fullmatch(self.files, name)), None)
        if strange is not None:
            return {}, f"its label files are not called as {printable(strange)} is"
        if self.size is not None and set(sizes) != {self.size}:
            other = next(size for size in sizes if size != self.size)
            return {}, "its images are {}x{}, and here are some of {}x{}".format(*self.size, *other)
        kinds = list(self.tables)
        if self.proofs:
            kinds = [kind for kind, own in self.proofs.items() if any(value in own for value in values)]
            if len(kinds) != 1:
                what = ", ".join(f"{_ranges(own)} {kind}" for kind, own in self.proofs.items())
                return {}, f"the values do not say which of its label files these are ({what}; never both)"
        table = self.tables[kinds[0]]
        unknown = sorted(value for value in values if value not in table)
        if unknown:
            return {}, f"its label files have no value {unknown[0]}"
        return {value: table[value] for value in values}, ""


def _ranges(values: Collection[int]) -> str:
    return f"{min(values)}-{max(values)}:" if len(values) > 1 else f"{min(values)}:"


def _table(info: DatasetInfo, values: Collection[int], void: Collection[int]) -> dict[int, str]:
    return dict.fromkeys(void, IGNORE) | dict(zip(values, info.class_names, strict=True))


CITYSCAPES_TABLES = {
    "labelIds": _table(CITYSCAPES, CITYSCAPES.official_ids, range(34)),
    "labelTrainIds": _table(CITYSCAPES, range(CITYSCAPES.num_classes), (IGNORE_INDEX,)),
}
CAMVID_TABLES = {"": _table(CAMVID, CAMVID.official_ids, (CAMVID_VOID, IGNORE_INDEX))}
CAMVID_FRAMES = r"(0001TP_|0006R0_f|0016E5_|Seq05VD_f)\d+\.png"  # the four films
ADE20K_TABLES = {"": _table(ADE20K, ADE20K.official_ids, (0, IGNORE_INDEX))}
LAYOUTS = (
    KnownLayout(
        *("Cityscapes", "cityscapes", ("leftImg8bit", "gtFine"), CITYSCAPES, CITYSCAPES_TABLES),
        files=r".*_gt(Fine|Coarse)_label(Train)?Ids\.png",
        proofs=CITYSCAPES_PROOFS,
    ),
    KnownLayout("Cityscapes, zipped", "cityscapes", ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip")),
    KnownLayout(
        *("CamVid (SegNet)", "camvid11_480", ("train", "trainannot", "val", "valannot"), CAMVID, CAMVID_TABLES),
        files=CAMVID_FRAMES,
        size=(480, 360),
    ),
    KnownLayout("CamVid (the authors' colours)", "camvid32", ("701_StillsRaw_full", "LabeledApproved_full")),
    KnownLayout(
        *("ADE20K", "ade20k", ("images/training", "annotations/training"), ADE20K, ADE20K_TABLES),
        files=r"ADE_(train|val)_\d{8}\.png",
    ),
    KnownLayout("PASCAL-Context", "pascal_context", ("JPEGImages", "SegmentationClassContext")),
    KnownLayout("Mapillary Vistas", "mapillary", ("training/images", "training/labels")),
    KnownLayout("Mapillary Vistas", "mapillary", ("training/images", "training/v1.2/labels")),
    KnownLayout("Mapillary Vistas", "mapillary", ("training/images", "training/v2.0/labels")),
)


def known_layout(root: Path) -> KnownLayout | None:
    """The first layout all of whose parts are in `root`."""
    return next((each for each in LAYOUTS if all((root / part).exists() for part in each.parts)), None)
