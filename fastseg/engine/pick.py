"""Which network to take: the zoo measured here against a budget, and its frontier of accuracy and latency."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fastseg.atomic import write_atomically
from fastseg.engine.bench_job import Job, JobTimes
from fastseg.engine.timing import quantile
from fastseg.errors import OutputError, printable
from fastseg.models.facts import ModelFacts, model_facts

Measure = Callable[[Job, float], JobTimes]
Say = Callable[[str], None]
PATIENCE = 3  # images that must fit into the seconds of a network: to warm up, to measure, and stage by stage


@dataclass(frozen=True)
class Budget:
    """What a network may take: seconds and bytes per image, and parameters; None is no limit."""

    seconds: float | None = None
    memory: float | None = None
    parameters: float | None = None


@dataclass(frozen=True)
class Candidate:
    """A network with its accuracy in percent and its costs here; what was not measured is None.

    `least` are the seconds that its multiply-adds take at this machine's rate: it cannot be faster. `remark` says why
    there are no times.
    """

    model: str
    miou: float | None
    score: str
    parameters: int
    least: float | None = None
    seconds: float | None = None
    slow: float | None = None
    peak: int | None = None
    remark: str = ""

    def meets(self, budget: Budget) -> bool:
        """Whether every limit is kept; one that was not measured is not."""
        pairs = (
            (self.seconds, budget.seconds),
            (self.peak, budget.memory),
            (self.parameters, budget.parameters),
        )
        kept = all(limit is None or (cost is not None and cost <= limit) for cost, limit in pairs)
        return kept and self.seconds is not None


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which points (cost, gain) no other one beats: at most its cost and at least its gain, and one of them better.

    In order of cost; equal points are all on it.
    """
    kept, best, cost_of_best = [], float("-inf"), float("-inf")
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        cost, gain = points[index]
        if gain > best or (gain == best and cost == cost_of_best):
            kept.append(index)
            best, cost_of_best = gain, cost
    return kept


def best_of(candidates: Sequence[Candidate], budget: Budget) -> Candidate | None:
    """The most accurate network within the budget, of equal ones the fastest."""
    met = [each for each in candidates if each.meets(budget) and each.miou is not None]
    return max(met, key=lambda each: (each.miou, -(each.seconds or 0)), default=None)


def frontier_names(candidates: Sequence[Candidate]) -> set[str]:
    """The networks on the frontier of accuracy and latency, of those that have both."""
    points = [(each.seconds, each.miou, each.model) for each in candidates]
    known = [(cost, gain, name) for cost, gain, name in points if cost is not None and gain is not None]
    return {known[index][2] for index in frontier([(cost, gain) for cost, gain, _ in known])}


def pick(
    scores: Mapping[str, tuple[float | None, str]],
    job: Job,
    budget: Budget,
    *,
    measure: Measure,
    store: Store | None = None,
    say: Say = print,
) -> list[Candidate]:
    """Measure the networks in `scores` (mIoU or None, and what to say of it) as `job` does its own, lightest first.

    A network is not measured when its multiply-adds alone, at the rate that the machine reached before, take longer
    than the budget or a third of the job's seconds; nor when it has too many parameters.
    """
    facts = {name: model_facts(name) for name in scores}
    rate: float | None = None
    candidates = []
    precision = job.variants[0]
    for name in sorted(scores, key=lambda each: (facts[each].gmacs(), each)):
        candidate = Candidate(name, *scores[name], facts[name].parameters)
        least = None if rate is None else 2 * _macs(facts[name], job) / rate
        candidate = replace(candidate, least=least, remark=_why_not(candidate, least, job, budget))
        if not candidate.remark:
            candidate, found = _measured(candidate, replace(job, model=name), measure, store, say)
            if not found.error:
                rate = max(rate or 0.0, found.rates[precision])
        candidates.append(candidate)
    return candidates


def _why_not(candidate: Candidate, least: float | None, job: Job, budget: Budget) -> str:
    if budget.parameters is not None and candidate.parameters > budget.parameters:
        return "too many parameters"
    if least is None:
        return ""
    if budget.seconds is not None and least > budget.seconds:
        return f"not measured: its multiply-adds alone take {1000 * least:.0f} ms"
    if PATIENCE * least > job.seconds:
        return f"not measured: an image takes {least:.1f} s or more; raise --seconds"
    return ""


def _measured(
    candidate: Candidate, job: Job, measure: Measure, store: Store | None, say: Say
) -> tuple[Candidate, JobTimes]:
    found = store.get(job) if store else None
    if found is None:
        say(f"measuring {job.model}")
        found = measure(job, 60 + 10 * job.seconds)
        if store and not found.error:
            store.put(job, found)
    (times,) = found.variants.values() if found.variants else (None,)
    error = found.error or (times.error if times else "")
    if error or times is None:
        return replace(candidate, remark=f"failed: {error}"), replace(found, error=error or "no times")
    return (
        replace(
            candidate,
            least=found.floor(job.variants[0]),
            seconds=quantile(times.total, 0.5),
            slow=quantile(times.total, 0.95),
            peak=times.peak,
        ),
        found,
    )


def _macs(facts: ModelFacts, job: Job) -> float:
    """Multiply-adds at the job's size, by the number of pixels."""
    return facts.gmacs() * 1e9 * job.height * job.width / (1024 * 2048)


class Store:
    """Measurements kept in a file, by machine and job; what was measured there once is not measured again."""

    def __init__(self, path: Path, machine: Mapping[str, str]) -> None:
        """Raises OutputError for a file that holds something else."""
        self.path, self.machine = path, {key: machine[key] for key in ("hardware", "versions")}
        self.entries: dict[str, dict[str, Any]] = {}
        if path.exists():
            try:
                entries = json.loads(path.read_text())["fastseg pick"]
                self.entries = {key: asdict(JobTimes.from_dict(found)) for key, found in entries.items()}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise OutputError(f"{printable(path)} holds no measurements of `fastseg pick`; name another") from error

    def get(self, job: Job) -> JobTimes | None:
        """What was found for this job on this machine, if it was."""
        found = self.entries.get(self._key(job))
        return JobTimes.from_dict(found) if found is not None else None

    def put(self, job: Job, found: JobTimes) -> None:
        """Add to the file, which is written at once."""
        self.entries[self._key(job)] = asdict(found)
        write_atomically(self.path, (json.dumps({"fastseg pick": self.entries}, indent=1) + "\n").encode())

    def _key(self, job: Job) -> str:
        return json.dumps({**self.machine, **asdict(job)}, sort_keys=True)
