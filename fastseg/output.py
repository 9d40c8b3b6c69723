"""A prediction as pictures: colours, overlay with legend, id maps, and files that appear whole or not at all."""

from __future__ import annotations

import colorsys
import io
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fastseg.atomic import write_atomically
from fastseg.errors import ConfigError, OutputError, printable, suggest
from fastseg.types import DatasetInfo

KINDS = ("overlay", "color", "ids", "edges", "confidence")
LOSSLESS_SUFFIXES = (".png",)  # label values and probabilities must survive
OVERLAY_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

LEGEND_BACKGROUND = (250, 250, 250)
LEGEND_TEXT = (35, 38, 43)
LEGEND_SHARE = (125, 130, 138)
SWATCH_OUTLINE = (190, 193, 198)


class LegendEntry(NamedTuple):
    """A line of a legend: an RGB colour, what it stands for, and its share of the pixels as text."""

    color: tuple[int, int, int]
    name: str
    share: str


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a network sees in one image: `labels` uint8 (H,W) class indices for `image` uint8 (H,W,3) RGB.

    `dataset` names and colours the classes; `source` is the file name, or empty for an image from memory. `edges`
    float32 (H,W), where they were asked for, are the probabilities 0..1 of an edge, and `confidence` float32 (H,W)
    those of the labels.
    """

    labels: np.ndarray
    image: np.ndarray
    dataset: DatasetInfo
    source: str = ""
    edges: np.ndarray | None = None
    confidence: np.ndarray | None = None

    def counts(self) -> dict[str, int]:
        """Pixels per class that occurs, by class name, in class order. They add up to H x W."""
        pixels = np.bincount(self.labels.ravel(), minlength=256)
        return {class_name(int(index), self.dataset): int(pixels[index]) for index in np.flatnonzero(pixels)}

    def color(self) -> np.ndarray:
        """The labels in the data set's colours: uint8 (H,W,3) RGB; ignored pixels are black."""
        return palette_table(self.dataset)[self.labels]

    def overlay(self, alpha: float = 0.5, legend: bool = True) -> Image.Image:
        """The image under its class colours (`alpha` 0: image only, 1: colours only), ignored pixels uncoloured.

        Without the legend the result is HxW; the legend is added below, so the image keeps its pixels and place
        and the canvas grows (narrow images also to the right). Raises ConfigError unless 0 <= alpha <= 1.
        """
        if not 0 <= alpha <= 1:
            raise ConfigError(f"alpha is {alpha}; allowed: 0 (image only) to 1 (colours only)")
        image = Image.fromarray(self.image)
        blend = Image.blend(image, Image.fromarray(self.color()), alpha)
        ignored = self.labels == self.dataset.ignore_index
        if ignored.any():
            blend.paste(image, mask=Image.fromarray(ignored))
        return with_legend(blend, legend_entries(self.labels, self.dataset)) if legend else blend

    def ids(self, *, official: bool = False) -> np.ndarray:
        """The labels as class indices, or as the data set's official ids: uint8 (H,W), uint16 for ids above 255.

        Raises OutputError when official ids are asked of a data set that defines none.
        """
        if not official:
            return self.labels
        ids = self.dataset.official_ids
        if not ids:
            raise OutputError(
                f"data set {self.dataset.name!r} defines no official ids; save class indices (official=False)"
            )
        table = np.full(256, self.dataset.ignore_index, np.uint8 if max(ids) < 256 else np.uint16)
        table[: len(ids)] = ids
        return table[self.labels]

    def edge_map(self) -> np.ndarray:
        """The edge probabilities as grey levels uint8 (H,W): 0 for none, 255 for a certain edge.

        Raises OutputError for a prediction without edges.
        """
        if self.edges is None:
            raise OutputError("this prediction has no edges; predict with --edges (predictor(image, edges=True))")
        return np.rint(self.edges * 255).astype(np.uint8)

    def confidence_map(self) -> np.ndarray:
        """The labels' probabilities as grey levels uint8 (H,W): 255 where the network is certain.

        Raises OutputError for a prediction without confidence.
        """
        if self.confidence is None:
            raise OutputError(
                "this prediction has no confidence; predict with --confidence (predictor(image, confidence=True))"
            )
        return np.rint(self.confidence * 255).astype(np.uint8)

    def save(self, path: str | Path, kind: str = "overlay", *, overwrite: bool = False, official: bool = False) -> Path:
        """Write one picture and return its path. Missing folders are made; the file appears whole or not at all.

        `kind`: "overlay" (with legend), "color" (palette PNG whose indices are the classes), "ids" (grey PNG of
        class indices, or of official ids), "edges" or "confidence" (grey PNG, see `edge_map`, `confidence_map`).
        Raises OutputError for an existing file without `overwrite`, for a suffix that would change values, for edges or
        confidence of a prediction that has none, and when the disk refuses; ConfigError for an unknown kind.
        """
        check_kinds([kind])
        path = Path(path)
        allowed = OVERLAY_SUFFIXES if kind == "overlay" else LOSSLESS_SUFFIXES
        if path.suffix.lower() not in allowed:
            raise OutputError(f"{printable(path)}: {kind} is written as {', '.join(allowed)}; change the file's suffix")
        check_target(path, overwrite=overwrite)
        if kind == "overlay":
            picture = self.overlay()
        elif kind == "color":
            picture = Image.fromarray(self.labels)
            picture.putpalette(palette_table(self.dataset).tobytes())  # turns mode L into P, indices unchanged
        elif kind == "edges":
            picture = Image.fromarray(self.edge_map())
        elif kind == "confidence":
            picture = Image.fromarray(self.confidence_map())
        else:
            picture = Image.fromarray(self.ids(official=official))
        write_picture(picture, path)
        return path


