"""What stands in the label files of an unknown data set: modes, values or colours with counts, and whether a lossy
format or resampling has smeared them."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from fastseg.data.coding import packed_pixels, unpacked
from fastseg.data.known_colours import Colour
from fastseg.data.readers import FORMATS, read_colour_label, read_ids, read_image
from fastseg.environment import usable_cores
from fastseg.errors import FastsegError, LabelError, printable
from fastseg.types import Sample

NUMBERS = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B", "I;16N")
MOST_KEPT = 20_000  # distinct colours that are remembered; a mask of classes has fewer than 255
SOLID = 0.1  # of a value's pixels in blocks of 2x2: values with less occur along borders only
FEW = 8  # values along borders only that are no sign of smearing: thin classes
STRAY_FILES = 0.02  # of all files, or one: a value in more of them is meant
MOST_HOLDERS = 50  # files of a value that are remembered, since values in more are no strays
STRAY_SHARE = 1e-4  # of all pixels, and ten times that of those in the files that hold it: a value with more is meant
STRAY_FILES_IN_ALL = 0.2  # of all files, or one: where more hold strays, rare values are the rule


def shown_code(code: int, coloured: bool) -> str:
    """A value, or a packed colour as '#rrggbb'."""
    return f"#{code:06x}" if coloured else str(code)


@dataclass
class Tally:
    """Pixels, pixels in uniform 2x2 blocks, files, and the first samples, by value or packed colour."""

    pixels: Counter[int] = field(default_factory=Counter)
    solid: Counter[int] = field(default_factory=Counter)
    files: Counter[int] = field(default_factory=Counter)
    holders: dict[int, list[Sample]] = field(default_factory=dict)
    pruned: bool = False

    def add(self, codes: np.ndarray, sample: Sample) -> None:
        """Count one label map of numbers (H,W)."""
        values, counts = np.unique(codes, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self.pixels[value] += count
            self.files[value] += 1
            self.holders[value] = [*self.holders.get(value, []), sample][:MOST_HOLDERS]
        corner = codes[:-1, :-1]
        uniform = (corner == codes[1:, :-1]) & (corner == codes[:-1, 1:]) & (corner == codes[1:, 1:])
        values, counts = np.unique(corner[uniform], return_counts=True)
        self.solid.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        self._prune()

    def merge(self, other: Tally) -> None:
        """Add the counts of other files."""
        self.pixels.update(other.pixels)
        self.solid.update(other.solid)
        self.files.update(other.files)
        for value, samples in other.holders.items():
            here = self.holders.setdefault(value, [])
            here += samples[: MOST_HOLDERS - len(here)]
        self.pruned |= other.pruned
        self._prune()

    def part(self, values: Collection[int], *, without: bool = False) -> Tally:
        """The counts of `values` alone, or of all others."""
        kept = {value for value in self.pixels if (value in values) != without}
        pixels, solid, files = (
            Counter({value: count[value] for value in kept}) for count in (self.pixels, self.solid, self.files)
        )
        return Tally(pixels, solid, files, {value: self.holders[value] for value in kept}, self.pruned)

    def border_values(self) -> list[int]:
        """Values that occur along borders only."""
        return [value for value, count in self.pixels.items() if self.solid[value] < SOLID * count]

    def smeared(self) -> bool:
        """Whether most values look like mixtures of others, made by resampling, smoothing or JPEG."""
        border = len(self.border_values())
        return self.pruned or border > max(FEW, len(self.pixels) - border)

    def _prune(self) -> None:
        if len(self.pixels) > MOST_KEPT:
            self.pixels = Counter(dict(self.pixels.most_common(MOST_KEPT // 2)))
            self.solid = Counter({value: self.solid[value] for value in self.pixels})
            self.files = Counter({value: self.files[value] for value in self.pixels})
            self.holders = {value: self.holders[value] for value in self.pixels}
            self.pruned = True


@dataclass(frozen=True)
class Look:
    """What one pair holds; `problem` says why it cannot be used, and `palette` what colour a value is shown in."""

    problem: str = ""
    image_size: tuple[int, int] = (0, 0)
    mode: str = ""
    is_jpeg: bool = False
    values: Tally | None = None
    colours: Tally | None = None
    palette: dict[int, Colour] = field(default_factory=dict)
    has_colours: bool = False


@dataclass
class Survey:
    """All pairs together: image sizes (width, height), label modes, and the tally of values or of colours.

    `problems` are the pairs that cannot be used, and why; `strays` the values that only such files hold.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    jpegs: int = 0
    coloured: bool = False
    tally: Tally = field(default_factory=Tally)
    palette: dict[int, Colour] = field(default_factory=dict)
    palettes_differ: bool = False
    problems: list[tuple[Sample, str]] = field(default_factory=list)
    strays: Tally = field(default_factory=Tally)

    def slips(self, meant: Collection[int] = ()) -> list[int]:
        """Values that look like mistakes: in very few files, with a vanishing share. Those that are `meant` are none.

        None where more than a few files hold such values, or all of them.
        """
        tally, read = self.tally, sum(self.modes.values())
        total = sum(tally.pixels.values())
        few = min(max(1, int(STRAY_FILES * read)), MOST_HOLDERS)
        rare = [
            value
            for value, files in tally.files.items()
            if files <= few
            and value not in meant
            and tally.pixels[value] < STRAY_SHARE * total * min(1, 10 * files / read)
        ]
        held = {sample for value in rare for sample in tally.holders[value]}
        most = min(max(1, STRAY_FILES_IN_ALL * read), read - 1)
        return sorted(rare) if not tally.pruned and len(held) <= most else []

    def set_aside(self, values: Collection[int]) -> None:
        """Take the files that hold `values` for unusable, and the values out of the tally."""
        self.strays = self.tally.part(values)
        self.tally = self.tally.part(values, without=True)
        found: dict[Sample, list[int]] = defaultdict(list)
        for value in sorted(values):
            for sample in self.strays.holders[value]:
                found[sample].append(value)
        for sample, odd in found.items():
            shown = ", ".join(shown_code(value, self.coloured) for value in odd[:FEW])
            more = f" and {len(odd) - FEW} more" if len(odd) > FEW else ""
            self.problems.append(
                (sample, f"{printable(sample.label)} holds {shown}{more}, a stray: few pixels in few files")
            )


