"""An inspection as text: the report for a reader, and the configuration that trains on the folder."""

from __future__ import annotations

import re

from fastseg.data.class_table import IGNORE, numbered_colour
from fastseg.data.coding import packed
from fastseg.data.findings import number_of
from fastseg.data.inspect_folder import Inspection
from fastseg.data.known_colours import Colour
from fastseg.data.label_survey import shown_code
from fastseg.errors import DataError, printable
from fastseg.types import Sample, is_placeholder

SHOWN = 10
LARGEST_CROP = (512, 1024)
GRID = 32  # crops are multiples of the strides of most networks
IMAGES_SEEN = 64_000  # in a whole training: 8,000 steps of 8
EPOCHS = (20, 500)  # the least and the most
VAL_SHARE = 0.1


def report(found: Inspection) -> str:
    """What was found, for a reader."""
    seen = found.survey
    lines = [f"{printable(found.root)}: {number_of(found.pairs + len(seen.problems), 'pair')} of image and label"]
    if found.read < found.pairs + len(seen.problems):
        lines[0] += f", of which {found.read} were read (--limit)"
    if found.known is not None:
        command = f"`data.name={found.known.adapter} data.root={printable(found.root)}`"
        lines.append(
            f"the folders are called as those of {found.known.title}, but {found.meanings.doubt}; if it is, "
            f"{command} reads it"
            if found.meanings.doubt
            else f"this looks like {found.known.title}: {command} reads it as its papers do"
        )
    lines += ["", "splits"]
    for split, pairs in found.layout.pairs.items():
        lines.append(f"  {split:<6} {number_of(len(pairs.samples), 'pair')}: {_entry_text(found.layout.splits[split])}")
        for alone, kind in ((pairs.images_alone, "label"), (pairs.labels_alone, "image")):
            if alone:
                shown = ", ".join(printable(str(path).removeprefix(f"{found.root}/")) for path in alone[:3])
                lines.append(f"         {number_of(len(alone), 'file')} without {kind}: {shown}{_more(len(alone) - 3)}")
    if "val" not in found.layout.pairs:
        lines.append(f"  val    {_val_text(found)}")
    lines += [f"  {note}" for note in found.layout.notes]
    sizes = seen.sizes.most_common()
    lines += ["", f"image sizes ({len(sizes)})"]
    lines += [f"  {width}x{height}: {number_of(count, 'image')}" for (width, height), count in sizes[:SHOWN]]
    if len(sizes) > SHOWN:
        lines.append(f"  and {len(sizes) - SHOWN} more")
    modes = ", ".join(f"{mode} ({count})" for mode, count in seen.modes.most_common())
    coding = "colours" if seen.coloured else "values with a palette" if seen.palette else "values"
    lines += ["", f"labels: {coding}; modes of the files: {modes}"]
    if seen.palettes_differ:
        lines.append("  palettes differ from file to file, so the numbers mean nothing and the colours count")
    if not found.refusal:
        lines += ["", *_table(found)]
        for code in sorted(seen.strays.pixels)[:SHOWN]:
            lines.append(f"{shown_code(code, seen.coloured)} is taken for a mistake: {_spread(code, found)}")
    if seen.problems:
        lines += ["", f"cannot be used ({len(seen.problems)}); the configuration leaves them out"]
        lines += [f"  {reason}" for _, reason in seen.problems[:SHOWN]]
        if len(seen.problems) > SHOWN:
            lines.append(f"  and {len(seen.problems) - SHOWN} more")
    return "\n".join(lines)


