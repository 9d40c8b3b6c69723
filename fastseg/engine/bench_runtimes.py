"""The same weights in ONNX Runtime and OpenVINO, with resize and argmax done as well as can be done there.

The engine gets uint8 pixels and normalises inside its graph. Two forms are tried, and the faster one is measured:

- `graph`: bilinear resize and argmax in the engine's own graph, one call from pixels to labels (ONNX: Resize, ArgMax;
  OpenVINO: Interpolate, TopK);
- `opencv`: the engine stops at the logits of the network's stride; OpenCV resizes class by class against a running
  maximum. OpenCV has no `align_corners`, so networks that need it have the first form only.

Shapes are fixed, which lets engines plan ahead, and threads are as many as torch uses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastseg.engine.timing import Stopwatch
from fastseg.errors import MissingPackageError
from fastseg.layers.resize import resize
from fastseg.quiet import quietly
from fastseg.signal_stack import kept_signal_stack
from fastseg.types import SegModel

Engine = Callable[[np.ndarray], np.ndarray]
TRIALS = 3
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}


class PixelNetwork(nn.Module):
    """uint8 images (1,H,W,3) -> logits (1,K,h,w), or with `size` the labels (1,H,W) of that size, uint8."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: SegModel, size: tuple[int, int] | None) -> None:
        super().__init__()
        self.model, self.size = model, size
        self.register_buffer("mean", torch.tensor(model.preprocessing.mean)[:, None, None] * 255)
        self.register_buffer("std", torch.tensor(model.preprocessing.std)[:, None, None] * 255)

    def forward(self, images: Tensor) -> Tensor:
        preprocessing = self.model.preprocessing
        x = images.permute(0, 3, 1, 2).float()
        if preprocessing.channel_order == "bgr":
            x = x.flip(1)
        x = (x - self.mean) / self.std
        if preprocessing.input_scale != 1:
            height, width = (max(1, round(side * preprocessing.input_scale)) for side in x.shape[-2:])
            x = resize(x, (height, width))
        logits = self.model(x).logits
        if self.size is None:
            return logits
        return resize(logits, self.size, align_corners=self.model.align_corners).argmax(1).to(torch.uint8)


class Runtime:
    """The fastest form of one engine."""

    def __init__(self, name: str, forms: dict[str, Engine], image: np.ndarray) -> None:
        watch = Stopwatch()
        best: dict[str, float] = {}
        for form, engine in forms.items():
            for _ in range(1 + TRIALS):
                watch.start()
                engine(image)
                watch.lap(form)
                seconds = watch.take()[form]
                best[form] = min(seconds, best.get(form, seconds))
        chosen = min(best, key=lambda form: best[form])
        tried = ", ".join(f"{form} {1000 * seconds:.1f} ms" for form, seconds in best.items())
        self.note = f"{name}: the form '{chosen}' (fastest of: {tried})"
        self.engine = forms[chosen]

    def run(self, image: np.ndarray, watch: Stopwatch) -> np.ndarray:
        watch.start()
        labels = self.engine(image)
        watch.lap("total")
        return labels


def require_runtime(name: str) -> None:
    """Raises MissingPackageError unless the packages of 'onnx' or 'openvino' are installed."""
    from importlib.util import find_spec

    missing = [package for package in PACKAGES[name] if find_spec(package) is None]
    if missing:
        raise MissingPackageError(
            f"--runtime {name} needs {', '.join(missing)}; install with: pip install 'fastseg-zoo[{name}]'"
        )


def build_runtime(name: str, model: SegModel, image: np.ndarray) -> Runtime:
    """The engine `name`, 'onnx' or 'openvino', on the CPU. Raises MissingPackageError where it is not installed."""
    require_runtime(name)
    make = _onnx if name == "onnx" else _openvino
    size = (image.shape[0], image.shape[1])
    forms = {"graph": make(PixelNetwork(model, size).eval(), image)}
    if not model.align_corners:
        forms["opencv"] = _with_opencv(make(PixelNetwork(model, None).eval(), image), size)
    return Runtime(name, forms, image)


def _exported(network: PixelNetwork, image: np.ndarray) -> torch.export.ExportedProgram:
    return torch.export.export(network, (torch.from_numpy(image)[None],))


def _onnx(network: PixelNetwork, image: np.ndarray) -> Engine:
    import onnxruntime

    with quietly():
        program: Any = torch.onnx.export(_exported(network, image), input_names=["images"], dynamo=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"images": pixels[None]})[0][0]


@kept_signal_stack()
def _openvino(network: PixelNetwork, image: np.ndarray) -> Engine:
    import openvino

    with quietly():
        converted = openvino.convert_model(_exported(network, image))
    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # the engine's own choice would be bfloat16 where the processor has it
    }
    request = openvino.compile_model(converted, "CPU", settings).create_infer_request()
    return lambda pixels: next(iter(request.infer([pixels[None]]).values()))[0]


def _with_opencv(engine: Engine, size: tuple[int, int]) -> Engine:
    import cv2

    def labels_of(pixels: np.ndarray) -> np.ndarray:
        cv2.setNumThreads(torch.get_num_threads())
        logits = engine(pixels)
        height, width = size
        best = cv2.resize(logits[0], (width, height), interpolation=cv2.INTER_LINEAR)
        labels = np.zeros(size, np.uint8)
        score = np.empty_like(best)
        for index in range(1, len(logits)):
            cv2.resize(logits[index], (width, height), dst=score, interpolation=cv2.INTER_LINEAR)
            np.copyto(labels, index, where=cv2.compare(score, best, cv2.CMP_GT).view(bool))
            cv2.max(score, best, dst=best)
        return labels

    return labels_of
