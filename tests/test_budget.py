"""The scale follows the load: down when frames take too long, up again when they would not; by fake clocks."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.budget import CALM, MOST_CALM, SCALES, WINDOW, ScalePace, SkipPace, parse_budget, percentile
from fastseg.errors import ConfigError

BUDGET = 0.033


def run(pace: ScalePace, whole: float, fixed: float, frames: int) -> list[float]:
    """Frames on a machine that takes `whole` seconds for all pixels, by their number, and `fixed` beside; scales."""
    scales = []
    for _ in range(frames):
        scales.append(pace.next_scale())
        pace.took(fixed + whole * pace.scale**2)
    return scales


@given(whole=st.floats(0.0, 0.6), fixed=st.floats(0.0, 0.05))
def test_the_scale_settles_where_a_frame_fits_or_at_the_smallest(whole: float, fixed: float) -> None:
    pace = ScalePace(BUDGET)
    run(pace, whole, fixed, (WINDOW + 1) * len(SCALES))
    fits = fixed + whole * pace.scale**2 <= BUDGET
    assert fits or pace.scale == SCALES[-1]


@settings(deadline=None)
@given(times=st.lists(st.floats(0.0, 1.0), max_size=300))
def test_the_scale_changes_by_one_step_and_never_sooner_than_the_window_allows(times: list[float]) -> None:
    pace, steps = ScalePace(BUDGET), [0]
    for seconds in times:
        pace.took(seconds)
        steps.append(pace.step)
    changes = [index for index in range(1, len(steps)) if steps[index] != steps[index - 1]]
    assert all(abs(steps[index] - steps[index - 1]) == 1 for index in changes)
    assert all(later - earlier > WINDOW for earlier, later in itertools.pairwise(changes))


@given(times=st.lists(st.floats(0.0, BUDGET), max_size=200))
def test_a_machine_that_keeps_up_always_sees_whole_frames(times: list[float]) -> None:
    pace = ScalePace(BUDGET)
    for seconds in times:
        assert pace.next_scale() == 1
        pace.took(seconds)


@settings(deadline=None)
@given(whole=st.floats(0.0, 0.028), load=st.floats(0.05, 0.6))
def test_after_a_load_has_passed_the_scale_comes_back(whole: float, load: float) -> None:
    pace = ScalePace(BUDGET)
    run(pace, load, 0.0, 100)
    assert pace.scale < 1
    run(pace, whole, 0.0, len(SCALES) * (CALM + WINDOW + 2) * 4)
    assert pace.scale == 1


def test_a_slow_frame_now_and_then_changes_nothing() -> None:
    pace = ScalePace(BUDGET)
    for index in range(200):
        pace.took(0.5 if index % 4 == 0 else 0.02)  # the median of five has at most two of them
        assert pace.scale == 1


def test_the_first_frame_at_a_scale_does_not_count() -> None:
    pace = ScalePace(BUDGET)
    pace.took(30.0)  # compilation
    for _ in range(WINDOW):
        pace.took(0.02)
    assert pace.scale == 1


def test_a_scale_that_proves_too_slow_is_tried_ever_more_rarely() -> None:
    """What the pixels promise is not kept here: above 3/4 something else takes long."""
    pace, scales = ScalePace(BUDGET), []
    for _ in range(5000):
        scales.append(pace.scale)
        pace.took(0.05 if pace.scale > 0.75 else 0.01)
    tries = [i for i in range(100, 5000) if scales[i] > 0.75 >= scales[i - 1]]
    gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert len(tries) < 12
    assert all(later > earlier or later > MOST_CALM for earlier, later in itertools.pairwise(gaps))


@given(times=st.lists(st.floats(0.0, 0.5), min_size=1, max_size=200), budget=st.floats(0.001, 0.1))
def test_with_frames_left_out_the_time_taken_is_what_the_budget_allows(times: list[float], budget: float) -> None:
    """After any number of frames it is behind by less than one budget, the frame that was slow, and the first."""
    pace, spent = SkipPace(budget), 0.0
    for frame, seconds in enumerate(times, start=1):
        if pace.next_scale() is not None:
            spent += seconds
            pace.took(seconds)
            assert spent <= budget * frame + budget + max(times) + times[0] + 1e-9


@given(times=st.lists(st.floats(0.0, BUDGET), max_size=100))
def test_no_frame_is_left_out_while_all_are_quick(times: list[float]) -> None:
    pace = SkipPace(BUDGET)
    for seconds in times:
        assert pace.next_scale() == 1
        pace.took(seconds)


def test_frames_of_three_budgets_leave_out_two_of_three() -> None:
    pace, seen = SkipPace(1.0), []
    pace.took(1.0)
    for _ in range(9):
        seen.append(pace.next_scale())
        if seen[-1]:
            pace.took(3.0)
    assert seen == [1, None, None] * 3


def test_no_frame_is_left_out_for_a_slow_start() -> None:
    pace = SkipPace(1.0)
    pace.took(300.0)  # compilation
    assert pace.next_scale() == 1


def test_a_budget_counts_as_missed_when_the_smallest_scale_takes_longer() -> None:
    pace = ScalePace(BUDGET)
    run(pace, 0.0, BUDGET / 2, 100)
    assert pace.missed is None
    run(pace, 0.0, 2 * BUDGET, len(SCALES) * (WINDOW + 2))
    assert pace.missed == 2 * BUDGET


@pytest.mark.parametrize(("text", "seconds"), [("33ms", 0.033), ("0.05s", 0.05), (" 16.7 MS ", 0.0167)])
def test_a_budget_is_read_with_its_unit(text: str, seconds: float) -> None:
    assert parse_budget(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["33", "fast", "0ms", "-5ms", "", "33 fps"])
def test_what_is_no_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="write it as 33ms"):
        parse_budget(text)


@given(values=st.lists(st.floats(0, 100), min_size=1), share=st.floats(0.01, 1))
def test_a_percentile_is_one_of_the_values_with_its_share_at_or_below(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values)


def test_a_percentile_of_nothing_is_no_number() -> None:
    assert math.isnan(percentile([], 0.5))
