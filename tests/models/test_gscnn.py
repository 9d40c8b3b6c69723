"""Gated-SCNN: parameters and work of its parts, gated convolutions, which maps go where, the edge prior, the edges."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from descriptions import Weights, assert_same, uneven, upsample
from fastseg.models import create_model
from fastseg.models.gscnn import GatedConvolution, GatedSCNN
from fastseg.ops import normalize_images
from fastseg.ops.canny import canny
from fastseg.types import DatasetInfo, Preprocessing, WeightsInfo

ASPP_OF = {channels: 2 * channels * 256 + 3 * 9 * channels * 256 + 5 * 512 for channels in (2048, 4096)}
SHAPE_STREAM = 103_018 - 2  # the authors', of which the fusion of edges and prior has 2
SIDES = {"gscnn_r50": 512 + 1024 + 2048 + 3, "gscnn_wrn38": 256 + 512 + 4096 + 3}
HEAD = 9 * 304 * 256 + 512 + 9 * 256 * 256 + 512 + 256 * 19


def network(name: str = "gscnn_r50", **arguments: Any) -> GatedSCNN:
    torch.manual_seed(0)
    model = create_model(name, **arguments)
    assert isinstance(model, GatedSCNN)
    return model


def small(name: str = "gscnn_r50", **arguments: Any) -> GatedSCNN:
    """Five classes; the authors' regular stream with an eighth of its channels."""
    return network(name, num_classes=5, **arguments, **({"width": 0.125} if name == "gscnn_wrn38" else {}))


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def pictures(count: int = 1, height: int = 48, width: int = 64, seed: int = 0) -> Tensor:
    """uint8 RGB (N,H,W,3): smooth blobs, so that Canny finds some edges and leaves other places without."""
    noise = torch.rand(count, 3, 6, 8, generator=torch.Generator().manual_seed(seed))
    return (255 * F.interpolate(noise, size=(height, width), mode="bicubic")).clamp(0, 255).byte().permute(0, 2, 3, 1)


def normalised(raw: Tensor, preprocessing: Preprocessing | None = None) -> Tensor:
    return normalize_images(raw, preprocessing or Preprocessing())


