"""Normalisation, and labels of upsampled logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.errors import ConfigError
from fastseg.ops import normalize_images, upsample_argmax
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


@st.composite
def logit_maps(draw: st.DrawFn) -> torch.Tensor:
    """Small whole numbers, so that ties happen; one dtype in three is a half."""
    n, k = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    h, w = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    spread = draw(st.sampled_from([1, 3, 1000]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    logits = torch.randint(-spread, spread + 1, (n, k, h, w), generator=generator)
    return logits.to(draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16])))


@given(logits=logit_maps(), height=st.integers(1, 20), width=st.integers(1, 20), align_corners=st.booleans())
@settings(max_examples=120, deadline=None)
def test_labels_are_the_argmax_of_logits_upsampled_in_float64(
    logits: torch.Tensor, height: int, width: int, align_corners: bool
) -> None:
    labels = upsample_argmax(logits, (height, width), align_corners=align_corners)
    full = F.interpolate(logits.double(), size=(height, width), mode="bilinear", align_corners=align_corners)
    best, expected = full.max(1)
    assert labels.dtype == torch.uint8
    assert labels.shape == (logits.shape[0], height, width)
    # where two classes come closer than float32 can tell, either may win; nowhere else
    chosen = full.gather(1, labels.long()[:, None])[:, 0]
    tolerance = 1e-5 * (1 + logits.abs().max().double())
    assert (best - chosen <= tolerance).all()
    runner_up = full.topk(2, 1).values[:, 1] if full.shape[1] > 1 else torch.full_like(best, -torch.inf)
    clear = best - runner_up > tolerance
    assert torch.equal(labels.long()[clear], expected[clear])


@given(logits=logit_maps())
@settings(max_examples=40, deadline=None)
def test_ties_go_to_the_lowest_class(logits: torch.Tensor) -> None:
    doubled = torch.cat([logits, logits], 1)  # every class has a twin, exactly equal after the same arithmetic
    assert torch.equal(upsample_argmax(doubled, (9, 11)), upsample_argmax(logits, (9, 11)))
    same = logits[:, :1].expand(-1, 5, -1, -1)
    assert upsample_argmax(same, (9, 11)).count_nonzero() == 0
    exact = torch.argmax(logits, 1)  # torch too takes the first of equals
    assert torch.equal(upsample_argmax(logits, tuple(logits.shape[2:])).long(), exact)  # type: ignore[arg-type]


@pytest.mark.parametrize(("num_classes", "dtype"), [(1, torch.uint8), (256, torch.uint8), (257, torch.int16)])
def test_labels_are_as_small_as_the_number_of_classes_allows(num_classes: int, dtype: torch.dtype) -> None:
    logits = torch.zeros(1, num_classes, 1, 1)
    logits[:, -1] = 1
    labels = upsample_argmax(logits, (2, 2))
    assert labels.dtype == dtype
    assert (labels == num_classes - 1).all()


def test_logits_stay_as_they_are_also_at_their_own_size() -> None:
    logits = torch.randn(1, 3, 4, 5)
    before = logits.clone()
    upsample_argmax(logits, (4, 5))
    assert torch.equal(logits, before)


def test_logits_that_carry_a_gradient_are_welcome() -> None:
    logits = torch.randn(1, 3, 4, 5, requires_grad=True)
    assert torch.equal(upsample_argmax(logits, (8, 9)), upsample_argmax(logits.detach(), (8, 9)))


def test_no_class_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least one class; .*\(1, 0, 2, 2\)"):
        upsample_argmax(torch.zeros(1, 0, 2, 2), (4, 4))
