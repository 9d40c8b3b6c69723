"""Whether an exported file does what its network does: both are run, at five sizes.

Another order of sums gives other float32 numbers. How far off those may be is read off the network: it is run in
float64, too, and what float32 makes of it in PyTorch is the measure for what it makes of it in the file.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastseg.data.road_scenes import render_scene
from fastseg.errors import FastsegError
from fastseg.export_info import ExportInfo
from fastseg.exported import format_of, onnx_session, open_exported, openvino_settings, reason_of
from fastseg.layers.resize import resize
from fastseg.ops import normalize_images
from fastseg.quiet import quietly
from fastseg.signal_stack import kept_signal_stack
from fastseg.types import SegModel

# batch, height, width; sides below the file's smallest one are raised to it
SIZES = ((1, 1, 1), (1, 97, 129), (2, 65, 194), (1, 160, 192), (1, 241, 321))
# precision -> share of pixels whose label may differ, and how far a logit may be off, as a share of the largest one.
# float16 has 11 bits. There is no limit for int8: what it costs is measured on the user's own images
LIMITS = {"fp32": (1e-4, 1e-4), "fp16": (1e-2, 3e-2), "int8": (1.0, math.inf)}
MARGIN = 10  # or so many times what float32 changes in PyTorch, where that is more
ROUNDING = 1e-5  # of interpolation in float32, likewise

WithLogits = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class SizeCheck:
    """One size: pixels, those with another label, largest difference of a logit, and the largest logit.

    `beyond_ties` counts pixels whose labels' scores are farther apart than that difference explains. `own_different`
    and `own_difference` are those of the network in float32 from itself in float64.
    """

    batch: int
    height: int
    width: int
    pixels: int = 0
    different: int = 0
    beyond_ties: int = 0
    logit_difference: float = 0.0
    largest_logit: float = 0.0
    own_different: int = 0
    own_difference: float = 0.0
    failure: str = ""


@dataclass(frozen=True)
class Check:
    """How a file compares with its network at every size."""

    sizes: tuple[SizeCheck, ...]
    precision: str

    @property
    def agreement(self) -> float:
        """Share of all pixels with the same label."""
        pixels = sum(size.pixels for size in self.sizes)
        return 1 - sum(size.different for size in self.sizes) / pixels if pixels else 0.0

    @property
    def logit_difference(self) -> float:
        return max(size.logit_difference for size in self.sizes)

    @property
    def largest_logit(self) -> float:
        return max(size.largest_logit for size in self.sizes)

    @property
    def passed(self) -> bool:
        return not self.verdict

    @property
    def fails_at_smallest(self) -> bool:
        """Whether the smallest size is one that fails: larger ones may do."""
        return _fault(self.sizes[0], self.precision) != ""

    @property
    def verdict(self) -> str:
        """What is wrong, or nothing."""
        faults = [fault for size in self.sizes if (fault := _fault(size, self.precision))]
        if not faults:
            pixels = sum(size.pixels for size in self.sizes)
            own = sum(size.own_different for size in self.sizes) / pixels
            allowed = max(LIMITS[self.precision][0], MARGIN * own)
            if 1 - self.agreement > allowed:
                faults = [f"{100 * self.agreement:.3f} % of the labels agree, {100 * (1 - allowed):g} % must"]
        return "; ".join(faults)

    def table(self) -> str:
        """A line per size, for people."""
        lines = ["   size (batch x height x width)   labels equal   max |d logit|   largest |logit|"]
        for size in self.sizes:
            shape = f"{size.batch} x {size.height} x {size.width}"
            if size.failure:
                lines.append(f"   {shape:<29}   fails: {size.failure}")
                continue
            share = f"{100 * (1 - size.different / size.pixels):.3f} %"
            lines.append(f"   {shape:<29}   {share:>12}   {size.logit_difference:13.2g}   {size.largest_logit:15.3g}")
        return "\n".join(lines)


def check_file(path: Path, model: SegModel, info: ExportInfo) -> Check:
    """Compare the written file `path` with `model`, a network in eval mode and float32 on the CPU, on drawn streets.

    Where the smallest size fails, the others are left out.
    """
    precise = copy.deepcopy(model).double()
    checks = []
    labels_of = logits_of = None
    for index, (batch, *sides) in enumerate(SIZES):
        height, width = (max(side, info.minimum_side) for side in sides)
        images = np.stack([render_scene(10 * index + each, height, width)[0] for each in range(batch)])
        try:
            with quietly():
                if labels_of is None or logits_of is None:
                    labels_of, logits_of = open_exported(path).labels, open_logits(path)
                found, logits = labels_of(images), logits_of(images)
            checks.append(compare(model, precise, images, found, torch.from_numpy(logits)))
        except FastsegError as error:
            checks.append(SizeCheck(batch, height, width, failure=str(error)))
        except Exception as error:  # engines have no common exception, and a network may refuse small images
            checks.append(SizeCheck(batch, height, width, failure=reason_of(error)))
        if index == 0 and _fault(checks[0], info.precision):
            break
    return Check(tuple(checks), info.precision)


@torch.no_grad()
def compare(model: SegModel, precise: SegModel, images: np.ndarray, labels: np.ndarray, logits: Tensor) -> SizeCheck:
    """Labels uint8 (N,H,W) and logits (N,K,h,w) of a file beside those of `model`, for uint8 images (N,H,W,3).

    `precise` is the same network in float64.
    """
    batch, height, width = images.shape[:3]
    x = normalize_images(torch.from_numpy(images), model.preprocessing)
    expected, exact = model(x).logits, precise(x.double()).logits
    if labels.shape != images.shape[:3] or logits.shape != expected.shape:
        shapes = f"labels {labels.shape} and logits {tuple(logits.shape)}"
        return SizeCheck(batch, height, width, failure=f"{shapes} for logits of {tuple(expected.shape)}")
    difference, largest = (logits - expected).abs().max().item(), expected.abs().max().item()
    scores, exact_scores = (
        resize(each, (height, width), align_corners=model.align_corners) for each in (expected, exact)
    )
    right, found = scores.argmax(1, keepdim=True), torch.from_numpy(labels)[:, None].long()
    # a label of no class is far off every score; two scores that are each off by `difference` may change places
    known = found.clamp(max=scores.shape[1] - 1)
    lost = scores.gather(1, right) - scores.gather(1, known)
    beyond = (found != known) | (lost > 2 * difference + ROUNDING * largest)
    return SizeCheck(
        batch,
        height,
        width,
        pixels=found.numel(),
        different=int((found != right).sum()),
        beyond_ties=int(beyond.sum()),
        logit_difference=difference,
        largest_logit=largest,
        own_different=int((exact_scores.argmax(1, keepdim=True) != right).sum()),
        own_difference=(expected - exact).abs().max().item(),
    )


def _fault(size: SizeCheck, precision: str) -> str:
    place = f"at {size.batch} x {size.height} x {size.width}"
    if size.failure:
        return f"{place}: {size.failure}"
    limit = max(LIMITS[precision][1] * size.largest_logit, MARGIN * size.own_difference)
    if not size.logit_difference <= limit:  # NaN is no agreement either
        return f"{place}: a logit is off by {size.logit_difference:.3g}, allowed are {limit:.3g}"
    if precision != "int8" and size.beyond_ties:
        return f"{place}: {size.beyond_ties} labels differ where the network's scores are no tie"
    return ""


def open_logits(path: Path) -> WithLogits:
    """A function from images uint8 (N,H,W,3) to the logits (N,K,h,w) inside the file, which it does not hand out."""
    return {"onnx": _onnx_logits, "openvino": _openvino_logits, "torch": _torch_logits}[format_of(path)](path)


def _onnx_logits(path: Path) -> WithLogits:
    import onnx

    model = onnx.load(str(path))
    model.graph.output.append(onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None))
    session = onnx_session(model.SerializeToString())
    return lambda images: session.run(["logits"], {"images": images})[0]


@kept_signal_stack()
def _openvino_logits(path: Path) -> WithLogits:
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.add_outputs("logits")
    request = core.compile_model(model, "CPU", openvino_settings(None)).create_infer_request()

    def run(images: np.ndarray) -> np.ndarray:
        request.infer([images])
        return np.array(request.get_tensor("logits").data)

    return run


def _torch_logits(path: Path) -> WithLogits:
    module = torch.export.load(path).module(check_guards=False)
    upsampling = [node for node in module.graph.nodes if "upsample_bilinear2d" in str(node.target)]
    wanted = upsampling[-1].args[0]  # the last one brings the logits to the image's size

    class Watching(torch.fx.Interpreter):
        logits: Tensor

        def run_node(self, n: torch.fx.Node) -> Any:
            result = super().run_node(n)
            if n is wanted:
                self.logits = result
            return result

    def run(images: np.ndarray) -> np.ndarray:
        watching = Watching(module)
        with torch.no_grad():
            watching.run(torch.from_numpy(images))
        return watching.logits.numpy()

    return run