def prior_of(raw: Tensor) -> Tensor:
    return canny(raw.permute(0, 3, 1, 2).float())


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        # nv-tlabs/GSCNN, network/gscnn.py: with a side on mod1, of 64 channels, that never runs
        ("gscnn_wrn38", {}, 137_278_190 - 65),
        # leftthomas/GatedSCNN, model.py, whose ResNet has a deep stem and keeps its ImageNet classifier
        ("gscnn_r50", {"stem": "deep"}, 42_592_181 - 2_049_000),
        ("gscnn_r101", {"stem": "deep"}, 61_584_309 - 2_049_000),
        ("gscnn_r50", {}, 40_543_181 - (27 * 32 + 9 * 32 * 32 + 9 * 32 * 64 + 4 * 32 - 49 * 3 * 64)),
        ("gscnn_r101", {}, 59_535_309 - 19_232),
        ("gscnn_r50", {"aux": True}, 40_523_949),  # the edge map is there in any case
        ("gscnn_r50", {"aux": True, "class_edges": True}, 40_523_949 + 18 * 8),
        ("gscnn_r50", {"num_classes": 11}, 40_523_949 - 8 * 256),
        ("gscnn_r50", {"in_channels": 4}, 40_523_949 + 49 * 64),
        ("gscnn_r50", {"contract_dilation": False, "align_corners": False}, 40_523_949),
    ],
)
def test_parameters(name: str, arguments: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        assert parameters(network(name, **arguments)) == count


@pytest.mark.parametrize(("name", "fine", "coarse"), [("gscnn_r50", 256, 2048), ("gscnn_wrn38", 128, 4096)])
def test_parameters_of_the_parts(name: str, fine: int, coarse: int) -> None:
    with torch.device("meta"):
        model = network(name)
    assert parameters(model.shape_stream) == SHAPE_STREAM + SIDES[name]
    assert parameters(model.edge_fusion) == 2
    assert parameters(model.aspp) == ASPP_OF[coarse]
    assert parameters(model.edge_branch) == 256 + 512
    assert parameters(model.context) == 6 * 256 * 256
    assert parameters(model.fine) == 48 * fine
    assert parameters(model.head) == HEAD


@pytest.mark.parametrize(("name", "published"), [("gscnn_r50", 421.8e9), ("gscnn_r101", 577.0e9)])
def test_multiply_adds_are_those_of_the_port(name: str, published: float) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network(name, stem="deep").eval()(torch.zeros(1, 3, 512, 1024))
    assert counter.get_total_flops() / 2 == pytest.approx(published, rel=3e-4)  # four digits are known


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 31), (1, 1)], ids=str)
@pytest.mark.parametrize(("name", "stride"), [("gscnn_r50", 4), ("gscnn_wrn38", 2)])
def test_logits_stand_at_the_stride_of_the_fine_map_and_edges_at_the_image(
    name: str, stride: int, size: tuple[int, int]
) -> None:
    model = small(name, aux=True).train()
    assert model.aux_names == ("edge",)
    assert model.aux_losses == {"edge": "edge_cross_entropy"}
    output = model(torch.randn(2, 3, *size))
    assert output.logits.shape == (2, 5, -(-size[0] // stride), -(-size[1] // stride))
    assert output.aux["edge"].shape == (2, 1, *size)


def test_without_aux_and_in_eval_there_is_no_auxiliary_output() -> None:
    images = torch.randn(2, 3, 32, 32)
    assert small().train()(images).aux == {}
    assert small(aux=True).eval()(images).aux == {}


# gated convolutions


def test_a_gated_convolution_is_its_formula_at_every_pixel() -> None:
    layer = GatedConvolution(2)
    uneven(layer)
    state = {name: value.tolist() for name, value in layer.state_dict().items()}
    x, side = torch.randn(1, 2, 2, 3).double(), torch.randn(1, 1, 2, 3).double()
    with torch.no_grad():
        result = layer(x, side)

    def norm(name: str, values: list[float]) -> list[float]:
        parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return [(v - m) / (s + 1e-5) ** 0.5 * w + b for v, m, s, w, b in zip(values, *parts, strict=True)]

    def product(name: str, values: list[float]) -> list[float]:
        rows = [[column[0][0] for column in row] for row in state[f"{name}.weight"]]
        shifts = state.get(f"{name}.bias", [0.0] * len(rows))
        return [sum(a * b for a, b in zip(row, values, strict=True)) + c for row, c in zip(rows, shifts, strict=True)]

    for row in range(2):
        for column in range(3):
            f = x[0, :, row, column].tolist()
            hidden = [max(v, 0.0) for v in product("gate.1", norm("gate.0", [*f, float(side[0, 0, row, column])]))]
            (score,) = norm("gate.4", product("gate.3", hidden))
            alpha = 1 / (1 + 2.718281828459045**-score)
            expected = product("conv", [v * (alpha + 1) for v in f])
            torch.testing.assert_close(result[0, :, row, column].tolist(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("score", "factor"), [(-100.0, 1.0), (0.0, 1.5), (100.0, 2.0)])
def test_a_gate_lets_pass_between_once_and_twice(score: float, factor: float) -> None:
    layer = GatedConvolution(4).eval()
    last_norm = layer.gate.get_submodule("4")
    assert isinstance(last_norm, nn.BatchNorm2d)
    nn.init.zeros_(last_norm.weight)
    nn.init.constant_(last_norm.bias, score)
    x = torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(layer(x, torch.randn(1, 1, 3, 3)), factor * layer.conv(x))


# which maps go where


def watch(model: nn.Module, visit: Callable[[str, Tensor, Tensor], None]) -> None:
    """Call `visit` with name, first input and output of every module that runs."""
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _, given, result, name=name: visit(name, given[0], result) if isinstance(result, Tensor) else None
        )


@pytest.mark.parametrize(
    ("name", "places"),
    [
        (
            "gscnn_r50",
            {
                "shape_stream.side_convs.0": "backbone.layer2",
                "shape_stream.side_convs.1": "backbone.layer3",
                "shape_stream.side_convs.2": "backbone.layer4",
                "aspp.pointwise": "backbone.layer4",
                "fine": "backbone.layer1",
            },
        ),
        (
            "gscnn_wrn38",
            {
                "shape_stream.side_convs.0": "backbone.mod3",
                "shape_stream.side_convs.1": "backbone.mod4",
                "shape_stream.side_convs.2": "backbone.mod7",
                "shape_stream.blocks.0": "backbone.mod1",  # at the size of the image already
                "aspp.pointwise": "backbone.mod7",
                "fine": "backbone.mod2",
            },
        ),
    ],
)
def test_maps_of_the_regular_stream_go_where_the_paper_sends_them(name: str, places: dict[str, str]) -> None:
    model = small(name).eval()
    given: dict[str, Tensor] = {}
    made: dict[str, Tensor] = {}

    def keep(module: str, x: Tensor, result: Tensor) -> None:
        given[module], made[module] = x.clone(), result.clone()

    watch(model, keep)
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    for part, stage in places.items():
        assert torch.equal(given[part], made[stage]), part


def test_with_a_resnet_the_shape_stream_starts_from_the_stem_before_its_max_pool() -> None:
    model = small().eval()
    given: dict[str, Tensor] = {}
    watch(model, lambda module, x, _: given.update({module: x.clone()}))
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 96))
    stem = given["backbone.maxpool"]
    assert stem.shape == (1, 64, 32, 48)
    assert torch.equal(
        given["shape_stream.blocks.0"],
        F.interpolate(stem, size=(64, 96), mode="bilinear", align_corners=True),
    )


