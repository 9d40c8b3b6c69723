"""What the doctor found in a data set: findings by kind, counts by split, as text and as a table for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fastseg.errors import printable
from fastseg.types import IGNORE_INDEX, DatasetInfo

SHOWN = 20
SIZES_SHOWN = 3

# kind -> level and title. Errors stop or spoil a training, warnings may, notes say what to expect.
KINDS = {
    "listing": ("error", "splits whose files do not fit together"),
    "classes": ("error", "data sets of other classes than the first"),
    "image": ("error", "images that cannot be read"),
    "label": ("error", "labels that cannot be read, or have values that the data set does not define"),
    "size": ("error", "labels of another size than their image"),
    "instances": ("error", "instance maps that cannot be read or do not fit their image"),
    "leak": ("error", "images that are trained on and held out as well"),
    "duplicate": ("warning", "images that occur more than once"),
    "ignored": ("warning", "labels that are ignored everywhere"),
    "constant": ("warning", "images of one colour"),
    "absent": ("warning", "classes that never occur"),
    "joined": ("note", "splits that are trained on and held out because the configuration says so"),
    "padding": ("note", "crops larger than the images"),
}


@dataclass(frozen=True)
class Finding:
    """One thing to know about a split; `file` is the file, or the sample's name, that it is about, if any."""

    kind: str
    split: str
    message: str
    file: str = ""

    @property
    def level(self) -> str:
        """'error', 'warning' or 'note'."""
        return KINDS[self.kind][0]


@dataclass
class SplitCounts:
    """What the readable samples of a split hold: pixels and images per label value (256), and sizes (H,W)."""

    name: str
    info: DatasetInfo
    images: int = 0
    readable: int = 0
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    shown_in: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    @property
    def ignored_share(self) -> float:
        """Ignored pixels among all, 0..1; 0 for none at all."""
        total = int(self.pixels.sum())
        return int(self.pixels[IGNORE_INDEX]) / total if total else 0.0

    def add(self, size: tuple[int, int], pixels: np.ndarray) -> None:
        """Count one more sample of `size` (H,W), whose label has `pixels` per value (256)."""
        self.readable += 1
        self.sizes[size] += 1
        self.pixels += pixels
        self.shown_in += pixels > 0

    def to_dict(self) -> dict[str, object]:
        """Plain values, sizes as 'WxH'."""
        return {
            "images": self.images,
            "readable": self.readable,
            "sizes": {_size(size): count for size, count in self.sizes.most_common()},
            "pixels": int(self.pixels.sum()),
            "ignored_pixels": int(self.pixels[IGNORE_INDEX]),
            "classes": {
                name: {"pixels": int(self.pixels[index]), "images": int(self.shown_in[index])}
                for index, name in enumerate(self.info.class_names)
            },
        }


@dataclass(frozen=True)
class Report:
    """All findings about `title`, worst kind first, and the counts of every split that could be listed."""

    title: str
    findings: tuple[Finding, ...]
    splits: tuple[SplitCounts, ...]

    def of_level(self, level: str) -> list[Finding]:
        """The findings of a level, by kind."""
        return [
            finding for kind in KINDS for finding in self.findings if finding.kind == kind and finding.level == level
        ]

    @property
    def errors(self) -> list[Finding]:
        """The findings that stop or spoil a training."""
        return self.of_level("error")

    def summary(self) -> str:
        """'0 errors, 2 warnings'."""
        return f"{number_of(len(self.errors), 'error')}, {number_of(len(self.of_level('warning')), 'warning')}"

    def to_dict(self) -> dict[str, object]:
        """Everything, as plain values."""
        return {
            "title": self.title,
            "errors": len(self.errors),
            "warnings": len(self.of_level("warning")),
            "findings": [
                {
                    "level": each.level,
                    "kind": each.kind,
                    "split": each.split,
                    "file": each.file,
                    "message": each.message,
                }
                for level in ("error", "warning", "note")
                for each in self.of_level(level)
            ],
            "splits": {counts.name: counts.to_dict() for counts in self.splits},
        }

    def text(self, shown: int = SHOWN) -> str:
        """For a reader: tables of splits and classes, up to `shown` findings of each kind, and the sum of them."""
        blocks = [self.title]
        if self.splits:
            blocks += [_split_table(self.splits), *_class_tables(self.splits)]
        for kind, (level, title) in KINDS.items():
            found = [finding for finding in self.findings if finding.kind == kind]
            if found:
                lines = [f"{level}: {title} ({len(found)})"]
                lines += [f"  {finding.split}: {finding.message}" for finding in found[:shown]]
                if len(found) > shown:
                    lines.append(f"  and {len(found) - shown} more; --json FILE lists all")
                blocks.append("\n".join(lines))
        return "\n\n".join([*blocks, self.summary()])


def _split_table(splits: Sequence[SplitCounts]) -> str:
    rows = [("split", "images", "readable", "ignored", "sizes")]
    for counts in splits:
        common = counts.sizes.most_common(SIZES_SHOWN)
        sizes = ", ".join(_size(size) + (f" ({count})" if len(counts.sizes) > 1 else "") for size, count in common)
        more = f", and {len(counts.sizes) - len(common)} more" if len(counts.sizes) > len(common) else ""
        ignored = f"{100 * counts.ignored_share:.1f} %" if counts.readable else "-"
        rows.append((counts.name, str(counts.images), str(counts.readable), ignored, (sizes or "-") + more))
    return _aligned(rows, text_columns={0, len(rows[0]) - 1})


def _class_tables(splits: Sequence[SplitCounts]) -> list[str]:
    """One table for the splits that share their classes: share of the labelled pixels, and images, by split."""
    tables = []
    for names in dict.fromkeys(counts.info.class_names for counts in splits):
        alike = [counts for counts in splits if counts.info.class_names == names]
        rows = [("class", *(title for counts in alike for title in (f"{counts.name} px", "images")))]
        for index, name in enumerate(names):
            cells = [cell for counts in alike for cell in _class_cells(counts, index)]
            rows.append((printable(name), *cells))
        tables.append(_aligned(rows, text_columns={0}))
    return tables


def _class_cells(counts: SplitCounts, index: int) -> tuple[str, str]:
    labelled = int(counts.pixels.sum() - counts.pixels[IGNORE_INDEX])
    if not counts.pixels[index]:
        return "-", "-"
    share = 100 * int(counts.pixels[index]) / labelled
    return (f"{share:.2f} %" if share >= 0.005 else "<0.01 %"), str(int(counts.shown_in[index]))


def _aligned(rows: Sequence[Sequence[str]], text_columns: set[int]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if place in text_columns else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _size(size: tuple[int, int]) -> str:
    height, width = size
    return f"{width}x{height}"


def number_of(number: int, noun: str) -> str:
    """'1 error', '2 errors'."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
