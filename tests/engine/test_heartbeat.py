"""A job whose process dies or stands still ends soon, and the others say which one it was."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from fastseg.config import dump_config
from fastseg.engine.checkpoint import find_checkpoint
from fastseg.engine.heartbeat import is_of_a_peer
from jobs import Job
from workers import short_config

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")
TIMEOUT = 5


def job_of(folder: Path, *options: str, timeout: int = TIMEOUT) -> Job:
    config = short_config(folder / "run", steps=100_000)
    config.train.timeout = timeout
    config.train.checkpoint_every = 5
    (folder / "tiny.yaml").write_text(dump_config(config))
    return Job(folder / "tiny.yaml", options=options)


def test_the_others_name_a_process_that_died(tmp_path: Path) -> None:
    with job_of(tmp_path) as job:
        job.wait_for("[12/100000]")
        pid = job.process_of(1)
        os.kill(pid, signal.SIGKILL)
        output, _ = job.communicate(timeout=20)
        assert job.returncode != 0
        assert job.processes() == {}
    assert f"rank 1 (process {pid} on" in output
    assert "died at step" in output
    assert "--resume auto" in output
    assert find_checkpoint(tmp_path / "run/checkpoints") is not None


@pytest.mark.slow
def test_the_others_name_a_process_that_stands_still(tmp_path: Path) -> None:
    with job_of(tmp_path) as job:
        job.wait_for("[12/100000]")
        pid = job.process_of(1)
        os.kill(pid, signal.SIGSTOP)
        # torchrun asks the rest to end and kills what does not within 30 s
        output, _ = job.communicate(timeout=TIMEOUT + 40)
        assert job.returncode != 0
        assert job.processes() == {}
    assert f"rank 1 (process {pid} on" in output
    assert "is stopped (SIGSTOP or a debugger) at step" in output


@pytest.mark.slow
def test_torchrun_starts_a_job_again_that_lost_a_process(tmp_path: Path) -> None:
    with job_of(tmp_path, "--max-restarts", "1", timeout=60) as job:
        job.wait_for("[12/100000]")
        os.kill(job.process_of(1), signal.SIGKILL)
        job.wait_for("resumed from")
        job.wait_for("[20/100000]")
        job.terminate()
        output, _ = job.communicate(timeout=60)
    assert "stopped by SIGTERM" in output


def test_only_errors_of_other_processes_are_taken_for_such() -> None:
    gloo = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4242"
    assert is_of_a_peer(RuntimeError(gloo))
    assert not is_of_a_peer(RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"))


@pytest.mark.slow
def test_two_jobs_on_one_machine_do_not_meet(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
        (folder / "tiny.yaml").write_text(dump_config(short_config(folder / "run", steps=3)))
    with Job(folders[0] / "tiny.yaml") as one, Job(folders[1] / "tiny.yaml") as other:
        outputs = [job.communicate(timeout=200)[0] for job in (one, other)]
        assert [one.returncode, other.returncode] == [0, 0], outputs
    assert (folders[0] / "run/train.csv").read_bytes() == (folders[1] / "run/train.csv").read_bytes()
    assert [(folder / "run/last.safetensors").exists() for folder in folders] == [True, True]
