"""Labels of upsampled logits: those of exact arithmetic, by every form, in little memory."""

from __future__ import annotations

from fractions import Fraction
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import fastseg
from fastseg import native
from fastseg.data import build_dataset
from fastseg.ops import confidence, mixed_cells, normalize_images, uniform_cells, upsample_argmax
from fastseg.ops.native_upsample_argmax import upsample_argmax_native
from fastseg.ops.uniform_cells import upsample_argmax_torch

FORMS = ["torch", pytest.param("C", marks=pytest.mark.skipif(native.library() is None, reason="no compiled kernels"))]
MANTISSA = {torch.float64: 24, torch.float32: 24, torch.float16: 11, torch.bfloat16: 8}  # bits that the draw below uses


def labels_of(form: str, logits: torch.Tensor, size: tuple[int, int], align_corners: bool) -> torch.Tensor:
    """By the plain form, or by the kernel, which leaves float64 to the plain form."""
    labels = upsample_argmax_native(logits, size, align_corners) if form == "C" else None
    return upsample_argmax_torch(logits, size, align_corners) if labels is None else labels


def between(length: int, out: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pixels before and after each coordinate, and the weight of the latter, times a number that makes it whole."""
    before, after, weight = [], [], []
    for i in range(out):
        if align_corners:
            x = Fraction(i * (length - 1), out - 1) if out > 1 else Fraction(0)
        else:
            x = max(Fraction(0), Fraction(2 * i + 1, 2) * Fraction(length, out) - Fraction(1, 2))
        first = int(x)
        before.append(first)
        after.append(min(first + 1, length - 1))
        weight.append(int((x - first) * whole(out, align_corners)))
    return np.array(before), np.array(after), np.array(weight)


def whole(out: int, align_corners: bool) -> int:
    """A multiple of the denominators of all coordinates."""
    return max(1, out - 1) if align_corners else 2 * out


def reference(numbers: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Whole numbers (N,K,h,w) -> the argmax (N,H,W) of their bilinear upsampling, in integers: nothing is rounded."""
    for axis, out in ((2, size[0]), (3, size[1])):
        before, after, weight = between(numbers.shape[axis], out, align_corners)
        weight = weight.reshape((-1, 1) if axis == 2 else (-1,))
        first, second = numbers.take(before, axis), numbers.take(after, axis)
        numbers = first * (whole(out, align_corners) - weight) + second * weight
    return numbers.argmax(1)  # the first of equal ones


@st.composite
def whole_logits(draw: st.DrawFn) -> tuple[np.ndarray, torch.Tensor]:
    """Whole numbers (N,K,h,w), and logits that are these times a power of two.

    Ties are common where numbers are small; regions are constant, or all classes come near one another, in some.
    """
    n, h, w = draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    k = draw(st.one_of(st.integers(1, 6), st.integers(1, 40), st.sampled_from([255, 256, 257, 300])))
    dtype = draw(st.sampled_from(list(MANTISSA)))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    most = 2 ** (MANTISSA[dtype] - 1)
    spread = min(most, draw(st.sampled_from([1, 3, 100, most])))
    numbers = random.integers(-spread, spread, (n, k, h, w), endpoint=True)
    kind = draw(st.sampled_from(["independent", "regions", "near"]))
    if kind == "regions":
        numbers = numbers[:, :, : (h + 2) // 3, : (w + 2) // 3].repeat(3, 2).repeat(3, 3)[:, :, :h, :w]
    elif kind == "near":
        numbers = np.clip(numbers[:, :1] + random.integers(-1, 2, numbers.shape), -most, most)
    logits = torch.from_numpy(numbers).to(dtype) * 2.0 ** draw(st.integers(-8, 0))
    layout = draw(st.sampled_from(["contiguous", "channels_last", "part"]))
    if layout == "channels_last":
        logits = logits.contiguous(memory_format=torch.channels_last)
    elif layout == "part":
        logits = F.pad(logits, (1, 2, 2, 1))[:, :, 2:-1, 1:-2]
    return numbers, logits


@pytest.mark.parametrize("form", FORMS)
@given(drawn=whole_logits(), height=st.integers(1, 40), width=st.integers(1, 40), align_corners=st.booleans())
@settings(max_examples=150, deadline=None)
def test_labels_are_those_of_exact_arithmetic(
    form: str, drawn: tuple[np.ndarray, torch.Tensor], height: int, width: int, align_corners: bool
) -> None:
    numbers, logits = drawn
    labels = labels_of(form, logits, (height, width), align_corners)
    assert labels.dtype == (torch.uint8 if logits.shape[1] <= 256 else torch.int16)
    assert np.array_equal(labels.numpy(), reference(numbers, (height, width), align_corners))


@pytest.mark.parametrize("form", FORMS)
@given(
    drawn=whole_logits(),
    grown=st.sampled_from([(1, 1), (1, 2), (3, 1), (1 / 3, 1), (1, 1 / 3)]),
    align_corners=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_sides_that_stay_as_they_are_cost_no_label(
    form: str, drawn: tuple[np.ndarray, torch.Tensor], grown: tuple[float, float], align_corners: bool
) -> None:
    numbers, logits = drawn
    size = (max(1, round(logits.shape[2] * grown[0])), max(1, round(logits.shape[3] * grown[1])))
    labels = labels_of(form, logits, size, align_corners)
    assert np.array_equal(labels.numpy(), reference(numbers, size, align_corners))


def test_nothing_is_interpolated_where_the_map_has_the_images_size(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(2, 5, 8, 9)
    monkeypatch.setattr(mixed_cells.Blocks, "of", None)
    monkeypatch.setattr(uniform_cells, "fill_mixed", None)
    assert torch.equal(upsample_argmax_torch(logits, (8, 9), False).long(), logits.argmax(1))


@pytest.mark.parametrize("form", FORMS)
@given(seed=st.integers(0, 2**32), scale=st.sampled_from([1.0, 1e-30, 1e30]), align_corners=st.booleans())
@settings(max_examples=30, deadline=None)
def test_labels_of_any_floats_are_those_of_float64(form: str, seed: int, scale: float, align_corners: bool) -> None:
    """Random floats meet to within float64's rounding so rarely that no tolerance is needed."""
    logits = torch.randn(1, 7, 6, 8, generator=torch.Generator().manual_seed(seed)) * scale
    full = F.interpolate(logits.double(), (50, 41), mode="bilinear", align_corners=align_corners)
    assert torch.equal(labels_of(form, logits, (50, 41), align_corners).long(), full.argmax(1))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("align_corners", [False, True])
def test_runs_longer_than_a_block_are_labelled_throughout(form: str, align_corners: bool) -> None:
    numbers = np.random.default_rng(0).integers(-9, 9, (2, 4, 2, 3))
    labels = labels_of(form, torch.from_numpy(numbers).float(), (150, 333), align_corners)
    assert np.array_equal(labels.numpy(), reference(numbers, (150, 333), align_corners))


@pytest.mark.parametrize(("size", "align_corners"), [((37, 53), False), ((37, 53), True), ((5, 6), False)])
def test_bands_and_chunks_change_nothing(size: tuple[int, int], align_corners: bool) -> None:
    logits = torch.randn(2, 9, 12, 16, generator=torch.Generator().manual_seed(0))
    whole_map = upsample_argmax_torch(logits, size, align_corners)
    with mock.patch.object(uniform_cells, "BAND", 2500), mock.patch.object(mixed_cells, "CHUNK", 100):
        assert torch.equal(upsample_argmax_torch(logits, size, align_corners), whole_map)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_give_labels_of_classes(form: str, bad: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 5, 8, 8, generator=generator)
    logits[torch.rand(logits.shape, generator=generator) < 0.3] = bad
    assert labels_of(form, logits, (33, 30), False).max() < 5


@pytest.mark.parametrize("form", FORMS)
def test_a_trained_network_gets_the_labels_of_float64(form: str) -> None:
    network = fastseg.create_model("fast_scnn", pretrained="camvid").eval()
    image, _ = build_dataset("road_scenes", "val", args={"count": 1, "height": 180, "width": 240}).load(0)
    with torch.inference_mode():
        logits = network(normalize_images(torch.from_numpy(image)[None], network.preprocessing)).logits
    assert len(logits.argmax(1).unique()) >= 4
    for size, align_corners in (((180, 240), False), ((361, 481), True), ((64, 100), False)):
        full = F.interpolate(logits.double(), size, mode="bilinear", align_corners=align_corners)
        assert torch.equal(labels_of(form, logits, size, align_corners).long(), full.argmax(1))


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
    upsample_argmax(logits, (4, 5), confidence=True)
    assert torch.equal(logits, before)


def test_logits_that_carry_a_gradient_are_welcome() -> None:
    logits = torch.randn(1, 3, 4, 5, requires_grad=True)
    assert torch.equal(upsample_argmax(logits, (8, 9)), upsample_argmax(logits.detach(), (8, 9)))


def test_no_image_gives_no_labels() -> None:
    assert upsample_argmax(torch.zeros(0, 3, 4, 5), (8, 9)).shape == (0, 8, 9)


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        ((1, 0, 2, 2), (4, 4), r"at least one class; .*\(1, 0, 2, 2\)"),
        ((1, 32769, 1, 1), (4, 4), r"at most 32768 classes; .*\(1, 32769, 1, 1\)"),
        ((3, 2, 2), (4, 4), r"\(N,K,h,w\); they have shape \(3, 2, 2\)"),
        ((1, 3, 2, 2), (4, 0), r"a pixel or more per side; .*size is \(4, 0\)"),
        ((1, 3, 0, 2), (4, 4), r"a pixel or more per side; .*\(1, 3, 0, 2\)"),
    ],
)
def test_logits_and_sizes_without_labels_are_refused(
    shape: tuple[int, ...], size: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        upsample_argmax(torch.zeros(shape), size)


@pytest.mark.parametrize(
    ("size", "align_corners"), [((30, 41), False), ((30, 41), True), ((7, 41), False), ((3, 2), True)]
)
def test_confidence_is_the_largest_probability(size: tuple[int, int], align_corners: bool) -> None:
    logits = torch.randn(2, 6, 7, 9, generator=torch.Generator().manual_seed(0)) * 4
    with mock.patch.object(confidence, "BAND", 2000):  # three bands for the large sizes
        labels, sure = upsample_argmax(logits, size, align_corners=align_corners, confidence=True)
    full = F.interpolate(logits.double(), size, mode="bilinear", align_corners=align_corners)
    assert torch.equal(labels, upsample_argmax(logits, size, align_corners=align_corners))
    assert sure.dtype == torch.float32
    # float32 coordinates are off by 1e-7 of the map's side, and logits of 15 make 1e-5 of that
    torch.testing.assert_close(sure.double(), full.softmax(1).amax(1), rtol=0, atol=1e-5)


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that an operation makes."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(each, torch.Tensor):
                self.numel = max(self.numel, each.numel())
        return result


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("h", "w"), [(64, 128), (2, 3), (300, 600)])
def test_no_tensor_is_larger_than_three_images(h: int, w: int, channels_last: bool) -> None:
    """Of 19 classes the full-size map would be 19 images."""
    logits = torch.randn(1, 19, h, w, generator=torch.Generator().manual_seed(0))
    if channels_last:
        logits = logits.contiguous(memory_format=torch.channels_last)
    with Largest() as largest:
        upsample_argmax_torch(logits, (512, 1024), False)
        confidence.confidence_of(logits, (512, 1024), False)
    assert 0 < largest.numel <= 3 * 512 * 1024


def test_a_program_is_exported_with_the_same_labels_for_every_size() -> None:
    class Labels(torch.nn.Module):
        def forward(self, logits: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
            return upsample_argmax(logits, (image.shape[0], image.shape[1]))

    sides = [torch.export.Dim.DYNAMIC] * 2
    example = torch.randn(1, 4, 5, 6), torch.zeros(40, 48)
    dynamic = {"logits": {2: sides[0], 3: sides[1]}, "image": {0: sides[0], 1: sides[1]}}
    program = torch.export.export(Labels(), example, dynamic_shapes=dynamic).module()
    for shape, size in (((1, 4, 5, 6), (40, 48)), ((1, 4, 9, 3), (31, 77))):
        logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        labels = program(logits, torch.zeros(size))
        assert labels.dtype == torch.uint8
        assert torch.equal(labels, upsample_argmax(logits, size))


def test_tensors_without_values_have_labels_without_values() -> None:
    labels, sure = upsample_argmax(torch.zeros(2, 300, 3, 4, device="meta"), (6, 8), confidence=True)
    assert (labels.shape, labels.dtype, labels.device.type) == ((2, 6, 8), torch.int16, "meta")
    assert (sure.shape, sure.dtype) == ((2, 6, 8), torch.float32)
