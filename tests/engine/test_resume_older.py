"""A checkpoint from before a key of the configuration existed goes on where that key has its default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fastseg.config import Config
from fastseg.engine.distributed import processes
from fastseg.engine.resume import TABLE_KEYS, refuse_changes
from fastseg.errors import ConfigError

Change = Callable[[Config], Any]


def check(config: Config, stored: dict[str, Any]) -> None:
    with processes("cpu") as procs:
        refuse_changes({**dict.fromkeys(TABLE_KEYS), "world_size": 1, "config": stored}, config, procs, Path("a.pt"))


@pytest.mark.parametrize(
    "missing", [("loss", ("aux_args", "terms", "term_args")), ("optim", ("nesterov",)), ("input", ("mean",))]
)
def test_keys_that_a_checkpoint_lacks_had_their_defaults(missing: tuple[str, tuple[str, ...]]) -> None:
    stored = asdict(Config())
    for key in missing[1]:
        del stored[missing[0]][key]
    check(Config(), stored)


def test_a_section_that_a_checkpoint_lacks_had_its_defaults() -> None:
    stored = asdict(Config())
    del stored["augment"]
    check(Config(), stored)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda c: c.loss.terms.update(dual_task=1.0), "loss.terms.dual_task"),
        (lambda c: setattr(c.optim, "nesterov", True), "optim.nesterov"),
    ],
)
def test_keys_that_a_checkpoint_lacks_cannot_change(change: Change, key: str) -> None:
    stored, config = asdict(Config()), Config()
    change(config)
    del stored["loss"]["terms"], stored["optim"]["nesterov"]
    with pytest.raises(ConfigError, match=rf"a\.pt is of a run with other values: {key} \(then"):
        check(config, stored)


def test_a_key_that_only_the_checkpoint_has_is_a_change() -> None:
    stored = asdict(Config())
    stored["loss"]["args"]["threshold"] = 0.5
    with pytest.raises(ConfigError, match=r"other values: loss\.args\.threshold \(then 0\.5, now None\);"):
        check(Config(), stored)
