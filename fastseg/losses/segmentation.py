"""The loss of a whole network: the main output and every auxiliary one, as named terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from fastseg.errors import ConfigError, suggest
from fastseg.layers.resize import resize
from fastseg.losses.pixel import LossTerm, PixelLoss
from fastseg.types import SegOutput


class SegLoss:
    """Named loss terms of a SegOutput: 'main', and 'aux.<name>' for every auxiliary output with a weight.

    Logits are resized to the labels. `weights` gives each term's factor in the optimised sum. An auxiliary output may
    have a loss of its own in `aux_loss`; otherwise it shares the main one.
    """

    def __init__(
        self,
        loss: PixelLoss,
        *,
        aux_weights: Mapping[str, float],
        aux_names: Iterable[str],
        aux_loss: PixelLoss | None = None,
        align_corners: bool = False,
    ) -> None:
        names = tuple(aux_names)
        for name in aux_weights:
            if name not in names:
                raise ConfigError(f"loss.aux.{name}: the model has no such auxiliary output; {suggest(name, names)}")
        missing = [name for name in names if name not in aux_weights]
        if missing:
            raise ConfigError(
                f"the model has auxiliary outputs without a weight: {', '.join(missing)}; "
                f"set loss.aux.{missing[0]}=0.4, or build the model without them"
            )
        self._losses = {"main": loss} | {f"aux.{name}": aux_loss or loss for name in names}
        self.weights = {"main": 1.0} | {f"aux.{name}": float(aux_weights[name]) for name in names}
        self._align_corners = align_corners

    def __call__(self, output: SegOutput, labels: Tensor) -> dict[str, LossTerm]:
        """SegOutput and labels int64 (N,H,W) -> terms, main first."""
        logits = {"main": output.logits} | {f"aux.{name}": aux for name, aux in output.aux.items()}
        size = (labels.shape[-2], labels.shape[-1])
        return {
            name: self._losses[name](
                resize(x.float() if x.dtype.itemsize < 4 else x, size, align_corners=self._align_corners), labels
            )
            for name, x in logits.items()
        }

    def normalizers(self, labels: Tensor) -> dict[str, Tensor] | None:
        """Every term's normaliser where labels alone decide them all, else None."""
        found = {name: loss.normalizer(labels) for name, loss in self._losses.items()}
        known = {name: value for name, value in found.items() if value is not None}
        return known if len(known) == len(found) else None
