"""Whole runs on one, two and three processes are one run, in float64: loader, losses, norms, accumulation, average."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from fastseg.config import Config
from fastseg.engine import feed
from fastseg.engine import train as engine
from fastseg.engine.train import train
from workers import TwoProcesses, column, short_config

pytestmark = pytest.mark.usefixtures("light_runs")

OHEM = {"threshold": 0.3, "min_kept": 300}
LOSSES: dict[str, dict[str, Any]] = {
    "cross entropy": {},
    "class weights": {"class_weights": "enet"},
    "ohem": {"name": "ohem_cross_entropy", "args": OHEM},
    "ohem, class weights": {"name": "ohem_cross_entropy", "args": OHEM, "class_weights": "enet"},
}
QUICK = (("ohem, class weights", 2), ("cross entropy", 1))


def parity_config(run_dir: Path, loss: str = "cross entropy", accumulate: int = 1) -> Config:
    """Steps of 12 images, of which an epoch has 5: every second step holds the end of an epoch."""
    config = short_config(run_dir)
    config.model.args["dropout"] = 0.0  # each process draws its own
    config.data.args["count"] = 5
    config.train.total_batch, config.train.accumulate = 12, accumulate
    for key, value in LOSSES[loss].items():
        setattr(config.loss, key, value)
    return config


def train_in_double(config: Config) -> tuple[list[float], dict[str, Tensor]]:
    """Losses and final weights, as they are before they are written: the average where there is one."""
    build, normalize = engine.build.build_model, feed.normalize_images
    kept: list[dict[str, Tensor]] = []

    class Kept(engine.WeightAverage):
        def __init__(self, model: torch.nn.Module, decay: float) -> None:
            super().__init__(model, decay)
            kept.append(self.state)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "WeightAverage", Kept)
        patched.setattr(engine.build, "build_model", lambda *args: build(*args).double())
        patched.setattr(feed, "normalize_images", lambda *args: normalize(*args).double())
        patched.setattr(engine, "evaluate", _no_evaluation)
        with pytest.raises(_EndedError):
            train(config)
    if dist.is_initialized():
        dist.barrier()
    return column(Path(config.run_dir), "loss"), kept[0]


class _EndedError(Exception):
    """The steps are done; scores are tested elsewhere, and in float32."""


def _no_evaluation(*_: object, **__: object) -> None:
    raise _EndedError


def apart(one: tuple[list[float], dict[str, Tensor]], other: tuple[list[float], dict[str, Tensor]]) -> float:
    """Largest difference of weights, relative to the larger of 1 and the value."""
    pairs = [(value, other[1][name]) for name, value in one[1].items()]
    return max(float(((a - b).abs() / a.abs().clamp(min=1)).max()) for a, b in pairs)


@pytest.mark.parametrize(
    ("loss", "accumulate"),
    [
        pytest.param(loss, accumulate, marks=() if (loss, accumulate) in QUICK else pytest.mark.slow)
        for loss in LOSSES
        for accumulate in (1, 2)
    ],
)
def test_any_number_of_processes_trains_as_one(
    tmp_path: Path, two_processes: TwoProcesses, three_processes: TwoProcesses, loss: str, accumulate: int
) -> None:
    alone = train_in_double(parity_config(tmp_path / "1", loss, accumulate))
    assert len(alone[0]) == 4
    assert len(set(alone[0])) == 4
    for count, group in ((2, two_processes), (3, three_processes)):
        rank = group(train_in_double, parity_config(tmp_path / str(count), loss, accumulate))[0]
        assert rank[0] == pytest.approx(alone[0], rel=1e-4)  # as the log rounds them
        assert apart(rank, alone) < 1e-10


def test_statistics_of_each_process_would_be_another_run(tmp_path: Path, two_processes: TwoProcesses) -> None:
    alone = train_in_double(parity_config(tmp_path / "1"))
    config = parity_config(tmp_path / "2")
    config.train.norm = "bn"
    assert apart(two_processes(train_in_double, config)[0], alone) > 1e-4
