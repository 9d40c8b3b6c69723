"""Mapillary Vistas v1.2 and v2.0: 18,000 train and 2,000 val images of many sizes, some above 20 megapixels.

v1.2: root/{training,validation}/images/*.jpg and labels/*.png, root/config_v1.2.json (config.json in v1.1, which has
      the same 66 labels)
v2.0: root/{training,validation}/images/*.jpg, v1.2/labels/*.png and v2.0/labels/*.png, root/config_v1.2.json and
      root/config_v2.0.json

Labels, their colours and which of them count are read from the data set's own JSON, in whose order they are numbered.
Of v1.2's 66 labels 65 are evaluated, of v2.0's 124 labels 116; the others (Unlabeled; in v2.0 also what is ambiguous,
and groups) are ignored. Instance maps (label x 256 + number) and panoptic maps are not read.

Source: Neuhold et al., "The Mapillary Vistas Dataset for Semantic Understanding of Street Scenes", ICCV 2017; the
layout is that of demo.py and README in the data set's archives.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastseg.data import listing
from fastseg.data.cityscapes import CITYSCAPES
from fastseg.data.coding import INVALID, Colours, LabelCoding, Values
from fastseg.data.dataset import DATASETS, FileDataset, SegDataset
from fastseg.data.files import read_head
from fastseg.data.mapillary_to_cityscapes import CLASS_OF_LABEL
from fastseg.data.png import HEADER, RGB, RGB_ALPHA, png_header
from fastseg.errors import DataError, MissingFileError, printable, suggest
from fastseg.types import IGNORE_INDEX, DatasetInfo

NAME = "mapillary"
FOLDERS = {"train": "training", "val": "validation"}
CHOICES = ("own", "all", "cityscapes")


@dataclass(frozen=True)
class Version:
    """Where a version's label maps lie in the folder of a split, and the JSON file that describes them in the root.

    Several places and names are those of archives of different years.
    """

    labels: tuple[str, ...]
    json: tuple[str, ...]


VERSIONS = {
    "v2.0": Version(("v2.0/labels",), ("config_v2.0.json",)),
    "v1.2": Version(("v1.2/labels", "labels"), ("config_v1.2.json", "config.json")),
}
EXPECTED = ("training/images/", "training/labels/ or training/v1.2/labels/ or training/v2.0/labels/", "config*.json")


@dataclass(frozen=True)
class Label:
    """One entry of the data set's JSON. `name` is its path in Mapillary's tree of labels, `readable` its name."""

    name: str
    readable: str
    colour: tuple[int, int, int]
    evaluate: bool


@DATASETS.register
def mapillary(root: str, split: str, version: str = "auto", classes: str = "own") -> SegDataset:
    """Mapillary Vistas below `root`; `split` is 'train' or 'val'.

    `version` is 'v1.2', 'v2.0' or 'auto', the newest whose labels are there. `classes` are the data set's 'own', those
    that it evaluates (65 or 116); 'all' of its labels (66 or 124), with Unlabeled as a class; or 'cityscapes', the 19
    of that data set. Label maps hold numbers (grey or palette images) or the colours of the JSON. Raises
    MissingFileError for a root, folder or JSON that does not exist and for images and labels without a partner;
    DataError for an unknown split, version or choice of classes, a JSON that cannot be used, and one colour for two
    labels that differ in class.
    """
    folder = listing.require_root(root, NAME, EXPECTED)
    if classes not in CHOICES:
        raise DataError(f"{NAME} has no classes {classes!r} (data.args.classes); {suggest(str(classes), CHOICES)}")
    _require_split(split)
    version = _version(folder, version)
    images = listing.require_folder(folder / FOLDERS[split] / "images", NAME, EXPECTED)
    maps = _labels_folder(folder / FOLDERS[split], version)
    source = _json_file(folder, version)
    labels = read_labels(source, version)
    info, values = _classes(labels, classes, source)
    samples = listing.samples_from_folders(images, maps, image_suffixes=(".jpg",))
    first = Path(str(samples[0].label))
    coding = _colours(labels, values, first, source) if _is_painted(first) else _numbers(values, version)
    return FileDataset(info, samples, coding)


def _require_split(split: str) -> None:
    """Raises DataError for a split other than train and val."""
    if split in ("test", "testing"):
        raise DataError(
            f"{NAME} has no labels for its testing images; score on val, or label the images with `fastseg predict`"
        )
    if split not in FOLDERS:
        raise DataError(f"{NAME} has no split {split!r}; {suggest(split, FOLDERS)}")


def _version(root: Path, wanted: str) -> str:
    """The version to read. Raises DataError for one that does not exist, MissingFileError for one not on disk."""
    found = [
        version
        for version, layout in VERSIONS.items()
        if any((root / folder / place).is_dir() for folder in FOLDERS.values() for place in layout.labels)
    ]
    if wanted == "auto":
        if found:
            return found[0]
        raise MissingFileError(
            f"{printable(root)} has no label maps of {NAME}, neither of v2.0 nor of v1.2; it contains: "
            f"{listing.contents(root)}; {NAME} expects {', '.join(EXPECTED)} in data.root"
        )
    version = f"v{str(wanted).removeprefix('v')}"  # YAML reads 2.0 as a number
    if version not in VERSIONS:
        raise DataError(
            f"{NAME} has no version {wanted!r} (data.args.version); {suggest(version, [*VERSIONS, 'auto'])}"
        )
    if version not in found:
        places = " or ".join(f"training/{place}/" for place in VERSIONS[version].labels)
        there = (
            f"data.args.version={found[0]} is there"
            if found
            else f"it contains: {listing.contents(root)}; data.root has to hold training/ and validation/"
        )
        raise MissingFileError(f"{printable(root)} has no label maps of {NAME} {version} ({places}); {there}")
    return version


def _labels_folder(split_folder: Path, version: str) -> Path:
    """The folder of a split's label maps. Raises MissingFileError."""
    places = [split_folder / place for place in VERSIONS[version].labels]
    return next((place for place in places if place.is_dir()), None) or listing.require_folder(
        places[0], NAME, EXPECTED
    )


