"""What is made of times: a stopwatch with a clock of our own, rounds, quantiles, ratios, the frontier."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastseg.engine.pick import frontier
from fastseg.engine.timing import Stopwatch, measured, pairwise_ratio, quantile, rounds

TIMES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=30)


class Hands:
    """A clock that shows what it is set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_stopwatch_adds_up_what_passes_in_a_stage() -> None:
    clock = Hands()
    watch = Stopwatch(clock)
    clock.now = 5
    watch.start()
    for stage, seconds in (("copy", 1), ("network", 10), ("copy", 2)):
        clock.now += seconds
        watch.lap(stage)
    assert watch.take() == {"copy": 3, "network": 10}
    assert watch.take() == {}


def test_a_stopwatch_waits_for_the_device_before_it_reads_the_clock() -> None:
    clock = Hands()

    def finish() -> None:
        clock.now += 4  # work that was still under way

    watch = Stopwatch(clock, finish)
    watch.start()
    watch.lap("network")
    assert watch.take() == {"network": 4}


@given(limit=st.integers(1, 20), seconds=st.floats(0.1, 100), one=st.floats(0.1, 50))
def test_rounds_end_with_their_number_or_with_the_seconds(limit: int, seconds: float, one: float) -> None:
    clock = Hands()
    done = 0
    for number in rounds(limit, seconds, clock):
        assert number == done
        assert done == 0 or clock.now <= seconds, "no round begins late"
        clock.now += one
        done += 1
    assert done == limit + 1 or clock.now > seconds
    assert done <= limit + 1


def test_the_round_that_warms_up_counts_only_when_it_is_alone() -> None:
    assert measured([9.0, 1.0, 2.0]) == [1.0, 2.0]
    assert measured([9.0]) == [9.0]


@given(times=TIMES, share=st.floats(0, 1))
def test_a_quantile_is_numpys(times: list[float], share: float) -> None:
    assert quantile(times, share) == pytest.approx(np.quantile(times, share), rel=1e-9)


@pytest.mark.parametrize(("times", "share"), [([], 0.5), ([1.0], -0.1), ([1.0], 1.1)])
def test_a_quantile_of_nothing_or_outside_is_an_error(times: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="quantile"):
        quantile(times, share)


@given(fast=TIMES, factor=st.floats(0.01, 100), drift=st.floats(0.1, 10))
def test_a_ratio_is_not_moved_by_a_machine_whose_speed_drifts(fast: list[float], factor: float, drift: float) -> None:
    speed = [drift**index for index in range(len(fast))]
    slow = [factor * time * pace for time, pace in zip(fast, speed, strict=True)]
    paced = [time * pace for time, pace in zip(fast, speed, strict=True)]
    assert pairwise_ratio(slow, paced) == pytest.approx(factor)


def test_ratios_need_the_same_rounds() -> None:
    with pytest.raises(ValueError, match="zip"):
        pairwise_ratio([1.0, 2.0], [1.0])


POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12)


@given(points=POINTS)
def test_the_frontier_is_what_no_other_point_beats(points: list[tuple[int, int]]) -> None:
    def beaten(point: tuple[int, int]) -> bool:
        return any(cost <= point[0] and gain >= point[1] and (cost, gain) != point for cost, gain in points)

    assert sorted(frontier(points)) == [index for index, point in enumerate(points) if not beaten(point)]


@given(points=POINTS)
def test_along_the_frontier_cost_and_gain_both_grow(points: list[tuple[int, int]]) -> None:
    ordered = [points[index] for index in frontier(points)]
    for first, second in itertools.pairwise(ordered):
        assert second == first or (second[0] > first[0] and second[1] > first[1])
