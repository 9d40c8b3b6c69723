"""What every value or colour of unknown labels is taken for, and on what grounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fastseg.data.class_table import IGNORE
from fastseg.data.coding import unpacked
from fastseg.data.known_colours import Colour, files_fit, known_names
from fastseg.data.known_layouts import KnownLayout
from fastseg.data.label_survey import STRAY_SHARE, Survey
from fastseg.types import IGNORE_INDEX

BINARY = {0, 255}  # foreground is white
BLACK = (0, 0, 0)


@dataclass(frozen=True)
class Meaning:
    """A value or packed colour and what it is taken for: a class or 'ignore'; `colour` where one is known.

    `certain` where a data set is known to have it.
    """

    code: int
    name: str
    colour: Colour | None = None
    comment: str = ""
    certain: bool = False


@dataclass
class Meanings:
    """One row for every value or colour. `doubt` says why they are not those of the data set with such folders."""

    rows: list[Meaning] = field(default_factory=list)
    source: str = ""
    doubt: str = ""


def meanings_of(seen: Survey, known: KnownLayout | None, labels: Sequence[str]) -> Meanings:
    """What every value or colour is taken for, in order of the codes; `labels` are the names of the files.

    A class that nothing names is class_<value>, or class_<number> where colours have no value.
    """
    result = Meanings()
    codes = sorted(seen.tally.pixels)
    colours: dict[int, Colour] = {}
    if seen.coloured:
        colours = {code: unpacked(code) for code in codes}
    elif not seen.palettes_differ and any(colour != (value,) * 3 for value, colour in seen.palette.items()):
        colours = {code: seen.palette[code] for code in codes if code in seen.palette}
    names: dict[int, str] = {}
    comments: dict[int, str] = {}
    title, source = "", ""
    if known is not None:
        if not seen.coloured:
            names, result.doubt = known.names(codes, labels, seen.sizes)
        elif known.tables:
            result.doubt = "its label files hold values, and these hold colours"
        title, source = known.title, f"the layout of {known.title}"
    by_colour = known_names(set(colours.values()))
    if not names and by_colour is not None:
        title, source = by_colour[0], f"the colours of {by_colour[0]}"
        names, comments = _by_colour(by_colour[1], colours, title, sure=files_fit(title, labels))
    if set(names.values()) <= {IGNORE}:
        names, source = {}, ""  # nothing but void would be left
    result.source = source
    least = STRAY_SHARE * sum(seen.tally.pixels.values())
    weighty = {code for code in codes if seen.tally.pixels[code] >= least}
    binary = not seen.coloured and weighty == BINARY
    grey = seen.coloured and all(len(set(colour)) == 1 for colour in colours.values())
    number = 0
    for code in codes:
        name, comment = names.get(code, ""), comments.get(code, "")
        if name == IGNORE:
            comment = f"void in {title}"
        elif not name and not seen.coloured and code == IGNORE_INDEX and not binary and len(codes) > 1:
            name, comment = IGNORE, "255 is void by custom: check"
        if not name:
            name = f"class_{colours[code][0] if grey else number if seen.coloured else code}"
            number += 1
            if not comment and colours.get(code) == BLACK and not names:
                comment = "black is often void or background: write ignore if it is void"
            elif not comment and binary and code == IGNORE_INDEX:
                comment = "taken for a class, since 0 is the only other value"
            if not comment and code not in weighty:
                comment = "very few pixels: a mistake?"
        result.rows.append(Meaning(code, name, colours.get(code), comment, code in names or code in comments))
    return result


def _by_colour(
    table: Mapping[Colour, tuple[str, ...]], colours: Mapping[int, Colour], title: str, *, sure: bool
) -> tuple[dict[int, str], dict[int, str]]:
    """Names by code as `table` has them, and comments on those that are not certain, which get no name."""
    names: dict[int, str] = {}
    comments: dict[int, str] = {}
    for code, called in ((code, table[colour]) for code, colour in colours.items() if colour in table):
        if sure and len(called) == 1:
            names[code] = called[0]
        else:
            shown = "void: write ignore if it is" if called == (IGNORE,) else " or ".join(called)
            comments[code] = f"in {title}, {shown}"
    return names, comments
