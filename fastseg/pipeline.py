"""Reading, computing and writing at the same time: what comes next is read and what is done is written by threads.

Few items wait between the stages, so that memory stays bounded, and everything comes in order.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")
Made = TypeVar("Made")
Written = TypeVar("Written")

READERS = 2  # threads that decode while the network runs
AHEAD = 4  # decoded items that may wait
WRITERS = 2  # threads that encode meanwhile
BEHIND = 4  # items that may wait for them


def read_ahead(
    load: Callable[[Item], Loaded], items: Iterable[Item], *, ahead: int = AHEAD
) -> Generator[tuple[Item, Future[Loaded]], None, None]:
    """Every item with what `load` gives or raises for it, in order; threads load the next ones in the meantime."""
    remaining = iter(items)
    with ThreadPoolExecutor(READERS, thread_name_prefix="read-ahead") as pool:
        pending = deque((item, pool.submit(load, item)) for item in itertools.islice(remaining, ahead))
        try:
            while pending:
                item, future = pending.popleft()
                future.exception()  # waits
                pending.extend((later, pool.submit(load, later)) for later in itertools.islice(remaining, 1))
                yield item, future
        finally:
            for _, future in pending:
                future.cancel()


def overlap(
    items: Iterable[Item],
    read: Callable[[Item], Loaded],
    compute: Callable[[Sequence[Item], Sequence[Loaded]], Sequence[Made]],
    write: Callable[[Item, Made], Written],
    *,
    batch_size: int = 1,
    alike: Callable[[Loaded], Hashable] = lambda _: None,
) -> Generator[tuple[Item, Future[Written]], None, None]:
    """Every item with what `write` gives for it, or what a stage raises, in order.

    `read` and `write` run in threads, `compute` in the caller's, for up to `batch_size` neighbours at a time for which
    `alike` gives the same. Where a batch fails, its items are computed one by one. Closing the generator, or an
    interrupt, leaves out what has not begun and waits for the files that are being written.
    """
    done: deque[tuple[Item, Future[Written]]] = deque()
    with (
        ThreadPoolExecutor(WRITERS, thread_name_prefix="write-behind") as writers,
        closing(read_ahead(read, items, ahead=max(AHEAD, batch_size + 1))) as loaded,
    ):
        try:
            for batch in _batches(loaded, batch_size, alike):
                for item, made in _computed(batch, compute):
                    # a waiting item's image is freed with its future
                    done.append((item, writers.submit(_after, made, write, item)))
                while done and (done[0][1].done() or len(done) > BEHIND):
                    done[0][1].exception()  # waits
                    yield done.popleft()
            while done:
                done[0][1].exception()
                yield done.popleft()
        finally:
            for _, written in done:
                written.cancel()


def _after(made: Future[Made], write: Callable[[Item, Made], Written], item: Item) -> Written:
    return write(item, made.result())


def _batches(
    loaded: Iterable[tuple[Item, Future[Loaded]]], batch_size: int, alike: Callable[[Loaded], Hashable]
) -> Iterator[list[tuple[Item, Future[Loaded]]]]:
    """Neighbours that go together; an item that could not be read stands alone."""
    batch: list[tuple[Item, Future[Loaded]]] = []
    kind: Hashable = None
    for item, future in loaded:
        failed = future.exception() is not None
        this = None if failed else alike(future.result())
        if batch and (failed or this != kind):
            yield batch
            batch = []
        batch.append((item, future))
        kind = this
        if failed or len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _computed(
    batch: Sequence[tuple[Item, Future[Loaded]]],
    compute: Callable[[Sequence[Item], Sequence[Loaded]], Sequence[Made]],
) -> Iterator[tuple[Item, Future[Made]]]:
    """Each item of a batch with what `compute` gives for it, or with what it or reading has raised."""
    outcomes: list[Future[Made]] = [Future() for _ in batch]
    try:
        results = compute([item for item, _ in batch], [future.result() for _, future in batch])
        for outcome, result in zip(outcomes, results, strict=True):
            outcome.set_result(result)
    except Exception as error:
        if len(batch) > 1:
            for each in batch:
                yield from _computed([each], compute)
            return
        outcomes[0].set_exception(error)
    for (item, _), outcome in zip(batch, outcomes, strict=True):
        yield item, outcome
