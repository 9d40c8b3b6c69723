"""Measuring variants of one task against each other: a stopwatch, rounds in which all take turns, and statistics.

The speed of a shared machine drifts by a quarter within minutes. Variants therefore take turns, and what is compared
are their times of the same round: a ratio is the median of the ratios of the rounds.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
Clock = Callable[[], float]


class Stopwatch:
    """Seconds by stage. `clock` tells the time, `finish` waits until the device has done its work."""

    def __init__(self, clock: Clock = time.perf_counter, finish: Callable[[], None] = lambda: None) -> None:
        self.clock, self.finish = clock, finish
        self._laps: dict[str, float] = {}
        self._last = 0.0

    def start(self) -> None:
        """Begin a stage now."""
        self.finish()
        self._last = self.clock()

    def lap(self, stage: str) -> None:
        """Add the time since the last call to `stage`, and begin the next one."""
        self.finish()
        now = self.clock()
        self._laps[stage] = self._laps.get(stage, 0.0) + now - self._last
        self._last = self.clock()

    def take(self) -> dict[str, float]:
        """The stages so far, which are then forgotten."""
        laps, self._laps = self._laps, {}
        return laps


def rounds(limit: int, seconds: float, clock: Clock = time.perf_counter) -> Iterator[int]:
    """0, 1, 2, ... for a round to warm up and up to `limit` measured ones; none begins after `seconds`."""
    began = clock()
    for number in itertools.count():
        yield number
        if number >= limit or clock() - began > seconds:
            return


def measured(times: Sequence[T]) -> Sequence[T]:
    """Without those of the first round, which warms up, unless it is the only one."""
    return times[1:] or times


def quantile(times: Sequence[float], share: float) -> float:
    """The value below which `share` of the times lie, interpolated linearly between neighbours.

    Raises ValueError for no times, and for a share outside 0..1.
    """
    if not times or not 0 <= share <= 1:
        raise ValueError(f"no quantile {share} of {len(times)} times; give at least one, and a share in 0..1")
    ordered = sorted(times)
    place = share * (len(ordered) - 1)
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    return below + (above - below) * (place - math.floor(place))


def pairwise_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times as long `slow` takes as `fast`: the median of the ratios round by round.

    Raises ValueError unless both have the same number of rounds, at least one.
    """
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))
