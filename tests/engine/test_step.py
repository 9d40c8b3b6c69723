"""The gradient of a step is the same on one process and on two, in one batch and in several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastseg.config import OptimConfig
from fastseg.engine.distributed import Processes
from fastseg.engine.optimizer import build_optimizer
from fastseg.engine.step import StepResult, backward
from fastseg.layers.norm import convert_norm
from fastseg.losses import LOSSES, SegLoss
from fastseg.models import create_model
from fastseg.types import SegModel, SegOutput
from workers import TwoProcesses

K = 4
STEPS = 6
CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)
WEIGHTS = [0.5, 1.0, 2.0, 4.0]
# share of ignored pixels on either process, step by step; both or one of them may see nothing but void
IGNORED = [(0.0, 0.5), (0.0, 1.0), (0.5, 1.0), (1.0, 0.0), (0.5, 0.0), (0.0, 0.5)]


class SmallNet(SegModel):
    """Strided convolution, batch norm, main and auxiliary output."""

    def __init__(self, *, norm: bool = True) -> None:
        super().__init__()
        self.num_classes = K
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8) if norm else nn.Identity()
        self.head = nn.Conv2d(8, K, 1)
        self.aux_heads = nn.ModuleDict({"side": nn.Conv2d(8, K, 3, padding=1)})

    def forward(self, images: Tensor) -> SegOutput:
        x = torch.relu(self.norm(self.stem(images)))
        return SegOutput(self.head(x), {name: head(x) for name, head in self.aux_heads.items() if self.training})


class Setting(NamedTuple):
    """What a run of some steps consists of."""

    model: str = "small"
    loss: str = "cross_entropy"
    args: Mapping[str, Any] = {}
    dtype: torch.dtype = torch.float64
    norm: str = "gloo"
    count_locally: bool = False
    size: tuple[int, int] = (12, 16)


def make_model(setting: Setting) -> SegModel:
    torch.manual_seed(0)
    if setting.model == "small":
        return SmallNet().to(setting.dtype)
    return create_model(setting.model, num_classes=K, aux=True, dropout=0.0).to(setting.dtype)


def make_loss(model: SegModel, name: str = "cross_entropy", args: Mapping[str, Any] | None = None) -> SegLoss:
    weights = dict.fromkeys(model.aux_names, 0.4)
    return SegLoss(LOSSES.build(name, **(args or {})), aux_weights=weights, aux_names=model.aux_names)


def make_batch(step: int, setting: Setting) -> tuple[Tensor, Tensor]:
    """4 images and labels; the first half, process 0's, has another share of ignored pixels than the second."""
    random = torch.Generator().manual_seed(step)
    images = torch.randn(4, 3, *setting.size, generator=random, dtype=torch.float64).to(setting.dtype)
    labels = torch.randint(0, K, (4, *setting.size), generator=random)
    chance = torch.rand(4, *setting.size, generator=random)
    shares = torch.tensor(IGNORED[step]).repeat_interleave(2)[:, None, None]
    return images, labels.masked_fill(chance < shares, 255)


def train_steps(setting: Setting) -> tuple[list[dict[str, float]], dict[str, Tensor], list[Tensor]]:
    """Losses of all steps, the state after them and the last gradients: alone, or as one of two processes."""
    procs = Processes(dist.get_rank(), dist.get_world_size(), CPU) if dist.is_initialized() else ALONE
    plain = make_model(setting).train()
    seg_loss = make_loss(plain, setting.loss, setting.args)
    model: nn.Module = plain
    if procs.world_size > 1:
        plain = convert_norm(plain, setting.norm)  # type: ignore[assignment]
        model = DistributedDataParallel(plain)
    optimizer = build_optimizer(plain, OptimConfig(lr=0.05, weight_decay=1e-3))
    losses = []
    for step in range(STEPS):
        images, labels = make_batch(step, setting)
        share = torch.arange(4).tensor_split(procs.world_size)[procs.rank]  # of three processes, one has two images
        optimizer.zero_grad(set_to_none=True)
        batch = [(images[share], labels[share])]
        result = backward(model, seg_loss, batch, ALONE if setting.count_locally else procs)
        optimizer.step()
        losses.append(result.losses)
    gradients = [p.grad for p in plain.parameters() if p.grad is not None]
    return losses, plain.state_dict(), gradients


def largest_difference(one: Any, other: Any) -> float:
    """Over losses, state and gradients that `train_steps` returns, relative to the larger of 1 and the value."""
    pairs = [
        (torch.tensor(a[name]), torch.tensor(b[name])) for a, b in zip(one[0], other[0], strict=True) for name in a
    ]
    assert one[1].keys() == other[1].keys()
    pairs += [(value, other[1][name]) for name, value in one[1].items()]
    pairs += zip(one[2], other[2], strict=True)
    return max(float(((a - b).abs() / b.abs().clamp(min=1)).max()) for a, b in pairs)