def check_kinds(kinds: Sequence[str]) -> None:
    """Raises ConfigError for an output kind that does not exist, or for none at all."""
    if not kinds:
        raise ConfigError(f"no output kind given; choose from {', '.join(KINDS)}")
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"unknown output kind {kind!r}; {suggest(kind, KINDS)}")


def palette_table(dataset: DatasetInfo) -> np.ndarray:
    """RGB colour of every label value, uint8 (256,3); black where no class is."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(dataset.palette)] = dataset.palette
    return table


def distinct_palette(num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """Colours for classes that have none of their own: always the same, no two equal up to 256, none black."""
    # Golden-ratio steps spread neighbouring indices over the hue circle; three shades separate hues that come close.
    shades = ((0.70, 0.92), (0.90, 0.65), (0.40, 1.00))
    colors = []
    for index in range(num_classes):
        saturation, value = shades[index % len(shades)]
        red, green, blue = colorsys.hsv_to_rgb(0.58 + index * 0.6180339887 % 1.0, saturation, value)
        colors.append((round(red * 255), round(green * 255), round(blue * 255)))
    return tuple(colors)


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raises OutputError when `path` exists, unless it is a regular file and `overwrite` is set."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise OutputError(f"{printable(path)} cannot be written: {error}; choose another place") from error
    if not stat.S_ISREG(status.st_mode):
        raise OutputError(f"{printable(path)} exists and is no regular file; choose another name or remove it")
    if not overwrite:
        raise OutputError(f"{printable(path)} exists already; replace it with --overwrite (overwrite=True)")


def check_writable(path: Path) -> None:
    """Raises OutputError unless a file can be made in the folder of `path`, or in the nearest one above it that exists.

    Permissions do not tell: file systems can be read-only, full, or of a kind that holds no files.
    """
    folder = path.absolute().parent
    try:
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".fastseg.", suffix=".tmp"):
            pass
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise OutputError(
            f"{printable(path)} cannot be written: {printable(folder)}: {reason}; choose another place"
        ) from error


def write_picture(picture: Image.Image, path: Path) -> None:
    """Encode as the suffix of `path` says and write the file whole. Raises OutputError when format or disk refuse."""
    buffer = io.BytesIO()
    try:
        picture.save(buffer, Image.registered_extensions()[path.suffix.lower()])
    except (OSError, ValueError) as error:  # sides beyond what the format can hold
        raise OutputError(f"{printable(path)} cannot be encoded: {error}; choose .png") from error
    write_atomically(path, buffer.getvalue())


def class_name(value: int, dataset: DatasetInfo) -> str:
    """What to call a label value; also one that stands for no class."""
    if value < dataset.num_classes:
        return dataset.class_names[value]
    return "ignored" if value == dataset.ignore_index else f"undefined {value}"


def legend_entries(labels: np.ndarray, dataset: DatasetInfo) -> list[LegendEntry]:
    """Every class that occurs in `labels`, uint8 of any shape, largest first."""
    pixels = np.bincount(labels.ravel(), minlength=256)
    table = palette_table(dataset)
    entries = []
    for index in sorted(map(int, np.flatnonzero(pixels)), key=lambda i: (-pixels[i], i)):
        red, green, blue = map(int, table[index])
        share = 100 * int(pixels[index]) / labels.size
        share_text = f"{share:.0f}%" if share >= 1 else "<1%"
        entries.append(LegendEntry((red, green, blue), class_name(index, dataset), share_text))
    return entries


def with_legend(image: Image.Image, entries: Sequence[LegendEntry]) -> Image.Image:
    """The image with a strip of swatches, names and shares below it, in columns of equal width."""
    size = min(36, max(13, round((image.width * image.height) ** 0.5 / 45)))
    font = ImageFont.load_default(size)
    swatch, gap, margin, line = size, round(size * 0.5), round(size * 0.9), round(size * 1.7)
    names = [printable(name) for _, name, _ in entries]
    name_widths = [font.getlength(name) for name in names]
    share_width = max(font.getlength(share) for _, _, share in entries)
    column = round(swatch + gap + max(name_widths) + gap + share_width + 2 * gap)
    # A thumbnail still gets up to three columns, so that the strip does not become a tower.
    width = max(image.width, 2 * margin + column * min(3, len(entries)) if image.width < 2 * margin + column else 0)
    columns = min(len(entries), max(1, (width - 2 * margin + 2 * gap) // column))
    rows = -(-len(entries) // columns)
    canvas = Image.new("RGB", (width, image.height + 2 * margin + rows * line - (line - size)), LEGEND_BACKGROUND)
    canvas.paste(image, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for index, (color, _, share) in enumerate(entries):
        left = margin + index // rows * column  # down the columns, largest class first
        top = image.height + margin + index % rows * line
        draw.rounded_rectangle((left, top, left + swatch, top + swatch), size // 5, color, SWATCH_OUTLINE)
        text = left + swatch + gap
        middle = top + swatch / 2
        draw.text((text, middle), names[index], LEGEND_TEXT, font, anchor="lm")
        draw.text((text + name_widths[index] + gap, middle), share, LEGEND_SHARE, font, anchor="lm")
    return canvas
