"""What is in a folder of images and labels: pairs by split, sizes, label values or colours, and what they may mean."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fastseg.data import listing, pairing
from fastseg.data.class_table import IGNORE, MOST_CLASSES
from fastseg.data.coding import unpacked
from fastseg.data.known_colours import Colour, files_fit, known_names
from fastseg.data.known_layouts import KnownLayout, known_layout
from fastseg.data.label_survey import Survey, survey
from fastseg.data.layout_guess import Layout, guess_layout
from fastseg.data.readers import IMAGE_SUFFIXES
from fastseg.errors import DataError, printable
from fastseg.types import IGNORE_INDEX, Sample

SHOWN = 10
BINARY = {0, 255}  # foreground is white
BLACK = (0, 0, 0)


@dataclass(frozen=True)
class Meaning:
    """A value or packed colour and what it is taken for: a class or 'ignore'; `colour` where one is known."""

    code: int
    name: str
    colour: Colour | None = None
    comment: str = ""


@dataclass
class Inspection:
    """Everything that was found below `root`; `meanings` is empty where the labels cannot be used as they are.

    `doubt` says why the values are not taken for those of `known`, whose folders are called alike.
    """

    root: Path
    layout: Layout
    known: KnownLayout | None
    survey: Survey
    read: int
    meanings: list[Meaning] = field(default_factory=list)
    source_of_names: str = ""
    doubt: str = ""
    refusal: str = ""

    @property
    def pairs(self) -> int:
        return sum(len(pairs.samples) for pairs in self.layout.pairs.values())


def inspect_folder(
    root: str | Path,
    *,
    limit: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Inspection:
    """Look at all images and labels below `root`, or at `limit` pairs, evenly spaced.

    Raises MissingFileError for a root that does not exist, DataError where it has no image or no pair that can be read.
    """
    folder = Path(os.path.abspath(listing.require_root(root, "data inspect", ["images and labels"])))
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}; give at least 1 pair, or leave it out for all")
    files = sorted(pairing.files_below(folder))
    known = known_layout(folder)
    layout = guess_layout(folder, files)
    if not layout.pairs:
        raise DataError(_no_pairs(folder, files, known))
    samples = [sample for pairs in layout.pairs.values() for sample in pairs.samples.values()]
    if limit is not None and limit < len(samples):
        samples = [samples[place * len(samples) // limit] for place in range(limit)]
    seen = survey(samples, workers=workers, progress=progress)
    if not seen.modes:
        raise DataError(
            f"none of the {len(samples)} pairs below {printable(folder)} can be used: {seen.problems[0][1]}"
        )
    layout, dropped = _without(layout, {sample for sample, _ in seen.problems})
    found = Inspection(
        folder, Layout(layout.splits, layout.pairs, [*layout.notes, *dropped]), known, seen, len(samples)
    )
    found.refusal = _refusal(seen)
    if not found.refusal:
        _name(found)
    return found


def _no_pairs(folder: Path, files: list[str], known: KnownLayout | None) -> str:
    if known is not None:
        return (
            f"{printable(folder)} looks like {known.title}, which needs no description: use data.name={known.adapter} "
            f"data.root={printable(folder)}"
        )
    images = [name for name in files if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        return (
            f"{printable(folder)} and its folders hold no image ({len(files)} files); they contain: "
            f"{listing.contents(folder)}; accepted suffixes: {', '.join(IMAGE_SUFFIXES)}"
        )
    return (
        f"{printable(folder)} holds {len(images)} image files and no pair of image and label: {listing.first(images)}. "
        "A label is a file of the same name as its image, up to a beginning or end set off by one of _ - . or a space, "
        "in the same folder or another (x.jpg and x_mask.png), whose neighbouring pixels are mostly equal"
    )


def _without(layout: Layout, bad: set[Sample]) -> tuple[Layout, list[str]]:
    """Splits that keep a sample when the unusable ones are left out. The first one always does, or moves up."""
    pairs, notes = {}, []
    for split, found in layout.pairs.items():
        usable = {key: sample for key, sample in found.samples.items() if sample not in bad}
        if usable:
            pairs[split] = pairing.Pairs(usable, found.images_alone, found.labels_alone)
        else:
            notes.append(f"split {split} left out: none of its {len(found.samples)} pairs can be used")
    splits = {split: layout.splits[split] for split in pairs}
    if "train" not in pairs:
        first = next(iter(pairs))
        notes.append(f"split {first} is used for training")
        pairs = {"train" if split == first else split: found for split, found in pairs.items()}
        splits = {"train" if split == first else split: entry for split, entry in splits.items()}
    return Layout(splits, pairs, layout.notes), notes


def _refusal(seen: Survey) -> str:
    """Why no table of classes can be written, or an empty string."""
    tally, kind = seen.tally, "colours" if seen.coloured else "values"
    count = f"more than {len(tally.pixels)}" if tally.pruned else str(len(tally.pixels))
    total = sum(tally.pixels.values())
    border = set(tally.border_values())
    real = [code for code, _ in tally.pixels.most_common() if code not in border]
    likely = ", ".join(
        f"{_shown(code, seen.coloured)} ({100 * tally.pixels[code] / total:.1f} %)" for code in real[:SHOWN]
    )
    if seen.jpegs:
        return (
            f"{seen.jpegs} of {sum(seen.modes.values())} labels are JPEG files, which change values near borders: "
            f"they hold {count} {kind}; the largest are {likely}. Export the labels as PNG again; "
            "converting these would keep the damage"
        )
    if tally.smeared():
        return (
            f"the labels hold {count} {kind}, and {len(border)} of them occur along borders only: they are mixtures of "
            f"others, made by anti-aliasing, by resizing without nearest neighbour, or by JPEG on the way. The largest "
            f"areas are {likely}. Export or resize the labels again without smoothing"
        )
    if len(tally.pixels) > MOST_CLASSES:
        return (
            f"the labels hold {count} {kind}, more than the {MOST_CLASSES} classes that can be told apart; if these "
            "are ids of single objects, use the files of class ids instead"
        )
    return ""


def _shown(code: int, coloured: bool) -> str:
    return hex_colour(unpacked(code)) if coloured else str(code)


def hex_colour(colour: Colour) -> str:
    """'#rrggbb'."""
    red, green, blue = colour
    return f"#{red:02x}{green:02x}{blue:02x}"


def _name(found: Inspection) -> None:
    """Say what every value or colour is taken for, in order of the codes, and where the names are from."""
    seen, known = found.survey, found.known
    codes = sorted(seen.tally.pixels)
    colours: dict[int, Colour] = {}
    if seen.coloured:
        colours = {code: unpacked(code) for code in codes}
    elif not seen.palettes_differ and any(colour != (value,) * 3 for value, colour in seen.palette.items()):
        colours = {code: seen.palette[code] for code in codes if code in seen.palette}
    labels = [sample.label.name for pairs in found.layout.pairs.values() for sample in pairs.samples.values()]
    names: dict[int, str] = {}
    comments: dict[int, str] = {}
    title, source = "", ""
    if known is not None:
        if not seen.coloured:
            names, found.doubt = known.names(codes, labels, seen.sizes)
        elif known.tables:
            found.doubt = "its label files hold values, and these hold colours"
        title, source = known.title, f"the layout of {known.title}"
    by_colour = known_names(set(colours.values()))
    if not names and by_colour is not None:
        title, source = by_colour[0], f"the colours of {by_colour[0]}"
        names, comments = _by_colour(by_colour[1], colours, title, sure=files_fit(title, labels))
    if set(names.values()) <= {IGNORE}:
        names, source = {}, ""  # nothing but void would be left
    found.source_of_names = source
    binary = not seen.coloured and set(codes) == BINARY
    grey = seen.coloured and all(len(set(colour)) == 1 for colour in colours.values())
    number = 0
    for code in codes:
        name, comment = names.get(code, ""), comments.get(code, "")
        if name == IGNORE:
            comment = f"void in {title}"
        elif not name and not seen.coloured and code == IGNORE_INDEX and not binary and len(codes) > 1:
            name, comment = IGNORE, "255 is void by custom: check"
        if not name:
            name = f"class_{colours[code][0] if grey else number}"
            number += 1
            if not comment and colours.get(code) == BLACK and not names:
                comment = "black is often void or background: write ignore if it is void"
            elif not comment and binary and code:
                comment = "taken for a class, since 0 is the only other value"
        found.meanings.append(Meaning(code, name, colours.get(code), comment))


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