def configuration(found: Inspection, name: str) -> str:
    """The YAML of a training on the folder, with the counts as comments; `name` becomes part of the run's folder.

    Raises DataError for folders whose names a configuration cannot hold.
    """
    seen, layout = found.survey, found.layout
    train = len(layout.pairs["train"].samples)
    epochs = min(max(round(IMAGES_SEEN / train), EPOCHS[0]), EPOCHS[1])
    height, width = _crop(found)
    counts = ", ".join(f"{split} {len(pairs.samples)}" for split, pairs in layout.pairs.items())
    lines = [
        f"# Written by `fastseg data inspect`: {number_of(found.pairs, 'pair')} of image and label ({counts}).",
        "# Train: fastseg train THIS_FILE. Check the names below first; the order of the classes is theirs.",
        "model: {name: fast_scnn}",
        "data:",
        "  name: folder",
        f"  root: {scalar(str(found.root))}",
    ]
    args = ["  args:", "    splits:"]
    args += [
        f"      {split}: {{{', '.join(f'{key}: {scalar(text)}' for key, text in entry.items())}}}"
        for split, entry in layout.splits.items()
    ]
    if "val" not in layout.splits:
        if train > 1:
            args.append(
                f"    val_share: {VAL_SHARE}  # of train, held back as val; frames of one video would be in both"
            )
        else:
            lines.append("  val_split: train  # there is one image only: the scores say nothing")
    alone = sum(len(pairs.images_alone) + len(pairs.labels_alone) for pairs in layout.pairs.values())
    if alone:
        args.append(
            f"    unpaired: skip  # {number_of(alone, 'file')} without a partner; remove this to have them refused"
        )
    if seen.problems:
        args.append("    exclude:")
        args += [
            f"      - {scalar(_from_root(sample, found))}  # {reason.removeprefix(f'{printable(found.root)}/')}"
            for sample, reason in seen.problems
        ]
    lines += [*args, *_classes(found)]
    lines += [
        f"augment: {{crop: [{height}, {width}]}}  # height, width; the smallest image is "
        f"{min(width for width, _ in seen.sizes)}x{min(height for _, height in seen.sizes)}",
        f"schedule: {{epochs: {epochs}}}  # about {number_of(max(1, epochs * train // 8), 'step')}",
        f"train: {{total_batch: 8, eval_every: {max(1, epochs // 10)}}}",
        f"run_dir: {scalar(f'runs/{name}')}",
    ]
    return "\n".join(lines) + "\n"


def scalar(text: str) -> str:
    """`text` as YAML reads it back, quoted where it has to be. Raises DataError for what no configuration can hold."""
    import yaml

    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"the name {printable(text)} is not UTF-8, so no configuration can hold it; rename it"
        ) from None
    if "${" in text:
        raise DataError(f"the name {printable(text)} has '${{', which means a reference in a configuration; rename it")
    if re.fullmatch(r"[A-Za-z_/](?:[\w./ -]*\w)?", text, re.ASCII) and yaml.safe_load(text) == text:
        return text
    return str(yaml.safe_dump(text, default_style='"', width=1 << 30, allow_unicode=True)).strip()


def _classes(found: Inspection) -> list[str]:
    """The tables `classes` and `colours`, with counts as comments."""
    tally, coloured = found.survey.tally, found.survey.coloured
    total, read = sum(tally.pixels.values()), sum(found.survey.modes.values())
    origin = f"names from {found.meanings.source}" if found.meanings.source else "names are yours to give"
    if found.known is not None and found.meanings.doubt:
        origin += f" (the folders are called as those of {found.known.title}, but {found.meanings.doubt})"
    if found.read < found.pairs + len(found.survey.problems):
        origin += f"; only {found.read} labels were read, and other values will be refused"
    elif all(meaning.name != IGNORE for meaning in found.meanings.rows):
        origin += "; none is known to be void, write ignore for those that are"
    lines = [f"    classes:  # {'colour' if coloured else 'value'} -> class or ignore; {origin}"]
    entries = []
    for meaning in found.meanings.rows:
        key = _key(meaning.code, coloured)
        share = 100 * tally.pixels[meaning.code] / total
        comment = f"{share:.3g} % of the pixels, {tally.files[meaning.code]} of {number_of(read, 'file')}"
        entries.append(
            (f"{key}: {scalar(meaning.name)}", comment + (f"; {meaning.comment}" if meaning.comment else ""))
        )
    width = max(len(text) for text, _ in entries)
    lines += [f"      {text:<{width}}  # {comment}" for text, comment in entries]
    lines += [
        f"      # {_key(code, coloured)}: a mistake? {_spread(code, found)}, which exclude leaves out; if not, "
        "give it a line here and take them from exclude"
        for code in sorted(found.survey.strays.pixels)[:SHOWN]
    ]
    palette = {} if coloured else _palette(found)
    if palette:
        lines.append("    colours:  # for pictures; who renames a class above does so here, too")
        lines += [f'      {scalar(name)}: "{shown_code(packed(colour), True)}"' for name, colour in palette.items()]
    return lines


