"""Fused separable convolutions say what their blocks say, whatever the shapes, and stand aside where they cannot."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from fastseg.deploy import separable
from fastseg.deploy.conv import InferenceConv2d
from fastseg.deploy.fold import fold_norms, fuse_activations
from fastseg.deploy.row_bands import Reach, RowBands
from fastseg.deploy.separable import FusedFeatureFusion, FusedSeparable, fuse_separable
from fastseg.deploy.separable_kernel import kernel_runs
from fastseg.layers.conv import ConvBNAct, DepthwiseSeparableConv
from fastseg.layers.separable import InvertedResidual, SeparableFeatureFusion
from networks import build

pytestmark = pytest.mark.skipif(not kernel_runs(torch.float32), reason="the kernel needs a processor with AVX-512")
PRECISIONS = [torch.float32, torch.bfloat16] if kernel_runs(torch.bfloat16) else [torch.float32]
# of the largest result, or of 1, the size of what sums and ReLUs may cancel: float32 rounds sums of some hundred
# products to 1e-6; bfloat16 has 8 bits, to which each stage rounds what its product takes, and the last one its result
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


class Whole(nn.Module):
    """A network of one block."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *maps: Tensor) -> Tensor:
        return self.block(*maps)


def folded(block: nn.Module, seed: int = 0) -> nn.Module:
    """The block in eval mode as `deploy` leaves it, its norms random and folded."""
    generator = torch.Generator().manual_seed(seed)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                assert tensor is not None
                tensor.data.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias, module.running_mean):
                assert tensor is not None
                tensor.data.normal_(generator=generator)
    network = Whole(block).eval().requires_grad_(False)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, ConvBNAct):
                setattr(module, name, inference_form(child))
    return network.block


def inference_form(block: ConvBNAct) -> nn.Module:
    """Convolution, norm and ReLU in one."""
    norm, conv = block.bn, block.conv
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    new = InferenceConv2d.of(conv)
    new.weight = nn.Parameter(conv.weight * scale[:, None, None, None], requires_grad=False)
    new.bias = nn.Parameter(shift if conv.bias is None else shift + conv.bias * scale, requires_grad=False)
    new.activation = "relu" if hasattr(block, "act") else None
    return nn.Sequential(new, nn.Identity())


def fused(block: nn.Module) -> nn.Module:
    child = FusedFeatureFusion(block) if isinstance(block, SeparableFeatureFusion) else FusedSeparable(block)
    assert child.chain(), "not a chain for the kernel"
    return child


