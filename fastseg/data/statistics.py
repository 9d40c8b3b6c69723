"""Class frequencies of a data set, and the class weights made from them."""

from __future__ import annotations

import numpy as np

from fastseg.data.dataset import SegDataset
from fastseg.errors import ConfigError, suggest

WEIGHTINGS = ("enet", "espnet", "median")
LOG_OFFSETS = {"enet": 1.02, "espnet": 1.10}


def class_weights(dataset: SegDataset, weighting: str, *, limit: int = 500) -> list[float]:
    """Weights of the classes (K) by their share of pixels, over at most `limit` evenly spaced samples.

    'enet' is 1/ln(1.02 + p) with p the class's share of valid pixels (arXiv 1606.02147, section 5.2); 'espnet' is
    1/ln(1.10 + p), which keeps rare classes below 10.5 (the code of arXiv 1803.06815's authors: train/loadData.py of
    sacmehta/ESPNet); 'median' is median(f)/f with f the class's share within the images that show it (arXiv 1411.4734,
    section 6.3.2). A class that never occurs weighs 1. Raises ConfigError for another weighting.
    """
    if weighting not in WEIGHTINGS:
        raise ConfigError(f"loss.class_weights is {weighting!r}; {suggest(weighting, ('none', *WEIGHTINGS))}")
    num_classes = dataset.info.num_classes
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(limit, len(dataset))).astype(int))
    pixels, presence = np.zeros(num_classes), np.zeros(num_classes)
    for index in indices:
        counts = np.bincount(dataset.load_label(int(index)).ravel(), minlength=256)[:num_classes]
        pixels += counts
        presence += np.where(counts > 0, counts.sum(), 0)
    occurs = pixels > 0
    weights = np.ones(num_classes)
    if not occurs.any():
        return [1.0] * num_classes
    if weighting in LOG_OFFSETS:
        weights[occurs] = 1 / np.log(LOG_OFFSETS[weighting] + pixels[occurs] / pixels.sum())
    else:
        share = pixels[occurs] / presence[occurs]
        weights[occurs] = np.median(share) / share
    return [float(weight) for weight in weights]
