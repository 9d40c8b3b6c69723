"""Weights files: safetensors whose metadata says what the network is, expects, knows and may be used for."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastseg.atomic import write_atomically
from fastseg.errors import CheckpointError, MissingFileError
from fastseg.types import DatasetInfo, Preprocessing, SegModel, WeightsInfo

FORMAT_VERSION = 1
_PREFIXES = ("module.", "_orig_mod.")


class Weights(NamedTuple):
    """Tensors by name, and what they are."""

    state: dict[str, Tensor]
    info: WeightsInfo


def info_to_dict(info: WeightsInfo) -> dict[str, Any]:
    """Plain Python for JSON metadata and checkpoints; `file` and `sha256` belong to the copy at hand: left out."""
    table = asdict(info)
    del table["file"], table["sha256"]
    return table


def info_from_dict(table: Mapping[str, Any], *, file: str = "", sha256: str = "") -> WeightsInfo:
    """Inverse of `info_to_dict`. Raises KeyError, TypeError or ValueError for anything else."""
    if not isinstance(table["model"], str) or not isinstance(table["model_args"], dict):
        raise TypeError(f"model is {table['model']!r} with arguments {table['model_args']!r}")
    dataset, preprocessing = dict(table["dataset"]), dict(table["preprocessing"])
    for key in ("class_names", "official_ids"):
        dataset[key] = tuple(dataset[key])
    for key in ("categories", "instance_classes"):
        dataset[key] = tuple(dataset.get(key, ()))  # younger than the first files
    dataset["palette"] = tuple((int(r), int(g), int(b)) for r, g, b in dataset["palette"])
    for key in ("mean", "std"):
        preprocessing[key] = tuple(float(value) for value in preprocessing[key])
    rest = {key: value for key, value in table.items() if key not in ("dataset", "preprocessing")}
    return WeightsInfo(
        **rest, dataset=DatasetInfo(**dataset), preprocessing=Preprocessing(**preprocessing), file=file, sha256=sha256
    )


def save_weights(
    path: str | Path, state: Mapping[str, Tensor], info: WeightsInfo, *, half: bool = False, drop_aux: bool = False
) -> Path:
    """Write a weights file atomically and return its path.

    `half` stores floating tensors as float16. `drop_aux` leaves out the auxiliary heads, which inference never runs.
    """
    from safetensors.torch import save

    tensors = {}
    for name, tensor in state.items():
        if drop_aux and name.startswith("aux_heads."):
            continue
        tensor = tensor.detach().cpu().contiguous()
        tensors[name] = tensor.half() if half and tensor.is_floating_point() else tensor
    if drop_aux and info.model_args.get("aux"):
        info = replace(info, model_args={**info.model_args, "aux": False})
    metadata = {"format": "fastseg", "format_version": str(FORMAT_VERSION), "info": json.dumps(info_to_dict(info))}
    path = Path(path)
    write_atomically(path, save(tensors, metadata), error=CheckpointError)
    return path


def read_weights(path: str | Path) -> Weights:
    """Read a weights file, or the weights inside a training checkpoint (`.pt`; its EMA where it has one).

    A folder stands for the `best.safetensors` or `last.safetensors` of a run. Raises MissingFileError and
    CheckpointError (damaged, not made by fastseg, from a newer format).
    """
    path = Path(path)
    if path.is_dir():
        names = ("best.safetensors", "last.safetensors")
        found = [path / name for name in names if (path / name).is_file()]
        if not found:
            raise MissingFileError(f"folder {path} holds no weights; expected {' or '.join(names)} (a finished run)")
        path = found[0]
    if not path.is_file():
        raise MissingFileError(f"weights file {path} does not exist")
    digest = file_sha256(path)
    if path.suffix in (".pt", ".pth"):
        return _read_checkpoint(path, digest)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no intact safetensors file: {error}; fetch or train it again") from None
    return Weights(state, _read_info(metadata.get("info"), metadata.get("format_version"), path, digest))


def read_torch_file(path: Path) -> object:
    """What `torch.save` wrote. Raises CheckpointError when it is damaged or holds more than tensors and plain data, and
    for a file that would unpack to more than it can hold."""
    _refuse_bomb(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise five kinds of exception, by where the damage sits
        reason = f"{type(error).__name__}: {error}; fetch or save it again"
        if path.stat().st_size == 0:
            reason = "it is empty; fetch or save it again"
        if isinstance(error, pickle.UnpicklingError):  # torch's own text advises to lift the safeguard
            reason = "it is damaged, or holds more than tensors and plain data, which could run code"
        raise CheckpointError(f"{path} cannot be read as a checkpoint: {reason}") from None


def _refuse_bomb(path: Path) -> None:
    """`torch.save` compresses nothing: a few kilobytes that unpack to gigabytes are nobody's weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # no zip file, or a damaged one, which torch will say
    size, unpacked = path.stat().st_size, sum(entry.file_size for entry in entries)
    if unpacked > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(
            f"{path} has {size} bytes and unpacks to {unpacked}; torch.save compresses nothing, so this is no file of "
            "its making: fetch or save it again"
        )


