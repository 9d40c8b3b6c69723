"""Which loss an auxiliary output gets."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from fastseg.config import Config
from fastseg.engine.build import build_loss, build_model
from fastseg.engine.train import train
from fastseg.errors import ConfigError
from fastseg.models import create_model
from fastseg.types import SegOutput
from workers import column, short_config

pytestmark = pytest.mark.usefixtures("light_runs")


@pytest.mark.parametrize(
    ("configured", "expected"),
    [({}, 0.0), ({"boundary": "cross_entropy"}, math.log(3))],
    ids=["by the network", "by the configuration"],
)
def test_a_boundary_head_learns_contours_unless_the_configuration_says_otherwise(
    configured: dict[str, str], expected: float
) -> None:
    config = Config()
    config.loss.aux, config.loss.aux_losses = {"boundary": 1.0}, configured
    loss = build_loss(config, create_model("msfnet", num_classes=3, aux=True), None)
    nowhere_a_contour = SegOutput(torch.zeros(1, 3, 4, 4), {"boundary": torch.full((1, 3, 4, 4), -20.0)})
    term = loss(nowhere_a_contour, torch.zeros(1, 8, 8, dtype=torch.long))["aux.boundary"]
    assert float(term.total / term.normalizer) == pytest.approx(expected, abs=1e-6)


def test_ohem_keeps_fewer_pixels_where_auxiliary_labels_are_thinned(tmp_path: Path) -> None:
    config = short_config(tmp_path)
    config.loss.name, config.loss.args, config.loss.aux_stride = "ohem_cross_entropy", {"min_kept": 320}, 4
    loss = build_loss(config, build_model(config, 10), None)
    kept = {name: getattr(term, "min_kept", None) for name, term in loss._losses.items()}
    assert kept == {"main": 320, "aux.detail": 20, "aux.context": 20}


@pytest.mark.parametrize(("stride", "radius"), [(1, 4), (2, 2), (8, 1)])
def test_an_auxiliary_output_has_the_loss_that_is_named_for_it(tmp_path: Path, stride: int, radius: int) -> None:
    config = short_config(tmp_path)
    config.loss.args = {"class_weights": [2.0] * 10}
    config.loss.aux_losses, config.loss.aux_stride = {"context": "class_boundary"}, stride
    losses = build_loss(config, build_model(config, 10), None)._losses
    assert {name: type(loss).__name__ for name, loss in losses.items()} == {
        "main": "CrossEntropy",
        "aux.detail": "CrossEntropy",
        "aux.context": "ClassBoundary",
    }
    assert getattr(losses["aux.detail"], "class_weights", None) is not None
    assert getattr(losses["aux.context"], "radius", None) == radius  # as wide on the image as at full resolution


def test_a_run_may_learn_contours_in_an_auxiliary_output(tmp_path: Path) -> None:
    config = short_config(tmp_path / "run")
    config.loss.aux_losses = {"detail": "class_boundary"}
    train(config)
    contours, labels = column(tmp_path / "run", "aux.detail"), column(tmp_path / "run", "aux.context")
    assert 0 < max(contours) < 1 < min(labels)  # ten yes-or-no questions near log 2 each, one question near log 10


def test_an_auxiliary_loss_has_its_arguments(tmp_path: Path) -> None:
    config = short_config(tmp_path)
    config.loss.aux_losses, config.loss.aux_args = {"context": "class_boundary"}, {"context": {"radius": 7}}
    losses = build_loss(config, build_model(config, 10), None)._losses
    assert getattr(losses["aux.context"], "radius", None) == 7


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"aux_args": {"context": {"radius": 7}}}, r"loss\.aux_args\.context: .*no loss of its own"),
        ({"aux_args": {"contxt": {}}}, r"loss\.aux_args\.contxt: .*did you mean 'context'"),
        (
            {"aux_losses": {"context": "class_boundary"}, "aux_args": {"context": {"radios": 7}}},
            r"loss\.aux_args\.context: .*did you mean 'radius'",
        ),
        (
            {"aux_losses": {"context": "class_boundary"}, "aux_args": {"context": {"radius": 0}}},
            r"loss\.aux_args\.context: .*radius is 0",
        ),
        ({"aux_losses": {"context": "class_bounds"}}, r"loss\.aux_losses\.context: .*did you mean 'class_boundary'"),
        ({"terms": {"dual_tsk": 1.0}}, r"loss\.terms\.dual_tsk: .*did you mean 'dual_task'"),
        ({"terms": {"dual_task": 1.0}, "term_args": {"dual_task": {"radios": 2}}}, r"term_args\.dual_task: .*'radius'"),
        ({"terms": {"dual_task": 1.0}, "term_args": {"dual_task": {"radius": "x"}}}, r"term_args\.dual_task: .*'x'"),
        ({"term_args": {"dual_task": {"radius": 2}}}, r"loss\.term_args\.dual_task: .*give it a weight"),
        ({"terms": {"edge_attention": 1.0}}, r"loss\.terms\.edge_attention .*reads the output 'edge'"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_wrong_name_or_argument_of_a_loss_is_refused_with_its_key(
    tmp_path: Path, keys: dict[str, object], message: str
) -> None:
    config = short_config(tmp_path)
    for key, value in keys.items():
        setattr(config.loss, key, value)
    with pytest.raises(ConfigError, match=message):
        build_loss(config, build_model(config, 10), None)


def test_a_run_may_have_a_term_of_the_whole_output(tmp_path: Path) -> None:
    config = short_config(tmp_path / "run")
    config.loss.terms, config.loss.term_args = {"dual_task": 0.5}, {"dual_task": {"gumbel": False}}
    train(config)
    parts = {
        name: column(tmp_path / "run", name) for name in ("loss", "main", "aux.detail", "aux.context", "dual_task")
    }
    assert all(0 < value < 1 for value in parts["dual_task"])
    weights = {"main": 1.0, "dual_task": 0.5} | {f"aux.{name}": weight for name, weight in config.loss.aux.items()}
    for values in zip(*(parts[name] for name in ("loss", *weights)), strict=True):
        expected = sum(weight * value for weight, value in zip(weights.values(), values[1:], strict=True))
        assert values[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("network", "keys", "message"),
    [
        (
            "fast_scnn",
            {"name": "class_presence"},
            r"loss\.name: class_presence learns presence, .*allowed: cross_entropy",
        ),
        ("fast_scnn", {"name": "class_boundary"}, r"loss\.name: class_boundary learns contours"),
        (
            "fast_scnn",
            {"aux_losses": {"detail": "edge_cross_entropy"}},
            r"aux_losses\.detail: edge_cross_entropy learns",
        ),
        (
            "gscnn_r50",
            {"aux_losses": {"edge": "cross_entropy"}},
            r"aux_losses\.edge: cross_entropy .*: edge_cross_entr",
        ),
        ("fastfcn_r50_encnet", {"aux_losses": {"se": "cross_entropy"}}, r"aux_losses\.se: .*allowed: class_presence$"),
    ],
)
def test_a_loss_that_learns_something_else_than_the_output_stands_for_is_refused(
    network: str, keys: dict[str, object], message: str
) -> None:
    config = Config()
    with torch.device("meta"):
        model = create_model(network, num_classes=3, aux=True)
    config.loss.aux = dict.fromkeys(model.aux_names, 1.0)
    for key, value in keys.items():
        setattr(config.loss, key, value)
    with pytest.raises(ConfigError, match=message):
        build_loss(config, model, None)


@pytest.mark.parametrize("radius", [2.5, None, "abc"])
@pytest.mark.parametrize("stride", [1, 2])
def test_an_argument_of_the_wrong_type_is_refused_by_name(radius: object, stride: int) -> None:
    config = Config()
    config.loss.aux, config.loss.aux_stride = {"boundary": 1.0}, stride
    config.loss.aux_args = {"boundary": {"radius": radius}}
    with pytest.raises(ConfigError, match=r"loss\.aux_args\.boundary: .*radius is .*; it takes int"):
        build_loss(config, create_model("msfnet", num_classes=3, aux=True), None)