SETTINGS = {
    "cross_entropy": Setting(),
    "class_weights": Setting(args={"class_weights": WEIGHTS}),
    "ohem": Setting(loss="ohem_cross_entropy", args={"threshold": 0.3, "min_kept": 20}),
    "ohem_class_weights": Setting(loss="ohem_cross_entropy", args={"min_kept": 9, "class_weights": WEIGHTS}),
    "class_boundary": Setting(loss="class_boundary", args={"radius": 1}),
    "fast_scnn": Setting(model="fast_scnn", size=(40, 72)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_equal_one(two_processes: TwoProcesses, name: str) -> None:
    whole = train_steps(SETTINGS[name])
    assert whole[0][0]["loss"] > 0
    for rank in two_processes(train_steps, SETTINGS[name]):
        assert largest_difference(rank, whole) < 1e-12


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("cross_entropy", "ohem_class_weights") else pytest.param(name, marks=pytest.mark.slow)
        for name in SETTINGS
    ],
)
def test_three_processes_with_unequal_shares_equal_one(three_processes: TwoProcesses, name: str) -> None:
    whole = train_steps(SETTINGS[name])
    for rank in three_processes(train_steps, SETTINGS[name]):
        assert largest_difference(rank, whole) < 1e-12


def test_two_processes_equal_one_in_float32(two_processes: TwoProcesses) -> None:
    setting = Setting(dtype=torch.float32)
    whole = train_steps(setting)
    assert max(largest_difference(rank, whole) for rank in two_processes(train_steps, setting)) < 1e-5


@pytest.mark.parametrize("name", ["cross_entropy", "fast_scnn"])
def test_statistics_per_process_would_differ(two_processes: TwoProcesses, name: str) -> None:
    whole = train_steps(SETTINGS[name])
    rank, _ = two_processes(train_steps, SETTINGS[name]._replace(norm="bn"))
    assert largest_difference(rank, whole) > 1e-4


@pytest.mark.parametrize("name", ["cross_entropy", "class_weights", "ohem"])
def test_a_mean_per_process_would_differ(two_processes: TwoProcesses, name: str) -> None:
    whole = train_steps(SETTINGS[name])
    rank, _ = two_processes(train_steps, SETTINGS[name]._replace(count_locally=True))
    assert largest_difference(rank, whole) > 1e-4


def six_images() -> tuple[SegModel, Tensor, Tensor]:
    """A network without batch norm, and images whose labels are void by half, wholly, hardly or not at all."""
    torch.manual_seed(0)
    model = SmallNet(norm=False).double().train()
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    labels = torch.randint(0, K, (6, 8, 8))
    labels[0, :4], labels[1], labels[4, 1:] = 255, 255, 255
    return model, images, labels


