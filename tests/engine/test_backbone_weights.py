"""Weights that a backbone starts from: loaded once, where a run begins from scratch, and never asked for again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from fastseg.config import Config, load_config
from fastseg.engine.build import build_model, check_batch_norm, load_backbone_weights
from fastseg.engine.distributed import processes
from fastseg.engine.train import train
from fastseg.errors import CheckpointError, ConfigError
from fastseg.models import MODELS
from fastseg.models.backbones import pretrained
from fastseg.types import SegModel, SegOutput
from fastseg.weights import load_model
from fastseg.weights.files import read_weights, save_weights
from workers import TwoProcesses, tiny_config

pytestmark = pytest.mark.usefixtures("light_runs", "registered")

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*/*.yaml"))
STARTED_RECIPES = [path for path in RECIPES if "backbone_weights" in load_config(path).model.args]
ASKED: list[str] = []  # what the toy was asked to load, in order


class Toy(SegModel):
    """A backbone and a classifier, as small as can be."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.aux_heads = nn.ModuleDict()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4, padding=1, bias=False), nn.BatchNorm2d(4))
        self.classifier = nn.Conv2d(4, num_classes, 1)

    def forward(self, images: Tensor) -> SegOutput:
        return SegOutput(self.classifier(self.backbone(images)), {})


def started(num_classes: int = 19, backbone_weights: str | None = None) -> SegModel:
    """Toy; the published weights of its backbone are 0.25 throughout."""
    model = Toy(num_classes)
    if backbone_weights is not None:
        ASKED.append(backbone_weights)
        if backbone_weights != "imagenet":
            raise ValueError(f"no weights {backbone_weights!r}")
        for tensor in model.backbone.state_dict().values():
            tensor.fill_(0.25)
    return model


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS._builders, "started", started)
    ASKED.clear()


def started_config(run_dir: Path) -> Config:
    config = tiny_config(run_dir)
    config.model.name, config.model.args = "started", {"backbone_weights": "imagenet"}
    config.loss.aux = {}
    config.schedule.iterations = 2
    config.optim.lr = 1e-30  # too small a step to change a number
    return config


def test_a_run_starts_from_them_and_so_does_its_average(tmp_path: Path) -> None:
    config = started_config(tmp_path / "run")
    for decay in (0.0, 0.9):
        config.train.ema_decay, config.run_dir = decay, str(tmp_path / str(decay))
        weights = read_weights(train(config).weights or "")
        assert (weights.state["backbone.0.weight"] == 0.25).all()
    assert ASKED == ["imagenet", "imagenet"]


def test_without_the_argument_nothing_is_loaded(tmp_path: Path) -> None:
    config = started_config(tmp_path / "run")
    for arguments in ({}, {"backbone_weights": None}):
        config.model.args, config.run_dir = dict(arguments), str(tmp_path / str(len(arguments)))
        weights = read_weights(train(config).weights or "")
        assert not (weights.state["backbone.0.weight"] == 0.25).any()
    assert ASKED == []


def test_a_dry_run_and_the_probe_for_single_images_load_nothing(tmp_path: Path) -> None:
    config = started_config(tmp_path / "run")
    train(config, dry_run=True)
    check_batch_norm(config, 5, images_per_norm=1)
    build_model(config, 5)
    assert ASKED == []


def test_a_resumed_run_loads_nothing(tmp_path: Path) -> None:
    config = started_config(tmp_path / "run")
    train(config)
    ASKED.clear()
    train(config, resume="auto")
    assert ASKED == []


def test_trained_weights_do_not_know_what_they_began_from(tmp_path: Path) -> None:
    config = started_config(tmp_path / "run")
    file = train(config).weights
    assert file is not None
    ASKED.clear()
    assert read_weights(file).info.model_args == {}
    for source in (file, tmp_path / "run/checkpoints/step_00000002.pt"):
        model = load_model(source)
        assert model.weights_info is not None
        assert model.weights_info.model_args == {}
    assert ASKED == []


def test_a_file_that_names_them_is_read_without_them(tmp_path: Path) -> None:
    weights = read_weights(train(started_config(tmp_path / "run")).weights or "")
    weights.info.model_args["backbone_weights"] = "imagenet"
    file = save_weights(tmp_path / "named.safetensors", weights.state, weights.info)
    ASKED.clear()
    assert torch.equal(load_model(file).state_dict()["backbone.0.weight"], weights.state["backbone.0.weight"])
    assert ASKED == []


def test_a_model_without_the_argument_refuses_it(tmp_path: Path) -> None:
    config = tiny_config(tmp_path / "run")
    config.model.args["backbone_weights"] = "imagenet"
    for dry_run in (True, False):
        with pytest.raises(
            ConfigError, match=r"tiny\.yaml: model\.args: .*'fast_scnn' has no argument 'backbone_weights'"
        ):
            train(config, dry_run=dry_run)


def test_weights_that_do_not_exist_are_named_before_the_first_step(tmp_path: Path) -> None:
    config = started_config(tmp_path / "run")
    config.model.args["backbone_weights"] = "imagenett"
    with pytest.raises(ConfigError, match=r"tiny\.yaml: model\.args: no weights 'imagenett'"):
        train(config)
    config.model.name = "encoder_decoder"
    config.model.args["backbone_weights"] = str(tmp_path / "fetched.pth")
    (tmp_path / "fetched.pth").write_bytes(b"cut off")
    with pytest.raises(CheckpointError, match=r"fetched\.pth cannot be read"):
        train(config)


@pytest.mark.parametrize("recipe", STARTED_RECIPES, ids=lambda path: "-".join(path.with_suffix("").parts[-2:]))
def test_torchvisions_weights_fit_the_recipes_that_start_from_them(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[dict[str, Tensor]] = []

    def untrained(name: str) -> dict[str, Tensor]:
        states.append(torchvision.models.get_model(name).state_dict())
        return states[-1]

    monkeypatch.setattr(pretrained, "_torchvision", untrained)
    model = build_model(load_config(recipe), 19, backbone_weights=True)
    own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("backbone.")}
    (state,) = states
    for name in ("conv1.weight", "layer4.1.conv2.weight"):
        assert any(torch.equal(tensor, state[name]) for tensor in own.values() if tensor.shape == state[name].shape)


def test_one_process_loads_them_and_the_others_copy(two_processes: TwoProcesses, tmp_path: Path) -> None:
    first, second = two_processes(start_on_this_process, started_config(tmp_path / "run"))
    assert (first[0], second[0]) == (["imagenet"], [])
    assert first[1].keys() == second[1].keys()
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])
    assert (second[1]["backbone.0.weight"] == 0.25).all()


def start_on_this_process(config: Config) -> tuple[list[str], dict[str, Tensor]]:
    """On one of two processes: what was asked for, and the tensors that the run begins with."""
    MODELS._builders["started"] = started
    ASKED.clear()
    try:
        with processes("cpu") as procs:
            torch.manual_seed(procs.rank)
            model = build_model(config, 3).to(memory_format=torch.channels_last)
            load_backbone_weights(config, model, procs)
    finally:
        del MODELS._builders["started"]
    return list(ASKED), model.state_dict()
