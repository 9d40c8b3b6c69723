"""Processes of one job: started by torchrun, or one alone."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from fastseg.engine.heartbeat import Heartbeat, is_of_a_peer
from fastseg.errors import DistributedError
from fastseg.parent import die_with_parent

T = TypeVar("T")
STORE_SECONDS = 5.0  # after which a launcher whose store does not answer is dead


@dataclass(frozen=True)
class Processes:
    """This process among `world_size`, and the device it works on."""

    rank: int
    world_size: int
    device: torch.device
    heartbeat: Heartbeat | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum of a tensor over all processes, in place."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def from_main(self, value: T) -> T:
        """The main process's `value`, on every process."""
        return cast("T", self.gather(value)[0])

    def copy_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Make the tensors of every process those of the main one, in place."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world_size > 1:
            dist.barrier()

    def beat(self, step: int) -> None:
        """Tell the others that this process has come to a step: they name who has not."""
        if self.heartbeat is not None:
            self.heartbeat.beat(step)

    def gather(self, value: object) -> list[object]:
        """`value` of every process, in order of rank, on every process."""
        if self.world_size == 1:
            return [value]
        values: list[object] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values


@contextmanager
def processes(device: str = "auto", *, timeout_seconds: int = 600) -> Iterator[Processes]:
    """Join the job that torchrun's environment describes (NCCL on CUDA, gloo on CPU), or run alone.

    A group that exists already is used as it is; one that is joined here is left in the end. Raises DistributedError
    when the device does not exist, and when another process died or did not answer within `timeout_seconds`, with its
    rank.
    """
    world_size, rank, local_rank = (_number(name) for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"))
    chosen = _device(device, local_rank)
    if dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size(), chosen)
        return
    if "TORCHELASTIC_RUN_ID" in os.environ or world_size > 1:
        _stop_with_launcher()
    if world_size == 1:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    timeout = datetime.timedelta(seconds=timeout_seconds)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    try:
        store, rank, world_size = next(rendezvous("env://", timeout=timeout))
        # torchrun's store outlives processes that it starts again, and with it the addresses of those that died
        store = dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
        heartbeat = Heartbeat(rank, world_size)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR', 'MASTER_ADDR?')}:{os.environ.get('MASTER_PORT', 'MASTER_PORT?')}"
        raise DistributedError(
            f"rank {rank} of {world_size} did not meet the others at {where} within {timeout_seconds} s "
            f"(train.timeout): {str(error).splitlines()[0].rstrip('.')}; start all of them, as torchrun and "
            "tools/dist_train.sh do"
        ) from error
    try:
        yield Processes(rank, world_size, chosen, heartbeat)
    except RuntimeError as error:
        if not is_of_a_peer(error):
            raise
        raise DistributedError(
            f"the job cannot go on: {heartbeat.culprits()}; what it said last stands above. Processes are given "
            f"{timeout_seconds} s (train.timeout) to answer; start again with --resume auto"
        ) from error
    finally:
        with contextlib.suppress(RuntimeError):  # of a group that is broken already
            dist.destroy_process_group()


def _number(name: str) -> int:
    """What torchrun says in its environment."""
    text = os.environ.get(name) or {"WORLD_SIZE": "1"}.get(name, "0")
    if not text.isdecimal():
        raise DistributedError(f"the environment's {name} is {text!r} and no number; torchrun sets it: unset it")
    return int(text)


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        return torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DistributedError(f"device {name!r} is unknown; allowed: auto, cpu, cuda, cuda:0") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise DistributedError("device 'cuda' was asked for and torch sees no GPU; use train.device=cpu or auto")
    return torch.device("cuda", local_rank) if device.type == "cuda" and device.index is None else device


def _stop_with_launcher() -> None:
    """torchrun's workers would train on as orphans, or wait for each other."""
    alive = die_with_parent(signal.SIGTERM)
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # one that died before that line was never our parent; it takes the store along, which it has had from its start
        address = os.environ.get("MASTER_ADDR", ""), _number("MASTER_PORT")
        deadline = time.monotonic() + STORE_SECONDS
        while alive:
            try:
                socket.create_connection(address, timeout=STORE_SECONDS).close()
                return
            except ConnectionRefusedError:
                alive = time.monotonic() < deadline
                time.sleep(0.2)
            except OSError:  # of a network to another machine: the rendezvous has more patience
                return
    if not alive:
        raise DistributedError("the launcher died while this worker was starting; start again with --resume auto")


class StopFlag:
    """Turns SIGTERM, SIGINT and SIGUSR1 into a flag that the loop reads; a second signal acts at once.

    Second means `ECHO_SECONDS` later: batch systems signal a launcher and its workers alike, and the launcher passes
    its own signal on, so that one request to stop reaches a worker twice.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    ECHO_SECONDS = 2.0

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._since = 0.0

    def __enter__(self) -> StopFlag:
        self._previous = {}
        for number in self.SIGNALS:
            try:
                self._previous[number] = signal.signal(number, self._set)
            except ValueError:  # not the main thread: the embedding program handles signals
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def seconds(self) -> float:
        """How long ago the signal came; 0 before one has."""
        return time.monotonic() - self._since if self.signal else 0.0

    @property
    def name(self) -> str:
        """Name of the signal that came, such as 'SIGTERM'; '' before one has."""
        return self.signal.name if self.signal else ""

    def _set(self, number: int, _: object) -> None:
        if self.signal is None:
            self.signal, self._since = signal.Signals(number), time.monotonic()
        elif time.monotonic() - self._since > self.ECHO_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
