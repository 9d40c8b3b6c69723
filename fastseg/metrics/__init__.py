"""Scores from one integer matrix: exact counts, which add up over images, processes and machines."""

from fastseg.metrics.confusion import ConfusionMatrix, check_protocol, sum_over_ranks
from fastseg.metrics.scores import PROTOCOLS, BoundaryF, InstanceIoU, NamedIoU, Scores

__all__ = [
    "PROTOCOLS",
    "BoundaryF",
    "ConfusionMatrix",
    "InstanceIoU",
    "NamedIoU",
    "Scores",
    "check_protocol",
    "sum_over_ranks",
]
