"""What a run goes on from: its folder, where it was, and whether a checkpoint is this run's."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fastseg.atomic import write_atomically
from fastseg.config import Config, config_differences, dump_config
from fastseg.engine.checkpoint import find_checkpoint
from fastseg.engine.distributed import Processes
from fastseg.environment import describe_environment
from fastseg.errors import CheckpointError, ConfigError

LOCK_SECONDS = 20.0  # a killed run's data loading workers hold its lock until they notice
# keys that may change on resume: they decide where and how fast a run goes on, not what it computes
FREE_KEYS = (
    "run_dir",
    "source",
    "data.root",
    "data.workers",
    "data.cache",  # and data.cache_dir
    "init_from",
    "train.log_every",
    "train.checkpoint_every",
)
# what a checkpoint holds beside its format version
TABLE_KEYS = (
    *("info", "config", "world_size", "model", "ema", "ema_updates", "optimizer", "scaler", "random", "progress"),
)


@dataclass
class Progress:
    """Where a run is: steps done, the step last evaluated, and the best mIoU."""

    iteration: int = 0
    evaluated: int = -1
    best: float = -1.0


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Keep other trainings out of `run_dir`, which is made when missing; the kernel unlocks it when we die.

    Raises CheckpointError when the folder cannot be written, ConfigError when another process trains there.
    """
    try:
        import fcntl
    except ImportError:  # not POSIX: no lock
        yield
        return
    path = run_dir / "lock"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115 - closed below
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror}; choose another run_dir=...") from None
    with file:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise ConfigError(
                        f"run_dir {run_dir} is in use by {file.read().strip() or 'another process'}; wait for it, stop "
                        f"it, or choose another run_dir=..."
                    ) from None
                time.sleep(0.2)
            except OSError:  # a file system without locks
                break
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def prepare_run_dir(run_dir: Path, config: Config) -> None:
    """Write the resolved configuration and the environment: a folder that takes no files is better known at once."""
    write_atomically(run_dir / "config.yaml", dump_config(config).encode(), error=CheckpointError)
    details = {**describe_environment(), "command": sys.argv}
    write_atomically(
        run_dir / "environment.json", json.dumps(details, indent=1, default=str).encode(), error=CheckpointError
    )


def resolve_resume(resume: str, folder: Path) -> Path | None:
    """The checkpoint to go on from, or None to begin: for the main process, which holds the lock, to decide.

    Raises ConfigError when 'no' would mix two runs in one folder, CheckpointError when 'auto' finds only damage.
    """
    if resume == "no":
        if any(folder.glob("step_*.pt")):
            raise ConfigError(
                f"run_dir {folder.parent} holds checkpoints of an earlier run; go on with --resume auto, or choose "
                f"another run_dir=..."
            )
        return None
    if resume == "auto":
        return find_checkpoint(folder, say=print)
    return Path(resume)


def refuse_changes(table: dict[str, Any], config: Config, procs: Processes, checkpoint: Path) -> None:
    """Raise when the run that wrote `table` cannot go on as `config` asks.

    CheckpointError when the table lacks a part, ConfigError when it is of a run that computed something else. Keys
    that its configuration lacks, because they did not exist yet, count as their defaults.
    """
    missing = [key for key in TABLE_KEYS if key not in table]
    if missing:
        raise CheckpointError(
            f"{checkpoint} lacks {', '.join(missing)}; it was not written by this version of fastseg's training: start "
            f"a new run_dir"
        )
    if table["world_size"] != procs.world_size:
        raise ConfigError(
            f"{checkpoint} was written by {table['world_size']} processes and there are {procs.world_size} now; resume "
            f"with as many, or start a new run_dir"
        )
    # a key that is younger than the checkpoint had its default then
    stored = _laid_over(asdict(Config()), table["config"])
    differences = config_differences(_without_roots(stored), _without_roots(asdict(config)))
    changed = [key for key in differences if not key.startswith(FREE_KEYS)]
    if changed:
        raise ConfigError(
            f"{checkpoint} was written with other values of {', '.join(changed)}; set them back, or start a new run_dir"
        )


def _laid_over(defaults: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    merged = {**defaults, **table}
    for key in defaults.keys() & table.keys():
        if isinstance(defaults[key], dict) and isinstance(table[key], dict):
            merged[key] = _laid_over(defaults[key], table[key])
    return merged


def _without_roots(table: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the folders of data.extra, which are as free to move as data.root."""
    parts = [{key: value for key, value in part.items() if key != "root"} for part in table["data"]["extra"]]
    return {**table, "data": {**table["data"], "extra": parts}}


def random_state(procs: Processes) -> dict[str, Any]:
    """The state of torch's generators on this process."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if procs.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(procs.device)
    return state


def restore_random_state(state: dict[str, Any], procs: Processes) -> None:
    """Inverse of `random_state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and procs.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], procs.device)
