"""Reading, computing and writing at the same time: what comes next is read and what is done is written by threads.

Few items wait between the stages, so that memory stays bounded, and everything comes in order.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Generic, TypeVar

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


class ClosedError(Exception):
    """Whoever took items from a queue takes no more."""


class BoundedQueue(Generic[Item]):
    """From one thread to another, at most `size` items at a time.

    When it is full, `put` waits; with `drop_oldest`, it throws away the item that has waited longest, and counts it in
    `dropped`.
    """

    def __init__(self, size: int, *, drop_oldest: bool = False) -> None:
        self.size = size
        self.drop_oldest = drop_oldest
        self.dropped = 0
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._finished = False
        self._closed: BaseException | None = None
        self._error: BaseException | None = None

    def put(self, item: Item) -> None:
        """Add an item. Raises what `close` was given, or ClosedError."""
        with self._changed:
            if self.drop_oldest and len(self._items) == self.size:
                self._items.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: len(self._items) < self.size or self._closed is not None)
            if self._closed is not None:
                raise self._closed
            self._items.append(item)
            self._changed.notify_all()

    def finish(self, error: BaseException | None = None) -> None:
        """No more items will come; `error` is raised where they are taken, behind the last one."""
        with self._changed:
            self._finished, self._error = True, error
            self._changed.notify_all()

    @property
    def error(self) -> BaseException | None:
        """What `close` was given."""
        return None if isinstance(self._closed, ClosedError) else self._closed

    def close(self, error: BaseException | None = None) -> None:
        """No more items will be taken; `error` is raised where they are put."""
        with self._changed:
            self._closed = error or ClosedError()
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        """Items until `finish`. Raises the error that it was given."""
        while True:
            with self._changed:
                # with a limit, since a wait without one holds back an interrupt on some systems
                while not self._changed.wait_for(lambda: self._items or self._finished, timeout=1.0):
                    pass
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
