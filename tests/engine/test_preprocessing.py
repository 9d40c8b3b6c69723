"""A network in training knows how its images were normalised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastseg.engine.train import train
from fastseg.models.fast_scnn import FastSCNN
from fastseg.types import Preprocessing
from workers import short_config

pytestmark = pytest.mark.usefixtures("light_runs")


def test_training_tells_the_network_its_preprocessing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Preprocessing] = []
    forward = FastSCNN.forward

    def recorded(self: FastSCNN, *args: Any) -> Any:
        if self.training:
            seen.append(self.preprocessing)
        return forward(self, *args)

    monkeypatch.setattr(FastSCNN, "forward", recorded)
    config = short_config(tmp_path, steps=2)
    config.input.mean, config.input.std, config.input.channel_order = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bgr"
    train(config)
    expected = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bgr")
    # building probes the network before a run has any preprocessing to tell
    assert seen[-2:] == [expected] * 2
