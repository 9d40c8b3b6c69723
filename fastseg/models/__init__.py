"""The zoo's table of contents: every network, backbone and head, imported by name so that an editor can jump there."""

from fastseg.models.backbones.resnet import ResNet, resnet18, resnet34, resnet50, resnet101
from fastseg.models.encoder_decoder import EncoderDecoder, encoder_decoder
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
    "EncoderDecoder",
    "FCNHead",
    "FastSCNN",
    "ResNet",
    "create_backbone",
    "create_head",
    "create_model",
    "encoder_decoder",
    "fast_scnn",
    "fcn",
    "list_models",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
]
