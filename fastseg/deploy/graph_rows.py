"""Which rows of its input an operation needs for some rows of its result, and how it computes these alone.

Maps are (1,C,H,W) and rows are counted along H. The rules are exact: they give the rows that the operation gives on
whole maps. Which operation follows which rule is said in `graph_rules`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fastseg.deploy.graph_blocks import stride_of
from fastseg.deploy.graph_capture import Node
from fastseg.deploy.separable import FusedSeparable
from fastseg.layers.resize import resize


class Rule(ABC):
    """`by_rows` are the inputs of which the same rows are read; others are read whole."""

    def __init__(self, node: Node, by_rows: list[Node]) -> None:
        self.node = node
        self.by_rows = by_rows
        self.rows = by_rows[0].shape[2]

    def needs(self, first: int, last: int) -> tuple[int, int]:
        """Rows of the inputs, first and one past the last, for rows `first` to `last - 1` of the result."""
        return first, last

    def workspace(self, first: int, last: int) -> int:
        """Bytes that computing these rows takes besides inputs and result."""
        return 0

    @abstractmethod
    def run(self, value_of: Callable[[Node], Tensor], first: int, last: int) -> Tensor:
        """These rows of the result, where the values of inputs are the rows that `needs` says, or whole maps."""


class Pointwise(Rule):
    """Every row by itself."""

    def run(self, value_of: Callable[[Node], Tensor], first: int, last: int) -> Tensor:
        return self.node.call(value_of)


class Window(Rule):
    """A convolution or pooling, of windows of `size` rows, `dilation` apart, every `stride` rows.

    Beyond the map's border stand `padding` rows of `fill`. `apply` does the work without padding rows; `wide` is its
    workspace in bytes for each byte of its result.
    """

    def __init__(
        self,
        node: Node,
        apply: Callable[[Tensor], Tensor],
        *,
        size: int,
        stride: int,
        padding: int,
        dilation: int = 1,
        fill: float = 0.0,
        wide: float = 0.0,
    ) -> None:
        super().__init__(node, [node.args[0]])
        self.apply = apply
        self.stride, self.padding, self.reach = stride, padding, dilation * (size - 1) + 1
        self.fill, self.wide = fill, wide

    def needs(self, first: int, last: int) -> tuple[int, int]:
        start, end = self._window(first, last)
        return max(0, start), min(self.rows, end)

    def workspace(self, first: int, last: int) -> int:
        start, end = self._window(first, last)
        padded = (end - start) * row_bytes(self.by_rows[0]) if start < 0 or end > self.rows else 0
        return padded + int(self.wide * (last - first) * row_bytes(self.node))

    def run(self, value_of: Callable[[Node], Tensor], first: int, last: int) -> Tensor:
        x = value_of(self.by_rows[0])
        start, end = self._window(first, last)
        if start < 0 or end > self.rows:
            x = F.pad(x, (0, 0, max(0, -start), max(0, end - self.rows)), value=self.fill)
        return self.apply(x)

    def _window(self, first: int, last: int) -> tuple[int, int]:
        """Rows of the padded map, counted from the map's first."""
        start = first * self.stride - self.padding
        return start, start + (last - first - 1) * self.stride + self.reach


