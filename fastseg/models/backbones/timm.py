"""Backbones of timm (pip install 'fastseg-zoo[timm]'), as `create_backbone("timm:mobilenetv3_large_100")`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastseg.errors import CheckpointError, MissingPackageError, UnknownNameError, suggest
from fastseg.layers.resize import resize
from fastseg.models.backbones.pretrained import IMAGENET, load_strictly, read_pretrained
from fastseg.types import Backbone, FeatureInfo

PREFIX = "timm:"


class TimmBackbone(Backbone):
    """The feature pyramid of a timm network (`features_only`), finest map first.

    Networks that pad less than ours round odd sizes down; their maps are resized to the house's ceil(H/stride).
    """

    def __init__(self, features: nn.Module, feature_info: tuple[FeatureInfo, ...]) -> None:
        super().__init__()
        self.features = features
        self.feature_info = feature_info

    def forward(self, images: Tensor) -> list[Tensor]:
        height, width = images.shape[-2:]
        sizes = [(-(-height // info.stride), -(-width // info.stride)) for info in self.feature_info]
        return [resize(x, size) for x, size in zip(self.features(images), sizes, strict=True)]


def timm_backbone(
    name: str, in_channels: int = 3, output_stride: int | None = None, weights: str | None = None
) -> TimmBackbone:
    """timm's network `name`; `weights` is 'imagenet' for those that timm publishes, or a file with timm's names.

    Raises MissingPackageError without timm, UnknownNameError for a name that it does not know, ValueError for a network
    that gives no maps, CheckpointError for weights that do not fit.
    """
    try:
        import timm
    except ImportError:
        raise MissingPackageError(
            f"backbone {PREFIX}{name} needs timm, which is not installed: pip install 'fastseg-zoo[timm]'"
        ) from None
    if not timm.is_model(name.split(".")[0]):
        raise UnknownNameError(f"timm has no network {name!r}; {suggest(name, timm.list_models())}")
    options: dict[str, Any] = {} if output_stride is None else {"output_stride": output_stride}

    def build(pretrained: bool) -> Any:
        return timm.create_model(name, features_only=True, pretrained=pretrained, in_chans=in_channels, **options)

    try:
        with torch.device("meta"):  # transformers may be bound to one image size
            build(pretrained=False).eval()(torch.zeros(1, in_channels, 65, 97))
    except (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"timm's {name!r} is no backbone for images of any size: {error}; convolutional networks are"
        ) from None
    try:
        features = build(pretrained=weights == IMAGENET)
    except Exception as error:  # whatever the hub's client and the network beneath it raise
        raise CheckpointError(
            f"timm's weights of {name!r} cannot be fetched: {' '.join(str(error).split())[:200]}. Give the path of a "
            "file in place of 'imagenet', or train without (backbone_weights=null)"
        ) from None
    info = tuple(
        FeatureInfo(channels, stride)
        for channels, stride in zip(features.feature_info.channels(), features.feature_info.reduction(), strict=True)
    )
    if weights is not None and weights != IMAGENET:
        load_strictly(features, read_pretrained(name, weights), weights)
    return TimmBackbone(features, info)
