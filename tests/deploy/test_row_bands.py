"""Stages computed in bands of rows give what the whole gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fastseg import memory
from fastseg.deploy import row_bands
from fastseg.deploy.row_bands import Reach, RowBands, reach_of, use_row_bands
from fastseg.layers.conv import ConvBNAct
from fastseg.models import create_model
from fastseg.models.fast_scnn import LearningToDownsample


def stem(channels: int = 3) -> nn.Sequential:
    """Stride 8, of unequal reaches: a dilated and an even kernel, pooling, a kept norm."""
    return nn.Sequential(
        ConvBNAct(channels, 8, 3, stride=2),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2),
        nn.BatchNorm2d(8),
        nn.PReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    ).eval()


class Shifted(nn.Module):
    """Adds the mean of the whole map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + x.mean((2, 3), keepdim=True)


@pytest.mark.parametrize(
    ("stage", "reach"),
    [
        (nn.Conv2d(3, 4, 3, padding=1), Reach(1, 1, 1)),
        (nn.Conv2d(3, 4, 7, stride=2, padding=3), Reach(2, 3, 3)),
        (nn.Conv2d(3, 4, 2, stride=2), None),  # it rounds sides down
        (nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)), Reach(4, 3, 3)),  # 1 + 2, and 1 + 2 * 1
        (LearningToDownsample(3, depthwise_activation=False).eval(), Reach(8, 7, 7)),  # 1 + 2 + 4
        (stem(), Reach(8, 11, 11)),  # 1, twice 2 for the dilated one, and pools of 1 at strides 2 and 4
    ],
    ids=lambda value: type(value).__name__,
)
def test_how_far_a_stage_sees_is_found_by_trying(stage: nn.Module, reach: Reach | None) -> None:
    assert reach_of(stage, 3) == reach


def test_a_stage_that_sees_everything_has_no_reach() -> None:
    assert reach_of(Shifted(), 3) is None
    assert reach_of(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(4)), 3) is None


@given(
    size=st.tuples(st.integers(1, 2), st.integers(1, 90), st.integers(1, 12)),
    rows=st.integers(1, 9),
    seed=st.integers(0),
)
@settings(max_examples=60, deadline=None)
def test_bands_of_any_height_of_an_image_of_any_size_are_the_whole(
    size: tuple[int, int, int], rows: int, seed: int
) -> None:
    torch.manual_seed(seed % 2**31)
    stage = stem().double()
    count, height, width = size
    x = torch.randn(count, 3, height, width, dtype=torch.float64)
    bands = RowBands(stage, reach_of(stage, 3) or Reach(1, 0, 0))
    with torch.inference_mode():
        # convolutions add up in another order at some sizes; a wrong halo is off by a good part of a result
        torch.testing.assert_close(bands.in_bands(x, rows), stage(x), rtol=1e-10, atol=1e-10)


def test_a_halo_that_is_one_row_too_small_is_not_enough() -> None:
    stage = stem().double()
    x = torch.randn(1, 3, 96, 16, dtype=torch.float64)
    reach = reach_of(stage, 3)
    assert reach is not None
    with torch.inference_mode():
        expected = stage(x)
        for short in (replace(reach, before=reach.before - reach.stride), replace(reach, after=reach.after - 1)):
            assert (RowBands(stage, short).in_bands(x, 2) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_stem_of_a_network_is_the_whole_bit_for_bit(dtype: torch.dtype) -> None:
    stage = LearningToDownsample(3, depthwise_activation=False).eval().to(dtype).to(memory_format=torch.channels_last)
    x = torch.randn(1, 3, 200, 104).to(dtype).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        bands = RowBands(stage, Reach(8, 7, 7)).in_bands(x, 8)
        assert torch.equal(bands, stage(x))
    assert bands.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("name", "stage"), [("bisenet_x39", "spatial_path"), ("dfseg_df1", "backbone.stem"), ("icnet_r50_half", "fine")]
)
def test_the_stage_on_the_image_is_found(name: str, stage: str) -> None:
    network = create_model(name).eval()
    use_row_bands(network)
    assert [path for path, module in network.named_modules() if isinstance(module, RowBands)] == [stage]


def test_bands_are_for_large_images_while_memory_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, seen = nn.Conv2d(3, 4, 3, stride=2, padding=1), []
    stage.register_forward_hook(lambda module, args, result: seen.append(args[0].shape[2]))
    bands = RowBands(stage, Reach(2, 1, 1), values=1.0)
    monkeypatch.setattr(row_bands, "HANDED_BACK", 4 * 64 * 64)
    monkeypatch.setattr(row_bands, "BAND_BYTES", 4 * 64 * 16)
    monkeypatch.setattr(memory, "pages_are_kept", lambda: False)
    with torch.inference_mode():
        bands(torch.zeros(1, 3, 64, 64))
        assert seen == [64]
        bands(torch.zeros(1, 3, 66, 64))
        assert len(seen) > 2
        assert max(seen[1:]) <= 18
        seen.clear()
        monkeypatch.setattr(memory, "pages_are_kept", lambda: True)
        bands(torch.zeros(1, 3, 66, 64))
        assert seen == [66]


def test_gradients_and_compilers_get_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, seen = nn.Conv2d(3, 4, 3, stride=2, padding=1), []
    stage.register_forward_hook(lambda module, args, result: seen.append(args[0].shape[2]))
    bands = RowBands(stage, Reach(2, 1, 1), values=1.0)
    monkeypatch.setattr(row_bands, "HANDED_BACK", 4)
    monkeypatch.setattr(row_bands, "BAND_BYTES", 4 * 64 * 16)
    monkeypatch.setattr(memory, "pages_are_kept", lambda: False)
    bands(torch.zeros(1, 3, 66, 64, requires_grad=True)).sum().backward()
    assert seen == [66]
    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        bands(torch.zeros(1, 3, 66, 64))
    assert seen == [66, 66]