def random_map(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def assert_same(block: nn.Module, dtype: torch.dtype, *maps: Tensor) -> None:
    """The fused block, in this precision, against the block itself in float64."""
    block = block.to(dtype)
    candidate = fused(block)
    maps = tuple(x.to(dtype) for x in maps)
    with torch.inference_mode():
        kernel = candidate.kernel(*maps)  # type: ignore[operator]
        out = candidate(*maps)
        expected = copy.deepcopy(block).double()(*(x.double() for x in maps))
    assert kernel is not None, "the block itself was run"
    assert out.dtype == dtype
    assert out.shape == expected.shape
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert (out - expected).abs().max() <= TOLERANCE[dtype] * max(1, expected.abs().max())


sizes = st.tuples(st.integers(1, 2), st.integers(1, 17), st.integers(1, 40))
precisions = st.sampled_from(PRECISIONS)
channels = st.sampled_from([1, 3, 7, 16, 19, 32, 48, 70, 130])
even_channels = st.sampled_from([2, 6, 16, 32, 40])


@settings(max_examples=60, deadline=None)
@given(sizes, precisions, even_channels, channels, st.sampled_from([1, 2]), st.integers(1, 6))
def test_an_inverted_residual_is_what_its_layers_are(
    size: tuple[int, int, int], dtype: torch.dtype, inputs: int, outputs: int, stride: int, expansion: int
) -> None:
    block = folded(InvertedResidual(inputs, outputs, stride=stride, expansion=expansion))
    assert_same(block, dtype, random_map(size[0], inputs, *size[1:]))


@settings(max_examples=20, deadline=None)
@given(sizes, precisions, even_channels)
def test_an_inverted_residual_adds_its_input(size: tuple[int, int, int], dtype: torch.dtype, count: int) -> None:
    block = InvertedResidual(count, count, stride=1)
    assert block.use_identity
    assert_same(folded(block), dtype, random_map(size[0], count, *size[1:]))


@st.composite
def sequences(draw: st.DrawFn) -> tuple[nn.Module, int]:
    """One or two separable convolutions, perhaps between a first and a last convolution; and the input channels."""
    stem = draw(st.booleans())
    count = inputs = draw(st.sampled_from([1, 3, 4]) if stem else channels)
    blocks: list[nn.Module] = []
    if stem:
        inputs, count = count, draw(channels)
        blocks.append(ConvBNAct(inputs, count, 3, stride=2, activation=draw(st.booleans())))
    for _ in range(draw(st.integers(1, 2))):
        outputs = draw(channels)
        blocks.append(
            DepthwiseSeparableConv(
                count,
                outputs,
                stride=draw(st.sampled_from([1, 2])),
                dilation=draw(st.sampled_from([1, 2, 5])),
                depthwise_activation=draw(st.booleans()),
            )
        )
        count = outputs
    if draw(st.booleans()):
        blocks.append(ConvBNAct(count, draw(channels), activation=draw(st.booleans())))
    return folded(nn.Sequential(*blocks)), inputs


@settings(max_examples=80, deadline=None)
@given(sequences(), sizes, precisions)
def test_a_sequence_of_separable_convolutions_is_what_its_layers_are(
    sequence: tuple[nn.Module, int], size: tuple[int, int, int], dtype: torch.dtype
) -> None:
    block, inputs = sequence
    assert_same(block, dtype, random_map(size[0], inputs, *size[1:]))


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, precisions, even_channels, channels, channels, st.sampled_from([1, 4]), st.booleans())
def test_feature_fusion_is_what_its_layers_are(
    size: tuple[int, int, int],
    low: tuple[int, int, int],
    dtype: torch.dtype,
    detail: int,
    context: int,
    outputs: int,
    dilation: int,
    align_corners: bool,
) -> None:
    block = folded(
        SeparableFeatureFusion(detail, context, outputs, dilation=dilation, bias=True, align_corners=align_corners)
    )
    assert_same(block, dtype, random_map(size[0], detail, *size[1:]), random_map(size[0], context, *low[1:]))


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 1), (1, 300), (70, 1), (41, 131)])
def test_threads_change_no_bit(dtype: torch.dtype, height: int, width: int, threads: None) -> None:
    block = fused(folded(nn.Sequential(ConvBNAct(3, 32, 3, stride=2), DepthwiseSeparableConv(32, 48))).to(dtype))
    x = random_map(2, 3, height, width, dtype=dtype)
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        with torch.inference_mode():
            results.append(block(x))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_what_is_no_number_stays_visible() -> None:
    block = fused(folded(InvertedResidual(16, 16, stride=1)))
    x = random_map(1, 16, 9, 9)
    x[0, 3, 4, 4] = float("nan")
    with torch.inference_mode():
        lost = block(x).isnan().any(1)[0]
    assert lost[3:6, 3:6].all()
    assert lost.sum() == 9


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    """Fast-SCNN deployed without fused blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(separable, "kernel_runs", lambda dtype: False)
        deployed = build("fast_scnn").deploy()
    assert not any(isinstance(module, FusedSeparable) for module in deployed.modules())
    return deployed


@pytest.mark.parametrize("size", [(1, 1), (33, 65), (96, 130)])
def test_fast_scnn_says_the_same_with_fused_blocks(plain: nn.Module, size: tuple[int, int]) -> None:
    deployed = build("fast_scnn").deploy()
    # the stem, nine inverted residuals, the classifier; and the fusion between them
    assert sum(isinstance(module, FusedSeparable) for module in deployed.modules()) == 11
    assert sum(isinstance(module, FusedFeatureFusion) for module in deployed.modules()) == 1
    images = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits, expected = deployed(images), plain(images)
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_bands_of_rows_are_left_to_the_kernel() -> None:
    stage = folded(nn.Sequential(ConvBNAct(3, 8, 3, stride=2), DepthwiseSeparableConv(8, 8, stride=2)))
    network = Whole(RowBands(stage, Reach(stride=4, before=3, after=3)))
    fuse_separable(network)
    assert isinstance(network.block, FusedSeparable)
    assert isinstance(network.block.block, RowBands)


@pytest.mark.parametrize(
    "block",
    [
        nn.Sequential(ConvBNAct(8, 8), ConvBNAct(8, 8)),  # nothing depthwise
        nn.Sequential(ConvBNAct(8, 8, 3, groups=8), nn.MaxPool2d(1), ConvBNAct(8, 8)),
        nn.Sequential(ConvBNAct(8, 8, 5, groups=8), ConvBNAct(8, 8)),
        nn.Sequential(ConvBNAct(8, 16, 3, groups=8), ConvBNAct(16, 8)),
        nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), ConvBNAct(8, 8)),  # no padding
        nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, padding_mode="reflect"), ConvBNAct(8, 8)),
        nn.Sequential(ConvBNAct(8, 8, 3, groups=8, dilation=20), ConvBNAct(8, 8)),
        nn.Sequential(ConvBNAct(8, 8, 3), ConvBNAct(8, 8, 3, groups=8), ConvBNAct(8, 8)),  # a wide convolution
        nn.Sequential(ConvBNAct(8, 8, 3, groups=8), nn.ReLU6(), ConvBNAct(8, 8)),
    ],
)
def test_what_the_kernel_cannot_is_left_alone(block: nn.Module) -> None:
    network = Whole(block).eval().requires_grad_(False)
    fold_norms(network)
    fuse_activations(network)
    before = list(network.modules())
    fuse_separable(network)
    assert list(network.modules()) == before


class InParts(nn.Module):
    """Runs a sequence's parts one by one, and looks between them."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = folded(DepthwiseSeparableConv(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:  # type: ignore[attr-defined]
            x = step(x) + 1
        return x


