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
from fastseg.models import create_model


def test_poly_is_the_published_formula() -> None:
    schedule = ScheduleConfig(name="poly", power=0.9)
    factors = [learning_rate_factor(schedule, i, 100) for i in (0, 25, 50, 99, 100)]
    assert factors == pytest.approx([1, 0.75**0.9, 0.5**0.9, 0.01**0.9, 0])


def test_cosine_is_half_a_wave() -> None:
    schedule = ScheduleConfig(name="cosine")
    factors = [learning_rate_factor(schedule, i, 100) for i in (0, 25, 50, 100)]
    assert factors == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, 0])


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
    name=st.sampled_from(["poly", "cosine"]),
    total=st.integers(1, 10_000),
    share=st.floats(0, 1.5),
    warmup=st.integers(0, 100),
    final=st.floats(0, 1),
)
def test_the_factor_never_leaves_its_range(
    name: Literal["poly", "cosine"], total: int, share: float, warmup: int, final: float
) -> None:
    schedule = ScheduleConfig(name=name, warmup=warmup, final_factor=final)
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


def test_heads_learn_at_their_own_rate() -> None:
    model = create_model("fast_scnn", num_classes=3, aux=True)
    config = OptimConfig(lr=0.1, head_lr_multiplier=10, head_prefixes=["classifier", "aux_heads"])
    groups = groups_by_name(model, config)
    for name, group in groups.items():
        assert group["lr_multiplier"] == (10 if name.startswith(("classifier.", "aux_heads.")) else 1)
    optimizer = build_optimizer(model, config)
    set_learning_rate(optimizer, 0.02)
    assert {(g["lr_multiplier"], g["lr"]) for g in optimizer.param_groups} == {(1, 0.02), (10, 0.2)}


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