@pytest.mark.parametrize("position", [0, 1, 2])
def test_every_gate_listens_to_its_side(position: int) -> None:
    model = small().double().eval()
    images = torch.randn(1, 3, 64, 64).double()
    with torch.no_grad():
        before = model.predict_edges(images)
        assert torch.equal(model.predict_edges(images), before)
        model.get_parameter(f"shape_stream.side_convs.{position}.weight").mul_(-1)
        assert not torch.allclose(model.predict_edges(images), before)


def test_at_inference_large_maps_are_gone_when_the_next_ones_are_made() -> None:
    """At 1024x2048 the upsampled stem has half a GB, and the last map of the regular stream a quarter."""
    model = small().eval()
    maps: dict[str, weakref.ref[Tensor]] = {}
    alive: dict[str, list[str]] = {}

    def before(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            alive[name] = [other for other, ref in maps.items() if ref() is not None]
            if name == "shape_stream.blocks.0":
                maps["upsampled"] = weakref.ref(given[0])

        return hook

    for name in ("layer2", "layer3", "layer4"):
        model.get_submodule(f"backbone.{name}").register_forward_hook(
            lambda _, given, result, name=name: maps.update({name: weakref.ref(result)})
        )
    for name in ("aspp", "shape_stream.blocks.0", "shape_stream.gated_convs.0", "head"):
        model.get_submodule(name).register_forward_pre_hook(before(name))
    for run in (model, model.predict_edges):
        maps.clear()
        alive.clear()
        with torch.inference_mode():
            run(torch.randn(1, 3, 64, 64))
        assert alive["shape_stream.blocks.0"] == []
        assert alive["shape_stream.gated_convs.0"] == []
        assert alive.get("head", []) == []
    assert "aspp" not in alive


def test_the_watch_on_memory_sees_maps_that_are_alive() -> None:
    """Negative control of the test above: ASPP runs while the maps of the regular stream are there."""
    model, seen = small().eval(), []
    made: list[weakref.ref[Tensor]] = []
    model.backbone.layer2.register_forward_hook(lambda _, given, result: made.append(weakref.ref(result)))  # type: ignore[union-attr]
    model.aspp.register_forward_pre_hook(lambda _, given: seen.append(made[0]() is not None))
    with torch.inference_mode():
        model(torch.randn(1, 3, 64, 64))
    assert seen == [True]


# the edge prior


@pytest.mark.parametrize(
    "preprocessing", [None, Preprocessing((0.1, 0.2, 0.3), (0.5, 0.25, 0.125), "bgr")], ids=["default", "own"]
)
def test_the_prior_is_canny_on_the_image_before_normalisation(preprocessing: Preprocessing | None) -> None:
    model, raw = small().eval(), pictures(2)
    if preprocessing is not None:
        classes = DatasetInfo("toy", tuple("abcde"), ())
        model.weights_info = WeightsInfo("gscnn_r50", "toy", "", "", classes, preprocessing)
    images, prior = normalised(raw, preprocessing), prior_of(raw)
    assert 0.02 < prior.mean() < 0.5
    with torch.no_grad():
        computed = model(images).logits
        assert torch.equal(computed, model(images, edge_prior=prior).logits)
        assert not torch.equal(computed, model(images, edge_prior=torch.zeros_like(prior)).logits)


def test_a_wrong_mean_gives_another_prior() -> None:
    """Negative control: the model must know how its images were normalised."""
    model, raw = small().eval(), pictures()
    images = normalised(raw, Preprocessing(std=(0.9, 0.9, 0.9)))
    with torch.no_grad():
        assert not torch.equal(model(images).logits, model(images, edge_prior=prior_of(raw)).logits)


@pytest.mark.parametrize("shape", [(1, 1, 48, 64), (2, 3, 48, 64), (2, 1, 24, 32), (2, 48, 64)], ids=str)
def test_a_prior_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"edge_prior has shape .*; for these images it must be \(2, 1, 48, 64\)"):
        small().eval()(torch.randn(2, 3, 48, 64), edge_prior=torch.zeros(shape))