def test_a_sequence_that_a_network_takes_apart_is_left_alone() -> None:
    network = InParts()
    steps = network.steps
    fuse_separable(network)
    assert network.steps is steps


@pytest.fixture
def block() -> nn.Module:
    return fused(folded(InvertedResidual(16, 16, stride=1)))


def test_gradients_reach_the_input(block: nn.Module) -> None:
    x = random_map(1, 16, 5, 5).requires_grad_()
    block(x).sum().backward()
    assert x.grad is not None


def test_a_tracer_sees_convolutions(block: nn.Module) -> None:
    traced = make_fx(block, tracing_mode="fake", _allow_non_fake_inputs=True)(random_map(1, 16, 5, 5))
    found = [node for node in traced.graph.nodes if node.target is torch.ops.aten.convolution.default]
    assert len(found) == 3


def test_an_exported_program_has_the_convolutions(block: nn.Module) -> None:
    x = random_map(1, 16, 5, 5)
    program = torch.export.export(block, (x,))
    assert torch.allclose(program.module()(x), block(x), atol=1e-4)


def test_other_precisions_run_the_block(block: nn.Module) -> None:
    x = random_map(1, 16, 5, 5).double()
    wide = block.double()
    assert torch.equal(wide(x), wide.block(x))  # type: ignore[operator]


def test_maps_of_any_memory_order_are_read(block: nn.Module) -> None:
    x = random_map(2, 16, 5, 7)
    with torch.inference_mode():
        assert torch.equal(block(x.contiguous()), block(x))
        assert torch.equal(block(x[:, :, 1:]), block(x[:, :, 1:].clone(memory_format=torch.channels_last)))


def test_a_copy_and_a_stored_one_say_the_same(block: nn.Module) -> None:
    x = random_map(1, 16, 9, 9)
    with torch.inference_mode():
        expected = block(x)
        assert torch.equal(copy.deepcopy(block)(x), expected)
        assert torch.equal(pickle.loads(pickle.dumps(block))(x), expected)


def test_new_weights_count(block: nn.Module) -> None:
    other = fused(folded(InvertedResidual(16, 16, stride=1), seed=1))
    x = random_map(1, 16, 9, 9)
    with torch.inference_mode():
        before = block(x)
        block.load_state_dict(other.state_dict())
        assert not torch.equal(block(x), before)
        assert torch.equal(block(x), other(x))


def test_autocast_and_empty_maps_run_the_block(block: nn.Module) -> None:
    x = random_map(1, 16, 5, 7)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(block(x), block.block(x))  # type: ignore[operator]
    with torch.inference_mode():
        assert block(x[:0]).shape == (0, 16, 5, 7)


class Doubling(nn.Sequential):
    """Runs its parts and more."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_a_sequence_with_its_own_forward_is_left_alone() -> None:
    network = Whole(folded(Doubling(DepthwiseSeparableConv(8, 8), DepthwiseSeparableConv(8, 8)))).eval()
    fuse_separable(network)
    x = random_map(1, 8, 5, 7)
    alone = copy.deepcopy(network)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), 2 * nn.Sequential(*alone.block)(x))  # type: ignore[misc]


def test_dilations_of_two_kinds_are_left_alone() -> None:
    depthwise = nn.Conv2d(8, 8, 3, padding=(1, 2), dilation=(1, 2), groups=8)
    network = Whole(folded(nn.Sequential(depthwise, nn.ReLU(), nn.Conv2d(8, 8, 1)))).eval()
    x = random_map(1, 8, 9, 9)
    with torch.inference_mode():
        expected = network(x)
        fuse_separable(network)
        torch.testing.assert_close(network(x), expected)