def _json_file(root: Path, version: str) -> Path:
    """The file that describes a version's labels. Raises MissingFileError."""
    names = VERSIONS[version].json
    for name in names:
        if (root / name).is_file():
            return root / name
    raise MissingFileError(
        f"{printable(root)} has no {' or '.join(names)}, which says what the labels of {NAME} {version} mean; it "
        f"contains: {listing.contents(root)}; take the file from the root of the data set's archive"
    )


def read_labels(file: Path, version: str) -> list[Label]:
    """The labels that the data set's JSON describes, by their numbers in the label maps.

    Raises DataError for a file that is no such JSON or describes another version, for a label that lacks its name,
    readable name, colour or evaluate, names that occur twice, and more labels than an 8-bit map can tell from void.
    """
    where = printable(file)
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{where} cannot be read as JSON: {printable(error)}; take it from the data set's archive again"
        ) from None
    entries = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{where} has no list 'labels', or an empty one; take it from the data set's archive again")
    if len(entries) > INVALID:
        raise DataError(f"{where} has {len(entries)} labels; allowed are {INVALID}, as label maps have 8 bits")
    said = str(content.get("version", version)).removeprefix("v")
    if said.partition(".")[0] != version[1]:  # v1.1 and v1.2 have the same labels
        raise DataError(
            f"{where} describes version {printable(said)} of the data set, not {version}; exchange the file"
        )
    labels = [_label(entry, f"{where}: label {number}") for number, entry in enumerate(entries)]
    for kind, names in (("name", [x.name for x in labels]), ("readable", [x.readable for x in labels])):
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise DataError(
                f"{where} has the {kind} {printable(twice[0])!r} more than once; a label is known by its name"
            )
    return labels


