"""Many labelled images on one picture: each beside its classes, ignored pixels hatched, one legend for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fastseg.errors import printable
from fastseg.output import LEGEND_BACKGROUND, LEGEND_TEXT, Prediction, legend_entries, with_legend
from fastseg.types import IGNORE_INDEX, DatasetInfo

WIDTH = 2400  # of the sheet, at most
SHAPE = 1.6  # width to height that the columns aim at: a screen's
SMALLEST = 240  # pixels of an image's wider side, to which thumbnails are enlarged
MARGIN, GAP = 24, 4
HATCH_STEP, HATCH_WIDTH = 12, 2
HATCH_COLOURS = ((255, 255, 255), (30, 30, 30))  # one of them shows on any image


@dataclass(frozen=True)
class Tile:
    """One sample of a sheet: image uint8 (H,W,3) RGB, label uint8 (H,W), and what to write below."""

    image: np.ndarray
    label: np.ndarray
    name: str


def contact_sheet(tiles: Sequence[Tile], dataset: DatasetInfo, title: str) -> Image.Image:
    """A picture of at most 2400 pixels width: image and overlay side by side, in rows of tiles, and a legend below.

    Images keep their aspect. The legend's shares are those of all tiles together.
    """
    widest, highest = max(t.image.shape[1] for t in tiles), max(t.image.shape[0] for t in tiles)
    columns = _columns(len(tiles), widest, highest)
    room = (WIDTH - MARGIN * (columns + 1)) // columns  # for a pair
    scale = (room - GAP) / 2 / widest
    if scale > 1:  # enlarge thumbnails only, by whole pixels
        scale = max(1, min(math.floor(scale), math.ceil(SMALLEST / max(widest, highest))))
    width, height = max(1, int(widest * scale)), max(1, round(highest * scale))
    pair = 2 * width + GAP
    sheet_width = columns * (pair + MARGIN) + MARGIN
    text = max(14, sheet_width // 100)
    font, title_font = ImageFont.load_default(text), ImageFont.load_default(round(1.2 * text))
    top, row = 2 * MARGIN + 2 * text, height + 2 * text + GAP
    sheet = Image.new("RGB", (sheet_width, top + math.ceil(len(tiles) / columns) * row), LEGEND_BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), _shortened(title, title_font, sheet_width - 2 * MARGIN), LEGEND_TEXT, title_font)
    for place, tile in enumerate(tiles):
        x, y = MARGIN + place % columns * (pair + MARGIN), top + place // columns * row
        for offset, picture in enumerate(_pictures(tile, dataset, width, height)):
            sheet.paste(picture, (x + offset * (width + GAP), y))
        draw.text((x, y + height + GAP), _shortened(tile.name, font, pair), LEGEND_TEXT, font)
    entries = [
        entry._replace(name="ignored (hatched)") if entry.name == "ignored" else entry
        for entry in legend_entries(np.concatenate([tile.label.ravel() for tile in tiles]), dataset)
    ]
    return with_legend(sheet, entries)


def _columns(count: int, width: int, height: int) -> int:
    """How many tiles stand in a row, so that the sheet comes near its shape."""

    def distance(columns: int) -> float:
        rows = math.ceil(count / columns)
        return abs(math.log(columns * (2 * width) / (rows * height) / SHAPE))

    return min(range(1, min(count, 6) + 1), key=distance)


def _pictures(tile: Tile, dataset: DatasetInfo, width: int, height: int) -> tuple[Image.Image, Image.Image]:
    """The image, and the image under its classes, as large as fits `width` x `height`."""
    scale = min(width / tile.label.shape[1], height / tile.label.shape[0])
    size = max(1, round(tile.label.shape[1] * scale)), max(1, round(tile.label.shape[0] * scale))
    smooth = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    image = Image.fromarray(tile.image).resize(size, smooth)
    label = np.asarray(Image.fromarray(tile.label).resize(size, Image.Resampling.NEAREST))
    overlay = np.array(Prediction(label, np.asarray(image), dataset).overlay(alpha=0.6, legend=False))
    stripe = (
        (np.arange(label.shape[0])[:, None] + np.arange(label.shape[1])) % HATCH_STEP // HATCH_WIDTH
    )  # 0 and 1 are the two colours, the rest is the image
    for number, colour in enumerate(HATCH_COLOURS):
        overlay[(label == IGNORE_INDEX) & (stripe == number)] = colour
    return image, Image.fromarray(overlay)


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """As much of the text as fits, its end at least: names differ there."""
    text = printable(text)
    if font.getlength(text) <= width:
        return text
    while len(text) > 1 and font.getlength("..." + text) > width:
        text = text[1:]
    return "..." + text
