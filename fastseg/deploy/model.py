"""A network made ready for inference."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fastseg.errors import ConfigError, suggest
from fastseg.ops import normalize_images, upsample_argmax
from fastseg.types import Preprocessing, SegModel, WeightsInfo

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class DeployedModel(nn.Module):
    """A copy of a network that only predicts; made by `deploy`.

    `network` is the copy itself: without auxiliary heads and dropout, in eval mode, weights in channels_last memory.
    """

    def __init__(self, network: SegModel, precision: str) -> None:
        super().__init__()
        self.network = network
        self.precision = precision

    @property
    def num_classes(self) -> int:
        return self.network.num_classes

    @property
    def align_corners(self) -> bool:
        """How its logits are upsampled."""
        return self.network.align_corners

    @property
    def preprocessing(self) -> Preprocessing:
        """What images go through before the network."""
        return self.network.preprocessing

    @property
    def weights_info(self) -> WeightsInfo | None:
        return self.network.weights_info

    def inputs(self, images: Tensor, *, scale: float | None = None) -> Tensor:
        """uint8 RGB images (N,H,W,3) -> the network's normalised input (N,3,H',W'), channels_last.

        `scale` is the factor from image to input, `preprocessing.input_scale` unless given.
        """
        return normalize_images(images, self.preprocessing, scale=scale)

    def logits(self, inputs: Tensor) -> Tensor:
        """Normalised input (N,3,H',W') -> float32 logits (N,K,h,w) at the network's stride."""
        dtype = PRECISIONS[self.precision]
        with torch.autocast(inputs.device.type, dtype, enabled=dtype != torch.float32):
            return self.network(inputs).logits.float()

    def forward(self, images: Tensor) -> Tensor:
        """uint8 RGB images (N,H,W,3) -> float32 logits (N,K,h,w) at the network's stride."""
        return self.logits(self.inputs(images))

    def labels(self, images: Tensor) -> Tensor:
        """uint8 RGB images (N,H,W,3) -> labels (N,H,W), uint8 up to 256 classes, int16 beyond."""
        height, width = images.shape[1:3]
        return upsample_argmax(self(images), (height, width), align_corners=self.align_corners)


def deploy(model: SegModel, *, precision: str = "fp32") -> DeployedModel:
    """A copy of `model` for inference; `model` itself stays as it is.

    `precision` is 'fp32', 'bf16' or 'fp16'. Raises ConfigError for another.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}; {suggest(precision, PRECISIONS)}")
    network = copy.deepcopy(model).eval().requires_grad_(False)
    network.aux_heads = nn.ModuleDict()
    return DeployedModel(network.to(memory_format=torch.channels_last), precision)
