"""Two processes, or three, that meet over gloo, started once per session, and the smallest run that trains."""

from __future__ import annotations

import csv
import datetime
import functools
import multiprocessing
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from fastseg.config import Config
from fastseg.data.road_scenes import RoadScenes
from fastseg.engine import resume
from fastseg.environment import describe_environment

SCENES: dict[tuple[object, ...], tuple[np.ndarray, np.ndarray]] = {}
TIMEOUT_SECONDS = 280  # less than the limit of a test


class TwoProcesses:
    """Runs a module's function on all processes of a gloo group. A failure ends the group; the next call makes one."""

    def __init__(self, folder: Path, count: int = 2) -> None:
        self._folder = folder
        self._count = count
        self._groups = 0
        self._members: list[tuple[Any, Connection]] = []

    def __call__(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """`function(*args)` on each: their results in order of rank. The function is found by its name."""
        if not self._members:
            self._start()
        task = pickle.dumps((sys.path, function.__module__, function.__qualname__, pickle.dumps(args)))
        for _, pipe in self._members:
            pipe.send_bytes(task)
        results, problems = [], []
        for rank, (_, pipe) in enumerate(self._members):
            try:
                succeeded, value = pickle.loads(pipe.recv_bytes()) if pipe.poll(TIMEOUT_SECONDS) else (False, "timeout")
            except EOFError:
                succeeded, value = False, "process died"
            results.append(value)
            if not succeeded:
                problems.append(f"rank {rank}: {value}")
        if problems:
            self.close()
            raise AssertionError("\n".join(problems))
        return results

    def close(self) -> None:
        for process, pipe in self._members:
            pipe.close()
            process.join(0.2)
            process.kill()
        self._members = []

    def _start(self) -> None:
        self._groups += 1
        context = multiprocessing.get_context("spawn")
        for rank in range(self._count):
            ours, theirs = context.Pipe()
            meeting = str(self._folder / f"meet{self._groups}")
            process = context.Process(target=_serve, args=(rank, self._count, meeting, theirs))
            process.start()
            theirs.close()
            self._members.append((process, ours))


def _serve(rank: int, count: int, meeting: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    lighten(pytest.MonkeyPatch())
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=count, timeout=datetime.timedelta(seconds=60)
    )
    while True:
        try:
            path, module, name, args = pickle.loads(pipe.recv_bytes())
        except (EOFError, ConnectionResetError):
            return
        sys.path[:] = path
        try:
            function = getattr(__import__(module), name)
            answer = True, function(*pickle.loads(args))
        except BaseException:
            answer = False, traceback.format_exc()
        pipe.send_bytes(pickle.dumps(answer))


def lighten(patched: pytest.MonkeyPatch) -> None:
    """Leave out of a run what takes time and is tested elsewhere.

    TensorBoard is not installed, a scene is painted once per process, and the environment is described once.
    """
    patched.setitem(sys.modules, "torch.utils.tensorboard", None)
    patched.setattr(resume, "describe_environment", functools.cache(describe_environment))
    paint = RoadScenes.load

    def load(self: RoadScenes, index: int) -> tuple[np.ndarray, np.ndarray]:
        key = (self.split, self.height, self.width, self.seed, index)
        if key not in SCENES:
            SCENES[key] = paint(self, index)
        return SCENES[key]

    patched.setattr(RoadScenes, "load", load)


def tiny_config(run_dir: Path | str) -> Config:
    """20 steps of Fast-SCNN on road scenes of 32 x 64 pixels, with everything on that has a state."""
    config = Config(run_dir=str(run_dir), source="tiny.yaml")
    config.model.args = {"aux": True, "dropout": 0.1}
    config.data.args = {"count": 4, "height": 32, "width": 64}
    config.data.workers = 0
    config.data.cache = "memory"
    config.augment.crop = (32, 64)
    config.optim.lr = 0.02
    config.schedule.iterations = 20
    config.schedule.warmup = 5
    config.loss.aux = {"detail": 0.4, "context": 0.4}
    config.train.total_batch = 2
    config.train.ema_decay = 0.9
    config.train.clip_grad_norm = 1.0
    config.train.device = "cpu"
    config.train.eval_every = 3.5  # epochs of 2 steps: every 7 steps
    config.train.checkpoint_every = 1000
    config.train.log_every = 1
    return config


def short_config(run_dir: Path | str, steps: int = 4) -> Config:
    """A tiny run without evaluation before its end."""
    config = tiny_config(run_dir)
    config.schedule.iterations = steps
    config.train.eval_every = 100.0
    return config


def column(run_dir: Path, name: str, file: str = "train.csv") -> list[float]:
    with open(run_dir / file, newline="") as rows:
        return [float(row[name]) for row in csv.DictReader(rows)]
