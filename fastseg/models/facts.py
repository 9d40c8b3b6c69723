"""What a network is and costs, counted on its definition: parameters, multiply-adds, strides, auxiliary outputs.

The counts of this package's networks are kept in `facts.json`, which `tools/model_tables.py --write` makes and a test
holds to the networks.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fastseg.models.registry import MODELS

FACTS_FILE = Path(__file__).with_name("facts.json")
HALF, FULL = "512x1024", "1024x2048"
SIZES = (HALF, FULL)


@dataclass(frozen=True)
class ModelFacts:
    """A network at one choice of its builder's arguments.

    `parameters` without auxiliary heads, `parameters_training` with them. `macs` maps 'HEIGHTxWIDTH' of the image to
    multiply-adds of convolutions and matrix products in eval. `stride` is that of the logits; `aux` maps the names of
    the auxiliary outputs to theirs, None for one that speaks of the image as a whole, (N,C,1,1).
    """

    parameters: int
    parameters_training: int
    macs: Mapping[str, int]
    stride: int
    aux: Mapping[str, int | None]

    def gmacs(self, size: str = FULL) -> float:
        """Billions of multiply-adds for an image of `size`."""
        return self.macs[size] / 1e9


def measure(name: str, /, *, sizes: Sequence[str] = SIZES, **arguments: object) -> ModelFacts:
    """Count the model `name`, built with `arguments` except `aux`, which counting sets itself.

    Everything happens on the meta device: shapes without memory or arithmetic. A multiply-add is half of what
    `torch.utils.flop_counter` counts. Raises UnknownNameError for a wrong name or argument.
    """
    auxiliary: dict[str, object] = {"aux": True} if "aux" in MODELS.arguments(name) else {}
    channels: Any = arguments.get("in_channels", 3)
    with torch.device("meta"), torch.no_grad():
        model = MODELS.build(name, **{**arguments, **dict.fromkeys(auxiliary, False)}).eval()
        in_training = MODELS.build(name, **{**arguments, **auxiliary}).train()
        macs = {}
        for size in sizes:
            height, width = map(int, size.split("x"))
            macs[size] = count_macs(model, height, width, channels=channels)
        # two images, since some norms refuse to see a single value in training; 1024 is divisible by every stride
        shown = in_training if in_training.aux_names else model
        logits, aux_logits = shown(torch.zeros(2, channels, 1024, 1024))
        aux = {key: 1024 // x.shape[-1] if x.shape[-1] > 1 else None for key, x in aux_logits.items()}
    return ModelFacts(count_parameters(model), count_parameters(in_training), macs, 1024 // logits.shape[-1], aux)


def count_macs(model: nn.Module, height: int, width: int, *, channels: int = 3) -> int:
    """Multiply-adds of a network in eval mode on the meta device, for one image (1,channels,height,width)."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, channels, height, width))
    return counter.get_total_flops() // 2


def count_parameters(module: nn.Module) -> int:
    """Trained numbers of a module, each once."""
    return sum(parameter.numel() for parameter in module.parameters())


def model_facts(name: str) -> ModelFacts:
    """Facts of a registered model at its builder's defaults, from `facts.json` or, if it is not there, counted now."""
    return stored_facts().get(name) or measure(name)


@functools.cache
def stored_facts() -> dict[str, ModelFacts]:
    """The counts in `facts.json`."""
    return {name: ModelFacts(**facts) for name, facts in json.loads(FACTS_FILE.read_text()).items()}
