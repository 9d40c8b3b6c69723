"""Batch norm over processes equals batch norm over the joined batch; norm kinds are chosen and refused in words."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastseg.engine.distributed import Processes
from fastseg.errors import DistributedError, MissingPackageError
from fastseg.layers.norm import NORM_KINDS, GlooBatchNorm2d, convert_norm, resolve_norm_kind
from workers import TwoProcesses

C = 5
STEPS = 3


def batches(dtype: torch.dtype, offset: float = 0.0) -> list[tuple[Tensor, Tensor]]:
    """Inputs of 4 images and the gradients of their outputs."""
    random = torch.Generator().manual_seed(0)
    shape = (4, C, 3, 2)
    return [
        tuple(torch.randn(shape, generator=random, dtype=torch.float64).mul(k).add(b).to(dtype) for k, b in scales)  # type: ignore[misc]
        for scales in [((2.0, offset), (1.0, 0.0))] * STEPS
    ]


def make_norm(kind: str, momentum: float | None, dtype: torch.dtype) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(C, momentum=momentum).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, C))
        norm.bias.copy_(torch.linspace(-1, 1, C))
    return convert_norm(norm, kind)  # type: ignore[return-value]


def run_norm(kind: str, momentum: float | None, dtype: torch.dtype, shares: list[slice], offset: float = 0) -> Any:
    """Outputs, input gradients, summed parameter gradients and buffers after some batches of this process's share."""
    alone = len(shares) == 1
    procs = Processes(0, 1, torch.device("cpu"))
    if not alone:
        procs = Processes(torch.distributed.get_rank(), 2, torch.device("cpu"))
    norm = make_norm(kind, momentum, dtype)
    outputs, gradients = [], []
    for x, grad in batches(dtype, offset):
        x, grad = x[shares[procs.rank]].clone().requires_grad_(), grad[shares[procs.rank]]
        out = norm(x)
        out.backward(grad)
        outputs.append(out.detach())
        gradients.append(x.grad)
    parameters = [procs.sum(p.grad.clone()) for p in norm.parameters() if p.grad is not None]
    return outputs, gradients, parameters, norm.state_dict()


