"""Labels of bilinearly upsampled logits in plain torch: only where neighbours disagree is anything interpolated.

Four neighbours of the map are the corners of a cell, and a pixel of the image in it has the value, for every class,
sum(w_i * x_i) over the corners, with the same weights w_i >= 0 (some may be 0) that sum to 1. So for classes a and b:

- If a is nowhere below b at the corners, it is not below b at the pixel. If a also has the lower index, b never is the
  label: the pixel's label is the lowest index among the largest.
- If a is above b at every corner, it is above b at the pixel, since at least one weight is not 0, and b never is the
  label, whichever has the lower index.

A class is beaten in a cell if a corner's label beats it so. The label of a corner is itself the lowest index among the
largest there: against the label of all four corners, a class of lower index is below it at each of them, and one of
higher index nowhere above. Where the corners agree, their label is that of every pixel; elsewhere only classes that
are not beaten need values, and there are two or three of them in the logits of trained networks. The label of a corner
is never beaten: who is nowhere below it would be the corner's label instead.

Values are computed in float64 with whole-number weights (`sampling`). Products and sums are exact for logits that are
small whole numbers, and otherwise off by a few parts in 2^53 of the largest corner: less than what separates classes
that differ at every corner in the last bit of a float32. So both rules hold for computed values, too, and the labels
are those of exact arithmetic, but for classes that come closer than this rounding without being equal.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastseg.ops.sampling import Side, side

BAND = 1 << 20  # logits that are looked at together
CHUNK = 1 << 17  # pixels that are interpolated together


class Maps(NamedTuple):
    """Rows of the map, logits (K,P) and their labels (P,), and the whole image's labels (N,H,W) with its sides."""

    logits: Tensor
    corners: Tensor
    labels: Tensor
    rows: Side
    columns: Side


class Blocks(NamedTuple):
    """M blocks of pixels: image, run of rows and run of columns (M,), their corners' places in the map (4,M).

    And, once they are counted: how many classes are left (M,), and the place of the first of them (M,).
    """

    image: Tensor
    row: Tensor
    column: Tensor
    corners: Tensor

    def some(self, which: Tensor | slice) -> Blocks:
        """Those blocks."""
        if isinstance(which, slice):
            return Blocks(*(indices[..., which] for indices in self))
        return Blocks(*(indices.index_select(-1, which) for indices in self))