def _key(code: int, coloured: bool) -> str:
    return f'"{shown_code(code, True)}"' if coloured else str(code)


def _spread(code: int, found: Inspection) -> str:
    """Pixels and files of a stray value."""
    strays = found.survey.strays
    files = [printable(str(sample.label).removeprefix(f"{found.root}/")) for sample in strays.holders[code]]
    return f"{number_of(strays.pixels[code], 'pixel')} in {', '.join(files[:3])}{_more(len(files) - 3)}"


def _palette(found: Inspection) -> dict[str, Colour]:
    """A colour for every class with a name of its own: of the palette or known data set, else by its number.

    Classes that are only numbered have none, since they are to be renamed, and are coloured by their number anyway.
    """
    known = found.known.info if found.known is not None else None
    palette = dict(zip(known.class_names, known.palette, strict=True)) if known is not None else {}
    names = list(dict.fromkeys(meaning.name for meaning in found.meanings.rows if meaning.name != IGNORE))
    own = {meaning.name: meaning.colour for meaning in reversed(found.meanings.rows) if meaning.colour is not None}
    return {
        name: own.get(name) or palette.get(name) or numbered_colour(place)
        for place, name in enumerate(names, 1)
        if not is_placeholder(name)
    }


def _table(found: Inspection) -> list[str]:
    tally, coloured = found.survey.tally, found.survey.coloured
    total = sum(tally.pixels.values())
    rows = [("colour" if coloured else "value", "pixels", "share", "files", "taken for")]
    for meaning in found.meanings.rows:
        code = shown_code(meaning.code, coloured)
        share = f"{100 * tally.pixels[meaning.code] / total:.2f} %"
        rest = f"  ({meaning.comment})" if meaning.comment else ""
        name = printable(meaning.name) + rest
        rows.append((code, str(tally.pixels[meaning.code]), share, str(tally.files[meaning.code]), name))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([*(f"{cell:>{width}}" for cell, width in zip(row[:-1], widths, strict=False)), row[-1]])
        for row in rows
    ]
    return [*lines, f"names are from {found.meanings.source}"] if found.meanings.source else lines


def _crop(found: Inspection) -> tuple[int, int]:
    """Height and width: the smallest image's, down to the grid, and not above the largest crop."""
    smallest = (min(height for _, height in found.survey.sizes), min(width for width, _ in found.survey.sizes))
    height, width = (
        min(max(side // GRID * GRID, GRID), most) for side, most in zip(smallest, LARGEST_CROP, strict=True)
    )
    return height, width


def _val_text(found: Inspection) -> str:
    if len(found.layout.pairs["train"].samples) > 1:
        return f"{100 * VAL_SHARE:.0f} % of train, held back by the names (val_share)"
    return "the one pair of train again: the scores say nothing"


def _entry_text(entry: dict[str, str]) -> str:
    text = f"{printable(entry['images'])} with {printable(entry['labels'])}"
    return f"{text}, listed in {printable(entry['list'])}" if "list" in entry else text


def _from_root(sample: Sample, found: Inspection) -> str:
    return printable(str(sample.image).removeprefix(f"{found.root}/"))


def _more(number: int) -> str:
    return f", and {number} more" if number > 0 else ""
