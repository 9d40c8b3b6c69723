"""A dry run finds what training would refuse, and touches nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastseg.config import Config
from fastseg.engine.train import train
from fastseg.errors import ConfigError, DistributedError
from workers import short_config

pytestmark = pytest.mark.usefixtures("light_runs")


def test_a_dry_run_touches_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    config = short_config("run")
    config.data.name = "camvid"
    config.data.args = {}
    assert train(config, dry_run=True).iterations == 2
    assert "tiny.yaml: dry run passed; loss " in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: setattr(c.data, "name", "road_scene"), r"tiny\.yaml: data\.name: .*did you mean 'road_scenes'"),
        (lambda c: c.data.args.update(heigth=5), r"tiny\.yaml: data\.args\.heigth: .*did you mean 'height'"),
        (lambda c: c.loss.aux.update(detale=0.4), r"tiny\.yaml: loss\.aux\.detale: .*did you mean 'detail'"),
    ],
)
def test_a_dry_run_finds_wrong_names(tmp_path: Path, change: Callable[[Config], Any], message: str) -> None:
    config = short_config(tmp_path / "run")
    change(config)
    with pytest.raises(ConfigError, match=message):
        train(config, dry_run=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: setattr(c.train, "norm", "sync"), "runs on CUDA only"),
        (lambda c: setattr(c.train, "total_batch", 1), "one image at a time"),
    ],
)
def test_a_dry_run_refuses_what_training_would(tmp_path: Path, change: Callable[[Config], Any], message: str) -> None:
    config = short_config(tmp_path)
    change(config)
    with pytest.raises(DistributedError, match=message):
        train(config, dry_run=True)


def test_a_dry_run_takes_class_weights_of_the_real_data_set(tmp_path: Path) -> None:
    config = short_config(tmp_path)
    config.loss.args = {"class_weights": [1.0] * 11}
    assert train(config, dry_run=True).iterations == 2
