"""A network in half the bits: its weights converted, instead of converted anew at every call as autocast does."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastseg.deploy.fold import probe_images
from fastseg.deploy.trace import trace
from fastseg.types import SegModel

# norms and what a network keeps by itself stay as wide as they are: they are few numbers, and sums hang on them
NARROWED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.PReLU)
# after one of these a pixel of fewer bits is still the pixel that the first convolution would have rounded
HARMLESS = (F.interpolate, F.avg_pool2d, F.max_pool2d, Tensor.__getitem__, Tensor.index_select)


def narrowed(network: SegModel, dtype: torch.dtype) -> tuple[SegModel, torch.dtype] | None:
    """A copy of `network` whose weights are `dtype`, and the precision of the images that it takes.

    Images keep theirs where the network does more with them than convolve, resize and average: edges, for example,
    are found in whole grey levels. None, which asks for autocast, where the network mixes precisions in a way that
    torch refuses, and for float16 on a CPU: few processors have it.
    """
    wide = next(iter(probe_images(network)))
    if dtype == torch.float16 and wide.device.type == "cpu":
        return None
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if isinstance(module, NARROWED):
            module.to(dtype)
    light = all(_takes_images_lightly(network, images) for images in probe_images(network))
    image_dtype = dtype if light else wide.dtype
    try:
        with torch.no_grad():
            for images in probe_images(network):
                copied(images.to(image_dtype))
    except RuntimeError:
        return None
    return copied, image_dtype


def _takes_images_lightly(network: nn.Module, images: Tensor) -> bool:
    seen = trace(network, images, (nn.Conv2d,))
    return all(isinstance(call.module, nn.Conv2d) or call.function in HARMLESS for call in seen.users(seen.image))
