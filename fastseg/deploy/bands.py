"""Huge images in little memory, exactly: a network computed band by band of rows.

Unlike blended tiles the result is that of the whole image, up to the rounding of sums: each operation computes rows
from all the rows that they depend on, and what looks at the whole map (global pooling) gets the whole map.
"""

from __future__ import annotations

import ctypes
import math
import sys

import torch
from torch import Tensor

from fastseg.deploy.graph_capture import Node, aten, capture
from fastseg.deploy.graph_phases import cut_into_phases, is_view
from fastseg.deploy.graph_rows import Rule
from fastseg.deploy.graph_schedule import Compute, Forget, Rows, Schedule, Whole, schedule
from fastseg.deploy.model import DeployedModel
from fastseg.errors import ConfigError
from fastseg.ops import upsample_argmax

# Larger bands leave the processor's caches and smaller ones are slower for their number
LARGEST_BAND = 16 * 2**20
SMALLEST_BAND = 2**14
LABEL_BYTES = 2  # for each pixel, while labels are made of logits
# What convolutions take for themselves and the allocator cannot use again, measured in bands (docs/results/huge.md)
SCRATCH_BANDS = 10


def amount(size: int) -> str:
    """Bytes for people, rounded up: '700 bytes', '1 KB', '13.2 MB'."""
    if size < 1000:
        return f"{size} bytes"
    return f"{math.ceil(size / 1e3)} KB" if size <= 999_000 else f"{math.ceil(size / 1e5) / 10} MB"


class BandedProgram:
    """`deployed` for images of one size, band by band, with at most `max_bytes` of memory besides weights and image.

    `peak_bytes` is what it takes by its own estimate: tensors that are alive at a time, counted, and a supplement for
    what libraries take within an operation. Building a program traces the network, about a second. Raises ConfigError
    where the budget is too small, naming the smallest that is not.
    """

    def __init__(
        self,
        deployed: DeployedModel,
        size: tuple[int, int],
        max_bytes: int | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        self.deployed = deployed
        self.size = size
        self.max_bytes = max_bytes
        self.phases = cut_into_phases(capture(deployed, *size, torch.device(device)))
        self.kept = {node for phase in self.phases.phases for node in phase.kept}
        self.schedule = self._fitting(max_bytes)

    @property
    def peak_bytes(self) -> int:
        return self._peak(self.schedule)

    def logits(self, images: Tensor) -> Tensor:
        """uint8 RGB images (N,H,W,3) of the program's size -> float32 logits (N,K,h,w), as `DeployedModel.forward`.

        Raises ConfigError for another size.
        """
        return torch.cat([self._logits(image[None]) for image in self._checked(images)])

    def labels(self, images: Tensor) -> Tensor:
        """uint8 RGB images (N,H,W,3) of the program's size -> labels (N,H,W), as `DeployedModel.labels`.

        Raises ConfigError for another size.
        """
        align_corners = self.deployed.align_corners
        return torch.cat(
            [
                upsample_argmax(self._logits(image[None]), self.size, align_corners=align_corners)
                for image in self._checked(images)
            ]
        )

    def _checked(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:3]) != self.size:
            given, own = (f"{width}x{height}" for height, width in (images.shape[1:3], self.size))
            raise ConfigError(f"images have {given} pixels and this program is for {own}; build another for their size")
        return images

    def _logits(self, image: Tensor) -> Tensor:
        with torch.inference_mode():
            return _Run(self, image).logits()

    def _fitting(self, max_bytes: int | None) -> Schedule:
        """The schedule with the largest bands that fit."""
        band_bytes, needed = LARGEST_BAND, []
        while band_bytes >= SMALLEST_BAND:
            found = schedule(self.phases, band_bytes)
            needed.append(self._peak(found))
            if max_bytes is None or needed[-1] <= max_bytes:
                return found
            band_bytes //= 2
        height, width = self.size
        raise ConfigError(
            f"the memory budget is {amount(max_bytes or 0)}, and an image of {width}x{height} pixels takes at least "
            f"{amount(min(needed))} with this network; raise the budget or scale the image down"
        )

    def _peak(self, found: Schedule) -> int:
        height, width = self.size
        logits = found.peak_bytes + SCRATCH_BANDS * found.largest_band
        return max(logits, self.phases.output.bytes + LABEL_BYTES * height * width)


class _Run:
    """The values of one image while a program runs."""

    def __init__(self, program: BandedProgram, image: Tensor) -> None:
        self.program = program
        self.image = image
        self.full: dict[Node, Tensor] = {}
        self.rows: dict[Node, Rows[Tensor]] = {}

    def logits(self) -> Tensor:
        _hand_back()
        for step in self.program.schedule.steps:
            if isinstance(step, Compute):
                self._compute(step)
            elif isinstance(step, Forget):
                self.rows[step.node].forget(step.first, _copied)
            elif isinstance(step, Whole):
                self.full[step.node] = self._whole(step.node)
            else:
                del self.full[step.node]
                _hand_back()
        return self.full[self.program.phases.output]

    def _whole(self, node: Node) -> Tensor:
        if node in self.program.phases.small_rules:
            return self._by_rule(self.program.phases.small_rules[node], 0, node.shape[2])
        if node.function in (aten.view.default, aten._unsafe_view.default):  # memory may be laid out in another order
            return self.full[node.args[0]].reshape(node.args[1])
        return node.call(self.full.__getitem__)

    def _compute(self, step: Compute) -> None:
        rule = self.program.phases.rules.get(step.node)
        if rule is None:
            result = self.program.deployed.inputs(self.image[:, step.first : step.last], scale=1.0)
        else:
            result = self._by_rule(rule, step.first, step.last)
            if is_view(step.node):  # of rows that may be forgotten
                result = result.contiguous(memory_format=torch.channels_last)
        if step.node in self.program.kept:
            self._keep(step, result)
        else:
            self.rows.setdefault(step.node, Rows()).append(step.first, step.last, result)

    def _by_rule(self, rule: Rule, first: int, last: int) -> Tensor:
        begin, end = rule.needs(first, last)
        by_rows = {node: self._read(node, begin, end) for node in rule.by_rows}
        return rule.run(lambda node: by_rows[node] if node in by_rows else self.full[node], first, last)

    def _keep(self, step: Compute, result: Tensor) -> None:
        if step.node not in self.full:
            self.full[step.node] = torch.empty(
                step.node.shape, dtype=result.dtype, device=result.device, memory_format=torch.channels_last
            )
        self.full[step.node][:, :, step.first : step.last] = result

    def _read(self, node: Node, begin: int, end: int) -> Tensor:
        if node in self.full:
            return self.full[node][:, :, begin:end]
        pieces = [
            held[:, :, max(begin - first, 0) : end - first]
            for first, _, _, held in self.rows[node].covering(begin, end)
        ]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)


def _hand_back() -> None:
    """Give the system the memory that was freed, as far as the allocator (glibc's) can be told to."""
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _copied(rows: Tensor, begin: int, end: int) -> Tensor:
    return rows[:, :, begin:end].clone()


def banded_labels(deployed: DeployedModel, images: Tensor, max_bytes: int) -> Tensor:
    """uint8 RGB images (N,H,W,3) -> labels (N,H,W), as `deployed.labels`, in at most `max_bytes` besides both.

    Plans the bands anew; a `BandedProgram` is the plan for many images of one size. Raises ConfigError for a budget
    that is too small.
    """
    size = (images.shape[1], images.shape[2])
    return BandedProgram(deployed, size, max_bytes, device=images.device).labels(images)
