"""The instance-level intersection over union, iIoU: a score in which small objects count as much as large ones.

iIoU = iTP / (iTP + FP + iFN) over the pixels of a class. Pixels of objects count with the weight (mean area of the
class's objects) / (area of this object), so that every object weighs as much as one of mean size; false positives
belong to no object and count once. Only objects that are told apart count in iTP and iFN: groups do not. A category has
a score when all its classes have objects; a pixel is right in it when any of its classes is predicted, and keeps the
weight that its own class gives it. Void ground truth does not count.

Sums are exact, in integers, and rounded once: they do not depend on the order of images or the number of processes.
cityscapesScripts adds floats image by image, and so differs from the exact score by some 1e-15.

Source: Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", arXiv 1604.01685, section 4.1;
mean areas, ids and what counts as those of evalPixelLevelSemanticLabeling.py in mcordts/cityscapesScripts, with one
difference: a predicted caravan or trailer, ids that no class has, would be right there in the category vehicle.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch

from fastseg.errors import DataError, LabelError
from fastseg.metrics import ConfusionMatrix, InstanceIoU, NamedIoU, sum_over_ranks
from fastseg.types import DatasetInfo

# data set -> class -> mean area of its objects in the training set, pixels
MEAN_AREAS = {
    "cityscapes": {
        "person": 3462.4756337644,
        "rider": 3930.4788056518,
        "car": 12794.0202738185,
        "truck": 27855.1264367816,
        "bus": 35732.1511111111,
        "train": 67583.7075812274,
        "motorcycle": 6298.7200839748,
        "bicycle": 4672.3249222261,
    }
}
PER_CLASS = 1000  # the id of an object is the id of its class times this, plus its number
NO_OBJECT, NO_SUCH_OBJECT = 255, 254
NO_CATEGORY = 254  # of predictions that are no class
ONE = 1 << 32  # shares of objects are sums of two integers, in units of 1 / ONE and 1 / ONE**2: 2**31 objects fit


class InstanceScore:
    """Sums over the objects of each class, in integers, for a data set whose mean areas are known.

    `counts` int64 (K,5) has the number of objects; the sum of the shares of their pixels that were predicted as their
    class, in units of 1 / `ONE` and of 1 / `ONE`**2; and that of those predicted as their category, alike. Raises
    DataError for a data set that does not tell objects apart, or whose mean areas are not known.
    """

    def __init__(self, info: DatasetInfo) -> None:
        if not scores_instances(info):
            raise DataError(f"{info.name} has no iIoU: it is defined for {', '.join(MEAN_AREAS)}")
        self.info = info
        self.counts = torch.zeros(info.num_classes, 5, dtype=torch.int64)
        objects = [name in info.instance_classes for name in info.class_names]
        self._owner = np.full(1 << 16, NO_OBJECT, np.uint8)  # instance id -> class
        for index, official in enumerate(info.official_ids):
            ids = slice(official * PER_CLASS, (official + 1) * PER_CLASS)
            self._owner[ids] = index if objects[index] else NO_SUCH_OBJECT
        names = list(dict.fromkeys(info.categories))
        self._category = np.full(256, NO_CATEGORY, np.uint8)  # class -> category
        self._category[: info.num_classes] = [names.index(name) for name in info.categories]

    def update(self, prediction: np.ndarray, instances: np.ndarray) -> None:
        """Count one image: predictions uint8 (H,W), where other values than 0..K-1 are no class, and its instance ids.

        Raises LabelError, without counting, for another size, and for objects of a class that has none.
        """
        if instances.shape != prediction.shape:
            raise LabelError(
                f"the instance map is {instances.shape[1]}x{instances.shape[0]} and the prediction "
                f"{prediction.shape[1]}x{prediction.shape[0]}; both have to be of the image's size"
            )
        owner = self._owner[instances]
        if (owner == NO_SUCH_OBJECT).any():
            raise LabelError(
                f"the instance map has the id {int(instances[owner == NO_SUCH_OBJECT][0])}, but classes with objects "
                f"are {', '.join(self.info.instance_classes)}; is this the file of instance ids?"
            )
        inside = owner != NO_OBJECT
        ids, owner, prediction = instances[inside], owner[inside], prediction[inside]
        areas = np.bincount(ids)
        found = np.flatnonzero(areas)
        for column, right in (
            (1, prediction == owner),
            (3, self._category[prediction] == self._category[owner]),
        ):
            pixels = np.bincount(ids[right], minlength=len(areas))[found].astype(np.int64)
            high, rest = np.divmod(pixels * ONE, areas[found])
            self._add(self._owner[found], column, high)
            self._add(self._owner[found], column + 1, rest * ONE // areas[found])
        self._add(self._owner[found], 0, np.ones(len(found), np.int64))

    def all_reduce(self) -> InstanceScore:
        """Sum over the processes of torch.distributed, so that every rank holds the total; alone, nothing changes."""
        self.counts = sum_over_ranks(self.counts)
        return self

    def scores(self, matrix: ConfusionMatrix) -> InstanceIoU:
        """The iIoU of classes and categories; NaN without objects to tell apart, or when nothing was seen of them.

        `matrix` has the pixels of the same images: false positives are its.
        """
        info = self.info
        objects, *shares = self.counts.T.tolist()
        as_class, as_category = (
            [Fraction(high, ONE) + Fraction(low, ONE**2) for high, low in zip(*pair, strict=True)]
            for pair in (shares[:2], shares[2:])
        )
        mean_areas = MEAN_AREAS[info.name]
        areas = [Fraction(mean_areas[name] if name in info.instance_classes else 0) for name in info.class_names]

        def iou(group: Sequence[int], right: Sequence[Fraction]) -> float:
            if not all(areas[k] for k in group):
                return float("nan")
            true_positives = sum((areas[k] * right[k] for k in group), Fraction())
            total = sum((areas[k] * objects[k] for k in group), Fraction(matrix.false_positives(group)))
            return float(true_positives / total) if total else float("nan")

        classes = range(info.num_classes)
        categories = list(dict.fromkeys(info.categories))
        groups = [[k for k in classes if info.categories[k] == name] for name in categories]
        return InstanceIoU(
            NamedIoU.of(info.class_names, [iou([k], as_class) for k in classes]),
            NamedIoU.of(categories, [iou(group, as_category) for group in groups]),
        )

    def _add(self, classes: np.ndarray, column: int, values: np.ndarray) -> None:
        self.counts[:, column].index_add_(0, torch.from_numpy(classes).long(), torch.from_numpy(values))


def scores_instances(info: DatasetInfo) -> bool:
    """Whether the data set's scores include the iIoU."""
    return bool(info.instance_classes) and MEAN_AREAS.get(info.name, {}).keys() >= set(info.instance_classes)
