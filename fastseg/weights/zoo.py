"""The published weights, and models that carry them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from fastseg.errors import CheckpointError, ConfigError, MissingFileError, UnknownNameError, suggest
from fastseg.models import MODELS
from fastseg.types import SegModel, WeightsInfo
from fastseg.weights.espnet import read_espnet
from fastseg.weights.files import Weights, load_state, read_weights

EMBEDDED = Path(__file__).parent / "embedded"

# Whose files we read. Those of others do not describe themselves: a reader says what they are.
WEIGHTS_FORMATS: dict[str, Callable[[Path], Weights]] = {"fastseg": read_weights, "espnet": read_espnet}

# model -> {name: (file, SHA-256)}; the first is the model's default. Everything else stands in the file's metadata.
_PUBLISHED: dict[str, dict[str, tuple[str, str]]] = {
    "fast_scnn": {
        "camvid": ("fast_scnn_camvid.safetensors", "e008a1a97033370e0f5998238c76246f9cb3fc64f3908dc8a5f9b702556374f7"),
        "road_scenes": (
            "fast_scnn_road_scenes.safetensors",
            "a1f074650ce257c3b97050954bdd0e4353a9f8a224e939330fc7f5edc694f9f4",
        ),
    },
}


@functools.cache
def published_weights() -> tuple[WeightsInfo, ...]:
    """All published weights, as their files describe themselves."""
    return tuple(
        replace(read_weights(EMBEDDED / file).info, name=name)
        for table in _PUBLISHED.values()
        for name, (file, _) in table.items()
    )


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Registered models that match a shell pattern; with `pretrained` only those with published weights."""
    return [name for name in MODELS.names(pattern) if not pretrained or name in _PUBLISHED]


def create_model(
    name: str,
    *,
    pretrained: str | bool | None = None,
    weights: str | Path | None = None,
    weights_format: str | None = None,
    **kwargs: object,
) -> SegModel:
    """A network by name: untrained, with the published weights `pretrained` (True: the model's default), or with those
    of the file `weights`, whose `weights_format` is 'fastseg' unless given, or 'espnet' (its authors' `.pth` files).

    With weights, `num_classes` and the other arguments default to those of the weights, and `model.weights_info` says
    what they expect. Raises UnknownNameError for a wrong name or argument, ConfigError for arguments that exclude each
    other, MissingFileError, and CheckpointError when model or arguments do not fit the weights.
    """
    if weights is not None:
        if pretrained is not None and pretrained is not False:
            raise ConfigError(f"pretrained={pretrained!r} and weights={str(weights)!r} were both given; keep one")
        MODELS.get(name)
        if not Path(weights).exists() and str(weights) in _PUBLISHED.get(name, {}):
            raise ConfigError(f"weights names a file; for the published weights use pretrained={str(weights)!r}")
        return _load(Path(weights), kwargs, weights_format=weights_format, expected_model=name)
    if weights_format is not None:
        raise ConfigError(f"weights_format={weights_format!r} describes a file; name that file with weights")
    if pretrained is None or pretrained is False:
        return MODELS.build(name, **kwargs)
    MODELS.get(name)
    available = _PUBLISHED.get(name, {})
    if not available:
        having = ", ".join(list_models(pretrained=True)) or "none yet"
        raise UnknownNameError(f"model {name!r} has no published weights; models that have: {having}")
    weights_name = next(iter(available)) if pretrained is True else str(pretrained)
    if weights_name not in available:
        raise UnknownNameError(f"model {name!r} has no weights {weights_name!r}; {suggest(weights_name, available)}")
    file, sha256 = available[weights_name]
    return _load(EMBEDDED / file, kwargs, expected_sha256=sha256)


def load_model(source: str | Path, *, weights: str | Path | None = None, weights_format: str | None = None) -> SegModel:
    """A model ready to predict, from a model's name or a weights file, checkpoint or run folder.

    With a model's name, `weights` names published weights (the model's default unless given) or a file. The file is of
    the `weights_format` 'fastseg' unless given, or 'espnet' (its authors' `.pth` files). The model is in eval mode and
    its `weights_info` is set. Raises UnknownNameError, ConfigError, MissingFileError and CheckpointError.
    """
    if weights_format is not None:
        if weights is not None:
            return create_model(str(source), weights=weights, weights_format=weights_format)
        if str(source) in MODELS and not Path(source).is_file():
            raise ConfigError(f"weights_format={weights_format!r} describes a file; name that file with weights")
        return _load(Path(source), weights_format=weights_format)
    if weights is not None:
        if str(source) not in MODELS:
            MODELS.get(str(source))
        if str(weights) not in _PUBLISHED.get(str(source), {}) and names_a_file(weights):
            return _load(Path(weights), expected_model=str(source))
        return create_model(str(source), pretrained=str(weights)).eval()
    if str(source) in MODELS:
        return create_model(str(source), pretrained=True).eval()
    if names_a_file(source):
        return _load(Path(source))
    MODELS.get(str(source))  # raises, with the nearest spelling
    raise AssertionError("unreachable")


def names_a_file(source: str | Path) -> bool:
    """Whether `source` means a file or folder rather than a name; names in a table should be tried first."""
    text = str(source)
    looks_like_one = "/" in text or "\\" in text or text.endswith((".safetensors", ".pt", ".pth"))
    return isinstance(source, Path) or looks_like_one or Path(text).exists()


def _load(
    path: Path,
    given: Mapping[str, object] | None = None,
    *,
    weights_format: str | None = None,
    expected_model: str | None = None,
    expected_sha256: str = "",
) -> SegModel:
    given = given or {}
    read = _reader(weights_format)
    if not path.exists():
        raise MissingFileError(
            f"weights file {path} does not exist; give a .safetensors or .pt file, the folder of a finished run, or a "
            "name that `fastseg models` lists"
        )
    state, info = read(path)
    if expected_model not in (None, info.model):
        raise CheckpointError(
            f"{path} holds weights of {info.model!r}, not of {expected_model!r}; leave "
            f"the model out, or name {info.model!r}"
        )
    if expected_sha256 and info.sha256 != expected_sha256:
        raise CheckpointError(f"{path} is damaged (SHA-256 {info.sha256[:12]}...); reinstall fastseg-zoo")
    stored = {"num_classes": info.dataset.num_classes, **info.model_args}
    if weights_format not in (None, "fastseg"):  # all arguments were read off shapes, so that another cannot fit
        for key, value in given.items():
            if key in stored and stored[key] != value:
                raise CheckpointError(f"{path} holds weights with {key}={stored[key]}, not {value}; leave {key} out")
    arguments = {**stored, **given}
    if "backbone_weights" in arguments:
        arguments["backbone_weights"] = None  # the file holds the backbone's weights too: fetch none to replace
    try:
        model = MODELS.build(info.model, **arguments)
    except UnknownNameError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        described = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise CheckpointError(f"{path}: model {info.model!r} cannot be built with {described}: {error}") from None
    load_state(model, state, str(path))
    model.weights_info = info
    return model.eval()


def _reader(weights_format: str | None) -> Callable[[Path], Weights]:
    name = weights_format or "fastseg"
    if name not in WEIGHTS_FORMATS:
        raise UnknownNameError(f"unknown weights format {name!r}; {suggest(name, WEIGHTS_FORMATS)}")
    return WEIGHTS_FORMATS[name]