def test_images_of_other_channels_need_their_prior_handed_in() -> None:
    model, images = small(in_channels=4).eval(), torch.randn(1, 4, 32, 32)
    with pytest.raises(ValueError, match="images of 3 channels and these have 4; give edge_prior"):
        model(images)
    with torch.no_grad():
        assert model(images, edge_prior=torch.zeros(1, 1, 32, 32)).logits.shape == (1, 5, 8, 8)
        assert model.predict_edges(images).shape == (1, 1, 32, 32)


@pytest.mark.slow
def test_one_exported_program_takes_images_and_priors_of_all_sizes() -> None:
    model = small().eval()
    dims = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    inputs = (torch.randn(1, 3, 160, 192), torch.rand(1, 1, 160, 192))
    with torch.no_grad():
        program = torch.export.export(model, inputs, dynamic_shapes=(dims, dims)).module()
        for size in ((160, 192), (136, 264)):
            images, prior = torch.randn(1, 3, *size), torch.rand(1, 1, *size)
            expected = model(images, prior).logits
            torch.testing.assert_close(program(images, prior).logits, expected, rtol=1e-4, atol=1e-4)


# edges


@pytest.mark.parametrize("class_edges", [False, True])
def test_predicted_edges_are_the_probabilities_of_the_edge_logits(class_edges: bool) -> None:
    model = small(aux=True, class_edges=class_edges).eval()
    images, runs = torch.randn(2, 3, 33, 47), []
    with torch.no_grad():
        model.training = True  # auxiliary outputs, while all norms stay in eval mode
        expected = model(images).aux["edge"].sigmoid()
        model.eval()
        for part in (model.aspp, model.head):
            part.register_forward_hook(lambda *_: runs.append(1))
        edges = model.predict_edges(images)
    assert edges.shape == (2, 5 if class_edges else 1, 33, 47)
    assert torch.equal(edges, expected)
    assert not runs  # the segmentation has no part in them


def shape_gradients(model: GatedSCNN) -> list[bool]:
    """Of each weight of the shape stream, whether the segmentation alone gives it a gradient.

    Not of biases: a batch norm behind them cancels theirs.
    """
    model.train()
    model(normalised(pictures(2))).logits.square().sum().backward()
    weights = [p for name, p in model.shape_stream.named_parameters() if name.endswith("weight")]
    return [p.grad is not None and bool(p.grad.count_nonzero()) for p in weights]


def test_the_segmentation_teaches_the_shape_stream_through_the_edge_branch() -> None:
    assert all(shape_gradients(small()))
    deaf = small()
    with torch.no_grad():
        deaf.edge_fusion.weight[:, 0] = 0  # the edges' weight; the prior keeps its own
    assert not any(shape_gradients(deaf))


