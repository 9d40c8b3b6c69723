"""Pyramid pooling: the pooled grids are those of torch's adaptive pooling, at every size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.layers.pyramid_pooling import PyramidPooling, adaptive_average_pool


@given(size=st.tuples(st.integers(1, 40), st.integers(1, 40)), bins=st.tuples(st.integers(1, 8), st.integers(1, 8)))
@settings(max_examples=80, deadline=None)
def test_it_equals_adaptive_average_pooling_also_below_the_number_of_bins(
    size: tuple[int, int], bins: tuple[int, int]
) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(size)))
    torch.testing.assert_close(adaptive_average_pool(x, bins), F.adaptive_avg_pool2d(x, bins), rtol=1e-12, atol=1e-12)


def test_its_gradient_is_right() -> None:
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: adaptive_average_pool(x, (3, 6)), (x,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_dtype_stays_and_sums_run_in_float32(dtype: torch.dtype) -> None:
    # 4096 halves of 8: their sum leaves float16's range, so pooling in float16 would give inf
    x = torch.full((1, 1, 128, 128), 8.0, dtype=dtype)
    pooled = adaptive_average_pool(x, (2, 2))
    assert pooled.dtype == dtype
    assert torch.equal(pooled, torch.full((1, 1, 2, 2), 8.0, dtype=dtype))


def test_autocast_does_not_round_it() -> None:
    x = torch.rand(1, 2, 30, 30)
    with torch.autocast("cpu", torch.bfloat16):
        pooled = adaptive_average_pool(x, (3, 3))
    torch.testing.assert_close(pooled, F.adaptive_avg_pool2d(x, 3), rtol=1e-5, atol=1e-6)


def test_it_runs_on_the_meta_device() -> None:
    assert adaptive_average_pool(torch.zeros(2, 3, 9, 7, device="meta"), (6, 6)).shape == (2, 3, 6, 6)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (6, 6), (9, 13)])
@pytest.mark.parametrize("fuse_kernel_size", [1, 3])
def test_the_module_keeps_the_maps_size(size: tuple[int, int], fuse_kernel_size: int) -> None:
    module = PyramidPooling(8, 5, fuse_kernel_size=fuse_kernel_size).eval()
    assert module(torch.randn(1, 8, *size)).shape == (1, 5, *size)


def test_a_constant_map_pools_to_the_same_constant_in_every_branch() -> None:
    module = PyramidPooling(4, 2, bins=(1, 2)).eval()
    seen: list[torch.Tensor] = []
    for branch in module.branches:
        branch.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(torch.full((1, 4, 5, 7), 3.0))
    assert [tuple(x.shape[-2:]) for x in seen] == [(1, 1), (2, 2)]
    for x in seen:
        torch.testing.assert_close(x, torch.full_like(x, 3.0))


def test_alignment_reaches_the_upsampling() -> None:
    torch.manual_seed(0)
    one, other = PyramidPooling(4, 2).eval(), PyramidPooling(4, 2, align_corners=True).eval()
    other.load_state_dict(one.state_dict())
    x = torch.randn(1, 4, 11, 13)
    assert not torch.allclose(one(x), other(x))
