"""Normalisation, and the way back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fastseg.errors import ConfigError
from fastseg.ops import normalize_images
from fastseg.ops.normalize import denormalize_images
from fastseg.types import Preprocessing

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)


def images(height: int = 5, width: int = 7) -> torch.Tensor:
    return torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_every_channel_meets_its_own_mean_and_deviation(order: str) -> None:
    x = images()
    result = normalize_images(x, Preprocessing(MEAN, STD, order))
    assert result.shape == (2, 3, 5, 7)
    assert result.dtype == torch.float32
    for channel in range(3):
        source = channel if order == "rgb" else 2 - channel
        expected = (x[..., source].double() / 255 - MEAN[channel]) / STD[channel]
        torch.testing.assert_close(result[:, channel].double(), expected, rtol=1e-5, atol=1e-5)


def test_another_order_is_refused() -> None:
    with pytest.raises(ConfigError, match="channel_order is 'gbr'; allowed: 'rgb', 'bgr'"):
        normalize_images(images(), Preprocessing(channel_order="gbr"))


@pytest.mark.parametrize(
    ("scale", "size"), [(1.0, (5, 7)), (2.0, (10, 14)), (0.5, (2, 4)), (0.01, (1, 1)), (1.3, (6, 9))]
)
def test_the_input_scale_rounds_every_side_to_at_least_one(scale: float, size: tuple[int, int]) -> None:
    assert normalize_images(images(), Preprocessing(input_scale=scale)).shape[2:] == size
    assert normalize_images(images(), Preprocessing(input_scale=3.0), scale=scale).shape[2:] == size


def test_scaling_is_bilinear_resizing_of_the_normalised_image() -> None:
    plain = normalize_images(images(), Preprocessing())
    expected = F.interpolate(plain, size=(10, 14), mode="bilinear", align_corners=False)
    torch.testing.assert_close(normalize_images(images(), Preprocessing(input_scale=2.0)), expected)


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_the_result_is_channels_last_and_the_images_stay(scale: float, order: str) -> None:
    x = images()
    before = x.clone()
    result = normalize_images(x, Preprocessing(channel_order=order, input_scale=scale))
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_denormalisation_gives_back_every_value_of_every_channel(order: str, dtype: torch.dtype) -> None:
    values = torch.arange(256, dtype=torch.uint8)
    x = torch.stack([values, values.flip(0), values.roll(85)], -1)[None, None]
    preprocessing = Preprocessing((0.485, 0.2, 0.9), (0.229, 1.0, 0.03), order)
    result = denormalize_images(normalize_images(x, preprocessing).to(dtype), preprocessing)
    assert result.dtype == dtype
    assert torch.equal(result, x.permute(0, 3, 1, 2).to(dtype))


def test_denormalised_images_are_whole_numbers_in_range_and_never_of_half_precision() -> None:
    x = torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 5
    result = denormalize_images(x.bfloat16(), Preprocessing())
    assert result.dtype == torch.float32
    assert torch.equal(result, result.round())
    assert (result.min(), result.max()) == (0, 255)
