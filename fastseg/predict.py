"""From an image of any size to a label map of the same size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastseg.data.readers import MAX_PIXELS, image_from
from fastseg.errors import CheckpointError, ConfigError, DataError, printable, suggest
from fastseg.layers.resize import resize
from fastseg.ops import normalize_images, upsample_argmax
from fastseg.output import Prediction, distinct_palette
from fastseg.types import DatasetInfo, SegModel
from fastseg.weights import load_model

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@runtime_checkable
class EdgeModel(Protocol):
    """What a network is that also finds edges, as Gated-SCNN does."""

    def predict_edges(self, images: Tensor) -> Tensor:
        """Normalised images (N,C,H,W) -> edge probabilities (N,1,H,W), or (N,K,H,W): one map per class."""


def edge_model(model: SegModel) -> EdgeModel:
    """The network itself, if it finds edges. Raises ConfigError with its name if it does not."""
    if not isinstance(model, EdgeModel):
        name = model.weights_info.model if model.weights_info else type(model).__name__
        raise ConfigError(
            f"{name} finds no edges (it has no predict_edges); leave --edges (edges=True, 'edges' in --save) out, or "
            "take a network that does, such as gscnn_r50"
        )
    return model


class Predictor:
    """A network together with all it takes to turn any image into a label map of the same height and width.

    `model` is a SegModel, or what `fastseg.load_model` resolves with `weights` and `weights_format`: a model's name, a
    weights file, a checkpoint or a run folder. `device` is CUDA when there is one, unless given. `scales` and `flip`
    average class probabilities over resized and mirrored copies: better labels for more time. `precision` is 'fp32',
    'bf16' or 'fp16'. Raises ConfigError for an argument outside its range, and what `load_model` raises.
    """

    def __init__(
        self,
        model: SegModel | str | Path,
        *,
        weights: str | Path | None = None,
        weights_format: str | None = None,
        device: str | torch.device | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        precision: str = "fp32",
    ) -> None:
        if not scales or not all(math.isfinite(scale) and scale > 0 for scale in scales):
            raise ConfigError(f"scales is {tuple(scales)}; give one or more factors above 0, such as 0.75 1 1.25")
        if precision not in PRECISIONS:
            raise ConfigError(f"unknown precision {precision!r}; {suggest(precision, PRECISIONS)}")
        if isinstance(model, SegModel) and (weights is not None or weights_format is not None):
            raise ConfigError("weights are for a model given by name; this one is built already: load them into it")
        self.device = _find_device(device)
        if not isinstance(model, SegModel):
            model = load_model(model, weights=weights, weights_format=weights_format)
        self.model = model.to(self.device).eval()
        info = self.model.weights_info
        self.preprocessing = self.model.preprocessing
        self.dataset = info.dataset if info else _unnamed_classes(self.model.num_classes)
        if not self.dataset.palette:  # weights of others know their classes by number alone
            self.dataset = replace(self.dataset, palette=distinct_palette(self.dataset.num_classes))
        self.scales = tuple(scales)
        self.flip = flip
        self.precision = precision
        if self.model.num_classes > 256:
            raise ConfigError(f"the model has {self.model.num_classes} classes; a label map holds 256 at most")
        if self.dataset.num_classes != self.model.num_classes:
            raise ConfigError(
                f"the model has {self.model.num_classes} classes but its weights_info describes "
                f"{self.dataset.num_classes} ({self.dataset.name}); set weights_info to what the model was trained on"
            )

    def __call__(
        self,
        source: Path | str | bytes | Image.Image | np.ndarray,
        *,
        edges: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> Prediction:
        """Predict one image: a path, a file's bytes, a Pillow image, or an array uint8 (H,W,3) RGB or (H,W) grey.

        With `edges`, the prediction holds the edge map, too, for which the network sees the image a second time.
        Raises MissingFileError and ImageReadError for what cannot be read or has more than `max_pixels` pixels,
        ConfigError, before it reads the image, for `edges` of a network that finds none.
        """
        if edges:
            edge_model(self.model)
        image = image_from(source, max_pixels=max_pixels)
        name = printable(source) if isinstance(source, str | Path) else ""
        labels = self._labels(image, name or "the image")
        found = self._edges(image, name or "the image") if edges else None
        return Prediction(labels, image, self.dataset, name, found)

    def edges(
        self, source: Path | str | bytes | Image.Image | np.ndarray, *, max_pixels: int = MAX_PIXELS
    ) -> np.ndarray:
        """Probability of an edge at each pixel of one image: float32 (H,W), 0..1, the mean over scales and flips.

        Where the network has one map per class, it is the largest over the classes. Raises as a call does.
        """
        edge_model(self.model)
        name = printable(source) if isinstance(source, str | Path) else "the image"
        return self._edges(image_from(source, max_pixels=max_pixels), name)

    def predict_array(self, image: np.ndarray) -> np.ndarray:
        """Image uint8 (H,W,3) RGB -> labels uint8 (H,W). Raises ImageReadError for other arrays."""
        return self._labels(image_from(image), "the image")

    @torch.inference_mode()
    def _labels(self, image: np.ndarray, name: str) -> np.ndarray:
        size = (image.shape[0], image.shape[1])
        with self._ready_for(image, name) as images:
            if self.scales == (1.0,) and not self.flip:
                logits = self._logits(normalize_images(images, self.preprocessing), name)
                labels = upsample_argmax(logits, size, align_corners=self.model.align_corners)
            else:
                labels = self._mean_probabilities(images, size, name).argmax(dim=1).to(torch.uint8)
            return labels[0].cpu().numpy()

    @torch.inference_mode()
    def _edges(self, image: np.ndarray, name: str) -> np.ndarray:
        model, size = edge_model(self.model), (image.shape[0], image.shape[1])
        maps = 0
        with self._ready_for(image, name) as images:
            total = torch.zeros(1, 1, *size, device=self.device)
            for x, flipped in self._views(images):
                with self._autocast():
                    edges = model.predict_edges(x).amax(dim=1, keepdim=True).float()
                self._check_finite(edges, name)
                # the inverse of how `normalize_images` made the network's input, whose size this map has
                total += resize(edges.flip(-1) if flipped else edges, size)
                maps += 1
            return (total / maps).clamp_(0, 1)[0, 0].cpu().numpy()

    @contextmanager
    def _ready_for(self, image: np.ndarray, name: str) -> Iterator[Tensor]:
        """The image on the device, uint8 (1,H,W,3), and the network in eval mode; too little memory is a DataError."""
        self.model.eval()  # the caller may have trained it since: batch statistics must be neither used nor changed
        try:
            writable = image if image.flags.writeable else image.copy()  # else from_numpy warns
            yield torch.from_numpy(writable).to(self.device)[None]
        except RuntimeError as error:
            # CUDA has its own class for it; the CPU allocator raises a plain RuntimeError.
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise DataError(
                    f"{name} is {image.shape[1]}x{image.shape[0]}, too large for the memory of {self.device}; "
                    "make it smaller, use fewer scales, or device='cpu'"
                ) from error
            raise

    def _autocast(self) -> torch.autocast:
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def _logits(self, x: Tensor, name: str) -> Tensor:
        """Normalised images -> logits at the network's stride, float32."""
        with self._autocast():
            logits = self.model(x).logits.float()
        self._check_finite(logits, name)
        return logits

    def _check_finite(self, values: Tensor, name: str) -> None:
        if not torch.isfinite(values).all():
            if self.precision == "fp32":
                raise CheckpointError(f"the network gives NaN or infinity for {name}; its weights are damaged")
            raise ConfigError(f"the network overflows in {self.precision} for {name}; use precision fp32")

    def _views(self, images: Tensor) -> Iterator[tuple[Tensor, bool]]:
        """The network's inputs: the image at every scale and, with `flip`, mirrored (True), too."""
        for scale, flipped in itertools.product(self.scales, (False, True) if self.flip else (False,)):
            x = normalize_images(images, self.preprocessing, scale=self.preprocessing.input_scale * scale)
            yield (x.flip(-1) if flipped else x), flipped

    def _mean_probabilities(self, images: Tensor, size: tuple[int, int], name: str) -> Tensor:
        """Class probabilities (1,K,H,W), summed over scales and flips (a sum has the argmax of the mean)."""
        total: Tensor | None = None
        for x, flipped in self._views(images):
            logits = self._logits(x, name)
            if flipped:
                logits = logits.flip(-1)
            full = resize(logits, size, align_corners=self.model.align_corners)
            if full is logits:
                full = full.clone()  # a network of stride 1 may hand out a view of something it keeps
            # Softmax in place: at 8192x8192 and 19 classes each further copy would cost 5 GB.
            full.sub_(full.amax(dim=1, keepdim=True)).exp_()
            full.div_(full.sum(dim=1, keepdim=True))
            total = full if total is None else total.add_(full)
            del full  # else it would be alive beside the sum and the next map
        assert total is not None  # scales is never empty
        return total


def _find_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch built without CUDA
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {str(device)!r} cannot be used ({reason}); use 'cpu', 'cuda' or 'cuda:0'") from error
    return found


def _unnamed_classes(num_classes: int) -> DatasetInfo:
    """Names and colours for a model that does not say what its classes are."""
    names = tuple(f"class_{index}" for index in range(num_classes))
    return DatasetInfo(name="unnamed", class_names=names, palette=distinct_palette(num_classes))
