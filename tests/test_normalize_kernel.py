"""Normalisation in C gives the numbers of its form in torch, bit for bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg import native
from fastseg.ops import normalize_images
from fastseg.types import Preprocessing

pytestmark = pytest.mark.skipif(native.library() is None, reason="the kernels were not built")


def in_torch(images: torch.Tensor, preprocessing: Preprocessing, dtype: torch.dtype) -> torch.Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "library", lambda: None)
        return normalize_images(images, preprocessing, dtype=dtype)


@given(
    size=st.tuples(st.integers(0, 3), st.integers(1, 40), st.integers(1, 40)),
    order=st.sampled_from(["rgb", "bgr"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    scale=st.sampled_from([1.0, 2.0]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=60, deadline=None)
def test_at_any_size(size: tuple[int, int, int], order: str, dtype: torch.dtype, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator)
    preprocessing = Preprocessing(channel_order=order, input_scale=scale)
    if size[0] == 0 and scale != 1:
        return  # torch resizes no empty batch
    result = normalize_images(images, preprocessing, dtype=dtype)
    assert result.dtype == dtype
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(result, in_torch(images, preprocessing, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_every_value_of_every_channel_and_in_several_threads(dtype: torch.dtype) -> None:
    values = torch.arange(256, dtype=torch.uint8)
    images = torch.stack([values, values.flip(0), values.roll(85)], -1).repeat(1, 400, 2, 1)  # 204,800 pixels
    preprocessing = Preprocessing((0.485, 0.2, 0.9), (0.229, 1.0, 0.03))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(normalize_images(images, preprocessing, dtype=dtype), in_torch(images, preprocessing, dtype))
    finally:
        torch.set_num_threads(threads)


def test_a_part_of_a_larger_image_is_read_as_it_lies() -> None:
    images = torch.randint(0, 256, (2, 20, 30, 3), dtype=torch.uint8)
    part = images[:, 3:17:2, 5:23]
    assert torch.equal(normalize_images(part, Preprocessing()), in_torch(part.clone(), Preprocessing(), torch.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
def test_images_of_other_types_are_not_read_as_bytes(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (1, 5, 7, 3), dtype=torch.uint8)
    assert torch.equal(normalize_images(images.to(dtype), Preprocessing()), normalize_images(images, Preprocessing()))


def test_bfloat16_rounds_halves_to_even() -> None:
    """Bytes 0 to 255 over a std of 1/255 are whole numbers; 257 to 510 lie between two of bfloat16's."""
    values = torch.arange(256, dtype=torch.uint8).repeat(3, 1).T[None, None]
    preprocessing = Preprocessing((-1.0, -1.0, -1.0), (1 / 255, 1 / 255, 1 / 255))
    result = normalize_images(values, preprocessing, dtype=torch.bfloat16)[0, 0, 0]
    exact = normalize_images(values, preprocessing)[0, 0, 0]
    assert torch.equal(result, exact.to(torch.bfloat16))
    assert (exact == exact.round()).float().mean() > 0.9
    assert (result.float() != exact).sum() > 60
