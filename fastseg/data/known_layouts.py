"""Data sets that fastseg reads by name, recognised by what their folders are called."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastseg.data.ade20k import ADE20K
from fastseg.data.camvid import CAMVID
from fastseg.data.camvid_colours import RAW_VOID as CAMVID_VOID
from fastseg.data.cityscapes import CITYSCAPES
from fastseg.data.class_table import IGNORE
from fastseg.types import IGNORE_INDEX, DatasetInfo


@dataclass(frozen=True)
class KnownLayout:
    """`adapter` reads folders that have every part of `parts`; values of its label files are classes or `void`."""

    title: str
    adapter: str
    parts: tuple[str, ...]
    info: DatasetInfo | None = None
    void: Collection[int] = ()

    def names(self, values: Collection[int]) -> dict[int, str] | None:
        """What `values` mean there, 'ignore' included; None where that is not known, or a value is not one of its."""
        if self.info is None:
            return None
        table: Mapping[int, str] = dict.fromkeys((*self.void, IGNORE_INDEX), IGNORE) | dict(
            zip(self.info.official_ids, self.info.class_names, strict=True)
        )
        return {value: table[value] for value in values} if all(value in table for value in values) else None


LAYOUTS = (
    KnownLayout("Cityscapes", "cityscapes", ("leftImg8bit", "gtFine"), CITYSCAPES, range(34)),
    KnownLayout("Cityscapes, zipped", "cityscapes", ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip")),
    KnownLayout("CamVid (SegNet)", "camvid11_480", ("train", "trainannot", "val", "valannot"), CAMVID, (CAMVID_VOID,)),
    KnownLayout("CamVid (the authors' colours)", "camvid32", ("701_StillsRaw_full", "LabeledApproved_full")),
    KnownLayout("ADE20K", "ade20k", ("images/training", "annotations/training"), ADE20K, (0,)),
    KnownLayout("PASCAL-Context", "pascal_context", ("JPEGImages", "SegmentationClassContext")),
    KnownLayout("Mapillary Vistas", "mapillary", ("training/images", "training/labels")),
    KnownLayout("Mapillary Vistas", "mapillary", ("training/images", "training/v1.2/labels")),
    KnownLayout("Mapillary Vistas", "mapillary", ("training/images", "training/v2.0/labels")),
)


def known_layout(root: Path) -> KnownLayout | None:
    """The first layout all of whose parts are in `root`."""
    return next((each for each in LAYOUTS if all((root / part).exists() for part in each.parts)), None)
