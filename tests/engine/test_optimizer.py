"""Learning rates, parameter groups, and the moving average, against their formulas."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fastseg.config import OptimConfig, ScheduleConfig
from fastseg.engine.optimizer import (
    WeightAverage,
    all_finite,
    build_optimizer,
    learning_rate_factor,
    parameter_groups,
    set_learning_rate,
)
from fastseg.errors import ConfigError
from fastseg.models import create_model


def test_poly_is_the_published_formula() -> None:
    schedule = ScheduleConfig(name="poly", power=0.9)
    factors = [learning_rate_factor(schedule, i, 100) for i in (0, 25, 50, 99, 100)]
    assert factors == pytest.approx([1, 0.75**0.9, 0.5**0.9, 0.01**0.9, 0])


def test_cosine_is_half_a_wave() -> None:
    schedule = ScheduleConfig(name="cosine")
    factors = [learning_rate_factor(schedule, i, 100) for i in (0, 25, 50, 100)]
    assert factors == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, 0])


def test_steps_cut_the_run_into_equal_parts() -> None:
    schedule = ScheduleConfig(name="step", steps=3, step_factor=0.5)  # 300 epochs, halved every 100
    factors = [learning_rate_factor(schedule, i, 300) for i in (0, 99, 100, 199, 200, 299, 300)]
    assert factors == [1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]
    constant = ScheduleConfig(name="step", steps=1)
    assert {learning_rate_factor(constant, i, 7) for i in range(8)} == {1.0}


def test_decay_ends_at_the_final_factor() -> None:
    for name in ("poly", "cosine"):
        schedule = ScheduleConfig(name=name, final_factor=0.1)
        assert learning_rate_factor(schedule, 0, 10) == pytest.approx(1)
        assert learning_rate_factor(schedule, 10, 10) == pytest.approx(0.1)


def test_warm_up_multiplies_the_decay_by_a_straight_line() -> None:
    warm = ScheduleConfig(name="poly", warmup=4, warmup_factor=0.2)
    cold = ScheduleConfig(name="poly")
    ratios = [learning_rate_factor(warm, i, 100) / learning_rate_factor(cold, i, 100) for i in range(6)]
    assert ratios == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


@given(
    name=st.sampled_from(["poly", "cosine", "step"]),
    steps=st.integers(1, 20),
    total=st.integers(1, 10_000),
    share=st.floats(0, 1.5),
    warmup=st.integers(0, 100),
    final=st.floats(0, 1),
)
def test_the_factor_never_leaves_its_range(
    name: Literal["poly", "cosine", "step"], steps: int, total: int, share: float, warmup: int, final: float
) -> None:
    schedule = ScheduleConfig(name=name, steps=steps, warmup=warmup, final_factor=final)
    iteration = int(share * total)
    here, later = (learning_rate_factor(schedule, max(i, warmup), total) for i in (iteration, iteration + 1))
    assert final - 1e-9 <= later <= here + 1e-9 <= 1 + 2e-9
    assert 0 <= learning_rate_factor(schedule, iteration, total) <= 1 + 1e-9


def groups_by_name(model: nn.Module, config: OptimConfig) -> dict[str, dict[str, Any]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups: list[dict[str, Any]] = parameter_groups(model, config)
    found = [(names[id(parameter)], group) for group in groups for parameter in group["params"]]
    assert len(found) == len(dict(found)) == len(names)  # each parameter once
    return dict(found)


def test_norms_and_biases_do_not_decay() -> None:
    groups = groups_by_name(create_model("fast_scnn", num_classes=3), OptimConfig(weight_decay=0.01))
    assert groups["learning_to_downsample.conv.conv.weight"]["weight_decay"] == 0.01
    assert groups["learning_to_downsample.conv.bn.weight"]["weight_decay"] == 0
    assert groups["learning_to_downsample.conv.bn.bias"]["weight_decay"] == 0
    assert groups["classifier.conv.bias"]["weight_decay"] == 0


class WithBackbone(nn.Module):
    """A part that starts from published weights, and two that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
        self.backbone_neck = nn.Conv2d(2, 2, 1)
        self.aux_heads = nn.ModuleDict({"inner": nn.Conv2d(2, 2, 1)})


