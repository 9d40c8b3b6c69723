"""Keeping pace with a video: a smaller input for the network, or frames left out, whenever it takes too long."""

from __future__ import annotations

import math
import re
import statistics
from typing import Protocol

from fastseg.errors import ConfigError

SCALES = (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25)
WINDOW = 5  # frames whose median is compared with the budget
CALM = 30  # frames that pass before a larger scale is tried
MOST_CALM = 1920
HEADROOM = 0.9  # of the budget that a larger scale may be expected to take
UNITS = {"ms": 0.001, "s": 1.0}


def parse_budget(text: str) -> float:
    """'33ms' or '0.05s' -> seconds. Raises ConfigError for anything else, and for 0."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s)\s*", text.lower())
    seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
    if seconds <= 0:
        raise ConfigError(f"{text!r} is no time per frame; write it as 33ms or 0.05s")
    return seconds


class Pace(Protocol):
    """Says before each frame what to do with it, and hears afterwards how long that took."""

    def next_scale(self) -> float | None:
        """The scale of the network's input for this frame, or None to leave it out."""

    def took(self, seconds: float) -> None:
        """How long the frame that was not left out has taken."""


class ScalePace:
    """Lowers the scale of the network's input, a step of SCALES at a time, until a frame fits; raises it again later.

    It goes by the median of the last few frames at a scale, the first after a change left out. A larger scale is tried
    after CALM frames, when its cost, by pixels, would leave headroom; if it proves too slow at once, twice as many
    frames pass before the next try.
    """

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self.step = 0
        self._times: list[float] = []
        self._warm = False
        self._calm = 0
        self._calm_needed = CALM
        self._trying = False

    @property
    def scale(self) -> float:
        return SCALES[self.step]

    @property
    def missed(self) -> float | None:
        """What a frame takes, in seconds, where that is beyond the budget even at the smallest scale."""
        if self.step < len(SCALES) - 1 or len(self._times) < WINDOW:
            return None
        median = statistics.median(self._times)
        return median if median > self.budget else None

    def next_scale(self) -> float:
        """The present scale: every frame is looked at."""
        return self.scale

    def took(self, seconds: float) -> None:
        """How long a frame has taken at the present scale."""
        if not self._warm:  # memory is taken, kernels are chosen
            self._warm = True
            return
        self._times = [*self._times[1 - WINDOW :], seconds]
        self._calm += 1
        if len(self._times) < WINDOW:
            return
        median = statistics.median(self._times)
        if median > self.budget:
            if self._trying:
                self._calm_needed = min(MOST_CALM, 2 * self._calm_needed)
            self._change(min(self.step + 1, len(SCALES) - 1))
        elif self._calm >= self._calm_needed:
            if self._trying:  # it has held: the next step may be tried as soon as the first
                self._calm_needed = CALM
            self._trying = False
            if self.step and median * (SCALES[self.step - 1] / self.scale) ** 2 <= HEADROOM * self.budget:
                self._change(self.step - 1)
                self._trying = True

    def _change(self, step: int) -> None:
        if step != self.step:
            self.step, self._times, self._warm, self._calm, self._trying = step, [], False, 0, False


class SkipPace:
    """Leaves out frames until the time that slow ones took too much is made up for; the first one does not count."""

    def __init__(self, budget: float) -> None:
        self.budget = budget
        self._behind = 0.0  # seconds
        self._warm = False

    def next_scale(self) -> float | None:
        """1, or None while behind by a frame or more."""
        if self._behind >= self.budget:
            self._behind -= self.budget
            return None
        return 1.0

    def took(self, seconds: float) -> None:
        """How long a frame has taken."""
        if not self._warm:  # memory is taken, kernels are chosen
            self._warm = True
            return
        # a frame that took less than its share makes up for others, but cannot be saved up
        self._behind = max(0.0, self._behind + seconds - self.budget)


def percentile(values: list[float], share: float) -> float:
    """The smallest of `values` that at least `share` (0..1) of them do not exceed; NaN for none."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan
