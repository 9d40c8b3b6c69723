"""What stands in the label files of an unknown data set: modes, values or colours with counts, and whether a lossy
format or resampling has smeared them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

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


@dataclass
class Tally:
    """Pixels, pixels in uniform 2x2 blocks, and files, by value or packed colour."""

    pixels: Counter[int] = field(default_factory=Counter)
    solid: Counter[int] = field(default_factory=Counter)
    files: Counter[int] = field(default_factory=Counter)
    pruned: bool = False

    def add(self, codes: np.ndarray) -> None:
        """Count one label map of numbers (H,W)."""
        values, counts = np.unique(codes, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self.pixels[value] += count
            self.files[value] += 1
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
        self.pruned |= other.pruned
        self._prune()

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


@dataclass
class Survey:
    """All pairs together: image sizes (width, height), label modes, and the tally of values or of colours."""

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    jpegs: int = 0
    coloured: bool = False
    tally: Tally = field(default_factory=Tally)
    palette: dict[int, Colour] = field(default_factory=dict)
    palettes_differ: bool = False
    problems: list[tuple[Sample, str]] = field(default_factory=list)


def survey(
    samples: Sequence[Sample], *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Survey:
    """Read every image and label, in threads (default: one a core); `progress` hears (read, of how many)."""
    result = Survey()
    values, colours, numbered, colourless = Tally(), Tally(), 0, False
    pool = ThreadPoolExecutor(workers or usable_cores())
    try:
        for done, (sample, look) in enumerate(zip(samples, pool.map(look_at, samples), strict=True), start=1):
            if progress is not None:
                progress(done, len(samples))
            if look.problem:
                result.problems.append((sample, look.problem))
                continue
            result.sizes[look.image_size] += 1
            result.modes[f"{look.mode} JPEG" if look.is_jpeg else look.mode] += 1
            result.jpegs += look.is_jpeg
            if look.values is not None:
                values.merge(look.values)
                numbered += 1
            if look.colours is not None:
                colours.merge(look.colours)
            colourless |= look.colours is None
            for value, colour in look.palette.items():
                result.palettes_differ |= result.palette.setdefault(value, colour) != colour
    finally:
        pool.shutdown(cancel_futures=True)
    read = sum(result.modes.values())
    # numbers whose meaning changes from file to file are colours, and so is everything where some files hold no numbers
    result.coloured = numbered < read or (result.palettes_differ and not colourless)
    result.tally = colours if result.coloured else values
    return result


def look_at(sample: Sample) -> Look:
    """Read one pair. What cannot be read, or does not fit together, is a problem and no error."""
    try:
        height, width = read_image(sample.image, apply_exif=False).shape[:2]
        look = _look_at_label(sample.label.read_bytes(), (width, height))
    except FastsegError as error:
        # the label was read from memory, to read the file once
        return Look(problem=str(error).replace("the image in memory", printable(sample.label)))
    except OSError as error:
        return Look(problem=f"{printable(sample.label)} cannot be read: {error.strerror}")
    if look.problem:
        return Look(problem=f"{printable(sample.label)} {look.problem}")
    return look


def _look_at_label(data: bytes, size: tuple[int, int]) -> Look:
    read_image(data, apply_exif=False)  # checks size limit and integrity before Pillow sees the file again
    with Image.open(io.BytesIO(data), formats=FORMATS) as header:
        mode, is_jpeg, label_size = header.mode, header.format in ("JPEG", "MPO"), header.size
    if label_size != size:
        return Look(problem=f"is {label_size[0]}x{label_size[1]}, but its image is {size[0]}x{size[1]}")
    values, colours, palette = None, None, {}
    if mode in NUMBERS:
        codes = read_ids(data)
        values = Tally()
        values.add(codes)
    try:
        # JPEG is refused as a mask; here its colours are counted to say what is wrong
        pixels = packed_pixels(read_image(data, apply_exif=False) if is_jpeg else read_colour_label(data))
        colours = Tally()
        colours.add(pixels)
    except LabelError:
        if values is None:
            raise
    if mode == "P" and colours is not None:
        found, places = np.unique(codes, return_index=True)
        palette = {int(value): unpacked(int(code)) for value, code in zip(found, pixels.ravel()[places], strict=True)}
    return Look("", size, mode, is_jpeg, values, colours, palette)
