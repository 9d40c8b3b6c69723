"""One optimiser step's gradients: equal on one process and on many, in one batch and in several."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastseg.engine.distributed import Processes
from fastseg.losses import LossTerm, SegLoss


@dataclass
class StepResult:
    """`losses` are means over all processes: each term, and 'loss', the weighted sum that is optimised.

    `finite` and `stop` are agreed between processes: whether the loss is finite, and whether any was told to stop.
    """

    losses: dict[str, float]
    finite: bool
    stop: bool


def backward(
    model: nn.Module,
    seg_loss: SegLoss,
    batches: Sequence[tuple[Tensor, Tensor]],
    procs: Processes,
    *,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
    autocast: contextlib.AbstractContextManager[object] | None = None,
    stop: bool = False,
) -> StepResult:
    """Add to `.grad` the gradient of the mean loss over `batches` (network inputs, int64 labels) of all processes.

    Every term is divided by the sum of its normaliser over all processes, so unequal shares of ignored pixels do not
    bias it. Where labels decide the normalisers, they are summed over `batches` too, and several batches equal one;
    for OHEM each batch counts by its own. When the loss is not finite on any process, none goes backward, and the
    running statistics that the forward passes have moved are put back: they may hold the NaN for good.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    known = [seg_loss.normalizers(labels) for _, labels in batches]
    whole_step = _sum_tables([table for table in known if table is not None], procs) if None not in known else None
    logged = dict.fromkeys(["loss", *seg_loss.weights], 0.0)
    result = StepResult(logged, finite=True, stop=stop)
    for number, (images, labels) in enumerate(batches):
        last = number == len(batches) - 1
        quiet = contextlib.nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync()
        with quiet:
            with autocast or contextlib.nullcontext():
                output = model(images)
            terms = seg_loss(output, labels)
            share = 1.0 if whole_step is not None else 1 / len(batches)
            totals, normalizers, stopped = _agree(terms, procs, stop)
            if whole_step is not None:
                normalizers = whole_step
            finite = bool(all(torch.isfinite(total) for total in totals.values()))
            loss = _weighted_sum({name: term.total for name, term in terms.items()}, normalizers, seg_loss.weights)
            if finite:
                # DDP averages gradients over processes; times their number makes it the sum
                scale(loss * (procs.world_size * share)).backward()
        means = {name: share * float(totals[name] / normalizers[name].clamp(min=1e-12)) for name in terms}
        for name, mean in means.items():
            logged[name] += mean
        logged["loss"] += sum(seg_loss.weights[name] * mean for name, mean in means.items())
        result.finite, result.stop = result.finite and finite, result.stop or stopped
        if not finite:
            for buffer, before in buffers:
                buffer.copy_(before)
            break
    return result


def _weighted_sum(
    totals: Mapping[str, Tensor], normalizers: Mapping[str, Tensor], weights: Mapping[str, float]
) -> Tensor:
    parts = [
        weights[name] * total / normalizers[name].to(total.dtype).clamp(min=1e-12) for name, total in totals.items()
    ]
    return torch.stack(parts).sum()


def _agree(
    terms: Mapping[str, LossTerm], procs: Processes, stop: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor], bool]:
    """Sums of totals and normalisers over processes, and whether any wants to stop: one collective."""
    names = list(terms)
    device = terms[names[0]].total.device
    values = [terms[name].total.detach().double() for name in names]
    values += [terms[name].normalizer.detach().double() for name in names]
    packed = procs.sum(torch.stack([*values, torch.tensor(float(stop), dtype=torch.float64, device=device)]))
    count = len(names)
    totals = dict(zip(names, packed[:count], strict=True))
    normalizers = dict(zip(names, packed[count : 2 * count], strict=True))
    return totals, normalizers, bool(packed[-1] > 0)


def _sum_tables(tables: Sequence[Mapping[str, Tensor]], procs: Processes) -> dict[str, Tensor]:
    """Normalisers summed over batches and processes."""
    names = list(tables[0])
    packed = procs.sum(torch.stack([torch.stack([table[name].double() for table in tables]).sum() for name in names]))
    return dict(zip(names, packed, strict=True))
