"""Losses: logits and labels -> sums with their normalisers, so that the mean is the same on one process and on many."""

from fastseg.losses.boundary import class_boundary, class_contours, edge_cross_entropy, label_edges
from fastseg.losses.dual_task import contour_strength, dual_task
from fastseg.losses.pixel import (
    LOSSES,
    LossTerm,
    PixelLoss,
    cross_entropy,
    image_balanced_cross_entropy,
    ohem_cross_entropy,
)
from fastseg.losses.presence import class_presence
from fastseg.losses.segmentation import SegLoss
from fastseg.losses.terms import TERMS, OutputLoss, edge_attention

__all__ = [
    "LOSSES",
    "TERMS",
    "LossTerm",
    "OutputLoss",
    "PixelLoss",
    "SegLoss",
    "class_boundary",
    "class_contours",
    "class_presence",
    "contour_strength",
    "cross_entropy",
    "dual_task",
    "edge_attention",
    "edge_cross_entropy",
    "image_balanced_cross_entropy",
    "label_edges",
    "ohem_cross_entropy",
]
