"""Views of one image become one label map, without a map of all classes at the image's size."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import fastseg.views
from fastseg.layers.resize import resize, resize_rows
from fastseg.types import Preprocessing
from fastseg.views import mean_labels, views

sides = st.integers(1, 24)


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(st.tuples(sides, sides), min_size=1, max_size=4),
    size=st.tuples(sides, sides),
    classes=st.integers(1, 5),
    images=st.integers(1, 2),
    align_corners=st.booleans(),
    band_values=st.sampled_from([1, 150, 2**21]),
)
def test_labels_and_shares_are_those_of_the_mean_probability_map(
    shapes: list[tuple[int, int]],
    size: tuple[int, int],
    classes: int,
    images: int,
    align_corners: bool,
    band_values: int,
) -> None:
    """Also where the views are larger than the image, so that their sum is kept instead of them."""
    logits = [torch.randn(images, classes, *shape, dtype=torch.float64) for shape in shapes]
    full = [resize(each, size, align_corners=align_corners).softmax(dim=1) for each in logits]
    mean = torch.stack(full).mean(dim=0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fastseg.views, "BAND_VALUES", band_values)
        labels, shares = mean_labels(iter(logits), size, align_corners=align_corners)
    assert labels.dtype == torch.uint8
    assert shares.dtype == torch.float32
    assert torch.allclose(mean.amax(dim=1), shares.double(), atol=1e-6)  # rounded to float32
    # of two classes that are all but equal, either will do
    assert (mean.gather(1, labels.long()[:, None])[:, 0] > mean.amax(dim=1) - 1e-6).all()


class LargestResult(TorchDispatchMode):
    """Notes the size, in values, of the largest tensor that any operation gives."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.values = max(self.values, result.numel())
        return result


def test_no_map_of_all_classes_has_the_images_size() -> None:
    size, classes = (512, 1024), 19
    logits = [torch.randn(1, classes, round(64 * scale), round(128 * scale)) for scale in (0.5, 1, 1.5) for _ in "ab"]
    with LargestResult() as largest:
        mean_labels(iter(logits), size)
    assert largest.values <= fastseg.views.BAND_VALUES < classes * size[0] * size[1] / 4


def test_of_large_views_one_is_alive_beside_their_sum() -> None:
    alive: list[weakref.ref[Tensor]] = []

    def large_views() -> Iterator[Tensor]:
        for _ in range(5):
            assert sum(each() is not None for each in alive) <= 1
            logits = torch.randn(1, 3, 16, 16)
            alive.append(weakref.ref(logits))
            yield logits
            del logits

    mean_labels(large_views(), (16, 16))


@pytest.mark.parametrize("flip", [False, True])
def test_views_come_at_every_scale_of_the_input_scale_and_mirrored(flip: bool) -> None:
    images = torch.randint(0, 256, (2, 10, 20, 3), dtype=torch.uint8)
    found = list(views(images, Preprocessing(input_scale=0.5), (1.0, 2.0), flip))
    assert [(tuple(x.shape), flipped) for x, flipped in found] == [
        ((2, 3, *size), flipped) for size in ((5, 10), (10, 20)) for flipped in ((False, True) if flip else (False,))
    ]
    if flip:
        assert torch.equal(found[1][0], found[0][0].flip(-1))


@settings(max_examples=100, deadline=None)
@given(source=st.tuples(sides, sides), size=st.tuples(sides, sides), align_corners=st.booleans(), data=st.data())
def test_rows_alone_are_those_of_the_whole(
    source: tuple[int, int], size: tuple[int, int], align_corners: bool, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, size[0] - 1))
    stop = data.draw(st.integers(start + 1, size[0]))
    x = torch.randn(2, 3, *source, dtype=torch.float64)
    whole = resize(x, size, align_corners=align_corners)[..., start:stop, :]
    rows = resize_rows(x, size, start, stop, align_corners=align_corners)
    # the source's position is rounded to float32 nowhere
    assert torch.allclose(rows, whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 0), (3, 6)])
def test_rows_outside_the_map_are_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="do not lie in a map of 5 rows"):
        resize_rows(torch.zeros(1, 1, 3, 3), (5, 5), start, stop)
