"""Losses of a network's whole output, beyond one loss per output: what couples them, or a second view of one."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from fastseg.losses.pixel import LossTerm
from fastseg.registry import Registry
from fastseg.types import SegOutput


class OutputLoss(Protocol):
    """A loss of the logits together with the auxiliary outputs that it `reads`."""

    reads: tuple[str, ...]

    def __call__(self, output: SegOutput, labels: Tensor) -> LossTerm:
        """Logits (N,K,H,W) and auxiliary maps (N,C,H,W), resized to the labels int64 (N,H,W) -> sum and normaliser."""
        ...

    def normalizer(self, labels: Tensor) -> Tensor | None:
        """The normaliser where labels alone decide it (then gradient accumulation is exact), else None."""


TERMS: Registry[OutputLoss] = Registry("loss term", typed=True)
