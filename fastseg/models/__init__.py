"""The zoo's table of contents: every network, backbone and head, imported by name so that an editor can jump there."""

from fastseg.models.fast_scnn import FastSCNN, fast_scnn
from fastseg.models.heads.fcn import FCNHead, fcn
from fastseg.models.registry import (
    BACKBONES,
    HEADS,
    MODELS,
    create_backbone,
    create_head,
    create_model,
    list_models,
)

__all__ = [
    "BACKBONES",
    "HEADS",
    "MODELS",
    "FCNHead",
    "FastSCNN",
    "create_backbone",
    "create_head",
    "create_model",
    "fast_scnn",
    "fcn",
    "list_models",
]
