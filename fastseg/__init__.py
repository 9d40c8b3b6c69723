"""fastseg: real-time semantic segmentation. Importing it is cheap; torch is loaded with the first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastseg.version import __version__

if TYPE_CHECKING:
    from fastseg.memory import tune_cpu
    from fastseg.predict import Predictor
    from fastseg.weights import create_model, list_models, load_model

__all__ = ["Predictor", "__version__", "create_model", "list_models", "load_model", "tune_cpu"]

_HOMES = {
    "Predictor": "fastseg.predict",
    "create_model": "fastseg.weights",
    "list_models": "fastseg.weights",
    "load_model": "fastseg.weights",
    "tune_cpu": "fastseg.memory",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'fastseg' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
