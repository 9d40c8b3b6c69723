"""Which process of a job died or stands still, for the message by which the others end."""

from __future__ import annotations

import os
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

GRACE = timedelta(seconds=5)  # for the store, which the launcher holds
DYING = 2.0  # seconds from the end of its connections to that of a process
STATES = {"T": "is stopped (SIGSTOP or a debugger)", "Z": "died", "X": "died"}


class Heartbeat:
    """Writes to the store of a job of several processes who this one is and how far it came."""

    def __init__(self, rank: int, world_size: int) -> None:
        self._rank, self._world_size = rank, world_size
        self._store: Any = _get_default_store()
        self._said("process", f"{os.getpid()} {socket.gethostname()}")
        self.beat(0)

    def beat(self, step: int) -> None:
        """This process is alive, in this step."""
        self._said("beat", f"{step} {time.time()}")

    def culprits(self) -> str:
        """Who died, stands still or was heard of last, in words for the end of a job."""
        own = self._of(self._rank)
        others = [self._of(rank) for rank in range(self._world_size) if rank != self._rank]
        found: list[_Process] = []
        deadline = time.monotonic() + DYING
        while not found and time.monotonic() < deadline:
            found = [each for each in others if each.state]
            time.sleep(0.1)
        if not found:
            latest = min(others, key=lambda each: (each.step, each.heard))
            return f"{latest} was heard of last, at step {latest.step} (this one is at {own.step})"
        return " and ".join(f"{each} {each.state} at step {each.step}" for each in found)

    def _said(self, kind: str, text: str) -> None:
        self._store.set(f"fastseg/{kind}/{self._rank}", text)

    def _of(self, rank: int) -> _Process:
        self._store.set_timeout(GRACE)
        try:
            pid, host = self._store.get(f"fastseg/process/{rank}").decode().split(" ", 1)
            step, heard = self._store.get(f"fastseg/beat/{rank}").decode().split()
        except (RuntimeError, ValueError):  # the launcher is gone, or the process never came this far
            return _Process(rank, 0, "", -1, 0.0)
        return _Process(rank, int(pid), host, int(step), float(heard))


class _Process:
    def __init__(self, rank: int, pid: int, host: str, step: int, heard: float) -> None:
        self.rank, self.pid, self.host, self.step, self.heard = rank, pid, host, step, heard

    @property
    def state(self) -> str:
        """What is wrong with it, as far as that can be seen from here."""
        if self.host != socket.gethostname() or not Path("/proc/self/stat").exists():
            return ""
        try:
            return STATES.get(Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0], "")
        except OSError:
            return "died"

    def __str__(self) -> str:
        return f"rank {self.rank} (process {self.pid} on {self.host})" if self.pid else f"rank {self.rank}"


def is_of_a_peer(error: RuntimeError) -> bool:
    """Whether a collective failed because of another process: gloo's and NCCL's errors have no common class."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(name in text for name in ("gloo", "nccl", "by peer"))
