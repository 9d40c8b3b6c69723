"""Exported files as predictors: ONNX Runtime, OpenVINO or torch.export from uint8 images to uint8 labels.

They run without the network's code and weights; classes and all else stand in the file (see `export_info`).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np

from fastseg.environment import usable_cores
from fastseg.errors import (
    CheckpointError,
    ConfigError,
    ImageReadError,
    MissingFileError,
    MissingPackageError,
    printable,
    suggest,
)
from fastseg.export_info import METADATA_FILE, METADATA_KEY, ExportInfo, unknown_info
from fastseg.quiet import quietly
from fastseg.signal_stack import kept_signal_stack
from fastseg.types import DatasetInfo, Preprocessing, WeightsInfo

FORMATS = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino"), "torch": ()}

THREADS_PER_CORE = 4  # at most
Run = Callable[[np.ndarray], np.ndarray]


class ExportedModel:
    """An exported file that is ready to run; made by `open_exported`. `info` is what the file says of itself."""

    def __init__(self, path: Path, info: ExportInfo, run: Run) -> None:
        self.path = path
        self.info = info
        self._run = run

    @property
    def name(self) -> str:
        """The network's name."""
        return self.info.weights_info.model

    @property
    def weights_info(self) -> WeightsInfo:
        return self.info.weights_info

    @property
    def dataset(self) -> DatasetInfo:
        """The classes; numbered ones for a file that does not name them."""
        return self.info.weights_info.dataset

    @property
    def num_classes(self) -> int:
        return self.dataset.num_classes

    @property
    def preprocessing(self) -> Preprocessing:
        """What the file itself does with images before its network sees them."""
        return self.info.weights_info.preprocessing

    def labels(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 (N,H,W,3) RGB -> labels uint8 (N,H,W).

        Raises ImageReadError for other arrays and for sides below `info.minimum_side`, CheckpointError when the file
        cannot be run.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or images.size == 0:
            raise ImageReadError(f"images are {images.dtype} of shape {images.shape}; give uint8 (N,H,W,3), RGB")
        height, width = images.shape[1:3]
        if min(height, width) < self.info.minimum_side:
            raise ImageReadError(
                f"the image is {width}x{height}; {printable(self.path)} takes {self.info.minimum_side} pixels a side "
                "or more: enlarge the image, or predict with the network itself"
            )
        try:
            return self._run(np.ascontiguousarray(images))
        except Exception as error:  # engines have no common exception
            raise CheckpointError(
                f"{printable(self.path)} fails at an image of {width}x{height}: {reason_of(error)}"
            ) from error

    def predict_array(self, image: np.ndarray) -> np.ndarray:
        """Image uint8 (H,W,3) RGB -> labels uint8 (H,W). Raises as `labels` does."""
        return self.labels(image[None])[0]


def format_of(path: str | Path) -> str:
    """'onnx', 'openvino' or 'torch', by the suffix. Raises ConfigError for another one."""
    suffix = Path(path).suffix.lower()
    for name, own in FORMATS.items():
        if suffix == own:
            return name
    raise ConfigError(f"{printable(path)} has the suffix {suffix!r}; {suggest(suffix, FORMATS.values())}")


def is_exported(path: str | Path) -> bool:
    """Whether `path` has the suffix of an exported file: .onnx, .xml or .pt2."""
    return Path(path).suffix.lower() in FORMATS.values()


def open_exported(path: str | Path, *, threads: int | None = None, device: str | None = None) -> ExportedModel:
    """Make an exported file ready to run: .onnx by ONNX Runtime, .xml (with its .bin) by OpenVINO, .pt2 by PyTorch.

    `threads` is the number of CPU threads (the engine's own choice unless given; PyTorch's setting counts for a .pt2).
    `device` is 'cpu' unless given; 'cuda' where ONNX Runtime has it, and any device of OpenVINO's by its name.
    An .onnx or .xml file without our metadata, but from uint8 images (N,H,W,3) to labels (N,H,W), has numbered classes.
    A .pt2 file can run code of its own when it is opened, as pickled files can: open those you trust.
    Raises ConfigError, MissingFileError, MissingPackageError, and CheckpointError for a damaged or other file.
    """
    path = Path(path)
    name = format_of(path)
    if threads is not None:
        check_threads(threads)
    companion = path.with_suffix(".bin")
    for file in (path, companion) if name == "openvino" else (path,):
        if not file.is_file():
            raise MissingFileError(f"exported file {printable(file)} does not exist")
    open_file = {"onnx": _open_onnx, "openvino": _open_openvino, "torch": _open_torch}[name]
    try:
        run, text = open_file(path, threads, str(device or "cpu").lower())
    except (ConfigError, CheckpointError, MissingPackageError):
        raise
    except Exception as error:  # damaged files raise many kinds of exception
        raise CheckpointError(
            f"{printable(path)} cannot be opened as {name}: {reason_of(error)}; export it again"
        ) from error
    return ExportedModel(path, ExportInfo.from_text(text, path) if text else unknown_info(path), run)


def check_threads(threads: int) -> None:
    """Raises ConfigError for fewer CPU threads than 1, and for so many that they would only wait for each other."""
    cores = usable_cores()
    if not 1 <= threads <= THREADS_PER_CORE * cores:
        raise ConfigError(
            f"threads is {threads}; give 1 to {THREADS_PER_CORE * cores} for the {cores} cores that this process may "
            "use, or leave it out"
        )


def require_packages(name: str, packages: tuple[str, ...] | None = None) -> None:
    """Raises MissingPackageError unless what a format needs is installed: to export to it, or only `packages`."""
    missing = [package for package in packages or PACKAGES[name] if find_spec(package) is None]
    if missing:
        raise MissingPackageError(f"{name} needs {', '.join(missing)}: pip install 'fastseg-zoo[{name}]'")


def openvino_settings(threads: int | None) -> dict[str, object]:
    """How OpenVINO runs our files on a CPU: float32, where its own choice may be bfloat16."""
    settings: dict[str, object] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return settings if threads is None else {**settings, "INFERENCE_NUM_THREADS": threads}


def onnx_session(model: str | bytes, threads: int | None = None, device: str = "cpu") -> Any:
    """An ONNX Runtime session of a file or of its bytes. Raises ConfigError for a device that it does not have."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    providers: list[Any] = ["CPUExecutionProvider"]
    if device != "cpu":
        kind, _, index = device.partition(":")
        available = [each.removesuffix("ExecutionProvider").lower() for each in onnxruntime.get_available_providers()]
        if kind != "cuda" or kind not in available:
            usable = " or ".join(repr(each) for each in ("cpu", "cuda") if each in available)
            raise ConfigError(f"device {device!r}: this ONNX Runtime has {', '.join(available)}; use {usable}")
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": index or "0"}))
    return onnxruntime.InferenceSession(model, options, providers=providers)


def _open_onnx(path: Path, threads: int | None, device: str) -> tuple[Run, str]:
    require_packages("onnx", ("onnxruntime",))
    session = onnx_session(str(path), threads, device)
    given, made = session.get_inputs()[0], session.get_outputs()[0]
    _check_signature(path, len(session.get_inputs()), given.type == "tensor(uint8)", given.shape, made.shape)
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "")
    return lambda images: session.run([made.name], {given.name: images})[0].astype(np.uint8, copy=False), text


@kept_signal_stack()
def _open_openvino(path: Path, threads: int | None, device: str) -> tuple[Run, str]:
    require_packages("openvino", ("openvino",))
    import openvino

    if b"<net" not in path.read_bytes():  # else every other format that OpenVINO knows would be tried, aloud
        raise CheckpointError(f"{printable(path)} cannot be opened as openvino: it holds no network; export it again")
    core = openvino.Core()
    model = core.read_model(path)
    given, made = model.inputs[0], model.outputs[0]
    is_bytes = given.element_type == openvino.Type.u8
    shapes = [[size.get_length() if size.is_static else None for size in port.partial_shape] for port in (given, made)]
    _check_signature(path, len(model.inputs), is_bytes, *shapes)
    text = model.get_rt_info([METADATA_KEY]).astype(str) if model.has_rt_info([METADATA_KEY]) else ""
    available = core.available_devices
    if device.upper() not in available:
        raise ConfigError(f"device {device!r}: this OpenVINO has {', '.join(available).lower()}")
    on_cpu = device == "cpu"
    compiled = core.compile_model(model, device.upper(), openvino_settings(threads) if on_cpu else {})
    request = compiled.create_infer_request()
    # the engine's memory is written again by the next call: a copy
    return lambda images: np.array(request.infer([images])[0], np.uint8), text


def _open_torch(path: Path, threads: int | None, device: str) -> tuple[Run, str]:
    import torch

    if device != "cpu":
        raise ConfigError(f"device {device!r}: a .pt2 file was traced for the CPU; use 'cpu', or the network itself")
    extra = {METADATA_FILE: ""}
    if not is_zipfile(path):
        raise CheckpointError(f"{printable(path)} cannot be opened as torch: it is no zip file; export it again")
    try:
        with quietly():  # of a damaged file, a traceback is logged
            program = torch.export.load(path, extra_files=extra)
    except RuntimeError as error:  # which names the log as its reason
        raise CheckpointError(
            f"{printable(path)} cannot be opened as torch: it holds no program of torch.export, or a damaged one; "
            "export it again"
        ) from error
    text = extra[METADATA_FILE]
    if not text:
        raise CheckpointError(f"{printable(path)} was not written by fastseg (no fastseg.json inside)")
    module = program.module(check_guards=False)  # the guards speak of the sizes that were traced

    def run(images: np.ndarray) -> np.ndarray:
        writable = images if images.flags.writeable else images.copy()  # else from_numpy warns
        with torch.inference_mode():
            return module(torch.from_numpy(writable)).numpy()

    return run, text


def _check_signature(path: Path, inputs: int, takes_bytes: bool, given: list[Any], made: list[Any]) -> None:
    if inputs != 1 or not takes_bytes or len(given) != 4 or given[3] != 3 or len(made) != 3:
        raise CheckpointError(
            f"{printable(path)} does not turn uint8 images (N,H,W,3) into labels (N,H,W), as files that "
            "`fastseg export` writes do; export the network with it"
        )


def reason_of(error: Exception) -> str:
    """What an engine complains about, in one line: the first that says more than where in its source."""
    lines = [line for line in str(error).strip().splitlines() if line and not line.startswith("Exception from ")]
    return printable(lines[0] if lines else type(error).__name__)[:300]
