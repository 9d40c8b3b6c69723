"""The registries of backbones, heads and models."""

from __future__ import annotations

import inspect

from fastseg.errors import UnknownNameError
from fastseg.registry import Registry
from fastseg.types import Backbone, Head, SegModel

BACKBONES: Registry[Backbone] = Registry("backbone", typed=True)
HEADS: Registry[Head] = Registry("head", typed=True)
MODELS: Registry[SegModel] = Registry("model", typed=True)


def create_model(name: str, **kwargs: object) -> SegModel:
    """An untrained network: the model `name` with the builder's arguments (`fastseg models NAME` lists them).

    Raises UnknownNameError (a ValueError) with the nearest spelling for a wrong name or argument.
    """
    return MODELS.build(name, **kwargs)


def create_backbone(name: str, **kwargs: object) -> Backbone:
    """A backbone by name, 'timm:<name>' for one of timm's; untrained unless `weights` is given.

    Raises UnknownNameError for a wrong name or argument.
    """
    if name.startswith("timm:"):
        from fastseg.models.backbones.timm import timm_backbone

        try:
            inspect.signature(timm_backbone).bind(name, **kwargs)
        except TypeError as error:
            raise UnknownNameError(f"backbone {name!r}: {error}; it takes {inspect.signature(timm_backbone)}") from None
        return timm_backbone(name.removeprefix("timm:"), **kwargs)  # type: ignore[arg-type]
    return BACKBONES.build(name, **kwargs)


def create_head(name: str, *args: object, **kwargs: object) -> Head:
    """An untrained head by name. Raises UnknownNameError for a wrong name or argument."""
    return HEADS.build(name, *args, **kwargs)


def list_models(pattern: str = "*") -> list[str]:
    """Names of registered models that match a shell pattern ('*scnn*'), sorted."""
    return MODELS.names(pattern)