def test_what_is_no_backbone_has_its_own_rate_and_decay() -> None:
    model = WithBackbone()
    config = OptimConfig(lr=0.1, weight_decay=1e-4, head_lr_multiplier=10, head_decay_multiplier=4)
    groups = groups_by_name(model, config)
    assert {name: (group["lr_multiplier"], group["weight_decay"]) for name, group in groups.items()} == {
        "backbone.0.weight": (1, 1e-4),
        "backbone.0.bias": (1, 0),
        "backbone.1.weight": (1, 0),
        "backbone.1.bias": (1, 0),
        "backbone_neck.weight": (10, 4e-4),
        "backbone_neck.bias": (10, 0),
        "aux_heads.inner.weight": (10, 4e-4),
        "aux_heads.inner.bias": (10, 0),
    }
    optimizer = build_optimizer(model, config)
    set_learning_rate(optimizer, 0.02)
    assert {(g["lr_multiplier"], g["lr"]) for g in optimizer.param_groups} == {(1, 0.02), (10, 0.2)}


def test_without_multipliers_there_are_two_groups_and_no_backbone_is_needed() -> None:
    assert len(parameter_groups(WithBackbone(), OptimConfig())) == 2
    assert len(parameter_groups(nn.Linear(2, 2), OptimConfig())) == 2


@pytest.mark.parametrize("key", ["head_lr_multiplier", "head_decay_multiplier"])
def test_a_head_multiplier_needs_a_backbone(key: str) -> None:
    config = OptimConfig()
    setattr(config, key, 10.0)
    with pytest.raises(
        ConfigError, match=rf"optim\.{key} is 10\.0, .* Linear has no part called backbone; leave it out"
    ):
        build_optimizer(nn.Linear(2, 2), config)


def test_frozen_parameters_are_left_out() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1))
    model[0].requires_grad_(False)
    parameters = [p for group in parameter_groups(model, OptimConfig()) for p in group["params"]]  # type: ignore[attr-defined]
    assert {id(p) for p in parameters} == {id(p) for p in model[1].parameters()}


def test_the_optimiser_takes_its_settings() -> None:
    model = nn.Linear(2, 2)
    sgd = build_optimizer(model, OptimConfig(name="sgd", lr=0.3, momentum=0.8, nesterov=True))
    assert isinstance(sgd, torch.optim.SGD)
    assert {(g["lr"], g["momentum"], g["nesterov"]) for g in sgd.param_groups} == {(0.3, 0.8, True)}
    adamw = build_optimizer(model, OptimConfig(name="adamw", lr=0.3, betas=(0.8, 0.9)))
    assert isinstance(adamw, torch.optim.AdamW)
    assert {g["betas"] for g in adamw.param_groups} == {(0.8, 0.9)}
    adam = build_optimizer(model, OptimConfig(name="adam", lr=0.3, betas=(0.8, 0.9)))
    assert {(g["lr"], g["betas"]) for g in adam.param_groups} == {(0.3, (0.8, 0.9))}


def test_adam_counts_the_decay_as_gradient_and_adamw_does_not() -> None:
    lengths = {}
    for name in ("adam", "adamw"):
        model = nn.Linear(1, 1, bias=False)
        torch.nn.init.ones_(model.weight)
        optimizer = build_optimizer(model, OptimConfig(name=name, lr=0.1, weight_decay=0.01))
        model.weight.grad = torch.zeros_like(model.weight)
        optimizer.step()
        lengths[name] = model.weight.item()
    # alone in the gradient, the decay is normalised to a step of the learning rate; apart from it, it scales the weight
    assert lengths["adam"] == pytest.approx(1 - 0.1, abs=1e-6)
    assert lengths["adamw"] == pytest.approx(1 - 0.1 * 0.01, abs=1e-6)


def test_the_average_follows_its_formula() -> None:
    model = nn.BatchNorm2d(3).double()
    average = WeightAverage(model, 0.5)  # reached by the growing decay at step 8
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(40):
        with torch.no_grad():
            model.weight.normal_()
            model(torch.randn(2, 3, 2, 2, dtype=torch.float64))
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            moved = decay * expected[name] + (1 - decay) * value
            expected[name] = moved if value.is_floating_point() else value.clone()
        average.update(model)
    assert average.updates == 40
    for name, value in average.state.items():
        assert torch.allclose(value, expected[name], rtol=0, atol=1e-12), name
    assert average.state["num_batches_tracked"] == 40


def test_the_average_holds_its_own_tensors() -> None:
    model = nn.Linear(2, 2)
    average = WeightAverage(model, 0.9)
    before = average.state["weight"].clone()
    with torch.no_grad():
        model.weight.add_(1)
    assert torch.equal(average.state["weight"], before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_number_among_many_tensors_is_seen(bad: float) -> None:
    good = [torch.zeros(3, 2), torch.ones(4)]
    assert all_finite(good)
    assert all_finite([])
    good[1][2] = bad
    assert not all_finite(good)
