"""Whether two runs of `tiny_config` are the same, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastseg.engine.checkpoint import load_checkpoint
from fastseg.weights.files import info_to_dict, read_weights

STEPS = 20
FINAL = f"checkpoints/step_{STEPS:08d}.pt"


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Places where two tables of a checkpoint differ, tensors bit for bit."""
    if isinstance(a, Tensor):
        same = isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
        return [] if same else [where]
    if type(a) is not type(b):
        return [where]
    if isinstance(a, dict):
        if list(a) != list(b):
            return [f"{where} keys"]
        return [place for key in a for place in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return [f"{where} length"]
        pairs = enumerate(zip(a, b, strict=True))
        return [place for i, (x, y) in pairs for place in differences(x, y, f"{where}[{i}]")]
    return [] if a == b else [where]


def run_differences(whole: Path, resumed: Path, final: str = FINAL) -> list[str]:
    """Differences of two finished runs: weights, average, optimiser, random state, progress, losses, scores, files."""
    tables = [load_checkpoint(run / final) for run in (whole, resumed)]
    for table in tables:
        del table["config"]  # the folders differ, and how often checkpoints are made
    found = differences(tables[0], tables[1])
    for name in ("train.csv", "eval.csv"):
        if (whole / name).read_bytes() != (resumed / name).read_bytes():
            found.append(name)
    for name in ("best.safetensors", "last.safetensors"):
        if not (resumed / name).exists():
            found.append(name)
            continue
        one, other = read_weights(whole / name), read_weights(resumed / name)
        found += differences(one.state, other.state, name)
        found += differences(info_to_dict(one.info), info_to_dict(other.info), f"{name} info")
    return found
