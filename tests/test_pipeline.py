"""Reading, computing and writing overlap; order, bounds and failures do not depend on that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.errors import DataError
from fastseg.pipeline import AHEAD, BEHIND, WRITERS, overlap, read_ahead


def same(item: int) -> int:
    return item


def computed(_: Sequence[int], loaded: Sequence[int]) -> Sequence[int]:
    return loaded


def failing_on(bad: set[int], name: str) -> Callable[[int], int]:
    def stage(item: int) -> int:
        if item in bad:
            raise DataError(f"{name} {item}")
        return item * 10

    return stage


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 12),
    bad=st.tuples(*(st.sets(st.integers(0, 11), max_size=3) for _ in range(3))),
    batch_size=st.integers(1, 4),
    kinds=st.integers(1, 3),
)
def test_every_item_comes_once_in_order_with_what_it_gives_or_raises(
    count: int, bad: tuple[set[int], set[int], set[int]], batch_size: int, kinds: int
) -> None:
    together: list[int] = []

    def compute(items: Sequence[int], loaded: Sequence[int]) -> Sequence[int]:
        assert [each // 10 for each in loaded] == list(items)
        assert len({item % kinds for item in items}) == 1
        together.append(len(items))
        return [failing_on(bad[1], "compute")(item) for item in items]

    outcomes = list(
        overlap(
            range(count),
            failing_on(bad[0], "read"),
            compute,
            lambda item, made: failing_on(bad[2], "write")(item) + made,
            batch_size=batch_size,
            alike=lambda loaded: loaded // 10 % kinds,
        )
    )
    assert [item for item, _ in outcomes] == list(range(count))
    assert all(size <= batch_size for size in together)
    for item, outcome in outcomes:
        names = [name for name, items in zip(("read", "compute", "write"), bad, strict=True) if item in items]
        if names:
            assert str(outcome.exception()) == f"{names[0]} {item}"
        else:
            assert outcome.result() == 20 * item


def test_neighbours_that_are_alike_are_computed_together() -> None:
    together: list[list[int]] = []

    def compute(items: Sequence[int], loaded: Sequence[int]) -> Sequence[int]:
        together.append(list(items))
        return loaded

    list(overlap(range(7), same, compute, lambda item, _: item, batch_size=3, alike=lambda item: item >= 4))
    assert together == [[0, 1, 2], [3], [4, 5, 6]]


def test_few_items_are_read_before_they_are_wanted() -> None:
    read: list[int] = []
    with closing(read_ahead(lambda item: read.append(item), range(100))) as items:
        next(items)
        time.sleep(0.05)  # for threads that would go on; too short a pause could only hide a failure
        assert len(read) <= AHEAD + 1


def test_few_results_wait_to_be_written() -> None:
    go_on = threading.Event()
    computed_items: list[int] = []

    def compute(items: Sequence[int], loaded: Sequence[int]) -> Sequence[int]:
        computed_items.extend(items)
        if len(computed_items) > BEHIND:
            go_on.set()  # the writers have waited until more than may wait was computed
        return loaded

    def write(item: int, _: int) -> int:
        go_on.wait(30)
        assert len(computed_items) <= item + BEHIND + WRITERS + 1
        return item

    assert [outcome.result() for _, outcome in overlap(range(40), same, compute, write)] == list(range(40))


def test_an_interrupt_finishes_what_is_being_written_and_begins_nothing() -> None:
    begun: list[int] = []
    finished: list[int] = []

    def compute(items: Sequence[int], loaded: Sequence[int]) -> Sequence[int]:
        if items[0] == BEHIND:
            raise KeyboardInterrupt
        return loaded

    def write(item: int, _: int) -> None:
        begun.append(item)
        time.sleep(0.02)
        finished.append(item)

    with pytest.raises(KeyboardInterrupt):
        list(overlap(range(100), same, compute, write))
    assert begun == finished
    assert len(begun) <= BEHIND


def test_no_thread_outlives_a_generator_that_is_closed() -> None:
    before = threading.active_count()
    outcomes = overlap(range(100), same, computed, lambda item, _: item)
    next(outcomes)
    outcomes.close()
    assert threading.active_count() == before
