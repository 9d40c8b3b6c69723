"""What an evaluation found: scores per class and category, as text and for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

NAN = float("nan")


@dataclass(frozen=True)
class BoundaryF:
    """Boundary F-scores, fractions 0..1: what they are is told in `fastseg.engine.boundary_score`.

    `per_class[i][k]` is that of class k within `thresholds[i]` pixels, NaN when no image shows the class; `means[i]` is
    the mean over classes without NaN.
    """

    thresholds: tuple[float, ...]
    per_class: tuple[tuple[float, ...], ...]
    means: tuple[float, ...]

    @classmethod
    def of_classes(cls, thresholds: Sequence[float], per_class: Sequence[Sequence[float]]) -> BoundaryF:
        """From the scores of the classes, which it averages."""
        return cls(tuple(thresholds), tuple(map(tuple, per_class)), tuple(map(mean, per_class)))


@dataclass(frozen=True)
class NamedIoU:
    """Intersection over union by name, fractions 0..1, NaN where there is none; `miou` is their mean without NaN."""

    names: tuple[str, ...]
    iou: tuple[float, ...]
    miou: float

    @classmethod
    def of(cls, names: Sequence[str], iou: Sequence[float]) -> NamedIoU:
        """From the scores, which it averages."""
        return cls(tuple(names), tuple(iou), mean(iou))


@dataclass(frozen=True)
class InstanceIoU:
    """The iIoU of classes and categories: what it is is told in `fastseg.engine.instance_score`."""

    classes: NamedIoU
    categories: NamedIoU


@dataclass(frozen=True)
class Scores:
    """What an evaluation found. Every score is a fraction 0..1; NaN stands for a class that nothing was seen of.

    `iou` is TP / (TP + FP + FN) per class, `accuracy` TP / (TP + FN). `mean_accuracy` leaves NaN out, and so does
    `miou`, unless the protocol counts absent classes. `pixel_accuracy` is over the labelled pixels, which are
    `pixels - void_pixels`. `protocol` is a name in `PROTOCOLS`.

    `categories` are there where the data set has any. `boundary_f` and `instance_iou`, where they were asked for, know
    one protocol only: void never counts.
    """

    class_names: tuple[str, ...]
    iou: tuple[float, ...]
    accuracy: tuple[float, ...]
    miou: float
    mean_accuracy: float
    pixel_accuracy: float
    pixels: int
    void_pixels: int
    protocol: str
    boundary_f: BoundaryF | None = None
    categories: NamedIoU | None = None
    instance_iou: InstanceIoU | None = None

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes in neither ground truth nor prediction."""
        return tuple(name for name, iou in zip(self.class_names, self.iou, strict=True) if math.isnan(iou))

    def to_dict(self) -> dict[str, object]:
        """For JSON: fractions, and None where a score does not exist; optional scores only when they are there."""
        content = asdict(self)
        optional = {"boundary_f", "categories", "instance_iou"}
        return {key: _for_json(value) for key, value in content.items() if value is not None or key not in optional}

    def table(self) -> str:
        """Aligned text: the scores in percent per class and category, their means, the protocol, absent classes."""
        boundary = self.boundary_f or BoundaryF((), (), ())
        columns = [("IoU %", (*self.iou, self.miou)), ("acc %", (*self.accuracy, self.mean_accuracy))]
        if self.instance_iou is not None:
            columns.append(_column("iIoU %", self.instance_iou.classes))
        for threshold, scores, of_all in zip(boundary.thresholds, boundary.per_class, boundary.means, strict=True):
            columns.append((f"F {threshold:g}px", (*scores, of_all)))
        lines = _aligned("class", self.class_names, columns)
        if self.categories is not None:
            columns = [_column("IoU %", self.categories)]
            if self.instance_iou is not None:
                columns.append(_column("iIoU %", self.instance_iou.categories))
            lines += ["", *_aligned("category", self.categories.names, columns), ""]
        lines.append(f"pixel accuracy {_percent(self.pixel_accuracy).strip()} % of {self.pixels - self.void_pixels} px")
        known = len(self.class_names)
        counted = known if PROTOCOLS[self.protocol].absent_counts else known - len(self.absent)
        lines.append(f"mean IoU over {counted} of {known} classes, protocol {self.protocol}")
        if self.instance_iou is not None:
            lines.append("iIoU: every object counts as much as one of its class's mean size, however small it is")
        if boundary.thresholds:
            lines.append("F: boundary F-score in %, mean over the images that show the class; void does not count")
        if self.absent:
            as_zero = ", counted as 0" if PROTOCOLS[self.protocol].absent_counts else ""
            lines.append(f"absent from labels and predictions{as_zero}: {', '.join(self.absent)}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Protocol:
    """Where benchmarks differ.

    `void_counts`: what is predicted on void ground truth is a false positive of the class predicted there.
    `absent_counts`: classes in neither ground truth nor prediction enter the mean IoU, as 0.
    """

    void_counts: bool = False
    absent_counts: bool = False


PROTOCOLS = {
    # cityscapesScripts' evalPixelLevelSemanticLabeling, mmsegmentation. PASCAL-Context with 59 classes has the
    # background as void, with 60 as a class; EncNet's figures for 60, to which FastFCN refers, are those for 59 times
    # 59/60: a class that nothing predicts, of IoU 0 (PyTorch-Encoding, issue 179).
    "void_ignored": Protocol(),
    # the evaluation of ENet's and ESPNet's authors on CamVid
    "camvid_authors": Protocol(void_counts=True),
    # ADE20K: demoEvaluation.m of CSAILVision/sceneparsing, where a class without a pixel has 0 / (eps + 0); so do
    # PASCAL-Context's figures by PyTorch-Encoding (EncNet, FastFCN). The same as void_ignored when no class is absent.
    "scene_parsing": Protocol(absent_counts=True),
}


def mean(values: Sequence[float]) -> float:
    """The mean without NaN; NaN when nothing else is there."""
    present = [value for value in values if not math.isnan(value)]
    return math.fsum(present) / len(present) if present else NAN


def _column(title: str, scores: NamedIoU) -> tuple[str, tuple[float, ...]]:
    return title, (*scores.iou, scores.miou)


def _aligned(title: str, names: Sequence[str], columns: Sequence[tuple[str, tuple[float, ...]]]) -> list[str]:
    """A row per name and one for the mean, in percent; every column is a title and its fractions."""
    rows = [title, *names, "mean"]
    width = max(map(len, rows))
    lines = [f"{name:<{width}}" for name in rows]
    for heading, values in columns:
        cells = [heading, *map(_percent, values)]
        lines = [f"{line}  {cell:>{max(6, len(heading))}}" for line, cell in zip(lines, cells, strict=True)]
    rule = "-" * len(lines[0])
    return [lines[0], rule, *lines[1:-1], rule, lines[-1]]


def _for_json(value: object) -> object:
    """Tuples as lists, and None for NaN, which JSON does not know; all through."""
    if isinstance(value, dict):
        return {key: _for_json(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_for_json(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _percent(fraction: float) -> str:
    return f"{'-':>6}" if math.isnan(fraction) else f"{100 * fraction:6.2f}"
