"""A training's look at its data before step one: a wrong label is one line now, not a stopped GPU an hour later."""

from __future__ import annotations

import hashlib
import logging
import shlex
from collections.abc import Mapping
from typing import cast

from fastseg.config import Config
from fastseg.data.dataset import SegDataset
from fastseg.data.doctor import glance
from fastseg.data.look import Look
from fastseg.engine.distributed import Processes
from fastseg.errors import DataError, DistributedError

logger = logging.getLogger(__name__)


def check_samples(config: Config, procs: Processes, splits: Mapping[str, SegDataset]) -> None:
    """Read a few samples of each split, by the key that names it, and log one line if any is suspicious.

    The main process reads and the others wait for it. Raises DataError on all of them for a sample that cannot be
    trained on, naming the first and how many of those read are like it; DistributedError where processes found other
    files than the main one, which would train each on its own order.
    """
    _require_the_same(procs, splits)
    refusal = ""
    if procs.is_main:
        looks = glance(splits)
        refusal = _sentence("error", "cannot be used", looks)
        suspicion = _sentence("warning", "are suspicious", looks)
        if suspicion and not refusal:
            logger.warning("%s. %s", suspicion, _advice(config))
    refusal = procs.from_main(refusal)
    if refusal:
        raise DataError(f"{refusal}. {_advice(config)}")


def _require_the_same(procs: Processes, splits: Mapping[str, SegDataset]) -> None:
    if procs.world_size == 1:
        return
    for key, dataset in splits.items():
        names = "\n".join(dataset.sample_name(index) for index in range(len(dataset)))
        own = (len(dataset), hashlib.sha256(names.encode("utf-8", "surrogatepass")).hexdigest())
        all_found = cast("list[tuple[int, str]]", procs.gather(own))
        for rank, found in enumerate(all_found):
            if found != all_found[0]:
                raise DistributedError(
                    f"{key}: rank {rank} found {found[0]} samples and rank 0 {all_found[0][0]}, or others of that "
                    "number; all machines need the same files and lists"
                )


def _sentence(level: str, verdict: str, looks: Mapping[str, list[Look]]) -> str:
    """How many samples of each split have findings of `level`, and the first of these; '' without any."""
    counts, first = [], ""
    for name, of_split in looks.items():
        of_level = [[finding for finding in look.findings if finding.level == level] for look in of_split]
        findings = [found[0] for found in of_level if found]
        if findings:
            counts.append(f"{len(findings)} of {len(of_split)} in {name}")
            first = first or findings[0].message
    return f"of the samples looked at, {' and '.join(counts)} {verdict}; the first: {first}" if counts else ""


def _advice(config: Config) -> str:
    command = f"fastseg data check {shlex.quote(config.source)}" if config.source.endswith((".yaml", ".yml")) else ""
    return f"`{command or 'fastseg data check CONFIG'}` with the same key=value reads every file and lists all"
