"""Canny's edges are OpenCV's, pixel for pixel, wherever the fixed number of steps follows a chain to its end."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fastseg.data.road_scenes import render_scene
from fastseg.ops import canny
from fastseg.ops.canny import AXIS_SHARE


def tensor(*images: np.ndarray) -> Tensor:
    """Images (H,W,C) -> float32 (N,C,H,W)."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()


def opencv(image: np.ndarray, low: float, high: float) -> Tensor:
    """OpenCV's edges (H,W), bool."""
    return torch.from_numpy(cv2.Canny(np.ascontiguousarray(image), low, high) > 0)


def scene(height: int = 64, width: int = 96, seed: int = 0) -> np.ndarray:
    return render_scene(seed, height, width)[0]


@st.composite
def pictures(draw: st.DrawFn) -> np.ndarray:
    """Small images (H,W,C): noise, faint noise, a few grey levels (with ties everywhere) or blocks of colour."""
    height, width = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    channels = draw(st.sampled_from([1, 3, 4]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["noise", "faint", "levels", "blocks"]))
    if kind == "noise":
        image = random.integers(0, 256, (height, width, channels))
    elif kind == "faint":
        image = random.integers(100, 130, (height, width, channels))
    elif kind == "levels":
        image = random.choice([0, 60, 120, 255], (height, width, channels))
    else:
        block = random.integers(0, 256, (-(-height // 3), -(-width // 3), channels))
        image = block.repeat(3, axis=0).repeat(3, axis=1)[:height, :width]
    return image.astype(np.uint8)


@given(
    image=pictures(), thresholds=st.sampled_from([(10, 100), (0, 0), (50, 50), (99.5, 400.5), (100, 400), (0, 2041)])
)
@settings(max_examples=400, deadline=None)
def test_edges_are_opencvs(image: np.ndarray, thresholds: tuple[float, float]) -> None:
    height, width, _ = image.shape
    edges = canny(tensor(image), *thresholds, steps=height * width)
    assert torch.equal(edges[0, 0] > 0, opencv(image, *thresholds))


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 40), (40, 1), (2, 40), (40, 2)], ids=str)
def test_edges_of_the_narrowest_images_are_opencvs(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    assert torch.equal(canny(tensor(image))[0, 0] > 0, opencv(image, 10, 100))


@pytest.mark.parametrize("seed", range(3))
def test_edges_of_a_street_are_opencvs(seed: int) -> None:
    """Here OpenCV shares the image out among its threads, and chains run across their borders."""
    image = scene(128, 256, seed)
    assert torch.equal(canny(tensor(image), steps=600)[0, 0] > 0, opencv(image, 10, 100))


def test_the_default_steps_find_nearly_all_edges_and_nothing_else() -> None:
    found = total = 0
    for seed in range(3):
        image = scene(256, 512, seed)
        edges, expected = canny(tensor(image))[0, 0] > 0, opencv(image, 10, 100)
        assert not (edges & ~expected).any()
        found, total = found + int(edges.sum()), total + int(expected.sum())
    assert total > 0.05 * 3 * 256 * 512  # there is something to find
    assert found > 0.99 * total  # 99.9% over eight scenes


@pytest.mark.parametrize("steps", [0, 1, 2, 7, 64])
def test_weak_edges_are_followed_for_so_many_pixels(steps: int) -> None:
    """A faint step edge along a row, strong at its left end only."""
    image = np.full((9, 100, 1), 100, np.uint8)
    image[5:] = 110  # strength 40 in the two rows beside the step, of which the upper one is the edge
    image[5:, :3] = 200
    edges = canny(tensor(image), steps=steps)[0, 0] > 0
    strong = canny(tensor(image), 100, 100)[0, 0] > 0
    right = int(strong.nonzero()[:, 1].max())
    assert int(edges.nonzero()[:, 1].max()) == right + steps
    assert torch.equal(canny(tensor(image), steps=200)[0, 0] > 0, opencv(image, 10, 100))


def test_a_gradients_axis_is_exact_in_float32() -> None:
    """For all derivatives that images have, as whole numbers tell it: h < w * tan(22.5°) is (w + h)² < 2w²."""
    numbers = torch.arange(1021)
    w, h = numbers[:, None], numbers[None]
    assert torch.equal(h.float() < (w + h).float() * AXIS_SHARE, (w + h) ** 2 < 2 * w**2)


def test_every_image_of_a_batch_has_its_own_edges() -> None:
    images = tensor(*(scene(seed=seed) for seed in range(3)))
    assert torch.equal(canny(images), torch.cat([canny(image[None]) for image in images]))


def test_of_equally_strong_channels_the_first_gives_the_direction() -> None:
    """One has a step along columns, the other along rows: alone, each leaves other pixels."""
    random = np.random.default_rng(0)
    image = random.choice([0, 90], (40, 40, 3)).astype(np.uint8)
    turned = image[..., ::-1]
    edges = [canny(tensor(x), steps=1600)[0, 0] > 0 for x in (image, turned)]
    assert not torch.equal(*edges)
    assert torch.equal(edges[0], opencv(image, 10, 100))
    assert torch.equal(edges[1], opencv(turned, 10, 100))


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_every_dtype_has_the_same_edges(dtype: torch.dtype) -> None:
    images = tensor(scene())
    edges = canny(images.to(dtype))
    assert edges.dtype == (dtype if dtype.is_floating_point else torch.float32)
    assert torch.equal(edges.float(), canny(images))
    assert set(edges.unique().tolist()) == {0, 1}


def test_an_image_that_was_normalised_and_back_has_the_same_edges() -> None:
    images = tensor(scene())
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    again = ((images / 255 - mean) / std * std + mean) * 255
    assert not torch.equal(again, images)
    assert torch.equal(canny(again), canny(images))


def test_values_are_those_of_a_uint8_image() -> None:
    beyond = tensor(scene()) * 3 - 200
    assert torch.equal(canny(beyond), canny(beyond.clamp(0, 255)))
    assert not canny(torch.full((1, 3, 8, 8), torch.nan)).any()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_image_stays_and_its_layout_does_not_matter(layout: torch.memory_format) -> None:
    images = (tensor(scene()) + 0.25).contiguous(memory_format=layout)
    before = images.clone()
    assert torch.equal(canny(images), canny(tensor(scene())))
    assert torch.equal(images, before)


def test_autocast_changes_nothing() -> None:
    images = tensor(scene())
    with torch.autocast("cpu", torch.bfloat16):
        edges = canny(images)
    assert edges.dtype == torch.float32
    assert torch.equal(edges, canny(images))


def test_there_is_no_gradient_and_nothing_is_kept_for_one() -> None:
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda x: x):
        edges = canny(tensor(scene()).requires_grad_())
    assert not edges.requires_grad
    assert kept == []


