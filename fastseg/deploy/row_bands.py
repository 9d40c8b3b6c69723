"""The stages that see the image itself, computed a band of rows at a time.

Their maps are the largest of a network. Those of a band fit into the processor's cache, and none is so large that the
allocator hands its memory back to the system and gets it anew, zeroed, for the next one.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastseg.deploy.fold import probe_images, replace

BAND_PIXELS = 2**18  # of the image in a band: 128 rows of a Cityscapes image
MIN_ROWS = 8  # of the result in a band; fewer would be computed mostly for their neighbours' sake
PROBE_ROWS = 256


@dataclass(frozen=True)
class Reach:
    """Row i of the result depends on the input's rows from `i * stride - before` to `i * stride + after`, no others."""

    stride: int
    before: int
    after: int


class RowBands(nn.Module):
    """`stage`, which maps (N,C,H,W) to (N,C',ceil(H/stride),w), computed in bands of rows with all that they depend on.

    Results are those of the whole, apart from how convolutions round at different sizes. Small images, and those on
    other devices than a CPU, are computed as a whole.
    """

    def __init__(self, stage: nn.Module, reach: Reach) -> None:
        super().__init__()
        self.stage = stage
        self.reach = reach

    def forward(self, x: Tensor) -> Tensor:
        rows = max(MIN_ROWS, BAND_PIXELS // (x.shape[-1] * self.reach.stride)) if self._pays(x) else 0
        return self.in_bands(x, rows) if rows else self.stage(x)

    def in_bands(self, x: Tensor, rows: int) -> Tensor:
        """The stage's result, `rows` of its rows at a time."""
        stride, before, after = self.reach.stride, self.reach.before, self.reach.after
        count, _, height, _ = x.shape
        total = -(-height // stride)
        result: Tensor | None = None
        for image in range(count):
            for first in range(0, total, rows):
                last = min(first + rows, total)
                # from a multiple of the stride, so that the band's rows are those that the whole would have computed
                start = max(0, first - -(-before // stride)) * stride
                band = self.stage(x[image : image + 1, :, start : (last - 1) * stride + after + 1])
                skipped = first - start // stride
                band = band[:, :, skipped : skipped + last - first]
                if result is None:
                    shape = (count, band.shape[1], total, band.shape[3])
                    result = torch.empty(
                        shape, dtype=band.dtype, device=band.device, memory_format=torch.channels_last
                    )
                result[image : image + 1, :, first:last] = band
        return self.stage(x) if result is None else result

    def _pays(self, x: Tensor) -> bool:
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or x.device.type != "cpu" or x.ndim != 4:
            return False
        return x.shape[-2] * x.shape[-1] >= 2 * BAND_PIXELS and not (torch.is_grad_enabled() and x.requires_grad)


def use_row_bands(network: nn.Module) -> None:
    """Compute in bands what in `network` takes the image, makes a smaller map of it in several steps, and is local."""
    found: dict[nn.Module, nn.Module] = {}
    parts: set[nn.Module] = set()
    for module, channels in _stages_on_the_image(network):
        reach = None if module in parts else reach_of(module, channels)
        if reach is not None and reach.stride > 1:
            found[module] = RowBands(module, reach)
            parts.update(module.modules())
    replace(network, found)


def reach_of(stage: nn.Module, channels: int) -> Reach | None:
    """How far a row of the stage's result sees, found by trying; None if that depends on where the row is.

    Every row of an otherwise black image is lit in turn, in a copy of the stage whose weights are all positive, so that
    nothing cancels: the result's rows that light up are those that depend on it.
    """
    probe = copy.deepcopy(stage).double()
    for name, tensor in (*probe.named_parameters(), *probe.named_buffers()):
        tensor.data.fill_(0 if name.endswith(("bias", "running_mean")) else 1)
    like = next(probe.parameters())
    images = torch.eye(PROBE_ROWS, dtype=like.dtype, device=like.device)[:, None, :, None]
    with torch.no_grad():
        lit = probe(images.expand(-1, channels, -1, -1).contiguous()).abs().sum((1, 3)) != 0
    stride = PROBE_ROWS // lit.shape[1]
    if PROBE_ROWS % lit.shape[1] or not lit.any(0).all():
        return None
    columns = lit.T.int()
    first = columns.argmax(1)
    last = PROBE_ROWS - 1 - columns.flip(1).argmax(1)
    place = torch.arange(lit.shape[1], device=lit.device) * stride
    before, after = int((place - first).max()), int((last - place).max())
    inside = (place >= before) & (place + after < PROBE_ROWS)
    same = ((place - first)[inside] == before).all() and ((last - place)[inside] == after).all()
    return Reach(stride, before, after) if same and inside.sum() > 1 else None


def _stages_on_the_image(network: nn.Module) -> list[tuple[nn.Module, int]]:
    """Modules that make one map of the network's image alone by several convolutions, outer ones first, and its
    channels. Convolutions that a kernel does in one go do not run as modules, and do not count."""
    images = next(probe_images(network))
    ran: set[nn.Module] = set()
    takers: set[nn.Module] = set()

    def look(module: nn.Module, args: tuple[object, ...], result: object) -> None:
        ran.add(module)
        if len(args) == 1 and args[0] is images and isinstance(result, Tensor):
            takers.add(module)

    hooks = [module.register_forward_hook(look) for module in network.modules()]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        (module, images.shape[1])
        for module in network.modules()
        if module in takers and sum(part in ran for part in module.modules() if isinstance(part, nn.Conv2d)) > 1
    ]
