"""Image-sized work around a network, one function each: normalise, find edges, and logits to labels."""

from fastseg.ops.canny import canny
from fastseg.ops.normalize import normalize_images
from fastseg.ops.upsample_argmax import upsample_argmax

__all__ = ["canny", "normalize_images", "upsample_argmax"]
