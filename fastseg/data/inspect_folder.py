"""What is in a folder of images and labels: pairs by split, sizes, label values or colours, and what they may mean."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fastseg.data import listing, pairing
from fastseg.data.class_table import MOST_CLASSES
from fastseg.data.known_layouts import KnownLayout, known_layout
from fastseg.data.label_meanings import Meanings, meanings_of
from fastseg.data.label_survey import Survey, shown_code, survey
from fastseg.data.layout_guess import Layout, guess_layout
from fastseg.data.readers import IMAGE_SUFFIXES
from fastseg.errors import DataError, MissingFileError, printable
from fastseg.types import Sample

SHOWN = 10
LARGEST_BYTE = 255
LABEL_FOLDER = re.compile(
    r"(annot(ation)?s?|labels?|masks?|gt|seg(mentation)?s?)((Class|Fine|Coarse|[_-])\w*)?", re.IGNORECASE
)
OTHER_LABELS = (  # what people have instead of label images: how the files are called, and what to do
    (
        r"(.*/)?(annotations/[^/]*|instances_[^/]*|_annotations\.coco)\.json",
        "COCO's polygons; draw label images of them",
    ),
    (r".*\.json", "polygons of labelme or another tool; export them as label images"),
    (r".*\.mat", "MATLAB's; write the arrays in them to PNG files"),
    (r".*\.npy", "NumPy's; write the arrays in them to PNG files"),
)


@dataclass
class Inspection:
    """Everything that was found below `root`; `meanings` is empty where the labels cannot be used as they are."""

    root: Path
    layout: Layout
    known: KnownLayout | None
    survey: Survey
    read: int
    meanings: Meanings
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
    folder = Path(os.path.abspath(_existing(Path(root).expanduser())))
    if limit is not None and limit < 1:
        raise DataError(f"limit is {limit}; give at least 1 pair, or leave it out for all")
    files = sorted(pairing.files_below(folder))
    known = known_layout(folder)
    layout = guess_layout(folder, files)
    if not layout.pairs:
        raise DataError(_no_pairs(folder, files, known, layout.notes))
    samples = [sample for pairs in layout.pairs.values() for sample in pairs.samples.values()]
    if limit is not None and limit < len(samples):
        samples = [samples[place * len(samples) // limit] for place in range(limit)]
    seen = survey(samples, workers=workers, progress=progress)
    if not seen.modes:
        raise DataError(
            f"none of the {len(samples)} pairs below {printable(folder)} can be used: {seen.problems[0][1]}"
        )
    labels = [sample.label.name for sample in samples]
    meanings = meanings_of(seen, known, labels)
    slips = seen.slips({meaning.code for meaning in meanings.rows if meaning.certain})
    if slips:
        seen.set_aside(slips)
        meanings = meanings_of(seen, known, labels)
    layout, dropped = _without(layout, {sample for sample, _ in seen.problems})
    layout = Layout(layout.splits, layout.pairs, [*layout.notes, *dropped])
    refusal = _refusal(seen)
    return Inspection(folder, layout, known, seen, len(samples), meanings if not refusal else Meanings(), refusal)


def _existing(folder: Path) -> Path:
    if folder.is_dir():
        return folder
    if folder.exists():
        raise DataError(f"{printable(folder)} is a file; give the folder that holds images and labels")
    above = next((parent for parent in folder.absolute().parents if parent.is_dir()), Path(folder.absolute().anchor))
    raise MissingFileError(
        f"DIR {printable(folder)} does not exist; the nearest existing parent {printable(above)} contains: "
        f"{listing.contents(above)}"
    )


def _no_pairs(folder: Path, files: list[str], known: KnownLayout | None, notes: list[str]) -> str:
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
        + "".join(f". {hint[0].upper()}{hint[1:]}" for hint in [*notes, *_hints(folder, files)])
    )


def _hints(folder: Path, files: list[str]) -> Iterator[str]:
    """What lies in the folder or beside it that may be the labels."""
    for pattern, what in OTHER_LABELS:
        found = [name for name in files if re.fullmatch(pattern, name)]
        if found:
            yield f"{len(found)} {PurePosixPath(found[0]).suffix} lie there, such as {printable(found[0])}: {what}"
            break
    beside = sorted(
        place.name
        for place in (folder.parent.iterdir() if os.access(folder.parent, os.R_OK) else ())
        if place != folder and LABEL_FOLDER.fullmatch(place.name.removeprefix(folder.name).lstrip("_-. "))
    )
    if beside:
        shown = ", ".join(printable(f"../{name}") for name in beside[:3])
        yield f"{shown} lies beside it: give the folder that holds both, {printable(folder.parent)}"


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
        f"{shown_code(code, seen.coloured)} ({100 * tally.pixels[code] / total:.1f} %)" for code in real[:SHOWN]
    )
    if seen.jpegs:
        return (
            f"{seen.jpegs} of {sum(seen.modes.values())} labels are JPEG files, which change values near borders: "
            f"they hold {count} {kind}; the largest are {likely}. Export the labels as PNG again; "
            "converting these would keep the damage"
        )
    if len(tally.pixels) > MOST_CLASSES and not seen.coloured and max(tally.pixels) > LARGEST_BYTE:
        return (
            f"the labels hold {count} values up to {max(tally.pixels)}, more than the {MOST_CLASSES} classes that can "
            "be told apart: they look like ids of single objects; use the files of class ids instead"
        )
    if tally.smeared():
        largest = f"The largest areas are {likely}. " if likely else ""
        return (
            f"the labels hold {count} {kind}, and {len(border)} of them occur along borders only: they are mixtures of "
            f"others, made by anti-aliasing, by resizing without nearest neighbour, or by JPEG on the way. "
            f"{largest}Export or resize the labels again without smoothing"
        )
    if len(tally.pixels) > MOST_CLASSES:
        return (
            f"the labels hold {count} {kind}, more than the {MOST_CLASSES} classes that can be told apart; if these "
            "are ids of single objects, use the files of class ids instead"
        )
    return ""
