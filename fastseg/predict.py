"""From an image of any size to a label map of the same size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image

from fastseg.data.readers import MAX_PIXELS, image_from
from fastseg.deploy import DeployedModel
from fastseg.deploy.model import PRECISIONS
from fastseg.errors import ConfigError, printable, suggest
from fastseg.export_info import numbered_classes
from fastseg.exported import ExportedModel, check_threads, is_exported, open_exported
from fastseg.inference import FileInference, NetworkInference, check_scales
from fastseg.memory_budget import parse_bytes
from fastseg.output import Prediction, distinct_palette
from fastseg.types import DatasetInfo, SegModel
from fastseg.weights import load_model

Source: TypeAlias = Path | str | bytes | Image.Image | np.ndarray
BATCH_SIZE = 8


class Predictor:
    """A network together with all it takes to turn any image into a label map of the same height and width.

    `model` is a SegModel, or what `fastseg.load_model` resolves with `weights` and `weights_format`: a model's name, a
    weights file, a checkpoint or a run folder; or a file that `fastseg export` wrote, which takes `device` and
    `threads` and has its other choices built in. `device` is CUDA when there is one, unless given. `scales` and `flip`
    average class probabilities over resized and mirrored copies: better labels for more time. `precision` is 'fp32',
    'bf16' or 'fp16'. `compile` sends the network through torch.compile, which takes its time at the first image of each
    of the first sizes and needs a C++ compiler on CPU. `threads` is how many CPU threads PyTorch uses from now on, for
    the whole process. `cuda_graphs` starts the work of an image size that comes again by one call, on a GPU. `max_mem`
    ('2GB', '500MB' or bytes) is how much memory the network may take for an image, besides its weights: larger ones are
    computed in bands of rows, with the labels of the whole image; it excludes scales, flip, compile and edges. A
    SegModel that is trained further is followed (see `NetworkInference`).
    Raises ConfigError for an argument outside its range, and what `load_model` raises.
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
        compile: bool = False,
        threads: int | None = None,
        cuda_graphs: bool = True,
        max_mem: str | int | None = None,
    ) -> None:
        check_scales(scales)
        if precision not in PRECISIONS:
            raise ConfigError(f"unknown precision {precision!r}; {suggest(precision, PRECISIONS)}")
        max_bytes = None if max_mem is None else parse_bytes(max_mem)
        if max_mem is not None and (tuple(scales) != (1.0,) or flip):
            raise ConfigError("max_mem holds for one look at an image; leave scales and flip out, or max_mem")
        if max_mem is not None and compile:
            raise ConfigError("max_mem and compile exclude each other: bands of rows are not compiled; leave one out")
        self.scales = tuple(scales)
        self.flip = flip
        self.precision = precision
        if threads is not None:
            check_threads(threads)
            torch.set_num_threads(threads)
        if isinstance(model, SegModel) and (weights is not None or weights_format is not None):
            raise ConfigError("weights are for a model given by name; this one is built already: load them into it")
        self.device = torch.device("cpu")  # where an exported file takes images from
        self.model: SegModel | ExportedModel
        self._inference: NetworkInference | FileInference
        if not isinstance(model, SegModel) and is_exported(model):
            networks_only = {
                "weights": weights is not None or weights_format is not None,
                "scales": self.scales != (1.0,),
                "flip": flip,
                "precision": precision != "fp32",
                "compile": compile,
                "max_mem": max_mem is not None,
            }
            _refuse_for_files(model, [option for option, given in networks_only.items() if given])
            self.model = open_exported(model, threads=threads, device=None if device is None else str(device))
            self._inference = FileInference(self.model)
        else:
            self.device = _find_device(device)
            if not isinstance(model, SegModel):
                model = load_model(model, weights=weights, weights_format=weights_format)
            self.model = model = model.to(self.device).eval()
            self._inference = NetworkInference(
                model,
                self.device,
                precision=precision,
                compiled=compile,
                scales=self.scales,
                flip=flip,
                cuda_graphs=cuda_graphs,
                max_bytes=max_bytes,
            )
        self.preprocessing = self.model.preprocessing
        self.dataset = _classes(self.model)

    @property
    def deployed(self) -> DeployedModel:
        """The network that runs, as `model.deploy()` makes it of the model of now. Raises ConfigError for a file."""
        if isinstance(self._inference, FileInference):
            raise ConfigError("an exported file runs as it is; deploy the network itself")
        return self._inference.deployed

    def check(self, *, edges: bool = False, confidence: bool = False, scale: float = 1.0) -> None:
        """Raises ConfigError for what this predictor does not give: known before the first image."""
        self._inference.check(edges=edges, confidence=confidence, scale=scale)

    def __call__(
        self,
        source: Source,
        *,
        edges: bool = False,
        confidence: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> Prediction:
        """Predict one image: a path, a file's bytes, a Pillow image, or an array uint8 (H,W,3) RGB or (H,W) grey.

        With `edges`, the prediction holds the edge map, too, for which the network sees the image a second time; with
        `confidence`, the probability of each pixel's label. Raises MissingFileError and ImageReadError for what cannot
        be read or has more than `max_pixels` pixels, ConfigError, before it reads the image, for `edges` of a network
        that finds none, or with `max_mem`, and for both of an exported file.
        """
        self.check(edges=edges, confidence=confidence)
        image = image_from(source, max_pixels=max_pixels)
        name = printable(source) if isinstance(source, str | Path) else ""
        return self.predict_images([image], [name], edges=edges, confidence=confidence)[0]

    def edges(self, source: Source, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
        """Probability of an edge at each pixel of one image: float32 (H,W), 0..1, the mean over scales and flips.

        Where the network has one map per class, it is the largest over the classes. Raises as a call does.
        """
        self.check(edges=True)
        name = printable(source) if isinstance(source, str | Path) else "the image"
        return self._inference.edges(image_from(source, max_pixels=max_pixels), name)

    def predict_array(self, image: np.ndarray, *, scale: float = 1.0) -> np.ndarray:
        """Image uint8 (H,W,3) RGB -> labels uint8 (H,W), of an input that is `scale` times as large as otherwise.

        Raises ImageReadError for other arrays, ConfigError for another scale than 1 of an exported file or with
        `max_mem`.
        """
        return self._inference.labels([image_from(image)], "the image", scale=scale).labels[0]

    def predict_batch(self, images: Sequence[np.ndarray], *, batch_size: int = BATCH_SIZE) -> list[np.ndarray]:
        """Images uint8 (H,W,3) RGB of any sizes -> their labels uint8 (H,W), in order.

        Images of one size go through the network together, at most `batch_size` at a time; the labels are those of
        one by one, up to rounding where two classes are all but equal. Raises ConfigError for a `batch_size` below 1,
        otherwise as `predict_array`.
        """
        check_batch_size(batch_size)
        arrays = [image_from(image) for image in images]
        same_size: dict[tuple[int, ...], list[int]] = {}
        for index, array in enumerate(arrays):
            same_size.setdefault(array.shape, []).append(index)
        found: dict[int, np.ndarray] = {}
        for indices in same_size.values():
            for first in range(0, len(indices), batch_size):
                batch = indices[first : first + batch_size]
                labels = self._inference.labels([arrays[index] for index in batch], "the images").labels
                found.update(zip(batch, labels, strict=True))
        return [found[index] for index in range(len(arrays))]

    def predict_images(
        self, images: Sequence[np.ndarray], names: Sequence[str], *, edges: bool = False, confidence: bool = False
    ) -> list[Prediction]:
        """Predict images uint8 (H,W,3) RGB of one size together; `names` are their files', or empty.

        Raises as a call does.
        """
        self.check(edges=edges, confidence=confidence)
        if not images:
            return []
        labels, shares = self._inference.labels(images, names[0] or "the image", confidence=confidence)
        return [
            Prediction(
                labels[index],
                image,
                self.dataset,
                names[index],
                self._inference.edges(image, names[index] or "the image") if edges else None,
                None if shares is None else shares[index],
            )
            for index, image in enumerate(images)
        ]


def check_batch_size(batch_size: int) -> None:
    """Raises ConfigError for fewer than 1 image in a batch."""
    if batch_size < 1:
        raise ConfigError(f"the batch size is {batch_size}; give at least 1 image")


def _refuse_for_files(path: str | Path, options: Sequence[str]) -> None:
    if options:
        raise ConfigError(
            f"{printable(path)} is an exported file, for which {' and '.join(options)} cannot be chosen; leave that "
            "out, or predict with the network itself"
        )


def _classes(model: SegModel | ExportedModel) -> DatasetInfo:
    """What the labels stand for. Raises ConfigError where the model and what it says of itself differ."""
    info = model.weights_info
    dataset = info.dataset if info else numbered_classes(model.num_classes)
    if not dataset.palette:  # weights of others know their classes by number alone
        dataset = replace(dataset, palette=distinct_palette(dataset.num_classes))
    if model.num_classes > 256:
        raise ConfigError(f"the model has {model.num_classes} classes; a label map holds 256 at most")
    if dataset.num_classes != model.num_classes:
        raise ConfigError(
            f"the model has {model.num_classes} classes but its weights_info describes {dataset.num_classes} "
            f"({dataset.name}); set weights_info to what the model was trained on"
        )
    return dataset


def _find_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found).cpu()  # a meta tensor has no values to copy
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch built without CUDA
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")[:200]
        raise ConfigError(f"device {str(device)!r} cannot be used ({reason}); use 'cpu', 'cuda' or 'cuda:0'") from error
    return found