def largest_difference(ranks: list[Any], whole: Any) -> float:
    """Between two processes' results and one's, over everything that `run_norm` returns."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for kind in (0, 1):
        joined = [torch.cat(parts) for parts in zip(*(rank[kind] for rank in ranks), strict=True)]
        pairs += zip(joined, whole[kind], strict=True)
    for rank in ranks:
        pairs += zip(rank[2], whole[2], strict=True)
        pairs += [(rank[3][name], whole[3][name]) for name in whole[3]]
    return max(float((a - b).abs().max()) for a, b in pairs)


EVEN, UNEVEN = [slice(0, 2), slice(2, 4)], [slice(0, 1), slice(1, 4)]


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shares", [EVEN, UNEVEN], ids=["2+2", "1+3"])
def test_two_processes_equal_one_with_the_joined_batch(
    two_processes: TwoProcesses, shares: list[slice], momentum: float | None
) -> None:
    whole = run_norm("bn", momentum, torch.float64, [slice(None)])
    ranks = two_processes(run_norm, "gloo", momentum, torch.float64, shares)
    assert largest_difference(ranks, whole) < 1e-12
    assert int(ranks[0][3]["num_batches_tracked"]) == STEPS


def test_float32_is_as_exact_as_float32_is(two_processes: TwoProcesses) -> None:
    whole = run_norm("bn", 0.1, torch.float32, [slice(None)])
    assert largest_difference(two_processes(run_norm, "gloo", 0.1, torch.float32, UNEVEN), whole) < 1e-5


def test_a_large_mean_does_not_cancel_the_variance(two_processes: TwoProcesses) -> None:
    # E[x^2] - E[x]^2 in float32 at a mean of 4000 has an error of about 1, against a variance of 4
    exact = run_norm("bn", 0.1, torch.float64, [slice(None)], 4000.0)
    ranks = two_processes(run_norm, "gloo", 0.1, torch.float32, UNEVEN, 4000.0)
    for rank in ranks:
        assert torch.allclose(rank[3]["running_var"].double(), exact[3]["running_var"], rtol=1e-3)


def test_plain_norms_do_not_pass_as_synchronised(two_processes: TwoProcesses) -> None:
    whole = run_norm("bn", 0.1, torch.float64, [slice(None)])
    assert largest_difference(two_processes(run_norm, "bn", 0.1, torch.float64, EVEN), whole) > 1e-2


def run_modes(x: Tensor) -> bool:
    """Whether eval on two processes is plain batch norm, bit for bit, and bfloat16 comes back as bfloat16."""
    plain, shared = make_norm("bn", 0.1, torch.float32), make_norm("gloo", 0.1, torch.float32)
    same = torch.equal(plain.eval()(x), shared.eval()(x))
    return same and shared.train()(x.bfloat16()).dtype == torch.bfloat16


def test_eval_is_plain_batch_norm_and_keeps_the_dtype(two_processes: TwoProcesses) -> None:
    assert two_processes(run_modes, torch.randn(2, C, 3, 3)) == [True, True]


def test_one_process_is_plain_batch_norm() -> None:
    assert largest_difference(
        [run_norm("gloo", 0.1, torch.float64, [slice(None)])], run_norm("bn", 0.1, torch.float64, [slice(None)])
    ) == 0  # fmt: skip


def run_single_value() -> str:
    norm = make_norm("gloo", 0.1, torch.float32)
    images = 1 - torch.distributed.get_rank()
    try:
        norm(torch.randn(images, C, 1, 1))
    except DistributedError as error:
        return str(error)
    return ""


def test_a_single_value_over_all_processes_is_refused_on_each(two_processes: TwoProcesses) -> None:
    for message in two_processes(run_single_value):
        assert "single value per channel" in message
        assert "total batch of 2" in message


def test_checkpoints_of_all_norms_are_the_same() -> None:
    plain = nn.Sequential(nn.Conv2d(3, C, 1), nn.Sequential(nn.BatchNorm2d(C)))
    plain(torch.randn(2, 3, 4, 4))
    shared = convert_norm(nn.Sequential(nn.Conv2d(3, C, 1), nn.Sequential(nn.BatchNorm2d(C))), "gloo")
    shared.load_state_dict(plain.state_dict(), strict=True)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in shared.state_dict().items())
    plain.load_state_dict(shared.state_dict(), strict=True)


def test_conversion_keeps_parameters_mode_and_settings() -> None:
    class Special(nn.BatchNorm2d):
        pass

    norm = nn.BatchNorm2d(C, eps=1e-3, momentum=0.01).eval()
    model = nn.ModuleDict({"a": nn.Sequential(norm), "b": Special(C)})
    converted: Any = convert_norm(model, "gloo")
    new = converted["a"][0]
    assert type(new) is GlooBatchNorm2d
    assert (new.eps, new.momentum, new.training) == (1e-3, 0.01, False)
    assert new.weight is norm.weight  # an optimiser built before still holds it
    assert new.running_var is norm.running_var
    assert type(converted["b"]) is Special
    assert type(convert_norm(nn.BatchNorm2d(C), "gloo")) is GlooBatchNorm2d
    assert type(convert_norm(nn.BatchNorm2d(C), "bn")) is nn.BatchNorm2d
    assert type(convert_norm(nn.BatchNorm2d(C), "sync")) is nn.SyncBatchNorm


@pytest.mark.parametrize(
    ("kind", "world_size", "device_type", "expected"),
    [
        ("auto", 1, "cpu", "bn"),
        ("auto", 1, "cuda", "bn"),
        ("auto", 2, "cpu", "gloo"),
        ("auto", 2, "cuda", "sync"),
        ("bn", 2, "cpu", "bn"),
        ("gloo", 2, "cuda", "gloo"),
        ("sync", 2, "cuda", "sync"),
        ("apex", 2, "cuda", "apex"),
    ],
)
def test_kinds(kind: str, world_size: int, device_type: str, expected: str) -> None:
    assert resolve_norm_kind(kind, world_size=world_size, device_type=device_type) == expected


def test_an_unknown_kind_gets_the_nearest_spelling() -> None:
    with pytest.raises(DistributedError, match=r"train\.norm is 'sinc'; did you mean 'sync'\?"):
        resolve_norm_kind("sinc", world_size=1, device_type="cpu")


@pytest.mark.parametrize("kind", ["sync", "apex"])
def test_cuda_kinds_are_refused_on_the_cpu(kind: str) -> None:
    assert kind in NORM_KINDS
    with pytest.raises(DistributedError, match=rf"train\.norm={kind} runs on CUDA only.*use train\.norm=auto"):
        resolve_norm_kind(kind, world_size=2, device_type="cpu")


def test_missing_apex_names_the_right_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apex", None)
    monkeypatch.setitem(sys.modules, "apex.parallel", None)
    with pytest.raises(MissingPackageError, match=r"needs NVIDIA apex.*PyPI's 'apex' is another.*train\.norm=sync"):
        convert_norm(nn.BatchNorm2d(C), "apex")


def test_the_other_apex_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apex", ModuleType("apex"))
    monkeypatch.setitem(sys.modules, "apex.parallel", ModuleType("apex.parallel"))
    with pytest.raises(MissingPackageError, match=r"is not NVIDIA apex.*pip uninstall apex"):
        convert_norm(nn.BatchNorm2d(C), "apex")


def test_apex_converts_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    parallel: Any = ModuleType("apex.parallel")
    parallel.SyncBatchNorm = nn.SyncBatchNorm
    parallel.convert_syncbn_model = nn.SyncBatchNorm.convert_sync_batchnorm
    monkeypatch.setitem(sys.modules, "apex", ModuleType("apex"))
    monkeypatch.setitem(sys.modules, "apex.parallel", parallel)
    converted: Any = convert_norm(nn.Sequential(nn.BatchNorm2d(C)), "apex")
    assert type(converted[0]) is nn.SyncBatchNorm
