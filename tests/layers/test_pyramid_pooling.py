"""Pyramid pooling: the pooled grids are those of torch's adaptive pooling, at every size and in an exported program."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from descriptions import Weights, assert_same, uneven, upsample
from fastseg.layers.pyramid_pooling import (
    PreactivationPyramidPooling,
    PyramidPooling,
    adaptive_average_pool,
    grid_for,
    pyramid_pool_sum,
)


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


@given(height=st.integers(1, 500), width=st.integers(1, 500), rows=st.integers(1, 16))
def test_cells_of_an_aspect_preserving_grid_are_as_square_as_whole_columns_allow(
    height: int, width: int, rows: int
) -> None:
    x = torch.empty(1, 1, height, width, device="meta")
    given_rows, columns = grid_for(x, rows, aspect=True)
    exact = Fraction(rows * width, height)
    assert given_rows == rows
    assert columns >= 1
    assert abs(columns - exact) <= Fraction(1, 2) or (columns == 1 and exact < 1)
    assert grid_for(x, rows, aspect=False) == (rows, rows)


@pytest.mark.parametrize(
    ("size", "grids"),
    [
        ((32, 64), [(8, 16), (4, 8), (2, 4), (1, 2)]),
        ((64, 32), [(8, 4), (4, 2), (2, 1), (1, 1)]),
        ((8, 11), [(8, 11), (4, 6), (2, 3), (1, 1)]),  # 5.5 and 2.75 columns
        ((40, 1), [(8, 1), (4, 1), (2, 1), (1, 1)]),
    ],
)
def test_grids_of_known_maps(size: tuple[int, int], grids: list[tuple[int, int]]) -> None:
    x = torch.empty(1, 1, *size, device="meta")
    assert [grid_for(x, rows, aspect=True) for rows in (8, 4, 2, 1)] == grids


def grids_seen(module: PyramidPooling | PreactivationPyramidPooling, x: torch.Tensor) -> list[tuple[int, ...]]:
    seen: list[tuple[int, ...]] = []
    for branch in module.branches:
        branch.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    module.eval()(x)
    return seen


def test_aspect_changes_the_grids_and_nothing_else() -> None:
    x = torch.randn(1, 8, 6, 9)
    assert grids_seen(PyramidPooling(8, 5, bins=(1, 4)), x) == [(1, 8, 1, 1), (1, 8, 4, 4)]
    assert grids_seen(PyramidPooling(8, 5, bins=(1, 4), aspect=True), x) == [(1, 8, 1, 2), (1, 8, 4, 6)]
    square, aspect = PyramidPooling(8, 5).eval(), PyramidPooling(8, 5, aspect=True).eval()
    aspect.load_state_dict(square.state_dict())
    torch.testing.assert_close(aspect(x[..., :6]), square(x[..., :6]))


def test_branches_have_the_channels_asked_for() -> None:
    assert [b.conv.out_channels for b in PyramidPooling(8, 5, bins=(1, 2, 3)).branches] == [2, 2, 2]  # type: ignore[union-attr]
    assert [b.conv.out_channels for b in PyramidPooling(2, 5, bins=(1, 2, 3)).branches] == [1, 1, 1]  # type: ignore[union-attr]
    module = PyramidPooling(8, 5, bins=(1, 2, 3), branch_channels=7)
    assert module.fuse.conv.in_channels == 8 + 3 * 7


def test_the_preactivation_form_is_swiftnets() -> None:
    module = PreactivationPyramidPooling(512, 128)
    assert grids_seen(module, torch.randn(1, 512, 4, 6)) == [(1, 128, 8, 12), (1, 128, 4, 6), (1, 128, 2, 3)]
    assert [name for name, _ in module.bottleneck.named_children()] == ["bn", "act", "conv"]
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [norm.num_features for norm in norms] == [512, 128, 128, 128, 254]
    assert {norm.momentum for norm in norms} == {0.005}
    assert [m.out_channels for m in module.modules() if isinstance(m, nn.Conv2d)] == [128, 42, 42, 42, 128]
    assert module(torch.randn(1, 512, 3, 2)).min() < 0  # no ReLU after the last convolution


def test_the_preactivation_form_leaves_the_map_alone() -> None:
    x = torch.randn(2, 8, 5, 6)
    before = x.clone()
    PreactivationPyramidPooling(8, 4)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_sum_adds_every_grid_once(align_corners: bool) -> None:
    x = torch.randn(2, 3, 7, 9)
    expected = x.clone()
    for bins in (1, 3):
        pooled = F.adaptive_avg_pool2d(x, bins)
        expected += F.interpolate(pooled, size=(7, 9), mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(pyramid_pool_sum(x, (1, 3), align_corners=align_corners), expected)


def test_the_sum_of_a_constant_map_is_that_constant_five_times() -> None:
    torch.testing.assert_close(pyramid_pool_sum(torch.full((1, 2, 5, 8), 3.0)), torch.full((1, 2, 5, 8), 15.0))


class PoolSum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return pyramid_pool_sum(x)


@pytest.mark.parametrize("traced", [(5, 9), (20, 7)], ids=str)  # several columns everywhere; one in the coarse grids
@pytest.mark.parametrize(
    "module",
    [
        PyramidPooling(6, 4, aspect=True, bins=(1, 2, 4), align_corners=True),
        PreactivationPyramidPooling(6, 4, bottleneck_channels=5, branch_channels=3),
        PyramidPooling(6, 4),
        PoolSum(),
    ],
    ids=["aspect", "preactivation", "square", "sum"],
)
def test_an_exported_program_pools_maps_of_every_shape(module: nn.Module, traced: tuple[int, int]) -> None:
    module = module.eval()
    dynamic = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        x = torch.randn(1, 6, *traced)
        program = torch.export.export(module, (x,), dynamic_shapes=(dynamic,)).module()
        for size in ((5, 9), (20, 7), (16, 16), (4, 50), (100, 2), (2, 2), (13, 8)):
            x = torch.randn(1, 6, *size)
            torch.testing.assert_close(program(x), module(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 24), (9, 13), (3, 2)])
@pytest.mark.parametrize(("aspect", "fuse_kernel_size", "align_corners"), [(False, 3, True), (True, 1, False)])
def test_the_module_is_its_description(
    aspect: bool, fuse_kernel_size: int, align_corners: bool, size: tuple[int, int]
) -> None:
    module = PyramidPooling(
        8, 6, bins=(1, 2, 4), aspect=aspect, fuse_kernel_size=fuse_kernel_size, align_corners=align_corners
    )
    uneven(module)
    weights, x = Weights(module), torch.randn(2, 8, *size, dtype=torch.float64)
    maps = [x]
    for place, rows in enumerate((1, 2, 4)):
        columns = max(1, round(Fraction(rows * size[1], size[0]))) if aspect else rows
        branch = weights.conv_norm_relu(f"branches.{place}", F.adaptive_avg_pool2d(x, (rows, columns)))
        maps.append(upsample(branch, x, align_corners=align_corners))
    expected = weights.conv_norm_relu("fuse", torch.cat(maps, 1))
    assert not weights.unread
    with torch.no_grad():
        assert_same(module(x), expected)


@pytest.mark.parametrize("size", [(16, 24), (9, 13), (3, 2)])
@pytest.mark.parametrize("align_corners", [False, True])
def test_the_preactivation_form_is_its_description(align_corners: bool, size: tuple[int, int]) -> None:
    module = PreactivationPyramidPooling(8, 6, bottleneck_channels=7, branch_channels=3, align_corners=align_corners)
    uneven(module)
    weights, x = Weights(module), torch.randn(2, 8, *size, dtype=torch.float64)
    reduced = weights.norm_relu_conv("bottleneck", x)
    maps = [reduced]
    for place, rows in enumerate((8, 4, 2)):
        columns = max(1, round(Fraction(rows * size[1], size[0])))
        branch = weights.norm_relu_conv(f"branches.{place}", F.adaptive_avg_pool2d(reduced, (rows, columns)))
        maps.append(upsample(branch, x, align_corners=align_corners))
    expected = weights.norm_relu_conv("fuse", torch.cat(maps, 1))
    assert not weights.unread
    with torch.no_grad():
        assert_same(module(x), expected)