def _label(entry: Any, where: str) -> Label:
    """An entry of the JSON. Raises DataError naming the key."""
    if not isinstance(entry, dict):
        raise DataError(f"{where} is {printable(repr(entry))[:80]}; it has to be a table with name, color and evaluate")
    colour = entry.get("color")
    is_colour = isinstance(colour, list) and len(colour) == 3 and all(type(x) is int and 0 <= x <= 255 for x in colour)
    problems = {
        "name": not isinstance(entry.get("name"), str),
        "readable": not isinstance(entry.get("readable"), str),
        "evaluate": not isinstance(entry.get("evaluate"), bool),
        "color": not is_colour,
    }
    for key, wrong in problems.items():
        if wrong:
            given = printable(repr(entry[key]))[:80] if key in entry else "missing"
            raise DataError(
                f"{where} ({printable(entry.get('name'))}): {key} is {given}; a label has name and readable (text), "
                "evaluate (true or false) and color (three numbers in 0..255)"
            )
    red, green, blue = entry["color"]
    return Label(entry["name"], entry["readable"], (red, green, blue), entry["evaluate"])


def _classes(labels: list[Label], choice: str, source: Path) -> tuple[DatasetInfo, list[int]]:
    """What the classes are, and the class, or IGNORE_INDEX, of each label. Raises DataError where there are none."""
    if choice == "cityscapes":
        names = CITYSCAPES.class_names
        missing = [name for name in names if name not in {CLASS_OF_LABEL.get(label.name) for label in labels}]
        if missing:
            raise DataError(
                f"no label in {printable(source)} is one of Cityscapes' classes {', '.join(missing)}; take the file "
                "from the data set's archive again, or set data.args.classes=own"
            )
        classes = [CLASS_OF_LABEL.get(label.name) for label in labels]
        values = [IGNORE_INDEX if name is None else names.index(name) for name in classes]
        return DatasetInfo(NAME, names, CITYSCAPES.palette, official_ids=CITYSCAPES.official_ids), values
    kept = [number for number, label in enumerate(labels) if label.evaluate or choice == "all"]
    if not kept:
        raise DataError(f"{printable(source)} evaluates none of its {len(labels)} labels, so there is no class")
    info = DatasetInfo(
        NAME,
        tuple(labels[number].readable for number in kept),
        tuple(labels[number].colour for number in kept),
        official_ids=tuple(kept),
    )
    return info, [kept.index(number) if number in kept else IGNORE_INDEX for number in range(len(labels))]


def _numbers(values: list[int], version: str) -> LabelCoding:
    """Label maps that hold the labels' numbers."""
    table = np.full(256, INVALID, np.uint8)
    table[: len(values)] = values
    hint = f"{version} has {len(values)} labels; data.args.version says which version to read"
    return Values(table, NAME, hint=hint)


def _colours(labels: list[Label], values: list[int], file: Path, source: Path) -> LabelCoding:
    """Label maps painted in the labels' colours. Raises DataError for a colour of two labels that differ in class."""
    table: dict[tuple[int, int, int], int] = {}
    owner: dict[tuple[int, int, int], str] = {}
    for label, value in zip(labels, values, strict=True):
        if table.setdefault(label.colour, value) != value:
            raise DataError(
                f"{printable(file)} is painted in colours, and {printable(source)} gives {label.colour} to both "
                f"{owner[label.colour]!r} and {label.name!r}, which are different classes here; use the palette images "
                "of the data set's archive, whose values are numbers"
            )
        owner.setdefault(label.colour, label.name)
    return Colours(table, NAME, hint=f"Its colours are those of {printable(source)}")


def _is_painted(file: Path) -> bool:
    """Whether a PNG holds colours, not numbers."""
    try:
        header = png_header(read_head(file, HEADER.size))
    except OSError:  # the reader says what is wrong when the file is loaded
        return False
    return header is not None and header.colour_type in (RGB, RGB_ALPHA)
