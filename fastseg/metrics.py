"""Scores from one integer matrix: exact counts, which add up over images, processes and machines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from fastseg.errors import DataError, LabelError, UnknownNameError, suggest
from fastseg.types import IGNORE_INDEX

# How often a pixel of void ground truth counts as a false positive of the class predicted there
PROTOCOLS = {
    "void_ignored": 0,  # cityscapesScripts
    "camvid_authors": 1,  # the evaluation of ENet's and ESPNet's authors on CamVid
}
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
        return cls(tuple(thresholds), tuple(map(tuple, per_class)), tuple(map(_mean, per_class)))


@dataclass(frozen=True)
class Scores:
    """What an evaluation found. Every score is a fraction 0..1; NaN stands for a class that nothing was seen of.

    `iou` is TP / (TP + FP + FN) per class, `accuracy` TP / (TP + FN); their means leave NaN out. `pixel_accuracy` is
    over the labelled pixels, which are `pixels - void_pixels`. `protocol` says what counts on void ground truth.
    `boundary_f`, where it was asked for, knows one protocol only: void never counts.
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

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes in neither ground truth nor prediction, which the mean IoU leaves out."""
        return tuple(name for name, iou in zip(self.class_names, self.iou, strict=True) if math.isnan(iou))

    def to_dict(self) -> dict[str, object]:
        """For JSON: fractions, and None where a score does not exist. `boundary_f` is there when it was asked for."""
        content = asdict(self)
        if self.boundary_f is None:
            del content["boundary_f"]
        return {key: _for_json(value) for key, value in content.items()}

    def table(self) -> str:
        """Aligned text: the scores in percent per class, then the means, the protocol and the absent classes."""
        boundary = self.boundary_f or BoundaryF((), (), ())
        columns = [("IoU %", (*self.iou, self.miou)), ("acc %", (*self.accuracy, self.mean_accuracy))]
        for threshold, scores, mean in zip(boundary.thresholds, boundary.per_class, boundary.means, strict=True):
            columns.append((f"F {threshold:g}px", (*scores, mean)))
        names = ["class", *self.class_names, "mean"]
        width = max(map(len, names))
        lines = [f"{name:<{width}}" for name in names]
        for title, values in columns:
            cells = [title, *map(_percent, values)]
            lines = [f"{line}  {cell:>{max(6, len(title))}}" for line, cell in zip(lines, cells, strict=True)]
        rule = "-" * len(lines[0])
        lines[1:1] = [rule]
        lines[-1:-1] = [rule]
        counted = len(self.class_names) - len(self.absent)
        lines.append(f"pixel accuracy {_percent(self.pixel_accuracy).strip()} % of {self.pixels - self.void_pixels} px")
        lines.append(f"mean IoU over {counted} of {len(self.class_names)} classes, protocol {self.protocol}")
        if boundary.thresholds:
            lines.append("F: boundary F-score in %, mean over the images that show the class; void does not count")
        if self.absent:
            lines.append(f"absent from labels and predictions: {', '.join(self.absent)}")
        return "\n".join(lines)


class ConfusionMatrix:
    """Pixel counts int64 (K+1,K+1): ground truth by row, prediction by column.

    The last row is void ground truth (label 255), the last column predictions outside 0..K-1. The sum of `counts` is
    the number of pixels seen. `device` is where the counts live; updates may come from any device.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        if not 1 <= num_classes <= IGNORE_INDEX:
            raise LabelError(f"num_classes is {num_classes}; allowed are 1-{IGNORE_INDEX}, since labels are one byte")
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes + 1, num_classes + 1, dtype=torch.int64, device=device)

    @property
    def pixels(self) -> int:
        """Pixels seen, void included."""
        return int(self.counts.sum())

    def update(self, labels: Tensor, predictions: Tensor) -> None:
        """Count pairs of pixels; both integer, of one shape, which may be any.

        Raises LabelError when shapes differ, for tensors of fractions, and for labels other than 0..K-1 and 255,
        naming the values; the counts are then unchanged.
        """
        if labels.shape != predictions.shape:
            raise LabelError(
                f"labels {tuple(labels.shape)} and predictions {tuple(predictions.shape)} differ in shape; "
                "predict at the size of the label map"
            )
        for name, tensor in (("labels", labels), ("predictions", predictions)):
            if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool:
                raise LabelError(f"{name} are {tensor.dtype}; give class indices as uint8 or another integer type")
        # One pass over 256 x 256 bins needs no masks, and shows every wrong label value with its count
        rows = self._as_byte(labels, name="labels")
        columns = self._as_byte(predictions.to(labels.device))
        pairs = torch.bincount(rows.flatten().int() * 256 + columns.flatten(), minlength=256 * 256).view(256, 256)
        K = self.num_classes
        wrong = pairs[K:IGNORE_INDEX].sum(dim=1)
        if wrong.any():
            raise self._label_error({int(value) + K: int(wrong[value]) for value in wrong.nonzero().flatten()})
        kept = torch.cat([pairs[:K], pairs[IGNORE_INDEX:]])
        self.counts += torch.cat([kept[:, :K], kept[:, K:].sum(dim=1, keepdim=True)], dim=1).to(self.counts.device)

    def merge(self, other: ConfusionMatrix) -> ConfusionMatrix:
        """Add the counts of `other` to this one, and return it. Raises DataError for another number of classes."""
        if other.num_classes != self.num_classes:
            raise DataError(
                f"cannot add confusion matrices of {self.num_classes} and {other.num_classes} classes; "
                "evaluate both on one class list"
            )
        self.counts += other.counts.to(self.counts.device)
        return self

    def __add__(self, other: ConfusionMatrix) -> ConfusionMatrix:
        return ConfusionMatrix(self.num_classes, self.counts.device).merge(self).merge(other)

    def all_reduce(self) -> ConfusionMatrix:
        """Sum over the processes of torch.distributed, so that every rank holds the total; alone, nothing changes."""
        self.counts = sum_over_ranks(self.counts)
        return self

    def scores(self, class_names: Sequence[str], protocol: str = "void_ignored") -> Scores:
        """Scores per class and their means.

        `protocol`: 'void_ignored' (cityscapesScripts) leaves void ground truth out; 'camvid_authors' (ENet, ESPNet)
        counts what is predicted there as false positives of the predicted class. Raises UnknownNameError for another
        protocol, DataError unless there is one name per class.
        """
        check_protocol(protocol)
        K = self.num_classes
        if len(class_names) != K:
            raise DataError(f"{len(class_names)} class names for a confusion matrix of {K} classes; give one per class")
        *rows, void = self.counts.tolist()  # Python integers: divided once, rounded once
        labelled = [sum(row) for row in rows]
        correct = [rows[k][k] for k in range(K)]
        predicted = [sum(row[k] for row in rows) + PROTOCOLS[protocol] * void[k] for k in range(K)]
        iou = [_ratio(correct[k], labelled[k] + predicted[k] - correct[k]) for k in range(K)]
        accuracy = [_ratio(correct[k], labelled[k]) for k in range(K)]
        return Scores(
            class_names=tuple(class_names),
            iou=tuple(iou),
            accuracy=tuple(accuracy),
            miou=_mean(iou),
            mean_accuracy=_mean(accuracy),
            pixel_accuracy=_ratio(sum(correct), sum(labelled)),
            pixels=sum(labelled) + sum(void),
            void_pixels=sum(void),
            protocol=protocol,
        )

    def _as_byte(self, values: Tensor, name: str = "") -> Tensor:
        """Values as 0..255. Outside: predictions become 255, which is no class; labels (`name` given) are an error."""
        if values.dtype is torch.uint8:
            return values
        values = values.long()  # 255 does not fit int8
        outside = (values < 0) | (values > IGNORE_INDEX)
        if name and outside.any():
            found, counts = values[outside].unique(return_counts=True)
            raise self._label_error(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        return torch.where(outside, IGNORE_INDEX, values).to(torch.uint8)

    def _label_error(self, wrong: dict[int, int]) -> LabelError:
        shown = ", ".join(f"{value}: {count} px" for value, count in list(wrong.items())[:5])
        return LabelError(
            f"labels have values {{{shown}}}; allowed are 0-{self.num_classes - 1}, and {IGNORE_INDEX} for void. "
            "Map raw ids to class indices first"
        )


def check_protocol(protocol: str) -> str:
    """`protocol` itself. Raises UnknownNameError with the nearest spellings."""
    if protocol not in PROTOCOLS:
        raise UnknownNameError(f"unknown protocol {protocol!r}; {suggest(protocol, PROTOCOLS)}")
    return protocol


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of `values` over the processes of torch.distributed, on its own device; alone, `values` itself."""
    if not (dist.is_available() and dist.is_initialized()):
        return values
    # NCCL moves CUDA memory only
    total = values.to("cuda" if dist.get_backend() == "nccl" else values.device, copy=True)
    dist.all_reduce(total)
    return total.to(values.device)


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else NAN


def _mean(values: Sequence[float]) -> float:
    present = [value for value in values if not math.isnan(value)]
    return math.fsum(present) / len(present) if present else NAN


def _for_json(value: object) -> object:
    """Tuples as lists, and None for NaN, which JSON does not know; all through."""
    if isinstance(value, dict):
        return {key: _for_json(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_for_json(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _percent(fraction: float) -> str:
    return f"{'-':>6}" if math.isnan(fraction) else f"{100 * fraction:6.2f}"
