"""ICNet's published facts: parameters, work, strides, auxiliary outputs; its two forms and what they compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fastseg.models import ICNet, create_model

FCN_HEADS = 2 * (9 * 128 * 128 + 2 * 128 + 129 * 19)
CLASSIFIERS = 257 * 19 + 129 * 19


def network(name: str = "icnet_r18", **arguments: Any) -> ICNet:
    torch.manual_seed(0)
    model = create_model(name, **arguments)
    assert isinstance(model, ICNet)
    return model


def multiply_adds(model: nn.Module, *size: int) -> float:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, *size))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("icnet_r18", {}, 24_874_067),  # mmsegmentation, icnet_r18-d8 and icnet_r50-d8 without auxiliary heads
        ("icnet_r50", {}, 47_527_507),
        ("icnet_r18", {"aux": True}, 25_174_393),  # with them
        ("icnet_r50", {"aux": True}, 47_827_833),
        ("icnet_r18", {"aux": True, "guidance": "input"}, 24_874_067 + CLASSIFIERS),
        # meetps's port has 7,757,945: with the auxiliary classifiers, and with four 1x1 convolutions that never run
        ("icnet_r50_half", {"aux": True}, 7_757_945 - 4 * (1024 * 256 + 2 * 256)),
        ("icnet_r50_half", {}, 7_757_945 - 4 * (1024 * 256 + 2 * 256) - CLASSIFIERS),
        ("icnet_r50_half", {"aux": True, "guidance": "refined"}, 6_699_987 + FCN_HEADS),
        ("icnet_r50_half", {"num_classes": 11}, 6_699_987 - 8 * 129),
        ("icnet_r50_half", {"in_channels": 4}, 6_699_987 + 2 * 9 * 32),
    ],
)
def test_parameters(name: str, arguments: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in create_model(name, **arguments).parameters()) == count


@pytest.mark.parametrize(
    ("name", "size", "published"),
    [
        ("icnet_r18", (512, 1024), 18.6e9),
        ("icnet_r18", (1024, 2048), 74.2e9),
        ("icnet_r50", (512, 1024), 30.6e9),
        ("icnet_r50", (1024, 2048), 122.0e9),
    ],
)
def test_multiply_adds_with_mmsegmentations_sizes(name: str, size: tuple[int, int], published: float) -> None:
    with torch.device("meta"):
        model, smaller = (create_model(name, mmseg_sizes=mmseg, aux=True).eval() for mmseg in (True, False))
    work = multiply_adds(model, *size)
    assert work == pytest.approx(published, rel=2e-3)
    assert 0.99 * work < multiply_adds(smaller, *size) < work  # without the row and the column that hang over


def test_multiply_adds_at_half_width() -> None:
    """meetps's port: 30.6 G, with the rest of the second stage run again for nothing, with auxiliary classifiers in
    eval, and with the classifier after the upsampling by two."""
    with torch.device("meta"):
        model = create_model("icnet_r50_half", aux=True).eval()
    stage = 3 * (256 * 64 + 9 * 64 * 64 + 64 * 256) * 33 * 65
    auxiliary = (256 * 65 * 129 + 128 * 129 * 257) * 19
    upsampled = 128 * 19 * (257 * 513 - 129 * 257)
    assert multiply_adds(model, 1025, 2049) + stage + auxiliary + upsampled == pytest.approx(30.6e9, rel=2e-3)


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 31), (1, 1)], ids=str)
@pytest.mark.parametrize(
    ("arguments", "stride"), [({}, 8), ({"form": "authors"}, 4), ({"form": "authors", "guidance": "input"}, 4)]
)
def test_strides_round_up(arguments: dict[str, Any], stride: int, size: tuple[int, int]) -> None:
    model = network(num_classes=5, aux=True, **arguments).train()
    assert model.aux_names == ("sub4", "sub24")
    output = model(torch.randn(2, 3, *size))
    for x, step in ((output.logits, stride), (output.aux["sub4"], 16), (output.aux["sub24"], 8)):
        assert x.shape == (2, 5, -(-size[0] // step), -(-size[1] // step))


def inputs_of(model: ICNet, names: list[str], images: Tensor) -> dict[str, list[Tensor]]:
    """What each of the modules was given, call by call."""
    given: dict[str, list[Tensor]] = {name: [] for name in names}

    def keep(name: str) -> Any:
        return lambda module, inputs: given[name].append(inputs[0].detach().clone())

    handles = [model.get_submodule(name).register_forward_pre_hook(keep(name)) for name in names]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return given


@pytest.mark.parametrize(("form", "stride"), [("mmsegmentation", 8), ("authors", 16)])
def test_no_stage_runs_twice_and_the_cut_halves_the_map(form: str, stride: int) -> None:
    """`stride` is of the map that enters the second block of the second stage."""
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
    names = ["conv1", *blocks]
    given = inputs_of(network(form=form).eval(), [f"backbone.{name}" for name in names], torch.randn(1, 3, 330, 522))
    assert [len(maps) for maps in given.values()] == [1] * 9
    strides = [2, 8, 8, 8, 2 * stride, 32, 32, 32, 32]
    assert [x.shape[2:] for (x,) in given.values()] == [(-(-330 // s), -(-522 // s)) for s in strides]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("guidance", ["refined", "input"])
def test_the_authors_form_is_their_prototxt(guidance: str, align_corners: bool) -> None:
    """With the classifier where they have it, after the upsampling by two."""

    def to(x: Tensor, height: int, width: int) -> Tensor:
        return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=align_corners)

    model = network("icnet_r50_half", num_classes=5, aux=True, guidance=guidance, align_corners=align_corners).double()
    model.eval()
    model.training = True  # of the whole only, so that auxiliary heads run over fixed norms
    resnet, images = model.backbone, torch.randn(1, 3, 65, 129, dtype=torch.float64)
    with torch.no_grad():
        logits, aux = model(images)
        stem = resnet.stem_features(to(images, 33, 65))
        medium = resnet.layer2[0](resnet.layer1(stem))
        assert medium.shape[2:] == (5, 9)
        x = resnet.layer2[1:](to(medium, 3, 5))
        x = resnet.layer4(resnet.layer3(x))
        x = x + sum(to(F.adaptive_avg_pool2d(x, bins), 3, 5) for bins in (1, 2, 3, 6))
        low4 = to(model.context[1](x), 5, 9)  # type: ignore[index]
        refined4 = model.fusion24.low(low4)
        low24 = to((refined4 + model.fusion24.high(medium)).relu(), 9, 17)
        refined24 = model.fusion12.low(low24)
        fused = (refined24 + model.fusion12.high(model.fine(images))).relu()
        expected = model.head([to(fused, 17, 33)])
        guides = (low4, low24) if guidance == "input" else (refined4, refined24)
        expected_aux = [head([x]) for head, x in zip(model.aux_heads.values(), guides, strict=True)]
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(list(aux.values()), expected_aux)


def test_with_input_guidance_auxiliary_classifiers_are_1x1_and_see_the_coarser_map() -> None:
    model = network(aux=True, guidance="input")
    convolutions = [m for m in model.aux_heads.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.kernel_size) for m in convolutions] == [(256, (1, 1)), (128, (1, 1))]


def test_mmsegmentations_sizes_have_a_row_and_a_column_more_and_then_leave_one_out() -> None:
    images = torch.randn(1, 3, 128, 256)
    names = ["backbone.layer1", "backbone.layer3"]
    plain = inputs_of(network().eval(), names, images)
    mmseg = inputs_of(network(mmseg_sizes=True).eval(), names, images)
    assert [x.shape[2:] for (x,) in plain.values()] == [(16, 32), (4, 8)]
    assert [x.shape[2:] for (x,) in mmseg.values()] == [(17, 33), (4, 8)]


MODEL = network(num_classes=2, mmseg_sizes=True).eval()


@given(st.integers(1, 130), st.integers(1, 130))
@settings(max_examples=20, deadline=None)
def test_mmsegmentations_sizes_take_any_image(height: int, width: int) -> None:
    with torch.no_grad():
        logits = MODEL(torch.ones(1, 3, height, width)).logits
    assert logits.shape == (1, 2, -(-height // 8), -(-width // 8))
    assert logits.isfinite().all()


def test_one_exported_program_has_mmsegmentations_sizes_at_all_sizes() -> None:
    dynamic = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        program = torch.export.export(MODEL, (torch.randn(1, 3, 96, 128),), dynamic_shapes=(dynamic,)).module()
        for size in ((65, 97), (130, 225)):
            images = torch.randn(1, 3, *size)
            torch.testing.assert_close(program(images).logits, MODEL(images).logits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"form": "paper"}, "ICNet's form is 'paper'; allowed: 'mmsegmentation', 'authors'"),
        ({"guidance": "output"}, "ICNet's guidance is 'output'; allowed: 'refined', 'input'"),
        ({"backbone_weights": "imagenet"}, "stem is 'deep', the weights need 'plain'"),
    ],
)
def test_a_wrong_argument_says_what_is_allowed(arguments: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        create_model("icnet_r18", **arguments)


def test_half_width_halves_the_stages_and_keeps_the_stem() -> None:
    with torch.device("meta"):
        backbone = network("icnet_r50_half").backbone
    assert [info.channels for info in backbone.feature_info] == [128, 256, 512, 1024]
    assert [m.out_channels for m in backbone.conv1.modules() if isinstance(m, nn.Conv2d)] == [32, 32, 64]
