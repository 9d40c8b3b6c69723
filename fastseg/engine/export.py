"""A network as one file: uint8 images in, uint8 labels out, for ONNX Runtime, OpenVINO and PyTorch without our code.

Normalising, the network with its batch norms folded, bilinear upsampling to the image's size and argmax (ties to the
lowest index) are all inside, for any batch, height and width.

torch.export asks of some maps whether a side is 1, and where the traced one was not, it writes down that no image may
be so small that it would be. The operations are the same for such maps, so these bounds are lifted from the program;
which sizes a written file does take is found by running it (`export_check`), and stands in the file.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from fastseg.atomic import write_atomically
from fastseg.engine.export_check import Check, check_file
from fastseg.errors import ConfigError, FastsegError, printable
from fastseg.export_info import METADATA_FILE, METADATA_KEY, MOST_CLASSES, ExportInfo, numbered_classes
from fastseg.exported import format_of, reason_of, require_packages
from fastseg.layers.resize import resize
from fastseg.output import check_target
from fastseg.quiet import quietly
from fastseg.types import SegModel, WeightsInfo

OPSET = 18  # of ONNX; Resize has all it needs since 13, and engines of 2023 know it
TRACED = (2, 160, 192)  # every map of every network has more than one row and column: the coarsest stride is 128
MINIMUM_SIDES = (
    1,
    2,
    3,
    5,
    9,
    17,
    33,
    65,
    129,
)  # smallest images that a file may take, in the order in which they are tried

Save = Callable[[Path, ExportInfo], None]


class ExportCheckError(FastsegError):
    """A file that does not do what its network does; `check` says where."""

    def __init__(self, message: str, check: Check) -> None:
        super().__init__(message)
        self.check = check


@dataclass(frozen=True)
class Export:
    """A file that was written, what it says of itself, and how it compares with the network."""

    path: Path
    info: ExportInfo
    check: Check
    megabytes: float


class LabelProgram(nn.Module):
    """uint8 RGB images (N,H,W,3) -> labels uint8 (N,H,W), and logits (N,K,h,w) at the network's stride if asked for."""

    def __init__(self, model: SegModel, *, logits: bool) -> None:
        super().__init__()
        self.deployed = model.deploy()
        self.with_logits = logits

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        size = (images.shape[1], images.shape[2])
        x = self.deployed.inputs(images, scale=1)
        factor = self.deployed.preprocessing.input_scale
        if factor != 1:
            x = resize(x, (scaled_side(size[0], factor), scaled_side(size[1], factor)))
        logits = self.deployed.logits(x)
        labels = resize(logits, size, align_corners=self.deployed.align_corners).argmax(1).to(torch.uint8)
        return (labels, logits) if self.with_logits else labels


def scaled_side(side: int, factor: float) -> int:
    """`max(1, round(side * factor))` in whole numbers, since a symbolic side cannot be rounded in every format."""
    share = Fraction(factor).limit_denominator(10_000)
    doubled, whole = 2 * side * share.numerator, 2 * share.denominator
    # nothing negative is divided: ONNX would round towards zero
    up = (doubled + share.denominator) // whole  # halves round up
    down = (doubled + share.denominator - 1) // whole  # halves round down
    return cast(int, torch.sym_max(1, up - (up - down) * (up % 2)))


def export_model(model: SegModel, path: str | Path, *, overwrite: bool = False, fp16: bool = False) -> Export:
    """Write `model` as the suffix of `path` says: .onnx, .xml (OpenVINO, with a .bin beside it) or .pt2 (torch.export).

    What is written has been run at five sizes and compared with `model` in float32 before. `fp16` stores OpenVINO's
    weights in half precision. Raises ConfigError for another suffix or more than 256 classes, OutputError for a file
    that exists, MissingPackageError, FastsegError when the network cannot be exported, and ExportCheckError when its
    file gives other labels; then nothing is written.
    """
    path = Path(path)
    name = check_request(model, path, overwrite=overwrite, fp16=fp16)
    with tempfile.TemporaryDirectory(prefix="fastseg-export-") as folder:
        draft = Path(folder) / f"draft{path.suffix.lower()}"
        info, check = write_draft(model, name, draft, fp16=fp16)
        return publish(draft, path, info, check)


def check_request(model: SegModel, path: Path, *, overwrite: bool, fp16: bool = False) -> str:
    """The format that `path` stands for. Raises what `export_model` raises before it begins to work."""
    name = format_of(path)
    for file in files_of(path):
        check_target(file, overwrite=overwrite)
    require_packages(name)
    if fp16 and name != "openvino":
        raise ConfigError(f"fp16 is for OpenVINO; {printable(path)} is {name}: leave --fp16 (fp16=True) out")
    if model.num_classes > MOST_CLASSES:
        raise ConfigError(f"the model has {model.num_classes} classes; labels of uint8 hold {MOST_CLASSES} at most")
    return name


