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
    have a loss of its own, under its name in `aux_losses`; otherwise it shares the main one. Auxiliary losses look at
    every `aux_stride`-th label only: at full resolution the two of Fast-SCNN take a quarter of a step on a CPU. Raises
    ConfigError for names that the model does not have, and for auxiliary outputs without a weight.
    """

    def __init__(
        self,
        loss: PixelLoss,
        *,
        aux_weights: Mapping[str, float],
        aux_names: Iterable[str],
        aux_losses: Mapping[str, PixelLoss] | None = None,
        align_corners: bool = False,
        aux_stride: int = 1,
    ) -> None:
        names, own = tuple(aux_names), aux_losses or {}
        for key, given in (("loss.aux", aux_weights), ("loss.aux_losses", own)):
            for name in given:
                if name not in names:
                    if not names:
                        raise ConfigError(
                            f"{key}.{name}: the model has no auxiliary outputs; remove it, or build the model with "
                            "them (model.args.aux=true, where the network has any)"
                        )
                    raise ConfigError(f"{key}.{name}: the model has no such auxiliary output; {suggest(name, names)}")
        missing = [name for name in names if name not in aux_weights]
        if missing:
            raise ConfigError(
                f"the model has auxiliary outputs without a weight: {', '.join(missing)}; "
                f"set loss.aux.{missing[0]}=0.4, or build the model without them"
            )
        self._losses = {"main": loss} | {f"aux.{name}": own.get(name, loss) for name in names}
        self.weights = {"main": 1.0} | {f"aux.{name}": float(aux_weights[name]) for name in names}
        self._strides = {"main": 1} | {f"aux.{name}": aux_stride for name in names}
        self._align_corners = align_corners

    def __call__(self, output: SegOutput, labels: Tensor) -> dict[str, LossTerm]:
        """SegOutput and labels int64 (N,H,W) -> terms, main first."""
        logits = {"main": output.logits} | {f"aux.{name}": aux for name, aux in output.aux.items()}
        terms = {}
        for name, x in logits.items():
            wanted = _every(self._strides[name], labels)
            size = (wanted.shape[-2], wanted.shape[-1])
            x = x.float() if x.dtype.itemsize < 4 else x
            terms[name] = self._losses[name](resize(x, size, align_corners=self._align_corners), wanted)
        return terms

    def normalizers(self, labels: Tensor) -> dict[str, Tensor] | None:
        """Every term's normaliser where labels alone decide them all, else None."""
        found = {name: loss.normalizer(_every(self._strides[name], labels)) for name, loss in self._losses.items()}
        known = {name: value for name, value in found.items() if value is not None}
        return known if len(known) == len(found) else None


def _every(stride: int, labels: Tensor) -> Tensor:
    """The label (N,H,W) in the middle of every cell of `stride` x `stride`; at least one a side."""
    height, width = labels.shape[-2:]
    return labels[..., min(stride // 2, height - 1) :: stride, min(stride // 2, width - 1) :: stride]
