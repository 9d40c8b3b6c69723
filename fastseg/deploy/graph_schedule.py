"""What is done when: the steps in which phases are computed band by band, and the memory that they take.

In each step of a phase every map gains some rows, and keeps of earlier ones only those that later steps still read, so
that nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from fastseg.deploy.graph_capture import Node
from fastseg.deploy.graph_phases import Phase, Phases, is_view
from fastseg.deploy.graph_rows import Rule, row_bytes


class Compute(NamedTuple):
    """Rows `first` to `last - 1` of a map, from rows `begin` to `end - 1` of its inputs."""

    node: Node
    first: int
    last: int
    begin: int
    end: int


class Forget(NamedTuple):
    """Rows of a map before `first` are read no more."""

    node: Node
    first: int


class Whole(NamedTuple):
    """An operation on whole maps."""

    node: Node


class Release(NamedTuple):
    """A value that was kept in full is needed no more."""

    node: Node


Step = Compute | Forget | Whole | Release
Held = TypeVar("Held")


class Rows(Generic[Held]):
    """Rows of a map that are still needed, in the pieces in which they were computed.

    A piece is (first row, one past the last, rows it takes memory for, what holds them).
    """

    def __init__(self) -> None:
        self.pieces: list[tuple[int, int, int, Held]] = []

    def append(self, first: int, last: int, held: Held) -> None:
        self.pieces.append((first, last, last - first, held))

    def covering(self, begin: int, end: int) -> list[tuple[int, int, int, Held]]:
        return [piece for piece in self.pieces if piece[1] > begin and piece[0] < end]

    def forget(self, row: int, copied: Callable[[Held, int, int], Held]) -> None:
        """Drop rows before `row`; what is left of a piece is copied if most of its memory comes free."""
        kept = []
        for first, last, size, held in self.pieces:
            if last <= row:
                continue
            if first < row and 2 * (last - row) <= size:
                kept.append((row, last, last - row, copied(held, row - first, last - first)))
            else:
                kept.append((first, last, size, held))
        self.pieces = kept


@dataclass(frozen=True)
class Schedule:
    """`peak_bytes` are those of tensors alive at a time, `largest_band` those of the largest map in a step."""

    steps: list[Step]
    peak_bytes: int
    largest_band: int


def schedule(phases: Phases, band_bytes: int) -> Schedule:
    """Steps in which no map gains more than about `band_bytes` at a time."""
    steps = list(_steps(phases, band_bytes))
    computed = (step for step in steps if isinstance(step, Compute))
    largest = max(((step.last - step.first) * row_bytes(step.node) for step in computed), default=0)
    return Schedule(steps, peak_bytes(phases, steps), largest)


def _steps(phases: Phases, band_bytes: int) -> Iterator[Step]:
    freed: dict[tuple[int, Node | None], list[Node]] = {}
    kept = {node for phase in phases.phases for node in (*phase.kept, *phase.whole)}
    for node, when in phases.last_use.items():
        if node in kept and node is not phases.output:
            freed.setdefault(when, []).append(node)
    for index, phase in enumerate(phases.phases):
        for node in phase.whole:
            yield Whole(node)
            yield from map(Release, freed.get((index, node), ()))
        yield from _bands(phase, phases, band_bytes)
        yield from map(Release, freed.get((index, None), ()))


def _bands(phase: Phase, phases: Phases, band_bytes: int) -> Iterator[Step]:
    """One pass over the image."""
    if not phase.banded:
        return
    rules, inside, kept = phases.rules, set(phase.banded), set(phase.kept)
    users: dict[Node, list[Node]] = {node: [] for node in phase.banded}
    for node in phase.banded:
        for each in rules[node].by_rows if node in rules else ():
            if each in inside:
                users[each].append(node)
    last_user = {node: of[-1] for node, of in users.items() if of}
    forgets = {
        node: [each for each in rules[node].by_rows if last_user.get(each) is node and each not in kept]
        for node in phase.banded
        if node in rules
    }
    count = max(-(-node.bytes // band_bytes) for node in phase.banded)
    count = max(1, min(count, max(node.shape[2] for node in phase.banded)))
    share = {node: -(-node.shape[2] // count) for node in phase.banded}
    done = dict.fromkeys(phase.banded, 0)
    forgotten = dict.fromkeys(phase.banded, 0)
    for step in range(1, count + 1):
        wanted = dict(done)
        for node in reversed(phase.banded):
            if node in kept:
                wanted[node] = max(done[node], -(-node.shape[2] * step // count))
            for user in users[node]:
                if wanted[user] > done[user]:
                    wanted[node] = max(wanted[node], rules[user].needs(done[user], wanted[user])[1])
        # the first row of a deep map wants many rows of the image, which also come in bands
        while done != wanted:
            for node in phase.banded:
                first, last = done[node], min(wanted[node], done[node] + share[node])
                begin, end = first, last
                if node in rules and last > first:
                    last = _computable(rules[node], first, last, done)
                    begin, end = rules[node].needs(first, last) if last > first else (first, first)
                if last > first:
                    yield Compute(node, first, last, begin, end)
                    done[node] = last
                for each in forgets.get(node, ()):
                    row = min(_first_needed(phases, user, done[user]) for user in users[each])
                    row = min(row, done[each])  # the first rows of a map may be needed by nobody
                    if row > forgotten[each]:
                        yield Forget(each, row)
                        forgotten[each] = row


def _computable(rule: Rule, first: int, last: int, done: dict[Node, int]) -> int:
    """One past the last row, `last` at most, for which the rows of the inputs are there."""
    there = min((done[each] for each in rule.by_rows if each in done), default=rule.rows)
    if rule.needs(first, last)[1] <= there:
        return last
    enough, too_many = first, last
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        if rule.needs(first, middle)[1] <= there:
            enough = middle
        else:
            too_many = middle
    return enough


def _first_needed(phases: Phases, user: Node, done: int) -> int:
    """The first row of its inputs that `user` will read."""
    rule = phases.rules[user]
    return rule.rows if done == user.shape[2] else rule.needs(done, done + 1)[0]


def peak_bytes(phases: Phases, steps: list[Step]) -> int:
    """The most bytes of tensors that are alive at a time, besides weights and the image."""
    kept = {node for phase in phases.phases for node in phase.kept}
    rows: dict[Node, Rows[None]] = {}
    sizes: dict[Node, int] = {}  # of what is kept in full
    held = peak = 0

    def count(piece: Rows[None], node: Node) -> int:
        return sum(size for _, _, size, _ in piece.pieces) * row_bytes(node)

    for step in steps:
        if isinstance(step, Whole):
            sizes[step.node] = 0 if is_view(step.node) else step.node.bytes
            held += sizes[step.node]
            peak = max(peak, held)
        elif isinstance(step, Release):
            held -= sizes.pop(step.node)
        elif isinstance(step, Forget):
            piece = rows[step.node]
            held -= count(piece, step.node)
            piece.forget(step.first, lambda held, begin, end: None)
            held += count(piece, step.node)
        else:
            node, new = step.node, (step.last - step.first) * row_bytes(step.node)
            if node in kept and node not in sizes:
                sizes[node] = node.bytes
                held += node.bytes
            temporary = new if node in kept else 0
            if node in phases.rules:
                rule = phases.rules[node]
                temporary += rule.workspace(step.first, step.last)
                for each in rule.by_rows:
                    if each in rows and len(rows[each].covering(step.begin, step.end)) > 1:
                        temporary += (step.end - step.begin) * row_bytes(each)
            else:
                temporary += new  # two steps of arithmetic
            if node not in kept:
                rows.setdefault(node, Rows()).append(step.first, step.last, None)
                held += new
            peak = max(peak, held + temporary)
    return peak