def read_checkpoint_file(path: Path) -> dict[str, Any]:
    """A training checkpoint as a table. Raises CheckpointError as `read_torch_file`, and for other tables."""
    table = read_torch_file(path)
    if not isinstance(table, dict) or "format_version" not in table:
        raise CheckpointError(
            f"{path} is not a fastseg checkpoint (no format_version); weights that others made need "
            "their format's name: weights_format='espnet' (on the command line --weights-format espnet)"
        )
    _check_version(table["format_version"], path)
    return table


def _check_version(version: object, path: Path) -> None:
    try:
        number = int(str(version))
    except ValueError:
        raise CheckpointError(f"{path} is not a fastseg file: its format version is {version!r}") from None
    if number > FORMAT_VERSION:
        raise CheckpointError(f"{path} has format version {number}, newer than {FORMAT_VERSION}; upgrade fastseg")


def _read_checkpoint(path: Path, digest: str) -> Weights:
    table = read_checkpoint_file(path)
    try:
        state = table["ema"] or table["model"]
        info = info_from_dict(table["info"], file=str(path), sha256=digest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a fastseg checkpoint: {error!r}") from None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(f"{path} is not a fastseg checkpoint: its weights are no table of tensors")
    return Weights({str(name): tensor for name, tensor in state.items()}, info)


def _read_info(text: str | None, version: str | None, path: Path, digest: str) -> WeightsInfo:
    if text is None or version is None:
        raise CheckpointError(
            f"{path} does not say which network, classes and preprocessing it is for (no fastseg metadata)"
        )
    _check_version(version, path)
    try:
        return info_from_dict(json.loads(text), file=str(path), sha256=digest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: metadata is damaged: {error!r}") from None


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else (hashlib.sha256(file.read()).hexdigest())
        )


def load_state(model: SegModel, state: Mapping[str, Tensor], source: str) -> None:
    """Load tensors into a model, strictly: every name and shape must agree once wrappers' prefixes are stripped.

    Raises CheckpointError naming `source`, the numbers of classes when they differ, or examples of names that do not
    match.
    """
    stripped = {strip_wrappers(name): tensor for name, tensor in state.items()}
    own = model.state_dict()
    shapes = {name: (tuple(stripped[name].shape), tuple(own[name].shape)) for name in own.keys() & stripped.keys()}
    different = {name: pair for name, pair in shapes.items() if pair[0] != pair[1]}
    for _, (theirs, ours) in sorted(different.items()):
        if ours[:1] == (model.num_classes,) and theirs[1:] == ours[1:]:
            raise CheckpointError(
                f"{source} has {theirs[0]} classes, the model has {model.num_classes}; build it with "
                f"num_classes={theirs[0]}, or choose weights with {model.num_classes} classes"
            )
    missing, extra = sorted(own.keys() - stripped.keys()), sorted(stripped.keys() - own.keys())
    if missing or extra or different:
        parts = [
            f"{len(names)} {what} ({', '.join(names[:5])})"
            for what, names in (("missing", missing), ("unexpected", extra), ("of another shape", sorted(different)))
            if names
        ]
        raise CheckpointError(f"{source} does not fit {type(model).__name__}: tensors {'; '.join(parts)}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stripped[name])


def strip_wrappers(name: str) -> str:
    """A tensor's name without what DistributedDataParallel, DataParallel and torch.compile put before it."""
    while name.startswith(_PREFIXES):
        name = name.split(".", 1)[1]
    return name