@dataclass
class _Pile:
    """Files that code alike; `looks` are without their counts."""

    looks: list[tuple[Sample, Look]] = field(default_factory=list)
    values: Tally = field(default_factory=Tally)
    colours: Tally = field(default_factory=Tally)


def survey(
    samples: Sequence[Sample], *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Survey:
    """Read every image and label, in threads (default: one a core); `progress` hears (read, of how many)."""
    result, piles = Survey(), {kind: _Pile() for kind in ("values", "palette", "colours")}
    pool = ThreadPoolExecutor(workers or usable_cores())
    try:
        for done, (sample, look) in enumerate(zip(samples, pool.map(look_at, samples), strict=True), start=1):
            if progress is not None:
                progress(done, len(samples))
            if look.problem:
                result.problems.append((sample, look.problem))
                continue
            pile = piles["colours" if look.values is None else "palette" if look.mode == "P" else "values"]
            pile.looks.append((sample, replace(look, values=None, colours=None, has_colours=look.colours is not None)))
            for mine, more in ((pile.values, look.values), (pile.colours, look.colours)):
                if more is not None:
                    mine.merge(more)
    finally:
        pool.shutdown(cancel_futures=True)
    _add_up(result, _by_majority(result, piles))
    return result


def _by_majority(result: Survey, piles: dict[str, _Pile]) -> list[_Pile]:
    """The piles that go together: numbers and colours do not, and the fewer files become problems.

    Palettes give both.
    """
    numbers, colours = piles["values"], piles["colours"]
    if numbers.looks and colours.looks:
        total = sum(len(pile.looks) for pile in piles.values())
        numbered = total - len(colours.looks)
        odd, of_odd, of_others = (colours, "colours", "values")
        if numbered < len(colours.looks):
            odd, of_odd, of_others = (numbers, "values", "colours")
        for sample, look in odd.looks:
            result.problems.append(
                (
                    sample,
                    f"{printable(sample.label)} holds {of_odd} (mode {look.mode}), as {len(odd.looks)} of {total} "
                    f"label files do, and the others hold {of_others}: export it like them",
                )
            )
        return [pile for pile in piles.values() if pile is not odd]
    return list(piles.values())


def _add_up(result: Survey, piles: Iterable[_Pile]) -> None:
    piles = list(piles)
    looks = [look for pile in piles for _, look in pile.looks]
    for look in looks:
        result.sizes[look.image_size] += 1
        result.modes[f"{look.mode} JPEG" if look.is_jpeg else look.mode] += 1
        result.jpegs += look.is_jpeg
        for value, colour in look.palette.items():
            result.palettes_differ |= result.palette.setdefault(value, colour) != colour
    # numbers whose meaning changes from file to file are colours, and so is everything where some files hold no numbers
    result.coloured = any(look.mode not in NUMBERS for look in looks) or (
        result.palettes_differ and all(look.has_colours for look in looks)
    )
    for pile in piles:
        result.tally.merge(pile.colours if result.coloured else pile.values)


def look_at(sample: Sample) -> Look:
    """Read one pair. What cannot be read, or does not fit together, is a problem and no error."""
    try:
        height, width = read_image(sample.image, apply_exif=False).shape[:2]
        look = _look_at_label(sample, (width, height))
    except FastsegError as error:
        # the label was read from memory, to read the file once
        return Look(problem=str(error).replace("the image in memory", printable(sample.label)))
    except OSError as error:
        return Look(problem=f"{printable(sample.label)} cannot be read: {error.strerror}")
    if look.problem:
        return Look(problem=f"{printable(sample.label)} {look.problem}")
    return look


def _look_at_label(sample: Sample, size: tuple[int, int]) -> Look:
    data = sample.label.read_bytes()
    read_image(data, apply_exif=False)  # checks size limit and integrity before Pillow sees the file again
    with Image.open(io.BytesIO(data), formats=FORMATS) as header:
        mode, is_jpeg, label_size = header.mode, header.format in ("JPEG", "MPO"), header.size
    if label_size != size:
        return Look(problem=f"is {label_size[0]}x{label_size[1]}, but its image is {size[0]}x{size[1]}")
    values, colours, palette = None, None, {}
    if mode in NUMBERS:
        codes = read_ids(data)
        values = Tally()
        values.add(codes, sample)
    try:
        # JPEG is refused as a mask; here its colours are counted to say what is wrong
        pixels = packed_pixels(read_image(data, apply_exif=False) if is_jpeg else read_colour_label(data))
        colours = Tally()
        colours.add(pixels, sample)
    except LabelError:
        if values is None:
            raise
    if mode == "P" and colours is not None:
        found, places = np.unique(codes, return_index=True)
        palette = {int(value): unpacked(int(code)) for value, code in zip(found, pixels.ravel()[places], strict=True)}
    return Look("", size, mode, is_jpeg, values, colours, palette)
