"""The kernel in Triton gives the labels of exact arithmetic; Triton's interpreter runs it where there is no GPU."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastseg.ops import triton_choice

if find_spec("triton") is None:
    pytest.skip("Triton is not installed; builds of torch for CUDA bring it", allow_module_level=True)

Kernel = Callable[[Tensor, tuple[int, int], bool], Tensor]


def interpreted(logits: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    from fastseg.ops.triton_upsample_argmax import upsample_argmax_triton

    return upsample_argmax_triton(logits, size, align_corners)


def compiled(capability: int, logits: str, labels: str) -> int:
    """Length of the kernel's binary for a GPU that need not be here."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fastseg.ops import triton_upsample_argmax as module

    function = module._upsample_argmax
    tile = {"BLOCK_H": module.BLOCK_H, "BLOCK_W": module.BLOCK_W}
    names = function.arg_names
    types = {"logits": logits, "labels": labels, **dict.fromkeys(tile, "constexpr")}
    source = ASTSource(
        fn=function,
        signature={name: types.get(name, "i32") for name in names},
        constexprs={(names.index(name),): size for name, size in tile.items()},
    )
    options = {"num_warps": 4, "enable_fp_fusion": True}
    return len(triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["cubin"])


def process(**environment: str) -> ProcessPoolExecutor:
    """A process of its own, since Triton reads its environment once, when it is imported."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=prepare, initargs=(environment,))


def prepare(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with process(TRITON_INTERPRET="1") as pool:
        yield lambda logits, size, align_corners: pool.submit(interpreted, logits, size, align_corners).result()


def exact_labels(logits: Tensor, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    """Labels of whole logits (N,K,h,w) in whole numbers; NumPy takes the first of equals."""
    x = logits.double().numpy().astype(np.int64)
    for axis, (source, target) in enumerate(zip(x.shape[2:], size, strict=True), start=2):
        pixel = np.arange(target)
        unit = max(1, target - 1) if align_corners else 2 * target
        way = pixel * (source - 1) if align_corners else np.maximum((2 * pixel + 1) * source - target, 0)
        before, part = way // unit, way % unit
        after = np.minimum(before + 1, source - 1)
        shape = [-1 if each == axis else 1 for each in range(4)]
        x = x.take(before, axis) * (unit - part).reshape(shape) + x.take(after, axis) * part.reshape(shape)
    labels: np.ndarray = x.argmax(1)
    return labels


def laid_out(logits: Tensor, layout: str) -> Tensor:
    """The same logits, otherwise in memory."""
    if layout == "channels last":
        return logits.contiguous(memory_format=torch.channels_last)
    if layout == "every other row of a transposed map":
        return logits.mT.repeat_interleave(2, dim=3).contiguous().mT[:, :, ::2]
    return logits


@st.composite
def whole_logits(draw: st.DrawFn) -> Tensor:
    """Of few values, so that many classes tie at corners and between them; with constant regions."""
    n, k = draw(st.integers(1, 2)), draw(st.integers(1, 5))
    h, w = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    spread = draw(st.sampled_from([1, 3, 100]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    logits = torch.randint(-spread, spread + 1, (n, k, h, w), generator=generator)
    logits[:, :, : h // 2] = logits[:, :, :1, :1]
    return logits.to(draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64])))


LAYOUTS = ["rows", "channels last", "every other row of a transposed map"]


@given(
    logits=whole_logits(),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    align_corners=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
)
@settings(max_examples=40, deadline=None)
def test_labels_are_those_of_whole_numbers_ties_included(
    kernel: Kernel, logits: Tensor, size: tuple[int, int], align_corners: bool, layout: str
) -> None:
    labels = kernel(laid_out(logits, layout), size, align_corners)
    assert labels.dtype == torch.uint8
    assert np.array_equal(labels.numpy(), exact_labels(logits, size, align_corners))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("source", "size"), [((9, 17), (72, 136)), ((7, 5), (31, 300)), ((30, 40), (13, 9))])
def test_labels_are_the_argmax_of_logits_upsampled_in_float64(
    kernel: Kernel, source: tuple[int, int], size: tuple[int, int], align_corners: bool
) -> None:
    logits = torch.randn(1, 7, *source)
    full = F.interpolate(logits.double(), size=size, mode="bilinear", align_corners=align_corners)
    first, second = full.topk(2, 1).values.unbind(1)
    assert (first - second).min() > 1e-12, "closer than float64 can tell; choose another seed"
    assert torch.equal(kernel(logits, size, align_corners).long(), full.argmax(1))


def test_classes_that_float32_cannot_tell_apart_are_told_apart(kernel: Kernel) -> None:
    """Between corners of 1/3 and 2/3 of a thousand: the second class is larger by less than blends in float32 round."""
    left, right = torch.tensor(1000 / 3), torch.tensor(2000 / 3)
    more = torch.nextafter(right, torch.tensor(torch.inf))
    logits = torch.stack([torch.stack([left, right]), torch.stack([left, more])]).view(1, 2, 1, 2)
    labels = kernel(logits, (1, 700), True)
    assert labels[0, 0, 0] == 0
    assert (labels[0, 0, 1:] == 1).all()


@pytest.mark.parametrize(("num_classes", "dtype"), [(256, torch.uint8), (257, torch.int16)])
def test_labels_are_as_small_as_the_number_of_classes_allows(
    kernel: Kernel, num_classes: int, dtype: torch.dtype
) -> None:
    logits = torch.zeros(1, num_classes, 1, 1)
    logits[:, -1] = 1
    labels = kernel(logits, (2, 3), False)
    assert labels.dtype == dtype
    assert labels.tolist() == [[[num_classes - 1] * 3] * 2]


@pytest.mark.slow
def test_the_kernel_compiles_for_gpus_from_turing_to_blackwell(tmp_path: object) -> None:
    with process(TRITON_CACHE_DIR=str(tmp_path)) as pool:
        for capability in (75, 80, 90, 100):
            assert pool.submit(compiled, capability, "*fp32", "*u8").result() > 0
        assert pool.submit(compiled, 80, "*bf16", "*i16").result() > 0


def test_a_cpu_and_maps_without_pixels_are_left_to_torch() -> None:
    assert triton_choice.upsample_argmax_fused(torch.zeros(1, 2, 3, 3), (6, 6), False) is None


def test_a_kernel_that_does_not_run_is_named_once_and_not_used(caplog: pytest.LogCaptureFixture) -> None:
    if torch.cuda.is_available():
        pytest.skip("it runs here")
    triton_choice._works.cache_clear()
    with caplog.at_level("WARNING"):
        assert not triton_choice._works(0)
        assert not triton_choice._works(0)
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "the kernel for labels does not run on cuda:0"
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_gpu_gives_the_labels_of_whole_numbers(layout: str, align_corners: bool) -> None:
    logits = torch.randint(-3, 4, (2, 19, 33, 65)).float()
    labels = triton_choice.upsample_argmax_fused(laid_out(logits.cuda(), layout), (257, 520), align_corners)
    assert labels is not None
    assert np.array_equal(labels.cpu().numpy(), exact_labels(logits, (257, 520), align_corners))
