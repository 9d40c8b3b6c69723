"""Jobs of several processes under torchrun, as `tools/dist_train.sh` starts them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import fastseg

ROOT = Path(fastseg.__file__).parents[1]


def is_running(pid: int | str) -> bool:
    """Whether there is such a process, and it is none that has ended and waits to be asked for its exit code."""
    with contextlib.suppress(OSError):
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


class Job(subprocess.Popen[str]):
    """Two processes of `fastseg train` under torchrun. `name` is in the environment of each that belongs to it."""

    def __init__(
        self,
        config: Path,
        *arguments: str,
        output: int | IO[str] = subprocess.PIPE,
        options: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = uuid.uuid4().hex
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "FASTSEG_TEST_JOB": self.name}
        super().__init__(
            [sys.executable, *launcher, "-m", "fastseg", "train", str(config), *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, **own, **(environment or {})},
        )

    def __exit__(self, *_: object) -> None:
        """Leave nothing of it behind, whatever has failed."""
        for pid in self.processes():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        super().__exit__(None, None, None)

    def wait_for(self, text: str) -> None:
        """Until the job has said `text`."""
        assert self.stdout is not None
        seen = []
        for line in self.stdout:
            seen.append(line)
            if text in line:
                return
        raise AssertionError("".join(seen))

    def processes(self) -> dict[int, set[str]]:
        """Its processes that live, of which torchrun makes sessions of their own, and their environments."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                environment = set((folder / "environ").read_bytes().decode(errors="replace").split("\0"))
                if f"FASTSEG_TEST_JOB={self.name}" in environment and is_running(folder.name):
                    found[int(folder.name)] = environment
        return found

    def process_of(self, rank: int) -> int:
        """The training process of that rank; those that load data for it are younger."""
        return min(pid for pid, environment in self.processes().items() if f"RANK={rank}" in environment)
