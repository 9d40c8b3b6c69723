"""Ways from an image to its labels, each in stages that a stopwatch sees: deployed networks and the plain path.

| variant | what it is |
|---|---|
| `fp32`, `bf16`, `fp16` | `model.deploy(precision=...)`, from `labels`; stages are measured in a second pass |
| the same with ` compiled` | its network under torch.compile with frozen weights |
| `plain argmax`, `plain max` | what public code does with the same weights: see `Plain` |
| `onnx`, `openvino` | the same weights in another engine, as well as it can be done there: see `bench_runtimes` |
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fastseg.deploy import DeployedModel
from fastseg.engine.timing import Stopwatch
from fastseg.layers.resize import resize
from fastseg.ops import upsample_argmax
from fastseg.types import SegModel

PREPROCESS, NETWORK, UPSAMPLE, COPY = "preprocess", "network", "upsample+argmax", "copy"
STAGES = (PREPROCESS, NETWORK, UPSAMPLE, COPY)
TOTAL = "total"
PLAIN = ("plain argmax", "plain max")
RUNTIMES = ("onnx", "openvino")
COMPILED = " compiled"


class Variant(Protocol):
    """One way from an image to its labels."""

    note: str  # what a reader of its numbers should know, or ''

    def run(self, image: np.ndarray, watch: Stopwatch) -> np.ndarray:
        """Image uint8 (H,W,3) RGB -> labels (H,W); laps by stage, and `TOTAL` where it is not their sum."""
        ...


def total(laps: dict[str, float]) -> float:
    """Seconds from image to labels of one run."""
    return laps[TOTAL] if TOTAL in laps else sum(laps.values())


class Deployed:
    """A deployed network: the whole as `labels` does it, then stage by stage."""

    def __init__(self, model: SegModel, precision: str, device: torch.device, *, compiled: bool) -> None:
        self.note = ""
        self.device = device
        self.deployed: DeployedModel = model.deploy(precision=precision).to(device)
        if compiled:
            self.deployed.network.compile(options={"freezing": True})

    def run(self, image: np.ndarray, watch: Stopwatch) -> np.ndarray:
        height, width = image.shape[:2]
        watch.start()
        labels = self.deployed.labels(self._to_device(image))[0].cpu().numpy()
        watch.lap(TOTAL)
        images = self._to_device(image)
        watch.lap(COPY)
        inputs = self.deployed.inputs(images)
        watch.lap(PREPROCESS)
        logits = self.deployed.logits(inputs)
        watch.lap(NETWORK)
        again = upsample_argmax(logits, (height, width), align_corners=self.deployed.align_corners)
        watch.lap(UPSAMPLE)
        again[0].cpu().numpy()
        watch.lap(COPY)
        return labels

    def _to_device(self, image: np.ndarray) -> Tensor:
        return torch.from_numpy(image)[None].to(self.device)


class Plain:
    """What public code does: (N,C,H,W) floats through the network as it was trained, all logits at full size, argmax.

    `maximum` takes the index from `max(1)`, which torch has faster on CPUs than `argmax(1)`. The rest is as a careful
    user writes it: arithmetic in place, inference mode, eval mode.
    """

    def __init__(self, model: SegModel, device: torch.device, *, maximum: bool) -> None:
        self.note = ""
        self.model, self.device, self.maximum = model, device, maximum
        preprocessing = model.preprocessing
        self.mean = torch.tensor(preprocessing.mean, device=device)[:, None, None]
        self.std = torch.tensor(preprocessing.std, device=device)[:, None, None]

    def run(self, image: np.ndarray, watch: Stopwatch) -> np.ndarray:
        height, width = image.shape[:2]
        watch.start()
        pixels = torch.from_numpy(image).to(self.device)
        watch.lap(COPY)
        inputs = self._inputs(pixels)
        watch.lap(PREPROCESS)
        logits = self.model(inputs).logits
        watch.lap(NETWORK)
        full = resize(logits, (height, width), align_corners=self.model.align_corners)
        labels = full.max(1)[1] if self.maximum else full.argmax(1)
        watch.lap(UPSAMPLE)
        found: np.ndarray = labels[0].to(torch.uint8 if full.shape[1] <= 256 else torch.int16).cpu().numpy()
        watch.lap(COPY)
        return found

    def _inputs(self, pixels: Tensor) -> Tensor:
        preprocessing = self.model.preprocessing
        x = pixels.permute(2, 0, 1).contiguous().float().div_(255)
        if preprocessing.channel_order == "bgr":
            x = x.flip(0)
        x = x.sub_(self.mean).div_(self.std)[None]
        height, width = (max(1, round(side * preprocessing.input_scale)) for side in pixels.shape[:2])
        return resize(x, (height, width))


def build_variant(name: str, model: SegModel, image: np.ndarray, device: torch.device) -> Variant:
    """The variant `name` of a model in eval mode on `device`; `image` has the size that engines are prepared for.

    Raises MissingPackageError where an engine is not installed.
    """
    if name in PLAIN:
        return Plain(model, device, maximum=name == "plain max")
    if name in RUNTIMES:
        from fastseg.engine.bench_runtimes import build_runtime

        return build_runtime(name, model, image)
    return Deployed(model, name.removesuffix(COMPILED), device, compiled=name.endswith(COMPILED))
