"""An exported file in int8, calibrated on the user's own images, beside its float32 form.

What int8 costs depends on network, weights and data, so it is measured: the mIoU of both files on labelled images, or,
without labels, the share of pixels on which they agree, which is no mIoU.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastseg.data import SegDataset
from fastseg.data.readers import image_from
from fastseg.engine.evaluate import check_classes, evaluate
from fastseg.engine.export import Export, check_request, publish, save_onnx, save_openvino, write_draft
from fastseg.engine.export_check import check_file
from fastseg.errors import ConfigError, DataError, FastsegError
from fastseg.export_info import ExportInfo
from fastseg.exported import open_exported, require_packages
from fastseg.inputs import find_inputs
from fastseg.metrics import Scores
from fastseg.predict import Predictor
from fastseg.quiet import quietly
from fastseg.signal_stack import kept_signal_stack
from fastseg.types import SegModel

Load = Callable[[], np.ndarray]  # image uint8 (H,W,3), read when it is wanted
MOST_COMPARED = 20  # images on which the labels of both files are compared


@dataclass(frozen=True)
class Int8Export:
    """An int8 file beside its float32 form: share of pixels that agree, and the scores of both on labelled data."""

    export: Export
    calibrated_on: int
    agreement: float
    compared: int
    fp32_megabytes: float
    scores: tuple[Scores, Scores] | None = None  # fp32, int8


def export_int8(
    model: SegModel,
    path: str | Path,
    calibration: Sequence[Load],
    *,
    compare: Sequence[Load] = (),
    scored_on: SegDataset | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Int8Export:
    """Write `model` in int8 to an .onnx file (static, QDQ, by ONNX Runtime) or to OpenVINO's .xml and .bin (NNCF).

    Ranges of activations are those met in the images `calibration`. Labels of both forms are compared on `compare`, on
    the calibration images unless given, and both are scored on `scored_on`, `progress(done, total)` called per image.
    Raises what `export_model` raises, ConfigError for a .pt2, DataError without images, and FastsegError for a data set
    of other classes.
    """
    path = Path(path)
    name = check_request(model, path, overwrite=overwrite)
    if name == "torch":
        raise ConfigError("int8 is for ONNX and OpenVINO; choose --to onnx or openvino, or leave --int8 out")
    require_packages(name, ("nncf",) if name == "openvino" else None)
    if not calibration:
        raise DataError("int8 needs images to calibrate on; name at least one")
    with tempfile.TemporaryDirectory(prefix="fastseg-export-") as folder:
        plain, draft = (Path(folder) / f"{precision}{path.suffix.lower()}" for precision in ("fp32", "int8"))
        info, _ = write_draft(model, name, plain)
        if scored_on is not None:
            check_classes(Predictor(plain), scored_on.info)
        info = replace(info, precision="int8")
        with quietly():
            quantize = _quantize_openvino if name == "openvino" else _quantize_onnx
            quantize(plain, draft, info, calibration)
        check = check_file(draft, model, info)
        if not check.passed:
            raise FastsegError(f"the int8 file does not run: {check.verdict}")
        images = (compare or calibration)[:MOST_COMPARED]
        agreement = compare_labels(plain, draft, images)
        scores = None
        if scored_on is not None:
            fp32, int8 = (evaluate(Predictor(file), scored_on, progress=progress) for file in (plain, draft))
            scores = (fp32, int8)
        megabytes = sum(file.stat().st_size for file in Path(folder).glob("fp32.*")) / 1e6
        export = publish(draft, path, info, check)
    return Int8Export(export, len(calibration), agreement, len(images), megabytes, scores)


def image_files(folder: str | Path) -> list[Load]:
    """The images of a folder and its subfolders, to be read when they are wanted. Raises as `find_inputs` does."""
    return [functools.partial(image_from, file) for file, _ in find_inputs([folder])]


def compare_labels(first: Path, second: Path, images: Sequence[Load]) -> float:
    """Share of pixels to which two exported files give the same label."""
    one, other = open_exported(first), open_exported(second)
    equal = pixels = 0
    for load in images:
        image = load()
        labels = one.predict_array(image)
        equal += int((labels == other.predict_array(image)).sum())
        pixels += labels.size
    return equal / pixels


@kept_signal_stack()
def _quantize_openvino(source: Path, target: Path, info: ExportInfo, images: Sequence[Load]) -> None:
    import nncf
    import openvino

    # NNCF asks for items twice, and takes as many as there are
    samples = nncf.Dataset(range(len(images)), lambda index: images[index]()[None])
    network = openvino.Core().read_model(source)
    quantized = nncf.quantize(network, samples, subset_size=len(images))
    save_openvino(quantized, target, info)


def _quantize_onnx(source: Path, target: Path, info: ExportInfo, images: Sequence[Load]) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.remaining = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            load: Any = next(self.remaining, None)
            return None if load is None else {"images": load()[None]}

    quantize_static(
        source,
        target,
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],  # nearly all of the work; resizing and argmax keep their precision
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    save_onnx(onnx.load(str(target)), target, info)
