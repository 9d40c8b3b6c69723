"""The loss of a whole network: the main output, every auxiliary one, and what couples them, as named terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from fastseg.errors import ConfigError, suggest
from fastseg.layers.resize import resize
from fastseg.losses.pixel import LossTerm, PixelLoss
from fastseg.losses.terms import OutputLoss
from fastseg.types import SegOutput


class SegLoss:
    """Named loss terms of a SegOutput: 'main', 'aux.<name>' for every auxiliary output, and the further `terms`.

    Logits are resized to the labels, unless a loss takes them as they are. `weights` gives each term's factor in the
    optimised sum. An auxiliary output may have a loss of its own, under its name in `aux_losses`; otherwise it shares
    the main one. Auxiliary losses look at every `aux_stride`-th label only: at full resolution the two of Fast-SCNN
    take a quarter of a step on a CPU. `terms` maps names to weights and losses of the whole output. Raises ConfigError
    for names that the model does not have, and for auxiliary outputs without a weight.
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
        terms: Mapping[str, tuple[float, OutputLoss]] | None = None,
    ) -> None:
        names, own, terms = tuple(aux_names), aux_losses or {}, terms or {}
        for key, given in (("loss.aux", aux_weights), ("loss.aux_losses", own)):
            for name in given:
                _require_output(name, names, f"{key}.{name}")
        for term, (_, output_loss) in terms.items():
            for name in output_loss.reads:
                _require_output(name, names, f"loss.terms.{term} (which reads the output {name!r})")
        missing = [name for name in names if name not in aux_weights]
        if missing:
            raise ConfigError(
                f"the model has auxiliary outputs without a weight: {', '.join(missing)}; "
                f"set loss.aux.{missing[0]}=0.4, or build the model without them"
            )
        self._losses = {"main": loss} | {f"aux.{name}": own.get(name, loss) for name in names}
        self._terms = {name: output_loss for name, (_, output_loss) in terms.items()}
        self.weights = {"main": 1.0} | {f"aux.{name}": float(aux_weights[name]) for name in names}
        self.weights |= {name: float(weight) for name, (weight, _) in terms.items()}
        self._strides = {
            name: aux_stride if name != "main" and own_loss.resizes else 1 for name, own_loss in self._losses.items()
        }
        self._align_corners = align_corners

    def __call__(self, output: SegOutput, labels: Tensor) -> dict[str, LossTerm]:
        """SegOutput and labels int64 (N,H,W) -> terms, main first; in eval, those that need no auxiliary output."""
        logits = {"main": output.logits} | {f"aux.{name}": aux for name, aux in output.aux.items()}
        logits = {name: x.float() if x.dtype.itemsize < 4 else x for name, x in logits.items()}
        further = {name: loss for name, loss in self._terms.items() if set(loss.reads) <= output.aux.keys()}
        shared = {"main", *(f"aux.{name}" for loss in further.values() for name in loss.reads)} if further else set()
        full = {name: self._resized(logits[name], labels) for name in shared}
        terms = {}
        for name, x in logits.items():
            loss, wanted = self._losses[name], _every(self._strides[name], labels)
            if loss.resizes:
                x = full[name] if name in full and self._strides[name] == 1 else self._resized(x, wanted)
            terms[name] = loss(x, wanted)
        for name, output_loss in further.items():
            read = {aux: full[f"aux.{aux}"] for aux in output_loss.reads}
            terms[name] = output_loss(SegOutput(full["main"], read), labels)
        return terms

    def normalizers(self, labels: Tensor) -> dict[str, Tensor] | None:
        """Every term's normaliser where labels alone decide them all, else None."""
        found = {name: loss.normalizer(_every(self._strides[name], labels)) for name, loss in self._losses.items()}
        found |= {name: loss.normalizer(labels) for name, loss in self._terms.items()}
        known = {name: value for name, value in found.items() if value is not None}
        return known if len(known) == len(found) else None

    def _resized(self, logits: Tensor, labels: Tensor) -> Tensor:
        return resize(logits, (labels.shape[-2], labels.shape[-1]), align_corners=self._align_corners)


def _require_output(name: str, names: Sequence[str], key: str) -> None:
    """Raise ConfigError, about `key`, unless the model has an auxiliary output of that name."""
    if name in names:
        return
    if not names:
        raise ConfigError(
            f"{key}: the model has no auxiliary outputs; remove it, or build the model with "
            "them (model.args.aux=true, where the network has any)"
        )
    raise ConfigError(f"{key}: the model has no such auxiliary output; {suggest(name, names)}")


def _every(stride: int, labels: Tensor) -> Tensor:
    """The label (N,H,W) in the middle of every cell of `stride` x `stride`; at least one a side."""
    height, width = labels.shape[-2:]
    return labels[..., min(stride // 2, height - 1) :: stride, min(stride // 2, width - 1) :: stride]
