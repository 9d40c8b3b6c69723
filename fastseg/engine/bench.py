"""Networks measured variant by variant: all of one network's together, taking turns, and each in its own process.

Together is the fair comparison: the machine's drift meets all alike. But an allocator is one per process, so that the
plain path then has the tuned one (`fastseg.tune_cpu`) of the deployed networks, too, and is faster than where it comes
from. In its own process the plain path runs as public code does, untuned. Both are reported.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from fastseg.deploy.model import PRECISIONS
from fastseg.engine.bench_job import Job, JobTimes, precision_of
from fastseg.engine.bench_process import measure_apart
from fastseg.engine.bench_runtimes import require_runtime
from fastseg.engine.bench_stages import COMPILED, PLAIN, RUNTIMES
from fastseg.engine.timing import pairwise_ratio, quantile
from fastseg.environment import describe_environment
from fastseg.errors import ConfigError, UnknownNameError, suggest
from fastseg.models import MODELS
from fastseg.weights import load_model

APART_ROUNDS = 5
ENGINES = ("onnxruntime", "openvino")
Measure = Callable[[Job, float], JobTimes]
Say = Callable[[str], None]


@dataclass
class ModelBench:
    """One network: its variants `together`, and `apart` by variant."""

    job: Job
    together: JobTimes
    apart: dict[str, JobTimes] = field(default_factory=dict)

    def rows(self) -> list[dict[str, Any]]:
        """A flat row per variant; milliseconds, megabytes, ratios. A network that failed whole is one row."""
        common = {
            "model": self.job.model,
            "weights": self.job.weights or "random",
            "size": f"{self.job.height}x{self.job.width}",
            "threads": self.job.threads,
            "classes": self.together.num_classes or None,
            "parameters": self.together.parameters or None,
            "gmacs": self.together.macs / 1e9 or None,
        }
        if self.together.error:
            return [{**common, "variant": "all", "error": self.together.error}]
        return [{**common, **self._row(name)} for name in self.together.variants]

    def _row(self, name: str) -> dict[str, Any]:
        times = self.together.variants[name]
        row: dict[str, Any] = {"variant": name, "error": times.error}
        if times.error:
            return row
        floor = self.together.floor(precision_of(name))
        middle = quantile(times.total, 0.5)
        for stage, seconds in times.stages.items():
            row[f"{stage} ms"] = 1000 * quantile(seconds, 0.5)
            row[f"{stage} p95 ms"] = 1000 * quantile(seconds, 0.95)
        row |= {
            "total ms": 1000 * middle,
            "total p95 ms": 1000 * quantile(times.total, 0.95),
            "images/s": 1 / middle,
            "rounds": len(times.total),
            "floor ms": 1000 * floor,
            "x floor": middle / floor,
        }
        alone = self.apart.get(name, JobTimes()).variants.get(name)
        if alone is not None and alone.total:
            row["own process ms"] = 1000 * quantile(alone.total, 0.5)
            row["peak MB"] = None if alone.peak is None else alone.peak / 1e6
        for other in (*PLAIN, *RUNTIMES):
            against = self.together.variants.get(other)
            if against is None or against.error or other == name:
                continue
            row[f"vs {other}"] = pairwise_ratio(against.total, times.total)
            other_alone = self.apart.get(other, JobTimes()).variants.get(other)
            if alone is not None and alone.total and other_alone is not None and other_alone.total:
                row[f"own vs {other}"] = quantile(other_alone.total, 0.5) / quantile(alone.total, 0.5)
        if times.equal is not None:
            row["labels equal %"] = 100 * times.equal
        return row


def variants_of(
    precisions: Sequence[str], *, compiled: bool, baseline: bool, runtimes: Sequence[str], device: str
) -> tuple[str, ...]:
    """Names of variants in the order of a table. Raises ConfigError and MissingPackageError for what cannot run."""
    for precision in precisions:
        if precision not in PRECISIONS:
            raise ConfigError(f"unknown precision {precision!r}; {suggest(precision, PRECISIONS)}")
        if precision == "fp16" and torch.device(device).type == "cpu":
            raise ConfigError("precision fp16 is for GPUs; on the CPU measure fp32 or bf16")
    for runtime in runtimes:
        if runtime not in ("torch", *RUNTIMES):
            raise ConfigError(f"unknown runtime {runtime!r}; {suggest(runtime, ('torch', *RUNTIMES))}")
        if runtime != "torch":
            if torch.device(device).type != "cpu":
                raise ConfigError(f"--runtime {runtime} is measured on the CPU; leave it out for --device {device}")
            require_runtime(runtime)
    names = [*(PLAIN if baseline else ()), *(precisions if "torch" in runtimes or not runtimes else ())]
    if compiled:
        names += [precision + COMPILED for precision in precisions]
    return tuple(dict.fromkeys([*names, *(runtime for runtime in runtimes if runtime != "torch")]))


def models_of(patterns: Sequence[str], weights: str | None) -> list[str]:
    """Registered names that match, lightest first as counted at the defaults.

    Raises UnknownNameError for a pattern without a match, and what `load_model` raises for `weights`, which belong to
    one network.
    """
    from fastseg.models.facts import model_facts

    found: set[str] = set()
    for pattern in patterns:
        names = MODELS.names(pattern)
        if not names:
            raise UnknownNameError(f"no model matches {pattern!r}; {suggest(pattern, MODELS.names())}")
        found.update(names)
    if weights is not None:
        if len(found) != 1:
            raise ConfigError(f"--weights {weights} belong to one network; {len(found)} were named with --model")
        load_model(next(iter(found)), weights=weights)  # says at once what is wrong with them
    return sorted(found, key=lambda name: (model_facts(name).gmacs(), name))


def bench(
    jobs: Sequence[Job], *, apart: bool, limit: float, say: Say = print, measure: Measure = measure_apart
) -> list[ModelBench]:
    """Measure every job: its variants together and, with `apart`, each in its own process, of `limit` seconds each.

    What fails is a result that says so.
    """
    results = []
    for number, job in enumerate(jobs, 1):
        say(f"{job.model} ({number} of {len(jobs)}): {', '.join(job.variants)}")
        result = ModelBench(job, measure(job, limit))
        results.append(result)
        if not apart or result.together.error:
            continue
        for name, times in result.together.variants.items():
            if not times.error:
                tuned = job.tune and name not in PLAIN
                rounds = min(job.rounds, APART_ROUNDS)
                alone = replace(job, variants=(name,), tune=tuned, rounds=rounds)
                result.apart[name] = measure(alone, limit)
    return results


def machine(device: str) -> dict[str, str]:
    """Hardware, versions, date and commit: what a table of times begins with."""
    from importlib import metadata

    found = describe_environment()
    versions = {"torch": found["torch"].get("version", "?"), "fastseg": found["fastseg"]["version"]}
    for package in ENGINES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    git = found["git"]
    hardware = f"{found['cpu']['name']}, {found['cpu']['cores']} cores"
    if torch.device(device).type == "cuda":
        hardware = f"{torch.cuda.get_device_name(device)}; {hardware}"
    return {
        "hardware": hardware,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "date": datetime.date.today().isoformat(),
        "commit": f"{git['commit'][:12]}{' with changes' * git['changed']}" if git else "none",
    }


def to_dict(results: Sequence[ModelBench], facts: dict[str, str]) -> dict[str, Any]:
    """Everything, for JSON: rows as in the tables, and the seconds of every round."""
    return {
        "machine": facts,
        "rows": [row for result in results for row in result.rows()],
        "measured": [asdict(result) for result in results],
    }