def upsample_argmax_torch(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """Floating-point logits (N,K,h,w) -> labels (N,H,W), uint8 up to 256 classes, int16 beyond; on every device.

    Rows are done in bands, so that beyond the labels it takes some ten megabytes of memory.
    """
    n, k, h, w = logits.shape
    rows, columns = (side(a, b, align_corners, logits.device) for a, b in ((h, size[0]), (w, size[1])))
    labels = torch.empty((n, *size), dtype=torch.uint8 if k <= 256 else torch.int16, device=logits.device)
    runs = len(rows.first)
    count = max(1, BAND * runs // (n * k * max(w, len(columns.first)) * max(h, runs)))
    for start in range(0, runs, count):
        _fill_band(labels, logits, rows, columns, slice(start, min(start + count, runs)))
    return labels


def _fill_band(labels: Tensor, logits: Tensor, rows: Side, columns: Side, runs: slice) -> None:
    """Write the labels of some runs of rows: every block's as in its first corner, then those of mixed blocks."""
    begin, end = int(rows.pixels[0, runs.start]), int(rows.pixels[-1, runs.stop - 1]) + 1
    first_row, last_row = int(rows.first[runs.start]), int(rows.second[runs.stop - 1])
    values = logits[:, :, first_row : last_row + 1].transpose(0, 1).contiguous()
    if values.dtype != torch.float64:
        values = values.float()
    corners = _first_of_largest(values, labels.dtype)

    above, below = rows.first[runs] - first_row, rows.second[runs] - first_row
    upper, lower = corners.index_select(1, above), corners.index_select(1, below)
    first = upper.index_select(2, columns.first)
    mixed = first != upper.index_select(2, columns.second)
    mixed |= first != lower.index_select(2, columns.first)
    mixed |= first != lower.index_select(2, columns.second)
    wide = first.gather(2, columns.run.expand(*first.shape[:2], -1))
    repeat = rows.run[begin:end] - runs.start
    for image, lines in zip(labels, wide, strict=True):
        torch.index_select(lines, 0, repeat, out=image[begin:end])

    k, _, h, w = values.shape
    maps = Maps(values.view(k, -1), corners.view(-1), labels, rows, columns)
    image, row, column = mixed.nonzero(as_tuple=True)
    starts = [(image * h + index[row]) * w for index in (above, below)]
    places = torch.stack([start + index.index_select(0, column) for start in starts for index in (columns.first, columns.second)])
    blocks = Blocks(image, row + runs.start, column, places)
    count = max(1, BAND // (4 * k))
    for begin in range(0, len(image), count):
        _fill_mixed(maps, blocks.some(slice(begin, begin + count)))


def _first_of_largest(logits: Tensor, dtype: torch.dtype) -> Tensor:
    """Logits (K,N,h,w) -> the lowest class (N,h,w) of those with the largest; on a CPU 4 times as fast as `argmax`."""
    k = logits.shape[0]
    down = torch.arange(k - 1, -1, -1, device=logits.device, dtype=dtype)[:, None, None, None]
    return k - 1 - (logits == logits.amax(0)).to(dtype).mul_(down).amax(0)


def _fill_mixed(maps: Maps, blocks: Blocks) -> None:
    """Write the labels of blocks whose corners disagree."""
    left = _not_beaten(maps, blocks)
    counts, order = left.sum(0).sort(descending=True)  # the blocks with more than r classes left come first, for all r
    blocks = blocks.some(order)
    classes = left.index_select(1, order).T.contiguous().nonzero()[:, 1]  # of one block after the other, in ascending order
    start = counts.cumsum(0) - counts
    at_most = max(1, CHUNK // (len(maps.rows.pixels) * len(maps.columns.pixels)))
    pairs = int((counts > 2).sum())
    begin = 0
    while begin < len(counts):
        end = min(begin + at_most, pairs if begin < pairs else len(counts))
        some = slice(begin, end)
        some_blocks = blocks.some(some)
        canvas = Canvas(maps, some_blocks)
        if begin<pairs:
            found = _among_more(canvas, counts[some], classes, start[some])
        else:
            found = _among_two(canvas, classes, start[some])
        canvas.write(found)
        begin = end

def _among_two(canvas, classes, start):
    a, b = classes[start], classes[start + 1]
    lead = canvas.interpolate(canvas.values(b) - canvas.values(a))
    a, b = (x.to(canvas.dtype) for x in (a,b))
    return (lead > 0).to(a.dtype).mul_(b - a).add_(a)

def _among_more(canvas, counts, classes, start):
    c = classes[start]
    best = canvas.interpolate(canvas.values(c))
    found = c.to(canvas.dtype).expand(best.shape).contiguous()
    for rank in range(1, int(counts[0])):
        m = int((counts > rank).sum())
        c = classes[start[:m] + rank]
        value = canvas.interpolate(canvas.values(c))
        better = (value > best[..., :m]).to(found.dtype)
        found[..., :m] += better.mul_(c.to(found.dtype) - found[..., :m])
        torch.maximum(best[..., :m], value, out=best[..., :m])
    return found

class Canvas:
    def __init__(self, maps, blocks):
        self.flat=maps.logits.view(-1); self.stride=maps.logits.shape[1]; self.blocks=blocks
        self.wx = _of(maps.columns.weights, blocks.column)
        self.wy = _of(maps.rows.weights, blocks.row)
        self.labels=maps.labels; self.dtype=self.labels.dtype
        height, width = self.labels.shape[1:]
        r = (blocks.image * height + maps.rows.pixels.index_select(1, blocks.row)) * width  # (S,M)
        self.pixels = r[:, None] + maps.columns.pixels.index_select(1, blocks.column)
    def values(self, classes):
        return self.flat.index_select(0,(classes * self.stride + self.blocks.corners[:,:len(classes)]).view(-1)).view(4,-1).double()
    def interpolate(self, values):
        m=values.shape[1]; wx,wy=self.wx[...,:m],self.wy[...,:m]
        lines = torch.addcmul(values[0::2, None] * wx[0], values[1::2, None], wx[1]) # (2,T,M)
        return torch.addcmul(lines[0] * wy[0][:, None], lines[1], wy[1][:, None]) # (S,T,M)
    def write(self, found):
        self.labels.view(-1).scatter_(0, self.pixels.view(-1), found.view(-1))

def _of(w, index):
    return w if w.shape[-1]==1 else w.index_select(2,index)

def _not_beaten(maps: Maps, blocks: Blocks) -> Tensor:
    """Which classes (K,M) are not beaten by the label of a corner; of four, the lowest and the highest are asked."""
    (k, _), (_, m) = maps.logits.shape, blocks.corners.shape
    logits = maps.logits.index_select(1, blocks.corners.reshape(-1)).view(k, 4, m)
    classes = torch.arange(k, device=logits.device, dtype=maps.corners.dtype)[:, None]
    beaten = torch.zeros((k, m), dtype=torch.bool, device=logits.device)
    for label in maps.corners.index_select(0, blocks.corners.reshape(-1)).view(4, m).aminmax(dim=0):
        values = logits.gather(0, label.long().expand(1, 4, m))[0]
        lead = values[0] - logits[:, 0]
        for corner in range(1, 4):
            torch.minimum(lead, values[corner] - logits[:, corner], out=lead)
        beaten |= (lead > 0) | ((lead == 0) & (classes > label))
    return beaten.logical_not_()
