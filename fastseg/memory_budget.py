"""Images of any size within a given amount of memory."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from fastseg.data.notes import say_once
from fastseg.deploy import DeployedModel
from fastseg.errors import ConfigError

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
PROBE = (256, 512)  # the size at which a network's memory per pixel is counted
MARGIN = 1.5  # what operations take besides their results; measured: Fast-SCNN 63 bytes per pixel where 44 are counted
PROGRAMS = 4  # sizes whose plan is kept; making one takes about a second


def parse_bytes(amount: str | int) -> int:
    """'2GB', '500 MB', '1.5GiB' or a number of bytes -> bytes. Raises ConfigError for anything else, and for 0."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(amount), re.IGNORECASE)
    if found is None or found[2].upper() not in UNITS or int(float(found[1]) * UNITS[found[2].upper()]) < 1:
        raise ConfigError(f"{str(amount)!r} is no amount of memory; write it as 500MB, 2GB or 1.5GiB")
    return int(float(found[1]) * UNITS[found[2].upper()])


class MemoryBudget:
    """Chooses how a deployed network computes an image: whole where that fits in `max_bytes`, else in bands of rows.

    Both give the same logits, up to the rounding of sums (see `fastseg.deploy.bands`). The memory counts from an image
    to its logits, without weights.
    """

    def __init__(self, deployed: DeployedModel, max_bytes: int, device: torch.device) -> None:
        self.deployed = deployed
        self.max_bytes = max_bytes
        self.device = device
        self._bytes_per_pixel: float | None = None
        self._programs: OrderedDict[tuple[int, int], Callable[[Tensor], Tensor]] = OrderedDict()

    def network(self, images: Tensor, whole: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """What turns uint8 images (N,H,W,3) into their logits: `whole`, or the network in bands.

        Raises ConfigError where even bands do not fit, naming the smallest budget that would do.
        """
        count, height, width = images.shape[:3]
        if self._bytes_per_pixel is None:
            self._bytes_per_pixel = bytes_per_pixel(self.deployed, self.device)
        if self._bytes_per_pixel * count * height * width <= self.max_bytes:
            return whole
        size = (height, width)
        if size not in self._programs:
            self._programs[size] = self._in_bands(size)
            if len(self._programs) > PROGRAMS:
                self._programs.popitem(last=False)
        self._programs.move_to_end(size)
        return self._programs[size]

    def _in_bands(self, size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
        from fastseg.deploy.bands import BandedProgram

        program = BandedProgram(self.deployed, size, self.max_bytes, device=self.device)
        say_once(
            f"images of {size[1]}x{size[0]} are computed in bands of rows: {program.peak_bytes / 1e6:.0f} MB, with the "
            "labels of the whole image",
            level=logging.INFO,
        )
        return program.logits


def bytes_per_pixel(deployed: DeployedModel, device: torch.device) -> float:
    """Memory that the network takes for an image computed whole, by the maps alive at a time, with a margin."""
    from fastseg.deploy.graph_capture import capture

    nodes = capture(deployed, *PROBE, device).nodes
    last_use = {used: node for node in nodes for used in node.inputs}
    alive = most = 0
    for node in nodes:
        alive += node.bytes
        most = max(most, alive)
        alive -= sum(used.bytes for used in node.inputs if last_use[used] is node)
    return MARGIN * most / (PROBE[0] * PROBE[1])
