"""The recipes that train on Mapillary Vistas go through, on trees made here."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastseg.config import load_config
from fastseg.data.cityscapes import CITYSCAPES
from fastseg.engine.train import train
from fastseg.engine.training_data import build_training_data, described
from fastseg.weights.files import read_weights
from trees.cityscapes import write_cityscapes
from trees.mapillary import write_mapillary

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"
SMALL = [
    *("train.device=cpu", "train.total_batch=2", "train.eval_every=1", "data.workers=0"),
    *("augment.crop=[32,64]", "schedule.iterations=2", "train.checkpoint_every=2"),
]

pytestmark = pytest.mark.usefixtures("light_runs")


@pytest.mark.parametrize("version", ["v1.2", "v2.0"])
def test_pretraining_leads_into_fine_tuning_with_its_classifier(
    tmp_path: Path, version: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_mapillary(tmp_path / "mapillary", version=version, size=(64, 128))
    write_cityscapes(tmp_path / "cityscapes")
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    own = [f"data.root={tmp_path}/mapillary", f"run_dir={first}", *SMALL]
    train(load_config(CONFIGS / "mapillary/fast_scnn.yaml", own))
    _, info = read_weights(first)
    assert info.dataset.class_names == CITYSCAPES.class_names
    assert info.preprocessing.input_scale == 0.5
    capsys.readouterr()
    own = [f"data.root={tmp_path}/cityscapes", f"run_dir={second}", f"init_from={first}", *SMALL]
    train(load_config(CONFIGS / "cityscapes/fast_scnn_mapillary.yaml", own))
    said = capsys.readouterr().out
    assert "(mapillary, 19 classes)" in said
    assert "new for" not in said
    _, info = read_weights(second)
    assert info.dataset.name == "cityscapes"
    assert info.preprocessing.input_scale == 1


def test_the_joint_recipe_shows_both_data_sets(tmp_path: Path) -> None:
    write_mapillary(tmp_path / "mapillary")
    write_cityscapes(tmp_path / "cityscapes")
    config = load_config(CONFIGS / "cityscapes/fast_scnn_joint.yaml", [f"data.root={tmp_path}/cityscapes"])
    config.data.extra[0].root = str(tmp_path / "mapillary")
    dataset, sources = build_training_data(config)
    assert len(dataset) == 7
    assert described(sources) == " (6 x 4 cityscapes train + 3 mapillary train)"


def test_the_coarse_recipe_shows_fine_and_coarse_labels(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, coarse=True)
    config = load_config(CONFIGS / "cityscapes/fast_scnn_coarse.yaml", [f"data.root={tmp_path}"])
    config.data.extra[0].root = str(tmp_path)
    dataset, sources = build_training_data(config)
    assert len(dataset) == 8
    assert described(sources) == " (7 x 4 cityscapes train + 4 cityscapes train_extra)"
