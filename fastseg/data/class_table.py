"""The table `value -> class or ignore` of a configuration, as a user writes it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fastseg.data.coding import INVALID, Colours, LabelCoding, Values, unpacked
from fastseg.data.notes import say_once
from fastseg.data.readers import read_ids
from fastseg.errors import ConfigError, suggest
from fastseg.types import IGNORE_INDEX, DataFile, plain_name

KEY = "data.args.classes"
IGNORE = "ignore"
LARGEST_VALUE = 65535
VOID_WORDS = {"void", "ignored", "unlabeled", "unlabelled", "ignoreindex", "ignorelabel", "dontcare", "unannotated"}
MOST_CLASSES = INVALID  # classes are 0..253; 254 marks what is undefined, 255 what is ignored
HINT = f"Every value needs a line in {KEY}, as in `{{}}: ignore` or with the name of a class"


@dataclass(frozen=True)
class ClassTable:
    """`names` in order of first appearance; `table` from value, or packed RGB where `coloured`, to class or 255."""

    names: tuple[str, ...]
    table: dict[int, int]
    coloured: bool
    own_colours: dict[str, tuple[int, int, int]]

    @classmethod
    def parse(cls, classes: object, colours: object = None) -> ClassTable:
        """Raises ConfigError with key, value and what to write instead."""
        if not isinstance(classes, Mapping) or not classes:
            raise ConfigError(
                f"{KEY} is {classes!r}; it is a table from value to class, such as {{0: sky, 255: ignore}}"
            )
        table: dict[int, int] = {}
        names: dict[str, int] = {}
        kinds: dict[bool, object] = {}
        for key, name in classes.items():
            code, coloured = _code(key)
            kinds.setdefault(coloured, key)
            if len(kinds) == 2:
                raise ConfigError(
                    f"{KEY} has the value {kinds[False]!r} and the colour {kinds[True]!r}; a data set is coded by one "
                    "of them: label files in grey or with a palette hold values, RGB files colours"
                )
            if code in table:
                raise ConfigError(f"{KEY} has {key!r} twice, in two spellings; keep one")
            if not isinstance(name, str) or not name.strip():
                raise ConfigError(f"{KEY}: {key!r} is mapped to {name!r}; it takes a name in quotes, or ignore")
            if name != IGNORE and name.strip().casefold() == IGNORE:
                raise ConfigError(f"{KEY}: {key!r} is mapped to {name!r}; write {IGNORE}, or another name for a class")
            if plain_name(name) in VOID_WORDS:
                say_once(
                    f"{KEY} has {key!r}: {name}, which is trained as a class like others; if its pixels should not "
                    f"count, write {IGNORE}",
                    level=logging.WARNING,
                )
            table[code] = IGNORE_INDEX if name == IGNORE else names.setdefault(name, len(names))
            if len(names) > MOST_CLASSES:
                raise ConfigError(f"{KEY} has more than {MOST_CLASSES} classes, which is the most; merge some of them")
        if not names:
            raise ConfigError(f"{KEY} ignores every value ({len(table)}); name one class at least")
        return cls(tuple(names), table, True in kinds, _own_colours(colours, names))

    def coding(self, dataset: str) -> LabelCoding:
        """What reads the label files; values and colours without a line are refused."""
        if self.coloured:
            colours = {unpacked(code): index for code, index in self.table.items()}
            return Colours(colours, dataset, hint=HINT.format("'#rrggbb'"))
        wide = max(self.table) > 255
        table = np.full(LARGEST_VALUE + 1 if wide else 256, INVALID, np.uint8)
        table[list(self.table)] = list(self.table.values())
        return (WideValues if wide else Values)(table, dataset, hint=HINT.format("9"))

    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """A colour per class: as given, else the first that is mapped to it, else one by its number."""
        first: dict[int, int] = {}
        for code, index in self.table.items():
            first.setdefault(index, code)
        return tuple(
            self.own_colours.get(name) or (unpacked(first[index]) if self.coloured else numbered_colour(index + 1))
            for index, name in enumerate(self.names)
        )

    def official_ids(self) -> tuple[int, ...]:
        """The first value of every class; none where colours code."""
        if self.coloured:
            return ()
        first: dict[int, int] = {}
        for code, index in self.table.items():
            first.setdefault(index, code)
        return tuple(first[index] for index in range(len(self.names)))


class WideValues(Values):
    """Values above 255, in 16-bit files."""

    def read(self, file: DataFile) -> np.ndarray:
        return read_ids(file)


def parse_colour(text: object) -> tuple[int, int, int] | None:
    """'#rrggbb' or 'r,g,b' as RGB; None for anything else."""
    if not isinstance(text, str):
        return None
    if re.fullmatch(r"#[0-9a-fA-F]{6}", text.strip()):
        return unpacked(int(text.strip()[1:], 16))
    match = re.fullmatch(r"\(?\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\)?", text.strip(), re.ASCII)
    if match is None:
        return None
    red, green, blue = map(int, match.groups())
    return (red, green, blue) if max(red, green, blue) <= 255 else None


def numbered_colour(index: int) -> tuple[int, int, int]:
    """Colour `index` (0..255) of PASCAL VOC's colour map: 0 is black, no two are equal.

    Source: VOCdevkit, VOClabelcolormap.m: three bits of the index at a time, one for each of red, green and blue.
    """
    colour = [0, 0, 0]
    for place in range(3):
        for channel in range(3):
            colour[channel] |= (index >> (3 * place + channel) & 1) << (7 - place)
    return colour[0], colour[1], colour[2]


def _code(key: object) -> tuple[int, bool]:
    """A key of the table as a number, and whether it is a colour."""
    colour = parse_colour(key)
    if colour is not None:
        return colour[0] << 16 | colour[1] << 8 | colour[2], True
    text = key.strip() if isinstance(key, str) else key
    if isinstance(text, str) and re.fullmatch(r"\d{1,6}", text, re.ASCII):
        text = int(text)
    if isinstance(text, bool) or not isinstance(text, int) or not 0 <= text <= LARGEST_VALUE:
        raise ConfigError(
            f"{KEY} has the key {key!r}; allowed are label values 0 to {LARGEST_VALUE}, or colours '#rrggbb' or 'r,g,b'"
        )
    return text, False


def _own_colours(colours: object, names: Mapping[str, int]) -> dict[str, tuple[int, int, int]]:
    if colours is None:
        return {}
    if not isinstance(colours, Mapping):
        raise ConfigError(f"data.args.colours is {colours!r}; it is a table from class to colour: {{sky: '#808080'}}")
    found = {}
    for name, text in colours.items():
        colour = parse_colour(text)
        if name not in names:
            raise ConfigError(
                f"data.args.colours: {name!r} is no class of {KEY}; renamed or ignored? Change its line in "
                f"colours, too; {suggest(str(name), names)}"
            )
        if colour is None:
            raise ConfigError(f"data.args.colours.{name} is {text!r}; a colour is written '#rrggbb' or 'r,g,b'")
        found[str(name)] = colour
    return found
