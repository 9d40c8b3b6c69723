"""Networks that find edges besides classes."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from fastseg.errors import ConfigError
from fastseg.types import WeightsInfo


@runtime_checkable
class EdgeModel(Protocol):
    """What a network is that also finds edges, as Gated-SCNN does."""

    def predict_edges(self, images: Tensor) -> Tensor:
        """Normalised images (N,C,H,W) -> edge probabilities (N,1,H,W), or (N,K,H,W): one map per class."""


class Described(Protocol):
    """What may say which network it is."""

    @property
    def weights_info(self) -> WeightsInfo | None: ...


def edge_model(model: Described) -> EdgeModel:
    """The network itself, if it finds edges. Raises ConfigError with its name if it does not."""
    if not isinstance(model, EdgeModel):
        name = model.weights_info.model if model.weights_info else type(model).__name__
        raise ConfigError(
            f"{name} finds no edges (it has no predict_edges); leave --edges (edges=True, 'edges' in --save) out, or "
            "take a network that does, such as gscnn_r50"
        )
    return model