def accumulate(parts: int, name: str = "cross_entropy", args: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
    """Losses and gradients of one step of 6 images in `parts` batches, alone or over two processes' 3 images each."""
    plain, images, labels = six_images()
    model: nn.Module = plain
    procs = ALONE
    if dist.is_initialized():
        procs, model = Processes(dist.get_rank(), 2, CPU), DistributedDataParallel(plain)
        images, labels = images[procs.rank :: 2], labels[procs.rank :: 2]
    batches = list(zip(images.chunk(parts), labels.chunk(parts), strict=True))
    result = backward(model, make_loss(plain, name, args), batches, procs)
    return result.losses, [p.grad for p in plain.parameters()]


@pytest.mark.parametrize("args", [{}, {"class_weights": WEIGHTS}], ids=["plain", "class_weights"])
@pytest.mark.parametrize("parts", [2, 3, 6])
def test_accumulated_batches_equal_one_batch(parts: int, args: dict[str, Any]) -> None:
    (losses, gradients), (whole_losses, whole_gradients) = accumulate(parts, args=args), accumulate(1, args=args)
    assert losses == pytest.approx(whole_losses, rel=1e-12)
    for gradient, whole in zip(gradients, whole_gradients, strict=True):
        assert torch.allclose(gradient, whole, rtol=0, atol=1e-12)


def test_accumulation_on_two_processes_equals_one_batch(two_processes: TwoProcesses) -> None:
    whole_losses, whole_gradients = accumulate(1)
    for losses, gradients in two_processes(accumulate, 3):
        assert losses == pytest.approx(whole_losses, rel=1e-12)
        for gradient, whole in zip(gradients, whole_gradients, strict=True):
            assert torch.allclose(gradient, whole, rtol=0, atol=1e-12)


def test_ohem_accumulates_the_mean_of_the_batches() -> None:
    # pixels are chosen batch by batch, so here several batches are by definition their mean, not one larger batch
    hard = {"threshold": 0.3, "min_kept": 5}
    losses, _ = accumulate(2, "ohem_cross_entropy", hard)
    model, images, labels = six_images()
    seg_loss = make_loss(model, "ohem_cross_entropy", hard)
    halves = zip(images.chunk(2), labels.chunk(2), strict=True)
    means = [seg_loss(model(x), y)["main"].mean().item() for x, y in halves]
    assert losses["main"] == pytest.approx(sum(means) / 2, rel=1e-12)


def test_logged_terms_are_the_optimised_ones() -> None:
    model = SmallNet().double().train()
    images, labels = make_batch(0, Setting())
    result = backward(model, make_loss(model), [(images, labels)], ALONE)
    assert result.losses["loss"] == pytest.approx(result.losses["main"] + 0.4 * result.losses["aux.side"], rel=1e-12)
    output = model(images)
    logits = nn.functional.interpolate(output.logits, (12, 16), mode="bilinear")
    assert result.losses["main"] == pytest.approx(
        nn.functional.cross_entropy(logits, labels, ignore_index=255).item(), rel=1e-12
    )


def test_nothing_but_void_gives_zero_loss_and_zero_gradient() -> None:
    model = SmallNet().train()
    images, labels = torch.randn(2, 3, 8, 8), torch.full((2, 8, 8), 255)
    result = backward(model, make_loss(model), [(images, labels)], ALONE)
    assert result == StepResult({"loss": 0.0, "main": 0.0, "aux.side": 0.0}, finite=True, stop=False)
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_the_loss_scale_scales_the_gradient_and_not_the_log() -> None:
    model = SmallNet().double().eval()  # eval: the second pass sees what the first saw
    model.aux_heads = nn.ModuleDict()
    images, labels = make_batch(0, Setting())
    plain = backward(model, make_loss(model), [(images, labels)], ALONE)
    before = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    scaled = backward(model, make_loss(model), [(images, labels)], ALONE, scale=lambda loss: loss * 8)
    assert scaled.losses == plain.losses
    for one, eight in zip(before, [p.grad for p in model.parameters()], strict=True):
        assert eight is not None
        assert torch.equal(one * 8, eight)


def poison_second_process(batches: int) -> dict[str, Any]:
    """A good step, one with a NaN in process 1's last batch, and a good one again."""
    torch.manual_seed(0)
    rank = dist.get_rank()
    procs = Processes(rank, 2, CPU)
    plain: Any = convert_norm(SmallNet().train(), "gloo")
    seg_loss = make_loss(plain)
    model = DistributedDataParallel(plain)
    optimizer = build_optimizer(plain, OptimConfig(lr=0.05))
    seen = []
    for poisoned in (False, True, False):
        before = {name: value.clone() for name, value in plain.named_buffers()}
        optimizer.zero_grad(set_to_none=True)
        parts = [(torch.randn(2, 3, 8, 8), torch.randint(0, K, (2, 8, 8))) for _ in range(batches)]
        if poisoned and rank == 1:
            parts[-1][0][0, 0, 0, 0] = float("nan")
        result = backward(model, seg_loss, parts, procs)
        kept = all(torch.equal(value, before[name]) for name, value in plain.named_buffers())
        seen.append((result.finite, kept))
        if result.finite:
            optimizer.step()
    finite = all(bool(torch.isfinite(value).all()) for value in plain.state_dict().values())
    return {"finite_kept": seen, "state_finite": finite, "weight": plain.head.weight.detach()}


@pytest.mark.parametrize("batches", [1, 2])
def test_a_nan_on_one_process_skips_the_step_on_both(two_processes: TwoProcesses, batches: int) -> None:
    ranks = two_processes(poison_second_process, batches)
    for rank in ranks:
        assert rank["finite_kept"] == [(True, False), (False, True), (True, False)]
        assert rank["state_finite"]
    assert torch.equal(ranks[0]["weight"], ranks[1]["weight"])


def stop_second_process() -> bool:
    model = SmallNet().train()
    batch = (torch.randn(2, 3, 8, 8), torch.randint(0, K, (2, 8, 8)))
    procs = Processes(dist.get_rank(), 2, CPU)
    return backward(model, make_loss(model), [batch], procs, stop=procs.rank == 1).stop


def test_a_stop_on_one_process_reaches_both(two_processes: TwoProcesses) -> None:
    assert two_processes(stop_second_process) == [True, True]
