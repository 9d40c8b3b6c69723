"""What every registered network keeps, tested for each the moment it is registered."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection
from typing import Any

import pytest
import torch
from torch import nn

from fastseg.errors import UnknownNameError
from fastseg.models import MODELS, create_model, list_models
from fastseg.types import SegModel
from networks import NAMES, NUM_CLASSES, SLOW, build, untrained


def in_float64(model: SegModel) -> SegModel:
    """A copy, for statements about the network and not about rounding: at random weights float32's grows with depth,
    to a thousandth of the logits through DFANet's 42 blocks in series."""
    return copy.deepcopy(model).double()


def smooth(model: SegModel) -> SegModel:
    """A copy in training mode without dropout, and with the norms' statistics fixed: those of a batch would cancel the
    gradient of a bias before the norm, and magnify rounding where a map has a handful of pixels."""
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.Dropout, nn.Dropout2d)):
            module.eval()
    return model


def with_slow(slow: Collection[str]) -> list[Any]:
    """All networks, those of the given names marked."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in slow else []) for name in NAMES]


@pytest.fixture(scope="module", params=with_slow(SLOW))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(name: str) -> SegModel:
    """Shared by tests that leave it as it is: eval mode, auxiliary heads on."""
    return build(name, aux=True)


def test_there_are_models() -> None:
    assert list_models() == NAMES
    assert len(NAMES) >= 29


def test_the_logits_compared_below_vary_over_the_image(model: SegModel) -> None:
    with torch.no_grad():
        assert model(torch.randn(1, 3, 96, 128)).logits.std(dim=(2, 3)).mean() > 0.05


def test_the_builder_takes_num_classes_and_a_switch_for_auxiliary_heads(name: str) -> None:
    arguments = MODELS.arguments(name)
    assert "num_classes" in arguments
    assert all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in arguments.values())
    with torch.device("meta"):
        assert untrained(name).num_classes == NUM_CLASSES
        if untrained(name, aux=True).aux_names:
            assert arguments["aux"].annotation in (bool, "bool")
            assert untrained(name, aux=False).aux_names == ()
    assert inspect.getdoc(MODELS.get(name))


@pytest.mark.parametrize("size", [(1, 1), (31, 17), (65, 97), (321, 481), (360, 480)], ids=str)
def test_one_image_of_any_size_gives_finite_logits(model: SegModel, size: tuple[int, int]) -> None:
    images = torch.randn(1, 3, *size)
    with torch.inference_mode():
        logits, aux = model(images)
    assert logits.shape[:2] == (1, NUM_CLASSES)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert all(0 < small <= side for small, side in zip(logits.shape[2:], size, strict=True))
    assert aux == {}


@pytest.mark.parametrize("size", [(1, 1), (31, 17), (65, 97)], ids=str)
def test_predicted_logits_have_the_size_of_the_image(model: SegModel, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        assert model.predict_logits(torch.randn(1, 3, *size)).shape == (1, NUM_CLASSES, *size)


def test_auxiliary_logits_have_exactly_their_names_in_training(name: str) -> None:
    for aux in (False, True):
        model = untrained(name, aux=aux).train()
        output = model(torch.randn(2, 3, 65, 97))
        assert tuple(output.aux) == model.aux_names == tuple(model.aux_heads)
        for aux_name, x in output.aux.items():
            channels = 1 if model.aux_losses.get(aux_name) == "edge_cross_entropy" else NUM_CLASSES
            assert x.shape[:2] == (2, channels)
            assert x.ndim == 4


def test_a_gradient_reaches_every_parameter(model: SegModel) -> None:
    model = smooth(model)
    output = model(torch.randn(2, 3, 96, 128))
    torch.stack([(x * torch.randn_like(x)).sum() for x in (output.logits, *output.aux.values())]).sum().backward()
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.count_nonzero()]
    assert without == []
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_images_are_left_alone_and_the_answer_repeats(model: SegModel) -> None:
    images = torch.randn(2, 3, 65, 97)
    before = images.clone()
    with torch.no_grad():
        one, other = model(images).logits, model(images).logits
    assert torch.equal(images, before)
    assert torch.equal(one, other)


def test_an_image_has_the_same_logits_alone_and_in_a_batch(model: SegModel) -> None:
    model = in_float64(model)
    images = torch.randn(3, 3, 65, 97, dtype=torch.float64)
    with torch.no_grad():
        together = model(images).logits
        alone = torch.cat([model(image[None]).logits for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_channels_last_memory_gives_the_same_logits(model: SegModel) -> None:
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        expected = model(images).logits
        other = copy.deepcopy(model).to(memory_format=torch.channels_last)
        logits = other(images.to(memory_format=torch.channels_last)).logits
    # float32, whose kernels are those that run; its rounding is a thousandth of the logits after DFANet's 42 blocks
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=2e-3 * float(expected.std()))


def test_a_training_step_in_channels_last_memory_has_the_same_gradients(model: SegModel) -> None:
    """Training uses this layout; its kernels are others, and one was found to overwrite foreign memory."""
    images, gradients = torch.randn(2, 3, 96, 128), []
    for layout in (torch.contiguous_format, torch.channels_last):
        network = smooth(model).to(memory_format=layout)
        output = network(images.contiguous(memory_format=layout))
        torch.stack([x.square().mean() for x in (output.logits, *output.aux.values())]).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert (gradients[1] - gradients[0]).norm() < 0.02 * gradients[0].norm()  # a wrong kernel is off by all of it


def test_weights_survive_a_round_trip(name: str, model: SegModel) -> None:
    other = build(name, aux=True, seed=1)
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        assert not torch.allclose(other(images).logits, model(images).logits)
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(images).logits, model(images).logits)


def test_auxiliary_heads_change_nothing_in_eval(name: str, model: SegModel) -> None:
    without = untrained(name, aux=False, seed=1).eval()
    kept = {key: value for key, value in model.state_dict().items() if not key.startswith("aux_heads.")}
    without.load_state_dict(kept)  # strict: every other name is the same
    images = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        assert torch.equal(without(images).logits, model(images).logits)


def test_one_seed_builds_one_network(name: str) -> None:
    one, other = untrained(name), untrained(name)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_misspelt_argument_offers_the_right_one(name: str) -> None:
    with pytest.raises(UnknownNameError, match="has no argument 'num_clases'; did you mean 'num_classes'"):
        create_model(name, num_clases=3)


def test_a_misspelt_name_offers_the_right_one(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"did you mean .*{name!r}"):
        create_model(f"{name}x")


def test_bfloat16_autocast_stays_near_float32(model: SegModel) -> None:
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(images).logits
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images).logits
    # bfloat16 keeps 8 bits: about a tenth of the logits' spread after thirty layers, a quarter after DFANet's 42
    # blocks; unrelated logits differ by one
    difference = (logits.float() - expected).abs().mean() / expected.std()
    assert difference < 0.4


def test_it_builds_and_runs_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        logits = untrained(name).eval()(torch.zeros(1, 3, 65, 97)).logits
    assert logits.is_meta
    assert logits.shape[1] == NUM_CLASSES


# of the same parts as networks whose export takes a third of the time
EXPORTED_SLOWLY = {
    *("pspnet_r50", "pspnet_r101", "gscnn_wrn38", "fastfcn_r50_psp", "fastfcn_r50_deeplabv3", "icnet_r50"),
    *("dfseg_df2_1", "dfseg_df2_2", "dfanet_a", "swiftnet_r18_pyramid"),
}


@pytest.mark.parametrize("name", with_slow({*SLOW, *EXPORTED_SLOWLY}), indirect=True, scope="module")
def test_one_exported_program_serves_all_sizes(model: SegModel) -> None:
    dynamic = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        # sides above 128: torch.export refuses maps of a single row, and the coarsest stride of MSFNet is 128
        program = torch.export.export(model, (torch.randn(1, 3, 160, 192),), dynamic_shapes=(dynamic,)).module()
        for size in ((160, 192), (129, 161), (136, 264), (192, 192), (321, 225)):
            images = torch.randn(1, 3, *size)
            torch.testing.assert_close(program(images).logits, model(images).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_compiling_changes_nothing(model: SegModel) -> None:
    model = in_float64(model)
    compiled = torch.compile(model, dynamic=True)
    with torch.no_grad():
        for size in ((160, 192), (129, 161), (192, 192)):  # as above: a map of a single row is compiled once more
            images = torch.randn(1, 3, *size, dtype=torch.float64)
            torch.testing.assert_close(compiled(images).logits, model(images).logits, rtol=1e-3, atol=1e-3)
