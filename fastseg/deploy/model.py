"""A network made ready for inference."""

from __future__ import annotations

import copy
import logging

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from fastseg.deploy.fold import fold_norms, fuse_activations, probe_images, replace
from fastseg.deploy.precision import narrowed
from fastseg.deploy.row_bands import use_row_bands
from fastseg.deploy.separable import fuse_separable
from fastseg.errors import ConfigError, suggest
from fastseg.ops import normalize_images, upsample_argmax
from fastseg.types import Preprocessing, SegModel, WeightsInfo

FOLDED_TOLERANCE = 0.01  # of the largest logit: a wrong fold is off by more, float32's rounding by 1e-4 at most
_log = logging.getLogger(__name__)

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class DeployedModel(nn.Module):
    """A copy of a network that only predicts; made by `deploy`.

    `network` is the copy itself: without auxiliary heads and dropout, in eval mode, batch norms folded into
    convolutions where that is possible, weights in channels_last memory. `input_dtype` is the precision of its images
    where its weights are those of `precision`; None where it runs under autocast.
    """

    def __init__(self, network: SegModel, precision: str, input_dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.network = network
        self.precision = precision
        self.input_dtype = input_dtype

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

        `scale` is the factor from image to input, `preprocessing.input_scale` unless given. The result has
        `input_dtype`, float32 under autocast.
        """
        return normalize_images(images, self.preprocessing, scale=scale, dtype=self.input_dtype or torch.float32)

    def logits(self, inputs: Tensor) -> Tensor:
        """Normalised input (N,3,H',W') -> float32 logits (N,K,h,w) at the network's stride."""
        if self.input_dtype is not None:
            return self.network(inputs.to(self.input_dtype)).logits.float()
        with torch.autocast(inputs.device.type, PRECISIONS[self.precision]):
            return self.network(inputs).logits.float()

    def forward(self, images: Tensor) -> Tensor:
        """uint8 RGB images (N,H,W,3) -> float32 logits (N,K,h,w) at the network's stride."""
        return self.logits(self.inputs(images))

    def labels(self, images: Tensor) -> Tensor:
        """uint8 RGB images (N,H,W,3) -> labels (N,H,W), uint8 up to 256 classes, int16 beyond."""
        height, width = images.shape[1:3]
        return upsample_argmax(self(images), (height, width), align_corners=self.align_corners)


def _inference_copy(model: SegModel) -> SegModel:
    """A copy in eval mode without auxiliary heads and dropout."""
    network = copy.deepcopy(model).eval().requires_grad_(False)
    network.aux_heads = nn.ModuleDict()
    replace(network, {module: nn.Identity() for module in network.modules() if isinstance(module, _DropoutNd)})
    return network


@torch.no_grad()
def _agree(network: SegModel, plain: SegModel) -> bool:
    """Whether both give the same logits for pictures of noise, up to rounding, which deep networks magnify."""
    for images in probe_images(plain):
        noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
        expected, found = plain(noise).logits, network(noise).logits
        if expected.is_meta or not torch.isfinite(expected).all():  # nothing to compare with
            return True
        limit = FOLDED_TOLERANCE * float(expected.abs().max()) + 1e-30
        if not torch.allclose(found, expected, rtol=0, atol=limit):
            return False
    return True


def deploy(model: SegModel, *, precision: str = "fp32") -> DeployedModel:
    """A copy of `model` for inference; `model` itself stays as it is.

    Batch norms and ReLUs are put into the convolutions before them, found by a forward pass on the model's device.
    `precision` is 'fp32', 'bf16' or 'fp16'. Raises ConfigError for another.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}; {suggest(precision, PRECISIONS)}")
    plain, network = _inference_copy(model), _inference_copy(model)
    fold_norms(network)
    fuse_activations(network)
    if not _agree(network, plain):  # hooks, or modules that do more than those they derive from
        _log.info("%s is deployed as it is: folded, it would give other logits", type(model).__name__)
        network = plain
    dtype = PRECISIONS[precision]
    input_dtype: torch.dtype | None = next((p.dtype for p in network.parameters()), dtype)
    if dtype != torch.float32:
        network, input_dtype = narrowed(network, dtype) or (network, None)
    use_row_bands(network)
    fuse_separable(network)  # after the bands, which it makes superfluous where it has the whole stage
    # last, since it also makes convolutions forget what was laid out for the small images that networks were tried with
    return DeployedModel(network.to(memory_format=torch.channels_last), precision, input_dtype)
