"""A network computed band by band gives what it gives for the whole image, in the memory that it was given."""

from __future__ import annotations

import re
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastseg.data.road_scenes import render_scene
from fastseg.deploy import DeployedModel, bands, row_bands
from fastseg.deploy.bands import BandedProgram, banded_labels
from fastseg.deploy.graph_schedule import Compute
from fastseg.errors import ConfigError
from fastseg.layers.resize import resize
from fastseg.types import Preprocessing, SegModel, SegOutput
from fastseg.weights import create_model
from networks import NAMES, build
from toys import INFO, NearestColor

SIZE = (203, 331)
# one of each: separable blocks and grids of pooled pixels, gates of means, transposed convolutions, several inputs
FAST = ("fast_scnn", "bisenet_x39", "espnet_c", "icnet_r18")


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(render_scene(seed, height, width)[0])[None]


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in units of the largest logit."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    return float((found - expected).abs().max() / expected.abs().max())


def bands_of(program: BandedProgram) -> int:
    """In how many bands its largest map is computed."""
    steps = Counter(step.node for step in program.schedule.steps if isinstance(step, Compute))
    return max(steps.values())


@pytest.fixture
def small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dozen and more bands for pictures of the size that tests can afford."""
    monkeypatch.setattr(bands, "LARGEST_BAND", 2**16)
    # and the network computes its first stage in bands of its own
    monkeypatch.setattr(row_bands.RowBands, "forward", lambda stage, x: stage.in_bands(x, 4))


@pytest.mark.usefixtures("small_bands")
@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_logits_in_bands_are_those_of_the_whole_image(name: str) -> None:
    deployed = build(name).deploy()
    images = picture(*SIZE)
    program = BandedProgram(deployed, SIZE)
    assert bands_of(program) >= 8
    with torch.inference_mode():
        # sums run in another order, and the rounding of deep networks at random weights is some 1e-6
        assert relative(program.logits(images), deployed(images)) < 1e-5


@pytest.mark.usefixtures("small_bands")
@pytest.mark.parametrize("name", ["fast_scnn", "bisenet_x39"])
def test_logits_in_bfloat16_are_those_of_the_whole_image(name: str) -> None:
    deployed = build(name).deploy(precision="bf16")
    images = picture(*SIZE)
    with torch.inference_mode():
        # a number that lies between two of bfloat16's may go to either, a difference of 1/256
        assert relative(BandedProgram(deployed, SIZE).logits(images), deployed(images)) < 0.02


@pytest.mark.usefixtures("small_bands")
def test_labels_of_a_trained_network_are_all_those_of_the_whole_image() -> None:
    deployed = create_model("fast_scnn", pretrained="road_scenes").deploy()
    images = torch.cat([picture(360, 480, seed) for seed in (1, 2)])
    program = BandedProgram(deployed, (360, 480))
    expected = deployed.labels(images)
    assert len(expected.unique()) > 4
    assert torch.equal(program.labels(images), expected)


@pytest.mark.usefixtures("small_bands")
def test_images_are_scaled_and_ordered_as_the_network_wants_them() -> None:
    model = create_model("fast_scnn", pretrained="road_scenes")
    assert model.weights_info is not None
    preprocessing = replace(model.preprocessing, channel_order="bgr", input_scale=0.75)
    model.weights_info = replace(model.weights_info, preprocessing=preprocessing)
    deployed = model.deploy()
    images = picture(*SIZE)
    assert relative(BandedProgram(deployed, SIZE).logits(images), deployed(images)) < 1e-5


def test_a_network_of_operations_on_whole_maps_only_works_too() -> None:
    deployed = NearestColor(Preprocessing(mean=(0, 0, 0), std=(1, 1, 1))).deploy()
    images = picture(40, 50)
    assert len(INFO.class_names) == deployed.num_classes
    assert torch.equal(BandedProgram(deployed, (40, 50)).labels(images), deployed.labels(images))


class Layers(SegModel):
    """Two operations, of which the second sees whether the first gave the right rows."""

    def __init__(self, layers: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.num_classes = 3
        self.aux_heads = nn.ModuleDict()
        self.layers = layers
        torch.manual_seed(0)
        self.last = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: Tensor) -> SegOutput:
        return SegOutput(self.last(self.layers(images)), {})


kernels = st.integers(1, 4)
strides = st.integers(1, 3)


@st.composite
def convolutions(draw: st.DrawFn) -> Callable[[Tensor], Tensor]:
    kernel, dilation = draw(kernels), draw(st.integers(1, 3))
    padding = draw(st.integers(0, dilation * (kernel - 1)))
    torch.manual_seed(0)
    return nn.Conv2d(3, 3, kernel, draw(strides), padding, dilation).requires_grad_(False)


@st.composite
def transposed_convolutions(draw: st.DrawFn) -> Callable[[Tensor], Tensor]:
    kernel = draw(kernels)
    padding = draw(st.integers(0, kernel - 1))
    torch.manual_seed(0)
    return nn.ConvTranspose2d(3, 3, kernel, draw(strides), padding).requires_grad_(False)


@st.composite
def poolings(draw: st.DrawFn) -> Callable[[Tensor], Tensor]:
    kernel = draw(kernels)
    padding, stride = draw(st.integers(0, kernel // 2)), draw(strides)
    ceil, counted = draw(st.booleans()), draw(st.booleans())
    if draw(st.booleans()):
        return nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
    return nn.AvgPool2d(kernel, stride, padding, ceil, counted)


@st.composite
def resizings(draw: st.DrawFn) -> Callable[[Tensor], Tensor]:
    size = (draw(st.integers(1, 90)), draw(st.integers(1, 40)))
    mode, align_corners = draw(st.sampled_from(["bilinear", "bicubic"])), draw(st.booleans())
    return lambda x: resize(x, size, mode=mode, align_corners=align_corners)


@st.composite
def borders(draw: st.DrawFn) -> Callable[[Tensor], Tensor]:
    sides = [draw(st.integers(0, 3)) for _ in range(4)]
    start, end, step = draw(st.integers(-9, 5)), draw(st.sampled_from([None, -1, -3])), draw(st.integers(1, 3))
    if draw(st.booleans()):
        return lambda x: x[:, :, start:end:step, :: step + 1]
    mode = draw(st.sampled_from(["constant", "replicate"]))
    return lambda x: F.pad(x, sides, mode)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    first=st.one_of(convolutions(), transposed_convolutions(), poolings(), resizings(), borders()),
    second=st.one_of(convolutions(), poolings(), resizings(), borders()),
    height=st.integers(14, 60),
    band_bytes=st.sampled_from([1, 2**11, 2**13]),
)
def test_every_rule_gives_the_rows_of_the_whole_map(
    first: Any, second: Any, height: int, band_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "LARGEST_BAND", band_bytes)
    monkeypatch.setattr(bands, "SMALLEST_BAND", 1)
    deployed = DeployedModel(Layers(lambda x: second(first(x))).eval(), "fp32", torch.float32)
    images = picture(height, 29)
    try:
        with torch.inference_mode():
            expected = deployed(images)
    except (RuntimeError, ValueError):
        return  # nothing is left of the map
    if 0 in expected.shape:
        return
    found = BandedProgram(deployed, (height, 29)).logits(images)
    assert relative(found, expected) < 1e-5


@pytest.mark.parametrize(
    ("layers", "height"),
    [
        pytest.param(
            lambda x: resize(F.conv2d(x, torch.ones(3, 3, 1, 1), stride=15), (40, 10)), 15, id="one row for all"
        ),
        pytest.param(lambda x: resize(x, (1, 9)), 33, id="first rows needed by nobody"),
        pytest.param(lambda x: F.pad(x[:, :, -1:-1], (0, 0, 0, 3)), 14, id="no rows"),
        pytest.param(lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, 8, 8)[:, :, -1:], 14, id="few rows, cut"),
        pytest.param(
            lambda x: resize(F.conv_transpose2d(x, torch.ones(3, 3, 1, 1), stride=2), (1, 9)),
            14,
            id="few, resized",
        ),
    ],
)
def test_rows_that_nobody_needs_are_no_trouble(
    layers: Callable[[Tensor], Tensor], height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "LARGEST_BAND", 1)
    monkeypatch.setattr(bands, "SMALLEST_BAND", 1)
    deployed = DeployedModel(Layers(layers).eval(), "fp32", torch.float32)
    images = picture(height, 29)
    with torch.inference_mode():
        assert relative(BandedProgram(deployed, (height, 29)).logits(images), deployed(images)) < 1e-5


class LiveBytes(TorchDispatchMode):
    """Counts the memory of tensors that were made while it is on and still exist."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.holders: Counter[int] = Counter()
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
                storage = tensor.untyped_storage()
                own = storage.data_ptr()
                if func._schema.returns[0].alias_info is None or own in self.sizes:
                    self.sizes[own] = storage.nbytes()
                    self.holders[own] += 1
                    weakref.finalize(tensor, self._gone, own)
        self.peak = max(self.peak, sum(self.sizes.values()))
        return result

    def _gone(self, own: int) -> None:
        self.holders[own] -= 1
        if self.holders[own] == 0:
            del self.sizes[own]


