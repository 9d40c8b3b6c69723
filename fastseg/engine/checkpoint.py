"""Training checkpoints: atomic, hashed, self-describing, two kept.

`step_00001500.pt` holds tensors and plain Python; `step_00001500.json` beside it holds its SHA-256. A checkpoint
without a matching manifest does not count, so a crash at any moment leaves the one before.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch

from fastseg.atomic import write_atomically
from fastseg.errors import CheckpointError, MissingFileError
from fastseg.failpoints import failpoint
from fastseg.weights.files import file_sha256, read_checkpoint_file

KEEP = 2


def save_checkpoint(folder: Path, iteration: int, table: dict[str, Any]) -> Path:
    """Write the checkpoint of `iteration`, verify it, then delete all but the newest two intact ones. Returns its path.

    Raises CheckpointError when it cannot be written; older checkpoints then stand.
    """
    path = folder / f"step_{iteration:08d}.pt"
    buffer = io.BytesIO()
    torch.save(table, buffer)
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    manifest = {"file": path.name, "iteration": iteration, "bytes": len(data), "sha256": digest}
    if path.exists() and _damage(path) is None:  # saved before its evaluation and again after
        with contextlib.suppress(OSError):
            manifest["replaces"] = file_sha256(path)
    # the manifest first: a crash in between leaves a manifest of nothing or of the file it replaces, never a
    # checkpoint without one
    write_atomically(path.with_suffix(".json"), json.dumps(manifest, indent=1).encode(), error=CheckpointError)
    failpoint("manifest written")
    write_atomically(path, data, error=CheckpointError)
    failpoint("checkpoint written")
    problem = _damage(path)
    if problem:
        raise CheckpointError(f"{path} was written and does not read back: {problem}; older checkpoints are kept")
    for old in _beyond_those_kept(path):
        with contextlib.suppress(OSError):  # what cannot go costs room, not the run
            old.unlink(missing_ok=True)
            old.with_suffix(".json").unlink(missing_ok=True)
    for abandoned in folder.glob(".step_*.tmp"):  # of a process that was killed while writing any of them
        with contextlib.suppress(OSError):
            abandoned.unlink(missing_ok=True)
    failpoint("checkpoints pruned")
    return path


def find_checkpoint(folder: Path, *, say: Any = None) -> Path | None:
    """The newest intact checkpoint in `folder`, or None when there is none at all.

    Damaged ones are skipped, and named through `say`. Raises CheckpointError when all are damaged.
    """
    problems = []
    for path in reversed(_all(folder)):
        problem = _damage(path)
        if problem is None:
            return path
        problems.append(f"{path}: {problem}")
        if say is not None:
            say(f"checkpoint skipped: {problems[-1]}")
    if problems:
        raise CheckpointError(
            "no intact checkpoint: "
            + "; ".join(problems)
            + "; remove them to start anew, or choose another run_dir=..."
        )
    return None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The table that was saved. Raises MissingFileError and CheckpointError."""
    if not path.is_file():
        raise MissingFileError(f"checkpoint {path} does not exist; allowed: auto, no, or the path of a step_*.pt")
    if not path.with_suffix(".json").exists():
        raise CheckpointError(
            f"{path} has no manifest {path.stem}.json beside it, by which a checkpoint is known to be whole: copy "
            f"both; to begin a new run from the weights of another, use init_from={path}"
        )
    problem = _damage(path)
    if problem:
        raise CheckpointError(f"{path}: {problem}; go on from an older one with --resume auto")
    return read_checkpoint_file(path)


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*.pt"))


def set_aside(folder: Path, iteration: int) -> list[Path]:
    """Rename checkpoints of later iterations than the one that a run goes on from: they are of another branch, and a
    later `--resume auto` would follow it. Returns their new paths; raises CheckpointError where that fails."""
    moved = []
    for path in _all(folder):
        if path.stem > f"step_{iteration:08d}":
            target = path.with_name(f"set_aside_{path.name}")
            try:
                with contextlib.suppress(FileNotFoundError):
                    path.with_suffix(".json").replace(target.with_suffix(".json"))
                path.replace(target)
            except OSError as error:
                raise CheckpointError(f"{path} cannot be renamed: {error.strerror}; check permissions") from None
            moved.append(target)
    return moved


def _beyond_those_kept(newest: Path) -> list[Path]:
    """Of the checkpoints before one that is intact, those beyond the other intact ones that are kept."""
    older, intact = [path for path in _all(newest.parent) if path.name < newest.name], 1
    while older and intact < KEEP:
        intact += _damage(older.pop()) is None
    return older


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, or None."""
    try:
        manifest = json.loads(path.with_suffix(".json").read_text())
        expected, size = (manifest["sha256"], manifest.get("replaces")), manifest["bytes"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its manifest {path.with_suffix('.json').name} cannot be read ({type(error).__name__})"
    try:
        if file_sha256(path) in expected:
            return None
        found = path.stat().st_size
    except OSError as error:  # a folder of that name, a sector that is gone
        return f"it cannot be read ({error.strerror})"
    return "its SHA-256 differs from its manifest's" if found == size else f"{found} bytes instead of {size}"
