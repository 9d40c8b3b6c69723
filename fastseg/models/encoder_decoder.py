"""Any registered backbone under any registered head, by name."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fastseg.models.arguments import require_at_least
from fastseg.models.backbones.pretrained import IN_TORCHVISION
from fastseg.models.heads.fcn import fcn
from fastseg.models.registry import BACKBONES, HEADS, MODELS, create_backbone, create_head
from fastseg.types import Backbone, Head, SegModel, SegOutput


class EncoderDecoder(SegModel):
    """Backbone, head, and with `aux` an FCN head on the map before the last, called 'auxiliary'."""

    def __init__(self, backbone: Backbone, head: Head, num_classes: int, *, aux: bool, align_corners: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.align_corners = align_corners
        self.backbone = backbone
        self.head = head
        self.aux_heads = nn.ModuleDict()
        if aux:
            self.aux_heads["auxiliary"] = fcn(backbone.feature_info[:-1] or backbone.feature_info, num_classes)

    def forward(self, images: Tensor) -> SegOutput:
        features = self.backbone(images)
        logits = self.head(features)
        inner = features[:-1] or features
        aux = {name: head(inner) for name, head in self.aux_heads.items()} if self.training else {}
        return SegOutput(logits, aux)


def _refuse_own(given: str, arguments: Mapping[str, object] | None, name: str) -> None:
    """Raise ValueError when `arguments` has what the model takes by its own argument of that `name`."""
    if arguments and name in arguments:
        raise ValueError(f"{given} has {name}={arguments[name]!r}; give it as the model's own argument {name}")


@MODELS.register
def encoder_decoder(
    num_classes: int = 19,
    in_channels: int = 3,
    aux: bool = False,
    backbone_weights: str | None = None,
    backbone: str = "resnet18",
    head: str = "fcn",
    backbone_args: Mapping[str, object] | None = None,
    head_args: Mapping[str, object] | None = None,
    align_corners: bool = False,
) -> SegModel:
    """A network put together from a registered backbone (or 'timm:<name>') and a registered head.

    `fastseg models --backbones` and `--heads` list both. `backbone_args` and `head_args` are the builders' arguments,
    such as {"output_stride": 8}. Logits stand at the head's stride. Auxiliary output with `aux=True`: 'auxiliary', an
    FCN head on the map before the coarsest, as in PSPNet. Raises UnknownNameError for a wrong name or argument,
    ValueError for what is an argument of the model itself: weights and in_channels among `backbone_args`, align_corners
    among `head_args`; and for a number of classes or channels below 1.
    """
    require_at_least(1, num_classes=num_classes, in_channels=in_channels)
    _refuse_own("backbone_args", backbone_args, "in_channels")
    _refuse_own("head_args", head_args, "align_corners")
    arguments: dict[str, object] = {**(backbone_args or {}), "in_channels": in_channels}
    if "weights" in arguments:
        raise ValueError(
            f"backbone_args has weights={arguments['weights']!r}; give them as backbone_weights, so that they are "
            "fetched when a training begins and not when a trained network is loaded"
        )
    if backbone_weights is not None:
        if backbone in BACKBONES and "weights" not in BACKBONES.arguments(backbone):
            raise ValueError(
                f"backbone {backbone!r} has no ImageNet weights to load; leave backbone_weights out, or use one "
                f"that has: {', '.join(IN_TORCHVISION)}, timm:<name>"
            )
        arguments["weights"] = backbone_weights
    encoder = create_backbone(backbone, **arguments)
    options = dict(head_args or {})
    if "align_corners" in HEADS.arguments(head):
        options["align_corners"] = align_corners
    decoder = create_head(head, encoder.feature_info, num_classes, **options)
    return EncoderDecoder(encoder, decoder, num_classes, aux=aux, align_corners=align_corners)
