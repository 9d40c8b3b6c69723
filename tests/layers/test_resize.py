"""The library's only interpolation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from fastseg.layers.resize import resize

X = torch.arange(24, dtype=torch.float32).view(1, 2, 3, 4)


@pytest.mark.parametrize("align_corners", [False, True])
def test_bilinear_is_torchs_with_either_alignment(align_corners: bool) -> None:
    expected = F.interpolate(X, size=(5, 9), mode="bilinear", align_corners=align_corners)
    assert torch.equal(resize(X, (5, 9), align_corners=align_corners), expected)


def test_the_two_alignments_differ() -> None:
    assert not torch.allclose(resize(X, (5, 9), align_corners=True), resize(X, (5, 9)))


def test_like_lends_its_height_and_width_only() -> None:
    like = torch.zeros(7, 1, 5, 9)
    assert torch.equal(resize(X, like=like), resize(X, (5, 9)))


def keys_kernel(distance: float) -> float:
    """Keys' cubic convolution kernel with a = -0.75."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def keys_matrix(length: int, size: int) -> torch.Tensor:
    """Weights (size, length) of bicubic resizing along one axis; pixels beyond the border repeat the outermost."""
    weights = torch.zeros(size, length, dtype=torch.float64)
    for i in range(size):
        centre = (i + 0.5) * length / size - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            weights[i, min(max(tap, 0), length - 1)] += keys_kernel(centre - tap)
    return weights


@pytest.mark.parametrize("size", [(4, 6), (2, 3), (5, 4), (16, 24), (1, 1)], ids=str)
def test_bicubic_weighs_the_nearest_four_pixels_each_way_and_averages_no_others(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows, columns = keys_matrix(8, size[0]), keys_matrix(12, size[1])
    torch.testing.assert_close(resize(x, size, mode="bicubic"), rows @ x @ columns.T)


def test_bicubic_has_both_alignments() -> None:
    expected = F.interpolate(X, size=(5, 9), mode="bicubic", align_corners=True)
    assert torch.equal(resize(X, (5, 9), mode="bicubic", align_corners=True), expected)


def test_nearest_invents_no_values() -> None:
    labels = torch.tensor([[[[0, 255], [7, 3]]]], dtype=torch.uint8)
    assert resize(labels, (4, 4), mode="nearest").unique().tolist() == [0, 3, 7, 255]


def test_a_map_of_that_size_comes_back_itself() -> None:
    assert resize(X, (3, 4)) is X
    assert resize(X, like=X) is X


def test_exactly_one_of_size_and_like_is_wanted() -> None:
    with pytest.raises(ValueError, match="exactly one of size"):
        resize(X)
    with pytest.raises(ValueError, match="exactly one of size"):
        resize(X, (3, 4), like=X)


def test_an_export_does_not_freeze_whether_sizes_agree() -> None:
    class ToSecond(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return resize(x, like=y)

    dynamic = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(ToSecond(), (X, torch.zeros(1, 1, 5, 9)), dynamic_shapes=(dynamic, dynamic)).module()
    for size in ((3, 4), (5, 9), (3, 9), (8, 8)):
        torch.testing.assert_close(program(X, torch.zeros(1, 1, *size)), resize(X, size))
