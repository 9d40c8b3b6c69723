"""Labels inside cells whose corners disagree, from the few classes that may win there; see `uniform_cells`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastseg.ops.sampling import Side

CHUNK = 1 << 17  # pixels that are interpolated together


class Maps(NamedTuple):
    """Logits (K,P) at the places of some rows of all maps, their labels (P,), and the labels (N,H,W) to be written."""

    logits: Tensor
    corners: Tensor
    labels: Tensor
    rows: Side
    columns: Side


class Blocks(NamedTuple):
    """M blocks of pixels: image, run of rows and run of columns (M,), and the places (4,M) of their corners."""

    image: Tensor
    row: Tensor
    column: Tensor
    corners: Tensor

    def of(self, which: Tensor | slice) -> Blocks:
        """Those blocks."""
        if isinstance(which, slice):
            return Blocks(*(indices[..., which] for indices in self))
        return Blocks(*(indices.index_select(-1, which) for indices in self))


def fill_mixed(maps: Maps, blocks: Blocks) -> None:
    """Write the labels of blocks whose corners disagree."""
    left = not_beaten(maps, blocks).T.contiguous()
    classes = left.nonzero()[:, 1]  # of one block after the other, in ascending order
    counts = left.sum(1)
    start = counts.cumsum(0) - counts
    counts, order = counts.sort(descending=True)  # blocks with more than r classes left come first, for every r
    blocks, start = blocks.of(order), start.index_select(0, order)
    more = int((counts > 2).sum())
    step = max(1, CHUNK // (len(maps.rows.pixels) * len(maps.columns.pixels)))
    for begin, end in ((0, more), (more, len(counts))):
        for first in range(begin, end, step):
            some = slice(first, min(first + step, end))
            pixels = _Pixels(maps, blocks.of(some), classes, start[some])
            pixels.write(_of_pairs(pixels) if begin == more else _of_more(pixels, counts[some]))


def not_beaten(maps: Maps, blocks: Blocks) -> Tensor:
    """Which classes (K,M) are not beaten by the label of a corner; the lowest and the highest of the four are asked."""
    k, m = len(maps.logits), len(blocks.image)
    places = blocks.corners.reshape(-1)
    logits = maps.logits.index_select(1, places).view(k, 4, m)
    classes = torch.arange(k, device=logits.device, dtype=maps.corners.dtype)[:, None]
    beaten = torch.zeros((k, m), dtype=torch.bool, device=logits.device)
    for label in maps.corners.index_select(0, places).view(4, m).aminmax(dim=0):
        values = logits.gather(0, label.long().expand(1, 4, m))[0]
        lead = values[0] - logits[:, 0]
        for corner in range(1, 4):
            torch.minimum(lead, values[corner] - logits[:, corner], out=lead)
        beaten |= (lead > 0) | ((lead == 0) & (classes > label))
    return beaten.logical_not_()


def _of_pairs(pixels: _Pixels) -> Tensor:
    """Labels (S,T,M) of blocks with two classes left, from the sign of the difference."""
    a, b = pixels.classes(0), pixels.classes(1)
    lead = pixels.blend(pixels.values(b) - pixels.values(a))
    a, b = a.to(pixels.dtype), b.to(pixels.dtype)
    return (lead > 0).to(pixels.dtype).mul_(b - a).add_(a)  # many times faster than `where` on a CPU


def _of_more(pixels: _Pixels, counts: Tensor) -> Tensor:
    """Labels (S,T,M) of blocks with that many classes left, in descending order."""
    first = pixels.classes(0)
    best = pixels.blend(pixels.values(first))
    labels = first.to(pixels.dtype).expand(best.shape).contiguous()
    for rank in range(1, int(counts[0])):
        m = int((counts > rank).sum())
        classes = pixels.classes(rank, m)
        value = pixels.blend(pixels.values(classes))
        above = (value > best[..., :m]).to(pixels.dtype)
        labels[..., :m] += above.mul_(classes.to(pixels.dtype) - labels[..., :m])  # also where bytes go round
        torch.maximum(best[..., :m], value, out=best[..., :m])
    return labels


class _Pixels:
    """The pixels (S,T,M) of M blocks: rows, columns, and blocks innermost, which are many.

    `classes` has the classes that are left in all blocks, `start` (M,) where those of each begin.
    """

    def __init__(self, maps: Maps, blocks: Blocks, classes: Tensor, start: Tensor) -> None:
        self.maps, self.blocks = maps, blocks
        self.dtype = maps.labels.dtype
        self._classes, self._start = classes, start
        self._row_weights = _weights(maps.rows, blocks.row)
        self._column_weights = _weights(maps.columns, blocks.column)

    def classes(self, rank: int, m: int | None = None) -> Tensor:
        """The class of that rank in the first m blocks, (m,)."""
        return self._classes.index_select(0, self._start[:m] + rank)

    def values(self, classes: Tensor) -> Tensor:
        """Logits (4,m) of one class each at the corners of the first m blocks, in float64."""
        indices = classes * self.maps.logits.shape[1] + self.blocks.corners[:, : len(classes)]
        values = self.maps.logits.view(-1).index_select(0, indices.view(-1)).view(4, -1)
        return values.to(self._row_weights.dtype)

    def blend(self, values: Tensor) -> Tensor:
        """Values (4,m) at corners -> (S,T,m) at pixels, times the sums of the weights."""
        m = values.shape[1]
        left, right = self._column_weights[..., :m]
        lines = torch.addcmul(values[0::2, None] * left, values[1::2, None], right)
        above, below = self._row_weights[:, :, None, :m]
        return torch.addcmul(lines[0] * above, lines[1], below)

    def write(self, labels: Tensor) -> None:
        """Put labels (S,T,M) where they belong."""
        rows, columns = self.maps.rows.pixels, self.maps.columns.pixels
        height, width = self.maps.labels.shape[1:]
        lines = (self.blocks.image * height + rows.index_select(1, self.blocks.row)) * width
        indices = lines[:, None] + columns.index_select(1, self.blocks.column)
        self.maps.labels.view(-1).scatter_(0, indices.view(-1), labels.view(-1))


def _weights(side: Side, runs: Tensor) -> Tensor:
    """Of those runs: (2,S,M), or (2,S,1) where all runs have the same."""
    return side.weights if side.weights.shape[2] == 1 else side.weights.index_select(2, runs)
