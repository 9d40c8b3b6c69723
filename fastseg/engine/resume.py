"""What a run goes on from: its folder, where it was, and whether a checkpoint is this run's."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fastseg.atomic import remove_abandoned, write_atomically
from fastseg.config import Config, config_differences, dump_config
from fastseg.engine.checkpoint import find_checkpoint
from fastseg.engine.distributed import Processes
from fastseg.environment import describe_environment
from fastseg.errors import CheckpointError, ConfigError, suggest
from fastseg.locks import holder, sign, try_lock

JOB = "torchrun_job"  # file in a run's folder
FILES = (JOB, "config.yaml", "environment.json", "eval.csv", "train.csv", "best.safetensors", "last.safetensors")
LOCK_SECONDS = 20.0  # a run whose launcher was killed still saves
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
    "train.timeout",
)
WORLD_SIZE = "world_size"  # the number of processes, which is no key of the configuration
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
def locked(
    run_dir: Path, should_stop: Callable[[], bool] = lambda: False, at_most: float = LOCK_SECONDS
) -> Iterator[None]:
    """Keep other trainings out of `run_dir`, which is made when missing; the kernel unlocks it when we die.

    Raises CheckpointError when the folder cannot be written, ConfigError when another process trains there, after
    waiting `at_most` some seconds for one that is about to end, or until `should_stop`.
    """
    path = run_dir / "lock"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115 - closed below
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror}; choose another run_dir=...") from None
    with file:
        patience = min(LOCK_SECONDS, at_most)
        deadline = time.monotonic() + patience
        said = False
        while try_lock(file) is False:
            other = holder(file)
            if time.monotonic() > deadline or should_stop():
                raise ConfigError(
                    f"run_dir {run_dir} is in use by {other}; wait for it, stop it, or choose another run_dir=..."
                )
            if not said:
                print(f"run_dir {run_dir} is in use by {other}; waiting {patience:.0f} s for it to end", flush=True)
                said = True
            time.sleep(0.2)
        sign(file)
        yield


def is_restarted(run_dir: Path) -> bool:
    """Whether torchrun has started this job's processes anew, and they had begun to train in `run_dir` before.

    The second half matters: a job that was refused because the folder is another run's is restarted, too.
    """
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) == 0:
        return False
    with contextlib.suppress(OSError):
        return (run_dir / JOB).read_text() == _job()
    return False


def _job() -> str:
    """What tells torchrun's jobs apart: its own name for this one, on this machine."""
    return f"{os.environ.get('TORCHELASTIC_RUN_ID', '')} on {socket.gethostname()}\n"


def prepare_run_dir(run_dir: Path, config: Config) -> None:
    """Write the resolved configuration, the environment and torchrun's name for the job, and take away what a process
    that was killed has left half written.

    A folder that takes no files is better known at once.
    """
    remove_abandoned(run_dir / name for name in FILES)
    try:
        (run_dir / "checkpoints").mkdir(exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{run_dir / 'checkpoints'} is no folder and none can be made there ({error.strerror}); move it, or choose "
            "another run_dir=..."
        ) from None
    if "TORCHELASTIC_RUN_ID" in os.environ:
        write_atomically(run_dir / JOB, _job().encode(), error=CheckpointError)
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
    path = Path(resume)
    if resume and path.is_dir():  # a run's folder, or that of its checkpoints
        inside = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        found = find_checkpoint(inside, say=print)
        if found is None:
            raise CheckpointError(f"--resume {resume}: the folder holds no checkpoints (step_*.pt)")
        return found
    return path


def refuse_changes(
    table: dict[str, Any], config: Config, procs: Processes, checkpoint: Path, allow: Collection[str] = ()
) -> list[str]:
    """Raise when the run that wrote `table` cannot go on as `config` asks. Returns what changes, by permission.

    `allow` names keys of the configuration (or their sections) that may differ, and 'world_size'. CheckpointError when
    the table lacks a part, ConfigError when it is of a run that computed something else, naming each key with both
    values, and for a name in `allow` that is no key. Keys that its configuration lacks, because they did not exist
    yet, count as their defaults.
    """
    missing = [key for key in TABLE_KEYS if key not in table]
    if missing:
        raise CheckpointError(
            f"{checkpoint} lacks {', '.join(missing)}; it was not written by this version of fastseg's training: start "
            f"a new run_dir"
        )
    # a key that is younger than the checkpoint had its default then
    stored = _without_roots(_laid_over(asdict(Config()), table["config"]))
    wanted = _without_roots(asdict(config))
    for name in allow:
        if name != WORLD_SIZE and not any(_is_within(key, name) for key in _keys(wanted)):
            known = [WORLD_SIZE, *wanted, *_keys(wanted)]
            raise ConfigError(f"--resume-allow {name}: the configuration has no such key; {suggest(name, known)}")
    values = {key: (_value(stored, key), _value(wanted, key)) for key in config_differences(stored, wanted)}
    if table[WORLD_SIZE] != procs.world_size:
        values[WORLD_SIZE] = (table[WORLD_SIZE], procs.world_size)
    changed = {key: pair for key, pair in values.items() if not key.startswith(FREE_KEYS)}
    refused = [key for key in changed if not any(_is_within(key, name) for name in allow)]
    if refused:
        parts = ", ".join(f"{key} (then {changed[key][0]!r}, now {changed[key][1]!r})" for key in refused)
        raise ConfigError(
            f"{checkpoint} is of a run with other values: {parts}; set them back, start a new run_dir, or go on "
            f"otherwise than the run would have with --resume-allow {','.join(refused)}"
        )
    return [f"{key} is {now!r} and was {then!r}" for key, (then, now) in changed.items()]


def _is_within(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.")


def _keys(table: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of all values, and of tables that are empty."""
    keys = []
    for key, value in table.items():
        keys += _keys(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"]
    return keys


def _value(table: Any, key: str) -> Any:
    """The value at a dotted name, or None where there is none."""
    for part in key.split("."):
        table = {str(name): value for name, value in table.items()}.get(part) if isinstance(table, dict) else None
    return table


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


def restore_optimizer(optimizer: torch.optim.Optimizer, table: dict[str, Any], config: Config) -> None:
    """The state of a checkpoint's optimiser, with the settings of `config`; none of that of another kind."""
    if table["config"].get("optim", {}).get("name", config.optim.name) != config.optim.name:
        return
    kept = ("params", "lr")  # the rate follows from the schedule before each step
    settings = [{key: value for key, value in group.items() if key not in kept} for group in optimizer.param_groups]
    try:
        optimizer.load_state_dict(table["optimizer"])
    except ValueError as error:
        raise ConfigError(f"the optimiser's state does not fit the network: {error}; start a new run_dir") from None
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


def random_state(procs: Processes) -> dict[str, Any]:
    """The state of torch's generators on this process."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if procs.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(procs.device)
    return state


def restore_random_state(table: dict[str, Any], procs: Processes, seed: int) -> None:
    """Inverse of `random_state`, from a checkpoint's table; a new stream where the number of processes is another."""
    if table[WORLD_SIZE] != procs.world_size:
        torch.manual_seed(seed + 7919 * table["progress"]["iteration"])
        return
    state = table["random"][procs.rank]
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and procs.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], procs.device)
