"""The stages that see the image itself, computed a band of rows at a time.

Their maps are the largest of a network, and glibc hands the memory of a large map back to the system, to get it anew
and zeroed for the next one. Those of a band are smaller. Where that memory is kept in any case (`fastseg.tune_cpu`),
the rows that neighbouring bands have in common cost more than a warm cache saves, and the whole is computed at once.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastseg import memory
from fastseg.deploy.conv import InferenceConv2d
from fastseg.deploy.fold import probe_images, replace
from fastseg.layers.conv import Subsample

HANDED_BACK = 32 * 2**20  # bytes; glibc keeps smaller blocks, in time
BAND_BYTES = 12 * 2**20  # of the largest map of a band
MIN_ROWS = 4  # of the result in a band; fewer would be computed mostly for their neighbours' sake
PROBE_ROWS, PROBE_COLUMNS = 128, 4
LOCAL = (InferenceConv2d, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Identity, Subsample)


@dataclass(frozen=True)
class Reach:
    """Row i of the result depends on the input's rows from `i * stride - before` to `i * stride + after`, no others."""

    stride: int
    before: int
    after: int


class RowBands(nn.Module):
    """`stage`, which maps (N,C,H,W) to (N,C',ceil(H/stride),w), computed in bands of rows with all that they depend on.

    Its largest map has `values` numbers for each pixel of the image, 8 being 32 channels at half the size. Results are
    the whole's, apart from how convolutions round at different sizes. Where bands do not pay, and while exporting, the
    whole is computed.
    """

    def __init__(self, stage: nn.Module, reach: Reach, values: float = 8.0) -> None:
        super().__init__()
        self.stage = stage
        self.reach = reach
        self.values = values

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or not self._pays(x):
            return self.stage(x)
        row_bytes = self.values * x.element_size() * x.shape[-1] * self.reach.stride
        return self.in_bands(x, max(MIN_ROWS, int(BAND_BYTES / row_bytes)))

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
                    result = torch.empty(shape, dtype=band.dtype, device=band.device, memory_format=torch.channels_last)
                result[image : image + 1, :, first:last] = band
        return self.stage(x) if result is None else result

    def _pays(self, x: Tensor) -> bool:
        if x.device.type != "cpu" or x.ndim != 4 or (torch.is_grad_enabled() and x.requires_grad):
            return False
        largest = self.values * x.element_size() * x.shape[-2] * x.shape[-1]
        return largest > HANDED_BACK and not memory.pages_are_kept()


def use_row_bands(network: nn.Module) -> None:
    """Compute in bands what in `network` takes the image, makes a smaller map of it in several steps, and is local."""
    images = next(probe_images(network))
    found: dict[nn.Module, nn.Module] = {}
    parts: set[nn.Module] = set()
    for stage, values in _stages_on(images, network):
        if isinstance(stage, RowBands):
            parts.update(stage.modules())
        reach = reach_of(stage, images.shape[1]) if stage not in parts and _is_local(stage) else None
        if reach is not None and reach.stride > 1:
            found[stage] = RowBands(stage, reach, values)
            parts.update(stage.modules())
    replace(network, found)


def _is_local(stage: nn.Module) -> bool:
    """Whether the stage is a sequence of what is known to look at neighbours alone: no gate sees the whole map."""
    if isinstance(stage, nn.Sequential) and type(stage).forward is nn.Sequential.forward:
        return all(_is_local(part) for part in stage)
    return type(stage) in LOCAL


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
    try:
        with torch.no_grad():
            shorter = probe(images[:1, :, 1:].expand(-1, channels, -1, PROBE_COLUMNS).contiguous())
            lit = probe(images.expand(-1, channels, -1, PROBE_COLUMNS).contiguous()).abs().sum((1, 3)) != 0
    except RuntimeError:  # without padding, images can be too small
        return None
    stride = PROBE_ROWS // lit.shape[1]
    if PROBE_ROWS % lit.shape[1] or shorter.shape[2] != lit.shape[1] - (stride == 1) or not lit.any(0).all():
        return None
    columns = lit.T.int()
    first = columns.argmax(1)
    last = PROBE_ROWS - 1 - columns.flip(1).argmax(1)
    place = torch.arange(lit.shape[1], device=lit.device) * stride
    before, after = int((place - first).max()), int((last - place).max())
    inside = (place >= before) & (place + after < PROBE_ROWS)
    same = ((place - first)[inside] == before).all() and ((last - place)[inside] == after).all()
    return Reach(stride, before, after) if same and inside.sum() > 1 else None


def _stages_on(images: Tensor, network: nn.Module) -> list[tuple[nn.Module, float]]:
    """Modules that make one map of the images alone by several convolutions, outer ones first, and how many numbers the
    largest result of these has for each pixel. What a kernel does in one go does not run as modules, and counts not."""
    sizes: dict[nn.Module, int] = {}
    takers: set[nn.Module] = set()

    def look(module: nn.Module, args: tuple[object, ...], result: object) -> None:
        if isinstance(result, Tensor):
            sizes[module] = result.numel()
            if len(args) == 1 and args[0] is images:
                takers.add(module)

    hooks = [module.register_forward_hook(look) for module in network.modules()]
    try:
        with torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    stages = []
    for stage in network.modules():
        steps = [sizes[part] for part in stage.modules() if isinstance(part, nn.Conv2d) and part in sizes]
        if stage in takers and len(steps) > 1:
            stages.append((stage, max(steps) / images[:, 0].numel()))
    return stages
