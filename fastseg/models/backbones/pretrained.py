"""ImageNet weights for backbones: torchvision's by name, or a file's."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from fastseg.errors import CheckpointError, MissingFileError, MissingPackageError

IMAGENET = "imagenet"
IN_TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101")  # backbones that 'imagenet' stands for weights of
_CLASSIFIER = ("fc.", "classifier.")


def read_pretrained(name: str, source: str) -> dict[str, Tensor]:
    """Tensors of a classification network, without its classifier.

    `source` is 'imagenet', for what torchvision publishes as `name` (its table, its hash check, IMAGENET1K_V1), or the
    path of a .safetensors or .pth file with a table of tensors. Raises ValueError for another `source`,
    CheckpointError when the weights cannot be fetched or read, MissingFileError and MissingPackageError.
    """
    if not isinstance(source, str):
        raise ValueError(f"backbone weights are {source!r}; allowed: 'imagenet', the path of a file, or null for none")
    if source == IMAGENET:
        state = _torchvision(name)
    elif source.endswith((".safetensors", ".pth", ".pt")):
        state = _file(Path(source), offered="'imagenet' or " if name in IN_TORCHVISION else "")
    else:
        raise ValueError(
            f"backbone weights are {source!r}; allowed: 'imagenet' (torchvision's) or the path of a .safetensors or "
            ".pth file"
        )
    return {key: tensor for key, tensor in state.items() if not key.startswith(_CLASSIFIER)}


def load_pretrained(backbone: nn.Module, name: str, source: str) -> None:
    """Load what `read_pretrained` reads into `backbone`, strictly. Raises CheckpointError naming what does not fit."""
    load_strictly(backbone, read_pretrained(name, source), source)


def load_strictly(backbone: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load tensors whose names and shapes must all agree. Raises CheckpointError naming the first that do not."""
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise CheckpointError(
            f"backbone weights {source} do not fit {type(backbone).__name__}: {' '.join(lines)[:300]}"
        ) from None


def _torchvision(name: str) -> dict[str, Tensor]:
    try:
        from torchvision.models import get_model_weights
    except (ImportError, RuntimeError) as error:  # a CPU torch beside a CUDA torchvision raises RuntimeError
        raise MissingPackageError(
            f"weights 'imagenet' come from torchvision, which does not import here ({error}); install it from the same "
            "index as torch"
        ) from None
    weights = get_model_weights(name).IMAGENET1K_V1
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise CheckpointError(
            f"ImageNet weights of {name} cannot be fetched from {weights.url}: {error}. Put that file into "
            f"{torch.hub.get_dir()}/checkpoints/, or give its path in place of 'imagenet', or train without "
            "(backbone_weights=null)"
        ) from None


def _file(path: Path, *, offered: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise MissingFileError(f"backbone weights {path} do not exist; give {offered}the path of a file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        table = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise five kinds of exception, by where the damage sits
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, pickle.UnpicklingError):  # torch's own text advises to lift the safeguard
            reason = "it is damaged, or holds more than tensors and plain data, which could run code"
        raise CheckpointError(f"backbone weights {path} cannot be read: {reason}") from None
    table = table.get("state_dict", table) if isinstance(table, dict) else table
    if not isinstance(table, dict) or not all(isinstance(tensor, Tensor) for tensor in table.values()):
        raise CheckpointError(f"backbone weights {path} are no table of tensors by name")
    return table
