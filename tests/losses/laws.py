"""What every loss obeys, whatever it measures, and the labels that it is shown."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from fastseg.losses import LossTerm

IGNORED = ("none", "some", "most", "rows", "an image")  # patterns of ignored pixels, for `patches`


def patches(
    n: int, height: int, width: int, *, classes: int, seed: int = 0, ignored: str | float = "some", cell: int = 3
) -> Tensor:
    """Labels (N,H,W) in patches of `cell` pixels a side, some of them ignored: by a pattern's name, or a share."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.randint(0, classes, (n, -(-height // cell), -(-width // cell)), generator=generator)
    labels = grid.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, :height, :width].clone()
    if ignored == "rows":
        labels[:, height // 3 : height // 2 + 1] = 255
    elif ignored == "an image":
        labels[n // 2] = 255
    share = {"none": 0.0, "some": 0.2, "most": 0.8, "rows": 0.0, "an image": 0.1}.get(str(ignored), ignored)
    labels[torch.rand(labels.shape, generator=generator) < float(share)] = 255
    return labels


def noise(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    """Float64 logits that need a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).requires_grad_()


def assert_shares_add_up(term: Callable[[slice], LossTerm], n: int, cuts: list[int]) -> None:
    """The sums of any split of a batch of `n` are those of the batch: `term` takes a share of it."""
    whole = term(slice(0, n))
    parts = [term(slice(a, b)) for a, b in pairwise([0, *sorted(cuts), n]) if b > a]
    torch.testing.assert_close(torch.stack([part.total for part in parts]).sum(), whole.total)
    torch.testing.assert_close(torch.stack([part.normalizer for part in parts]).sum(), whole.normalizer)


def assert_zero_with_gradient(term: LossTerm, logits: Tensor) -> None:
    """A loss without anything to learn from: 0, by a normaliser of 0, and a gradient of 0 that exists."""
    assert (term.total.item(), term.normalizer.item(), term.mean().item()) == (0, 0, 0)
    (gradient,) = torch.autograd.grad(term.mean(), logits)
    assert torch.equal(gradient, torch.zeros_like(logits))


def assert_normalizer_known(normalizer: Tensor | None, term: LossTerm) -> None:
    """Labels alone decide the normaliser, in float64."""
    assert normalizer is not None
    assert normalizer.dtype == torch.float64
    assert normalizer == term.normalizer
