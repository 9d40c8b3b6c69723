"""Losses: logits and labels -> sums with their normalisers, so that the mean is the same on one process and on many."""

from fastseg.losses.boundary import class_boundary, class_contours
from fastseg.losses.pixel import LOSSES, LossTerm, PixelLoss, cross_entropy, ohem_cross_entropy
from fastseg.losses.segmentation import SegLoss
from fastseg.losses.terms import TERMS, OutputLoss

__all__ = [
    "LOSSES",
    "TERMS",
    "LossTerm",
    "OutputLoss",
    "PixelLoss",
    "SegLoss",
    "class_boundary",
    "class_contours",
    "cross_entropy",
    "ohem_cross_entropy",
]
