"""Checkpoints of a run: what a disk that is full costs, and how much room they will take."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastseg.engine.checkpoint import KEEP, save_checkpoint
from fastseg.engine.distributed import Processes
from fastseg.errors import CheckpointError

FAILURES_ALLOWED = 3  # of which the last one in a row ends the run
SLOTS = {"sgd": 1, "adamw": 2}  # tensors that an optimiser keeps for each parameter


class Saver:
    """Saves on the main process, for all: each goes on after a failure, or none does.

    A checkpoint or weights file that cannot be written costs a line; the third in a row, or the last of a run, is a
    CheckpointError on every process.
    """

    def __init__(self, folder: Path, procs: Processes, say: Callable[[str], None]) -> None:
        self.folder, self.procs, self.say = folder, procs, say
        self.failures = 0

    def save(self, iteration: int, table: dict[str, Any], *, last: bool = False) -> bool:
        """Whether there is a checkpoint of the table now."""
        return self.attempt(
            f"[{iteration}] no checkpoint", lambda: save_checkpoint(self.folder, iteration, table), last=last
        )

    def attempt(self, loss: str, write: Callable[[], object], *, last: bool = False) -> bool:
        """Whether the main process could `write`; if not, it says what was lost."""
        problem = None
        if self.procs.is_main:
            try:
                write()
            except CheckpointError as error:
                problem = str(error)
        problem = self.procs.from_main(problem)
        if problem is None:
            self.failures = 0
            return True
        self.failures += 1
        left = FAILURES_ALLOWED - self.failures
        if last or left == 0:
            raise CheckpointError(problem)
        self.say(f"{loss}; {left} more of these in a row and the run ends: {problem}")
        return False


def check_room(run_dir: Path, model: torch.nn.Module, optimizer: str, *, average: bool) -> None:
    """Raises CheckpointError where the disk has less room than checkpoints of this network will take."""
    copies = 1 + int(average) + SLOTS.get(optimizer, 2)
    # and the best weights, the last ones, and one of them being written
    needed = ((KEEP + 1) * copies + 3) * sum(_bytes(tensor) for tensor in model.state_dict().values())
    # a run that goes on has some already, and replaces them
    own = [*run_dir.glob("checkpoints/step_*.pt"), *run_dir.glob("*.safetensors")]
    free = shutil.disk_usage(run_dir).free + sum(path.stat().st_size for path in own)
    if free < needed:
        raise CheckpointError(
            f"the disk of {run_dir} has {free / 1e6:.0f} MB free or in older checkpoints, and {KEEP} checkpoints of "
            f"this run with a third being written, and its weights, take about {needed / 1e6:.0f} MB; free some, or "
            "choose another run_dir=..."
        )


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
