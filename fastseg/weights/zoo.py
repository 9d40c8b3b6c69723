"""The published weights, and models that carry them."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

from fastseg.errors import CheckpointError, UnknownNameError, suggest
from fastseg.models import MODELS
from fastseg.types import SegModel, WeightsInfo
from fastseg.weights.files import load_state, read_weights

EMBEDDED = Path(__file__).parent / "embedded"

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


def create_model(name: str, *, pretrained: str | bool | None = None, **kwargs: object) -> SegModel:
    """A network by name: untrained, or with the published weights `pretrained` (True: the model's default).

    With weights, `num_classes` and the other arguments default to those of the weights, and `model.weights_info` says
    what they expect. Raises UnknownNameError for a wrong name or argument, CheckpointError when arguments do not fit
    the weights.
    """
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
    return _load(EMBEDDED / file, expected_sha256=sha256, **kwargs)


def load_model(source: str | Path, *, weights: str | Path | None = None) -> SegModel:
    """A model ready to predict, from a model's name or a weights file, checkpoint or run folder.

    With a model's name, `weights` names published weights (the model's default unless given) or a file. The model is
    in eval mode and its `weights_info` is set. Raises UnknownNameError, MissingFileError and CheckpointError.
    """
    if weights is not None:
        if str(source) not in MODELS:
            MODELS.get(str(source))
        if str(weights) not in _PUBLISHED.get(str(source), {}) and names_a_file(weights):
            model = _load(Path(weights))
            built = model.weights_info.model if model.weights_info else ""
            if built != str(source):
                raise CheckpointError(f"{weights} holds weights of {built!r}, not of {str(source)!r}")
            return model
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
    looks_like_one = "/" in text or "\\" in text or text.endswith((".safetensors", ".pt"))
    return isinstance(source, Path) or looks_like_one or Path(text).exists()


def _load(path: Path, *, expected_sha256: str = "", **kwargs: object) -> SegModel:
    state, info = read_weights(path)
    if expected_sha256 and info.sha256 != expected_sha256:
        raise CheckpointError(f"{path} is damaged (SHA-256 {info.sha256[:12]}...); reinstall fastseg-zoo")
    arguments = {"num_classes": info.dataset.num_classes, **info.model_args, **kwargs}
    try:
        model = MODELS.build(info.model, **arguments)
    except UnknownNameError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise CheckpointError(f"{path}: model {info.model!r} cannot be built with {given}: {error}") from None
    load_state(model, state, str(path))
    model.weights_info = info
    return model.eval()
