"""Which loss an auxiliary output gets."""

from __future__ import annotations

import math

import pytest
import torch

from fastseg.config import Config
from fastseg.engine.build import build_loss
from fastseg.models import create_model
from fastseg.types import SegOutput


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