class FusedRows(Rule):
    """A fused block: its rows from the rows that they depend on, and a few more, whose results are left out.

    The kernel pads every map with zeros; what it computes next to these in the midst of the map is not used.
    """

    def __init__(self, node: Node, block: FusedSeparable) -> None:
        super().__init__(node, [node.args[0]])
        self.block = block
        self.stride = stride_of(block)
        self.reach = 0  # rows before and after
        for stage in reversed(block.chain()):
            dilation = stage.depthwise.dilation[0] if stage.depthwise is not None else int(stage.patches)
            self.reach = self.reach * stage.stride + dilation

    def needs(self, first: int, last: int) -> tuple[int, int]:
        # from a multiple of the stride, so that the band's rows are some of the map's
        start = (first * self.stride - self.reach) // self.stride * self.stride
        return max(0, start), min(self.rows, (last - 1) * self.stride + self.reach + 1)

    def workspace(self, first: int, last: int) -> int:
        return 2 * -(-self.reach // self.stride) * row_bytes(self.node)

    def run(self, value_of: Callable[[Node], Tensor], first: int, last: int) -> Tensor:
        skipped = first - self.needs(first, last)[0] // self.stride
        return self.block(value_of(self.by_rows[0]))[:, :, skipped : skipped + last - first]


class Transposed(Rule):
    """A transposed convolution: rows `stride` apart, on which each row of the map sheds `size` rows, are summed.

    `apply` gives all rows that a band sheds on, without cropping.
    """

    def __init__(
        self, node: Node, apply: Callable[[Tensor], Tensor], *, size: int, stride: int, padding: int, dilation: int
    ) -> None:
        super().__init__(node, [node.args[0]])
        self.apply = apply
        self.stride, self.padding, self.reach = stride, padding, dilation * (size - 1) + 1

    def needs(self, first: int, last: int) -> tuple[int, int]:
        begin = -(-(first + self.padding - self.reach + 1) // self.stride)
        begin = min(max(0, begin), self.rows - 1)
        return begin, max(begin + 1, min(self.rows, (last - 1 + self.padding) // self.stride + 1))

    def workspace(self, first: int, last: int) -> int:
        return (last - first + 2 * self.reach) * row_bytes(self.node)

    def run(self, value_of: Callable[[Node], Tensor], first: int, last: int) -> Tensor:
        shed = self.apply(value_of(self.by_rows[0]))
        start = first + self.padding - self.needs(first, last)[0] * self.stride
        return shed[:, :, start : start + last - first]


class Slice(Rule):
    """Every `step`-th row from `start` on."""

    def __init__(self, node: Node, start: int, step: int) -> None:
        super().__init__(node, [node.args[0]])
        self.start, self.step = start, step

    def needs(self, first: int, last: int) -> tuple[int, int]:
        return self.start + first * self.step, self.start + (last - 1) * self.step + 1

    def run(self, value_of: Callable[[Node], Tensor], first: int, last: int) -> Tensor:
        return value_of(self.by_rows[0])[:, :, :: self.step]


class Padding(Rule):
    """A border of `padding` (left, right, above, below) pixels around the map, constant or replicated."""

    def __init__(self, node: Node, padding: tuple[int, int, int, int], mode: str, value: float | None) -> None:
        super().__init__(node, [node.args[0]])
        self.padding, self.mode, self.value = padding, mode, value

    def needs(self, first: int, last: int) -> tuple[int, int]:
        above = self.padding[2]
        begin = min(max(0, first - above), self.rows - 1)
        return begin, max(begin + 1, min(self.rows, last - above))

    def run(self, value_of: Callable[[Node], Tensor], first: int, last: int) -> Tensor:
        left, right, above, _ = self.padding
        begin, end = self.needs(first, last)
        missing = (max(0, above - first), max(0, last - above - self.rows))
        padded = F.pad(value_of(self.by_rows[0]), (left, right, *missing), self.mode, self.value)
        skipped = max(0, first - above - begin)  # a band below the map needs one row of it, and shows none
        return padded[:, :, skipped : skipped + last - first] if end - begin + sum(missing) > last - first else padded


class Resampled(Rule):
    """Bilinear or bicubic resizing: along W as the whole map is resized, then each row as the sum of a few."""

    def __init__(self, node: Node, mode: str, align_corners: bool) -> None:
        super().__init__(node, [node.args[0]])
        self.mode, self.align_corners = mode, align_corners
        self.taps, self.weights = row_taps(self.rows, node.shape[2], mode, align_corners)
        # where a weight is 0 a row may need later rows than the one below it; bands only go down
        self.lowest: list[int] = self.taps[:, 0].flip(0).cummin(0).values.flip(0).tolist()
        self.highest: list[int] = self.taps[:, -1].cummax(0).values.tolist()

    def needs(self, first: int, last: int) -> tuple[int, int]:
        return self.lowest[first], self.highest[last - 1] + 1

    def workspace(self, first: int, last: int) -> int:
        begin, end = self.needs(first, last)
        widened = max(1, 4 // self.node.dtype.itemsize)
        return (end - begin + 2 * (last - first)) * row_bytes(self.node) * widened

    def run(self, value_of: Callable[[Node], Tensor], first: int, last: int) -> Tensor:
        x = value_of(self.by_rows[0])
        x = x if x.dtype == torch.float64 else x.float()  # as the operation itself does
        x = x.contiguous(memory_format=torch.channels_last)
        size = (x.shape[2], self.node.shape[3])
        x = resize(x, size, mode=self.mode, align_corners=self.align_corners).permute(0, 2, 3, 1)
        begin, _ = self.needs(first, last)
        taps = (self.taps[first:last] - begin).to(x.device)
        weights = self.weights[first:last, :, None, None].to(x)
        result = x.index_select(1, taps[:, 0]).mul_(weights[:, 0])
        for tap in range(1, taps.shape[1]):
            result.addcmul_(x.index_select(1, taps[:, tap]), weights[:, tap])
        return result.permute(0, 3, 1, 2).to(self.node.dtype)


def row_taps(rows: int, new_rows: int, mode: str, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Of which rows each new row is the sum, (new_rows,T) ascending, and their weights, float32 of the same shape.

    T is 2 for 'bilinear', 4 for 'bicubic'. The weights are those of the resizing itself: what it makes of a map that
    is 1 in every eighth row and 0 elsewhere, of which a new row sees one at most.
    """
    marks = (torch.arange(rows)[:, None] % 8 == torch.arange(8)).float()  # (rows,8)
    shares = resize(marks.T[None, :, :, None], (new_rows, 1), mode=mode, align_corners=align_corners)[0, :, :, 0].T
    scale = (rows - 1) / max(1, new_rows - 1) if align_corners else rows / new_rows
    offset = 0.0 if align_corners else 0.5
    position = (torch.arange(new_rows, dtype=torch.float64) + offset) * scale - offset
    # among the rows around, whatever rounding makes of a position that is whole
    near = position.floor().long()[:, None] + torch.arange(-2, 4)
    weights = torch.where((near >= 0) & (near < rows), shares.gather(1, near % 8), 0.0)
    count = 2 if mode == "bilinear" else 4
    lowest = (weights != 0).float().argmax(1, keepdim=True)
    chosen = (lowest + torch.arange(count)).clamp(max=near.shape[1] - 1)
    kept = torch.where(lowest + torch.arange(count) < near.shape[1], weights.gather(1, chosen), 0.0)
    return near.gather(1, chosen).clamp(0, rows - 1), kept


def row_bytes(node: Node) -> int:
    """Bytes of one row of a map."""
    return node.bytes // node.shape[2]
