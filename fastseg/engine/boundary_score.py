"""The boundary F-score: how closely the contours of the predicted classes follow the true ones.

For one image and one class, P is the share of the predicted mask's boundary pixels that have a boundary pixel of the
true mask within a threshold (Euclidean distance, in pixels), R is the reverse, and F = 2PR / (P + R). The score of a
class is the mean F over the images that show it, and the mean score is that over the classes.

Boundary: a pixel whose membership of the mask differs from that of its right, lower or lower right neighbour. The
image's frame is no boundary.

Void: unlabelled pixels belong to no mask, neither the true nor the predicted one. What is predicted there does not
matter at all. A class that reaches a void region ends at it, in both masks alike: where the prediction is right beside
the region that border is a hit, where it is wrong there it is a miss, and a prediction that is right on every labelled
pixel scores 1. So void regions add easy boundary, and data sets that differ much in void do not compare.

Which images count: those where the class is labelled or predicted (on a labelled pixel). A class in one of the two only
scores 0, one in neither is left out. A class that fills the image in both has no boundary, and scores 1.

Sources: Gated-SCNN, arXiv 1907.05740, section 4 (thresholds); the contour accuracy of DAVIS, Perazzi et al., CVPR 2016.
The public DAVIS evaluation has the same boundary pixels, and discs of a radius in pixels for the distance; thresholds
that are fractions of the image's diagonal are rounded up. It scores 1 where neither mask has a boundary: with many
classes, of which an image shows a few, that would count every absent class as perfect.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch

from fastseg.errors import ConfigError
from fastseg.metrics import BoundaryF, sum_over_ranks
from fastseg.types import IGNORE_INDEX

# 0.00088, 0.001875, 0.00375 and 0.005 of the diagonal of a 1024x2048 image, rounded up; in smaller images they are lax
PAPER_THRESHOLDS = (3.0, 5.0, 9.0, 12.0)
ONE = 1 << 40  # F = 1 as an integer: sums are exact in any order, and 8 million images fit into 63 bits


class BoundaryScore:
    """Sums of boundary F-scores over images, for each class and threshold, in integers.

    `counts` int64 (K,1+T) has the number of images that show a class, then the sums of F, in units of 1 / `ONE`.
    Thresholds are distances in pixels. Raises ConfigError for one that is not finite and above 0.
    """

    def __init__(self, num_classes: int, thresholds: Sequence[float] = PAPER_THRESHOLDS) -> None:
        self.thresholds = check_thresholds(thresholds)
        self.counts = torch.zeros(num_classes, 1 + len(self.thresholds), dtype=torch.int64)

    def update(self, label: np.ndarray, prediction: np.ndarray) -> None:
        """Count one image: labels (H,W) in 0..K-1 or 255, predictions (H,W), where other values are no class."""
        prediction = np.where(label == IGNORE_INDEX, IGNORE_INDEX, prediction)
        for index, counts in enumerate(self.counts):
            found = _f_scores(label == index, prediction == index, self.thresholds)
            if found is not None:
                counts += torch.tensor([1, *found])

    def all_reduce(self) -> BoundaryScore:
        """Sum over the processes of torch.distributed, so that every rank holds the total; alone, nothing changes."""
        self.counts = sum_over_ranks(self.counts)
        return self

    def scores(self) -> BoundaryF:
        """Mean F per threshold and class (NaN for a class that no image shows), and the means over the classes."""
        rows = [(images, sums) for images, *sums in self.counts.tolist()]
        return BoundaryF.of_classes(
            self.thresholds,
            [
                [sums[column] / (ONE * images) if images else math.nan for images, sums in rows]
                for column in range(len(self.thresholds))
            ],
        )


def check_thresholds(thresholds: Sequence[float]) -> tuple[float, ...]:
    """The thresholds themselves. Raises ConfigError unless each is a finite number of pixels above 0."""
    if not all(math.isfinite(threshold) and threshold > 0 for threshold in thresholds):
        given = ", ".join(f"{threshold:g}" for threshold in thresholds)
        raise ConfigError(f"boundary thresholds are {given}; give distances in pixels above 0, such as 3 5 9 12")
    return tuple(map(float, thresholds))


def boundary_pixels(mask: np.ndarray) -> np.ndarray:
    """Where a mask bool (H,W) differs from its right, lower or lower right neighbour, as far as there is one."""
    found = np.zeros_like(mask)
    found[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    found[:-1] |= mask[:-1] ^ mask[1:]
    found[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return found


def _f_scores(truth: np.ndarray, predicted: np.ndarray, thresholds: Sequence[float]) -> list[int] | None:
    """F of two masks bool (H,W) for each threshold, in units of 1 / `ONE`; None when both are empty."""
    left, top, width, height = cv2.boundingRect((truth | predicted).view(np.uint8))
    if width == 0:
        return None
    # All boundary pixels, and so all that distances are measured between, are within one pixel of the two masks
    window = slice(max(top - 1, 0), top + height + 1), slice(max(left - 1, 0), left + width + 1)
    truth, predicted = truth[window], predicted[window]
    if not (truth.any() and predicted.any()):
        return [0 for _ in thresholds]
    true_boundary, predicted_boundary = boundary_pixels(truth), boundary_pixels(predicted)
    true_count, predicted_count = (int(np.count_nonzero(found)) for found in (true_boundary, predicted_boundary))
    if not (true_count and predicted_count):
        return [ONE if true_count == predicted_count else 0 for _ in thresholds]  # a mask that fills the image
    to_truth, to_predicted = (
        _distances(predicted_boundary, true_boundary),
        _distances(true_boundary, predicted_boundary),
    )
    scores = []
    for threshold in thresholds:
        precise = int(np.count_nonzero(to_truth <= threshold))  # P = precise / predicted_count
        recalled = int(np.count_nonzero(to_predicted <= threshold))  # R = recalled / true_count
        denominator = precise * true_count + recalled * predicted_count
        scores.append((2 * precise * recalled * ONE + denominator // 2) // denominator if denominator else 0)
    return scores


def _distances(points: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """The distance from each True pixel of `points` to the nearest True pixel of `goals`, float64."""
    to_zero = cv2.distanceTransform((~goals).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # OpenCV's root is off by some 1e-6, which would put a distance of 3 beyond 3; squares of distances are integers
    return np.sqrt(np.rint(np.square(to_zero[points], dtype=np.float64)))