@pytest.mark.usefixtures("small_bands")
@pytest.mark.parametrize("name", ["espnet_c", "dfseg_df1"])
def test_no_more_memory_is_alive_than_the_program_says(name: str) -> None:
    deployed = build(name).deploy()
    images = picture(*SIZE)
    program = BandedProgram(deployed, SIZE)
    program.logits(images)  # weights are laid out once
    with LiveBytes() as live:
        program.logits(images)
    # small things (positions of rows, weights of resizing) are not counted by the program
    assert program.schedule.peak_bytes / 2 < live.peak < 1.1 * program.schedule.peak_bytes


def test_a_smaller_budget_makes_smaller_bands_and_one_that_is_too_small_names_the_smallest() -> None:
    deployed = build("bisenet_x39").deploy()
    with pytest.raises(
        ConfigError, match=r"budget is \d+ (bytes|KB), and an image of 331x203 pixels takes at least"
    ) as error:
        BandedProgram(deployed, SIZE, 1000)
    least = int(float(re.findall(r"at least ([\d.]+) MB", str(error.value))[0]) * 1e6)
    tight, loose = BandedProgram(deployed, SIZE, least), BandedProgram(deployed, SIZE)
    assert tight.peak_bytes <= least < loose.peak_bytes
    assert bands_of(tight) > bands_of(loose)
    images = picture(*SIZE)
    assert relative(tight.logits(images), loose.logits(images)) < 1e-5


def test_images_of_another_size_are_refused() -> None:
    program = BandedProgram(build("espnet_c").deploy(), (40, 60))
    with pytest.raises(ConfigError, match="40x60 pixels and this program is for 60x40"):
        program.labels(picture(60, 40))


def test_labels_by_one_call_are_the_deployed_networks() -> None:
    deployed = build("espnet_c").deploy()
    for height, width in ((64, 96), (50, 70), (50, 70)):
        images = picture(height, width)
        assert np.array_equal(banded_labels(deployed, images, 10**8), deployed.labels(images))
