"""Columns of a pooling grid: Python's own rounding, which sends halves to the even number."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastseg.layers.pyramid_pooling import PyramidPooling, grid_for


@given(height=st.integers(1, 300), width=st.integers(1, 300), rows=st.integers(1, 16))
def test_columns_are_pythons_rounding(height: int, width: int, rows: int) -> None:
    x = torch.empty(1, 1, height, width, device="meta")
    assert grid_for(x, rows, aspect=True) == (rows, max(1, round(Fraction(rows * width, height))))


@given(height=st.integers(1, 60), columns=st.integers(0, 40), rows=st.integers(1, 16))
def test_halves_go_to_the_even_number(height: int, columns: int, rows: int) -> None:
    x = torch.empty(1, 1, 2 * rows * height, (2 * columns + 1) * height, device="meta")  # columns + 1/2
    assert grid_for(x, rows, aspect=True)[1] == max(1, columns + columns % 2)


@pytest.mark.parametrize(("rows", "columns"), [(8, 10), (4, 5), (2, 2)])
def test_the_map_of_a_camvid_image_has_the_grids_of_swiftnets_authors(rows: int, columns: int) -> None:
    x = torch.empty(1, 1, 12, 15, device="meta")  # 360x480 at stride 32
    assert grid_for(x, rows, aspect=True) == (rows, columns)


def test_an_exported_program_rounds_halves_alike() -> None:
    module = PyramidPooling(2, 2, aspect=True, bins=(2,)).eval()
    dynamic = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        program = torch.export.export(module, (torch.randn(1, 2, 5, 9),), dynamic_shapes=(dynamic,)).module()
        for size in ((12, 15), (12, 21), (4, 3), (4, 9)):  # 2.5, 3.5, 1.5 and 4.5 columns
            x = torch.randn(1, 2, *size)
            torch.testing.assert_close(program(x), module(x), rtol=1e-5, atol=1e-5)
