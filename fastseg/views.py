"""Several looks at one image, resized and mirrored, and the labels on which they agree most."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from fastseg.layers.resize import resize, resize_rows
from fastseg.ops import normalize_images
from fastseg.types import Preprocessing

BAND_VALUES = 2**21  # probabilities that are computed at a time: 8 MB


def views(
    images: Tensor, preprocessing: Preprocessing, scales: Sequence[float], flip: bool
) -> Iterator[tuple[Tensor, bool]]:
    """The network's inputs for uint8 images (N,H,W,3): at every scale and, with `flip`, mirrored (True), too."""
    for scale, flipped in itertools.product(scales, (False, True) if flip else (False,)):
        x = normalize_images(images, preprocessing, scale=preprocessing.input_scale * scale)
        yield (x.flip(-1) if flipped else x), flipped


def mean_labels(
    views_logits: Iterable[Tensor], size: tuple[int, int], *, align_corners: bool = False
) -> tuple[Tensor, Tensor]:
    """Logits (N,K,h,w) of several views -> labels uint8 (N,H,W), and their mean probability float32 (N,H,W).

    Each view's softmax is taken at the images' size, band of rows by band of rows, so that no map of K classes has that
    size. Only where the views' logits together are larger than such a map, as for a network of stride 1, is their sum
    kept instead of them: then it and one view's logits are alive.
    """
    waiting: list[Tensor] = []
    total: Tensor | None = None
    count = 0
    for logits in views_logits:
        count += 1
        waiting.append(logits)
        full_size = logits.shape[0] * logits.shape[1] * size[0] * size[1]
        if total is not None or sum(each.numel() for each in waiting) > full_size:
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], *size)
            for start, stop in _bands(logits, size):
                total[..., start:stop, :] += _band_sum(waiting, size, start, stop, align_corners)
            waiting.clear()
        del logits  # else the last view's would be alive beside the next one's
    like = waiting[0] if total is None else total
    labels = torch.empty(like.shape[0], *size, dtype=torch.uint8, device=like.device)
    shares = torch.empty(like.shape[0], *size, device=like.device)
    for start, stop in _bands(like, size):
        band = _band_sum(waiting, size, start, stop, align_corners) if total is None else total[..., start:stop, :]
        best, found = band.max(dim=1)
        labels[:, start:stop], shares[:, start:stop] = found, best / count
    return labels, shares


def _bands(logits: Tensor, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """First row, and the row after the last one, of bands that cover an image of `size`."""
    rows = max(1, BAND_VALUES // (logits.shape[0] * logits.shape[1] * size[1]))
    for start in range(0, size[0], rows):
        yield start, min(size[0], start + rows)


def _band_sum(
    views_logits: Sequence[Tensor], size: tuple[int, int], start: int, stop: int, align_corners: bool
) -> Tensor:
    """The sum of the views' probabilities (N,K,stop-start,W), which has the argmax of their mean."""
    return sum(
        (resize_rows(each, size, start, stop, align_corners=align_corners).softmax(dim=1) for each in views_logits[1:]),
        resize_rows(views_logits[0], size, start, stop, align_corners=align_corners).softmax(dim=1),
    )


def mean_edges(maps: Iterable[Tensor], size: tuple[int, int]) -> Tensor:
    """Edge probabilities (N,1,h,w) of one or more views, each as large as its input -> their mean (N,H,W), 0..1."""
    # resizing is the inverse of how `views` made the network's input; one image-sized map is alive beside the sum
    mapped = (resize(each, size) for each in maps)
    total, count = next(mapped).clone(), 1
    for each in mapped:
        total += each
        count += 1
    return (total / count).clamp_(0, 1)[:, 0]
