"""Processes of a job: sums, signals, and what becomes of workers without a launcher."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import torch

from fastseg.cli import main
from fastseg.engine import distributed
from fastseg.engine.distributed import StopFlag, processes
from fastseg.errors import DistributedError
from jobs import ROOT, is_running
from workers import TwoProcesses


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with processes("cpu") as procs:
        assert (procs.rank, procs.world_size, procs.is_main) == (0, 1, True)
        assert not torch.distributed.is_initialized()
        assert procs.sum(torch.tensor(3)) == 3
        assert procs.gather("a") == ["a"]
        procs.copy_from_main([torch.zeros(1)])
        procs.barrier()


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(DistributedError, match="device 'gpu' is unknown; allowed: auto, cpu, cuda"), processes("gpu"):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_named() -> None:
    with pytest.raises(DistributedError, match=r"sees no GPU; use train\.device=cpu or auto"), processes("cuda"):
        pass
    with processes("auto") as procs:
        assert procs.device.type == "cpu"


def share() -> dict[str, Any]:
    with processes("cpu") as procs:
        assert "WORLD_SIZE" not in os.environ  # the group at hand counts
        copied = [torch.full((2,), float(procs.rank)), torch.tensor(procs.rank)]
        procs.copy_from_main(copied)
        procs.barrier()
        found = {
            "rank": procs.rank,
            "world_size": procs.world_size,
            "sum": procs.sum(torch.tensor([procs.rank + 1])).tolist(),
            "gather": procs.gather({"rank": procs.rank}),
            "copied": [tensor.tolist() for tensor in copied],
        }
    assert torch.distributed.is_initialized()  # and is left as it was
    return found


def test_two_processes_share(two_processes: TwoProcesses) -> None:
    common = {"world_size": 2, "sum": [3], "gather": [{"rank": 0}, {"rank": 1}], "copied": [[0.0, 0.0], 0]}
    assert two_processes(share) == [{"rank": 0, **common}, {"rank": 1, **common}]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_is_a_flag(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopFlag() as stop:
        assert not stop
        assert stop.name == ""
        signal.raise_signal(number)
        assert stop
        assert stop.name == number.name
        signal.raise_signal(signal.SIGTERM)  # an echo of the same request, by way of the launcher
        assert stop.name == number.name
    assert signal.getsignal(number) == before


def test_a_second_signal_acts_at_once() -> None:
    pid = os.fork()
    if pid == 0:
        stop = StopFlag()
        stop.ECHO_SECONDS = 0.0
        with stop:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0.01)
            signal.raise_signal(signal.SIGTERM)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM


def test_a_thread_trains_without_signals() -> None:
    flags: list[bool] = []

    def work() -> None:
        with StopFlag() as stop:
            flags.append(bool(stop))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert flags == [False]


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK", "LOCAL_RANK"])
def test_an_environment_without_numbers_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "two")
    with pytest.raises(DistributedError, match=rf"environment's {name} is 'two' and no number.*unset it"), processes():
        pass


def test_the_command_says_so_in_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    assert main(["train", str(ROOT / "configs/road_scenes/fast_scnn.yaml"), "run_dir=unused"]) == 2
    assert capsys.readouterr().err.startswith("fastseg: error: the environment's WORLD_SIZE is 'two' and no number")


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.mark.parametrize("world_size", ["1", "2"])
def test_a_launcher_that_died_before_its_worker_looked_is_missed(
    monkeypatch: pytest.MonkeyPatch, world_size: str
) -> None:
    environment = {"TORCHELASTIC_RUN_ID": "one", "TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": world_size}
    for key, value in {**environment, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(distributed, "die_with_parent", lambda _: True)  # of another parent
    monkeypatch.setattr(distributed, "STORE_SECONDS", 0.5)
    with pytest.raises(DistributedError, match=r"launcher died .*starting.*--resume auto"), processes("cpu"):
        pass


def test_who_does_not_meet_the_others_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    for key, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(distributed, "die_with_parent", lambda _: True)  # this is pytest's process
    message = rf"rank 0 of 2 did not meet the others at 127\.0\.0\.1:{port} within 1 s \(train\.timeout\).*start all"
    with pytest.raises(DistributedError, match=message), processes("cpu", timeout_seconds=1):
        pass


LAUNCHER = """
import subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(worker.pid, worker.stdout.readline(), flush=True)
worker.wait()
"""
WORKER = """
from fastseg.engine.distributed import processes
with processes("cpu"):
    print("ready", flush=True)
    import time
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal")
def test_workers_end_with_their_launcher() -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, WORKER], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "one"},
    )  # fmt: skip
    assert launcher.stdout is not None
    worker, word = launcher.stdout.readline().split()
    assert word == "ready"
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + 5
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(worker)