def files_of(path: Path) -> list[Path]:
    """The files that an export consists of; the one that names the others comes last."""
    return [path.with_suffix(".bin"), path] if path.suffix.lower() == ".xml" else [path]


def write_draft(model: SegModel, name: str, draft: Path, *, fp16: bool = False) -> tuple[ExportInfo, Check]:
    """Write `model` to the file `draft` in the format `name`, with the smallest side that it takes, and compare both.

    Raises FastsegError when it cannot be exported, ExportCheckError when the file gives other labels.
    """
    plain = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    try:
        with quietly():
            save = _converted(plain, name, draft.parent, fp16=fp16)
    except Exception as error:  # torch.export and the converters raise many kinds
        raise FastsegError(
            f"{_name(model)} cannot be exported to {name}: {reason_of(error)}; choose another --to, or report it"
        ) from error
    info = ExportInfo(_weights_info(model), precision="fp16" if fp16 else "fp32")
    for side in MINIMUM_SIDES:
        info = replace(info, minimum_side=side)
        with quietly():
            save(draft, info)
        check = check_file(draft, plain, info)
        if check.passed or not check.fails_at_smallest:
            break
    if not check.passed:
        raise ExportCheckError(
            f"the exported file does not do what {_name(model)} does, and was removed: {check.verdict}", check
        )
    return info, check


def publish(draft: Path, path: Path, info: ExportInfo, check: Check) -> Export:
    """Put the files of `draft`, as they are, where `path` says. Raises OutputError when the disk refuses."""
    size = 0
    for source, target in zip(files_of(draft), files_of(path), strict=True):
        content = source.read_bytes()
        size += len(content)
        write_atomically(target, content)
    return Export(path, info, check, size / 1e6)


def _converted(model: SegModel, name: str, folder: Path, *, fp16: bool) -> Save:
    program = _traced(LabelProgram(model, logits=name != "torch"))
    if name == "torch":
        return lambda path, info: torch.export.save(program, path, extra_files={METADATA_FILE: info.text()})
    converted = _to_onnx(program)
    if name == "onnx":
        return lambda path, info: save_onnx(converted, path, info)
    import openvino

    source = folder / "source.onnx"
    source.write_bytes(converted.SerializeToString())
    network = openvino.convert_model(source)
    return lambda path, info: save_openvino(network, path, info, fp16=fp16)


def _traced(program: LabelProgram) -> torch.export.ExportedProgram:
    dynamic = dict.fromkeys(range(3), torch.export.Dim.DYNAMIC)
    images = torch.zeros(*TRACED, 3, dtype=torch.uint8)
    with torch.no_grad():
        exported = torch.export.export(program, (images,), dynamic_shapes=(dynamic,))
    for symbol, sides in list(exported.range_constraints.items()):
        exported.range_constraints[symbol] = type(sides)(1, sides.upper)
    for module in exported.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # paths of this machine
    return exported


def _to_onnx(program: torch.export.ExportedProgram) -> Any:
    """The ONNX model, whose only output are the labels; inside, the logits have the name 'logits'."""
    exported = torch.onnx.export(
        program,
        (),
        input_names=["images"],
        output_names=["labels", "logits"],
        dynamic_shapes=({0: "batch", 1: "height", 2: "width"},),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    model = cast(Any, exported).model_proto
    del model.graph.output[1]
    for node in model.graph.node:
        del node.metadata_props[:]  # how each came about, and where: half the size of a small network's file
    return model


def save_onnx(model: Any, path: Path, info: ExportInfo) -> None:
    """Write an onnx.ModelProto with its metadata."""
    del model.metadata_props[:]
    model.metadata_props.add(key=METADATA_KEY, value=info.text())
    path.write_bytes(model.SerializeToString())


def save_openvino(model: Any, path: Path, info: ExportInfo, *, fp16: bool = False) -> None:
    """Write an openvino.Model with its metadata; `fp16` stores weights in half precision."""
    import openvino

    model.set_rt_info(info.text(), [METADATA_KEY])
    openvino.save_model(model, path, compress_to_fp16=fp16)


def _weights_info(model: SegModel) -> WeightsInfo:
    """What the file says of classes and weights; numbered classes for a network that knows no names."""
    if model.weights_info is not None:
        return model.weights_info
    return WeightsInfo(type(model).__name__, "", "", "", numbered_classes(model.num_classes))


def _name(model: SegModel) -> str:
    return _weights_info(model).model
