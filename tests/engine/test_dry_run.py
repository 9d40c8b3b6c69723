"""A dry run finds what training would refuse, and touches nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fastseg.config import Config, load_config
from fastseg.engine.dry_run import random_labels
from fastseg.engine.train import train
from fastseg.errors import ConfigError, DistributedError
from fastseg.types import IGNORE_INDEX
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


RECIPE = Path(__file__).parents[2] / "configs/camvid/gscnn_r50.yaml"


def test_a_dry_run_shows_every_term_at_work(capsys: Any) -> None:
    # an untrained network is sure of no edge, so none is above the usual threshold of edge_attention
    overrides = ["augment.crop=[32,48]", "loss.term_args.edge_attention.threshold=0.1", "train.device=cpu"]
    train(load_config(RECIPE, overrides), dry_run=True)
    line = capsys.readouterr().out
    assert line.endswith(" on random images\n")
    terms = {name: float(value) for name, value in re.findall(r"(\S+) (\d\S*|nan|inf)", line.partition(";")[2])}
    assert list(terms) == ["loss", "main", "aux.edge", "edge_attention", "dual_task"]
    assert all(math.isfinite(value) and value > 0 for value in terms.values()), terms


def test_a_dry_run_says_which_weights_it_left_unread(capsys: Any) -> None:
    overrides = ["augment.crop=[32,32]", "model.args.backbone_weights=no_such_file.pth", "train.device=cpu"]
    train(load_config(RECIPE, overrides), dry_run=True)
    expected = "; not checked: backbone_weights=no_such_file.pth, read when training begins\n"
    assert capsys.readouterr().out.endswith(expected)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 9), (64, 61)])
def test_random_labels_are_blocks_and_never_all_ignored(height: int, width: int) -> None:
    torch.manual_seed(0)
    for _ in range(20):
        labels = random_labels(3, height, width)
        assert labels.shape == (2, height, width)
        assert (labels != IGNORE_INDEX).any(2).any(1).all()
        assert (labels[:, :8, :8] == labels[:, :1, :1]).all()
        assert set(labels.unique().tolist()) <= {0, 1, 2, IGNORE_INDEX}
    assert (labels == IGNORE_INDEX).any() == (width > 8)


def test_a_dry_run_whose_loss_is_not_finite_has_not_passed() -> None:
    overrides = ["augment.crop=[32,32]", "optim.lr=1e30", "train.device=cpu"]
    with pytest.raises(ConfigError, match=r"not finite on random images: .*lower optim\.lr \(now 1e\+30\)"):
        train(load_config(RECIPE.with_name("fast_scnn.yaml"), overrides), dry_run=True)