def test_it_runs_on_the_meta_device() -> None:
    edges = canny(torch.zeros(2, 3, 5, 7, device="meta"))
    assert edges.is_meta
    assert edges.shape == (2, 1, 5, 7)


class Edges(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return canny(images, steps=8)


def test_one_exported_program_serves_all_sizes() -> None:
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(Edges(), (tensor(scene(), scene()),), dynamic_shapes=(dynamic,)).module()
    for size in ((64, 96), (33, 130), (1, 20), (1, 1)):
        images = torch.randint(0, 256, (3, 3, *size)).float()
        assert torch.equal(program(images), canny(images, steps=8))


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((3, 8, 8), {}, r"shape \(3, 8, 8\); give \(N,C,H,W\)"),
        ((1, 0, 8, 8), {}, "at least one channel"),
        ((1, 3, 8, 8), {"low": 101}, "low is 101 and high is 100; give 0 <= low <= high"),
        ((1, 3, 8, 8), {"low": -1}, "low is -1"),
        ((1, 3, 8, 8), {"high": float("nan")}, "high is nan"),
        ((1, 3, 8, 8), {"steps": -1}, "steps is -1; give 0 or more"),
    ],
)
def test_arguments_out_of_range_are_refused(shape: tuple[int, ...], arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        canny(torch.zeros(shape), **arguments)  # type: ignore[arg-type]
