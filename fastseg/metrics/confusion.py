"""Counting pixels: ground truth against prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from fastseg.errors import DataError, LabelError, UnknownNameError, suggest
from fastseg.metrics.pair_counts import pair_counts
from fastseg.metrics.scores import NAN, PROTOCOLS, NamedIoU, Scores, mean
from fastseg.types import IGNORE_INDEX


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
        rows = self._as_byte(labels, name="labels")
        columns = self._as_byte(predictions.to(labels.device))
        counts, wrong = pair_counts(rows, columns, self.num_classes)
        if wrong:
            raise self._label_error(wrong)
        self.counts += counts.to(self.counts.device)

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

    def scores(
        self, class_names: Sequence[str], protocol: str = "void_ignored", categories: Sequence[str] = ()
    ) -> Scores:
        """Scores per class and their means, and per category where `categories` names that of each class.

        `protocol`: 'void_ignored' (cityscapesScripts) leaves void ground truth out; 'camvid_authors' (ENet, ESPNet)
        counts what is predicted there as false positives of the predicted class; 'scene_parsing' (ADE20K) leaves void
        out, and counts classes that nothing was seen of as 0 in the mean IoU. Raises UnknownNameError for another
        protocol, DataError unless there is one name, and one category, per class.
        """
        check_protocol(protocol)
        K = self.num_classes
        for given, kind in ((class_names, "class names"), (categories or class_names, "categories")):
            if len(given) != K:
                raise DataError(f"{len(given)} {kind} for a confusion matrix of {K} classes; give one per class")
        iou = self._iou([[k] for k in range(K)], protocol)
        *rows, void = self.counts.tolist()  # Python integers: divided once, rounded once
        labelled = [sum(row) for row in rows]
        correct = [rows[k][k] for k in range(K)]
        accuracy = [_ratio(correct[k], labelled[k]) for k in range(K)]
        every = [0.0 if math.isnan(each) else each for each in iou]
        return Scores(
            class_names=tuple(class_names),
            iou=tuple(iou),
            accuracy=tuple(accuracy),
            miou=mean(every if PROTOCOLS[protocol].absent_counts else iou),
            mean_accuracy=mean(accuracy),
            pixel_accuracy=_ratio(sum(correct), sum(labelled)),
            pixels=sum(labelled) + sum(void),
            void_pixels=sum(void),
            protocol=protocol,
            categories=self._categories(categories, protocol) if categories else None,
        )

    def false_positives(self, group: Sequence[int]) -> int:
        """Pixels labelled as none of the classes of `group` and predicted as one of them; void does not count."""
        others = [k for k in range(self.num_classes) if k not in group]
        return int(self.counts[others][:, list(group)].sum())

    def _categories(self, categories: Sequence[str], protocol: str) -> NamedIoU:
        """One class taken for another of its category is right."""
        names = tuple(dict.fromkeys(categories))
        groups = [[k for k, category in enumerate(categories) if category == name] for name in names]
        return NamedIoU.of(names, self._iou(groups, protocol))

    def _iou(self, groups: Sequence[Sequence[int]], protocol: str) -> list[float]:
        """TP / (TP + FN + FP) of groups of classes, each seen as one class."""
        found = []
        for group in groups:
            labelled = int(self.counts[list(group)].sum())
            true_positives = int(self.counts[list(group)][:, list(group)].sum())
            void = int(self.counts[-1, list(group)].sum()) if PROTOCOLS[protocol].void_counts else 0
            found.append(_ratio(true_positives, labelled + self.false_positives(group) + void))
        return found

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