def test_the_prior_carries_no_gradient() -> None:
    model = small().eval()
    images = normalised(pictures()).requires_grad_()
    given = images.detach().clone().requires_grad_()
    model(images).logits.square().sum().backward()
    model(given, edge_prior=prior_of(pictures())).logits.square().sum().backward()
    assert images.grad is not None
    assert given.grad is not None
    assert torch.equal(images.grad, given.grad)


def test_alignment_changes_the_logits_and_holds_for_the_final_resize() -> None:
    one, other = small().eval(), small(align_corners=False).eval()
    other.load_state_dict(one.state_dict())
    images = torch.randn(1, 3, 40, 56)
    with torch.no_grad():
        assert not torch.allclose(one(images).logits, other(images).logits)
    assert one.align_corners is True
    assert other.align_corners is False


def test_a_batch_of_one_cannot_train_since_a_norm_follows_the_mean_over_the_map() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        small().train()(torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("gscnn_r50", {"stem": "shallow"}, "stem is 'shallow'; allowed: 'plain'"),
        ("gscnn_r101", {"backbone_weights": "imagenet", "stem": "deep"}, "stem is 'deep', the weights need 'plain'"),
        ("gscnn_wrn38", {"backbone_weights": "imagenet"}, "which has no WideResNet-38"),
    ],
)
def test_a_wrong_argument_says_what_is_allowed(name: str, arguments: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        network(name, **arguments)


# the whole network, described once more


def resnet50_by_its_description(weights: Weights, images: Tensor) -> list[Tensor]:
    """Stem, and the maps of its four stages at strides 4, 8, 8, 8."""

    def bottleneck(name: str, x: Tensor, stride: int, dilation: int) -> Tensor:
        shortcut = x
        if name.endswith(".0"):
            shortcut = weights.norm(f"{name}.downsample.1", weights.conv(f"{name}.downsample.0", x, stride=stride))
        x = F.relu(weights.norm(f"{name}.bn1", weights.conv(f"{name}.conv1", x)))
        x = F.relu(weights.norm(f"{name}.bn2", weights.conv(f"{name}.conv2", x, stride=stride, dilation=dilation)))
        return F.relu(weights.norm(f"{name}.bn3", weights.conv(f"{name}.conv3", x)) + shortcut)

    stem = F.relu(weights.norm("backbone.bn1", weights.conv("backbone.conv1", images, stride=2)))
    x, maps = F.max_pool2d(stem, 3, 2, 1), [stem]
    for stage, (stride, dilations) in enumerate(
        ((1, [1] * 3), (2, [1] * 4), (1, [1, 2, 2, 2, 2, 2]), (1, [2, 4, 4])), start=1
    ):
        for block, dilation in enumerate(dilations):
            x = bottleneck(f"backbone.layer{stage}.{block}", x, stride if block == 0 else 1, dilation)
        maps.append(x)
    return maps


def wide_resnet38_by_its_description(weights: Weights, images: Tensor) -> list[Tensor]:
    """mod1, mod2, mod3, mod4, mod7."""

    def unit(name: str, x: Tensor, stride: int, dilation: int) -> Tensor:
        wide = name.startswith(("backbone.mod6", "backbone.mod7"))
        first = F.relu(weights.norm(f"{name}.bn1", x))
        shortcut = x
        if name.endswith(".0"):
            shortcut = weights.conv(f"{name}.projection", first, stride=stride)
        x = weights.conv(f"{name}.conv1", first, stride=stride, dilation=1 if wide else dilation)
        x = weights.conv(f"{name}.conv2", F.relu(weights.norm(f"{name}.bn2", x)), dilation=dilation)
        if wide:
            x = weights.conv(f"{name}.conv3", F.relu(weights.norm(f"{name}.bn3", x)))
        return x + shortcut

    x = weights.conv("backbone.mod1", images)
    maps = [x]
    for module, (units, stride, dilation) in enumerate(
        ((3, 1, 1), (3, 1, 1), (6, 2, 1), (3, 1, 2), (1, 1, 4), (1, 1, 4)), start=2
    ):
        x = F.max_pool2d(x, 3, 2, 1) if module < 4 else x
        for index in range(units):
            x = unit(f"backbone.mod{module}.{index}", x, stride if index == 0 else 1, dilation)
        maps.append(x)
    return [*maps[:4], maps[6]]


def network_by_its_description(
    weights: Weights, maps: list[Tensor], images: Tensor, prior: Tensor
) -> dict[str, Tensor]:
    """Figure 2 of the paper, with the authors' code for what it leaves open; logits, and those of the edges."""
    start, fine, *gating = maps

    def up(x: Tensor, like: Tensor) -> Tensor:
        return upsample(x, like, align_corners=True)

    def basic_block(name: str, x: Tensor) -> Tensor:
        inner = F.relu(weights.norm(f"{name}.bn1", weights.conv(f"{name}.conv1", x)))
        return F.relu(weights.norm(f"{name}.bn2", weights.conv(f"{name}.conv2", inner)) + x)

    def gated(name: str, x: Tensor, side: Tensor) -> Tensor:
        inner = weights.conv(f"{name}.gate.1", weights.norm(f"{name}.gate.0", torch.cat([x, side], 1)))
        alpha = torch.sigmoid(weights.norm(f"{name}.gate.4", weights.conv(f"{name}.gate.3", F.relu(inner))))
        return weights.conv(f"{name}.conv", x * alpha + x)

    x = up(start, images)
    for step in range(3):
        side = up(weights.conv(f"shape_stream.side_convs.{step}", gating[step]), images)
        x = weights.conv(f"shape_stream.reductions.{step}", basic_block(f"shape_stream.blocks.{step}", x))
        x = gated(f"shape_stream.gated_convs.{step}", x, side)
    edge = weights.conv("shape_stream.classifier", x)
    both = torch.cat([torch.sigmoid(edge.max(1, keepdim=True).values), prior], 1)
    attention = torch.sigmoid(weights.conv("edge_fusion", both))
    coarse = gating[-1]
    branches = [
        weights.conv_norm_relu("aspp.pointwise", coarse),
        *(weights.conv_norm_relu(f"aspp.dilated.{i}", coarse, dilation=12 * (i + 1)) for i in range(3)),
        weights.conv_norm_relu("aspp.image", coarse.mean((2, 3), keepdim=True)).expand(-1, -1, *coarse.shape[2:]),
        weights.conv_norm_relu("edge_branch", up(attention, coarse)),
    ]
    context = weights.conv("context", torch.cat(branches, 1))
    fine = weights.conv("fine", fine)
    x = torch.cat([fine, up(context, fine)], 1)
    x = weights.conv_norm_relu("head.1", weights.conv_norm_relu("head.0", x))
    return {"logits": weights.conv("head.2", x), "edge": edge}


@pytest.mark.parametrize(
    ("name", "backbone", "class_edges", "size"),
    [
        ("gscnn_r50", resnet50_by_its_description, False, (65, 97)),
        ("gscnn_r50", resnet50_by_its_description, True, (48, 64)),
        ("gscnn_wrn38", wide_resnet38_by_its_description, False, (41, 56)),
    ],
)
def test_the_network_is_its_description(
    name: str, backbone: Callable[[Weights, Tensor], list[Tensor]], class_edges: bool, size: tuple[int, int]
) -> None:
    model = small(name, aux=True, class_edges=class_edges)
    uneven(model)
    model.training = True  # auxiliary outputs, while all norms and dropout stay in eval mode
    weights, raw = Weights(model), pictures(2, *size)
    images = raw.permute(0, 3, 1, 2).double() / 255 - torch.tensor([0.485, 0.456, 0.406])[:, None, None].double()
    images = images / torch.tensor([0.229, 0.224, 0.225])[:, None, None].double()
    with torch.no_grad():
        expected = network_by_its_description(weights, backbone(weights, images), images, prior_of(raw).double())
        output = model(images)
    assert_same({"logits": output.logits, **output.aux}, expected)
    assert not weights.unread
    assert output.logits.std((2, 3)).mean() > 1e-3
