"""The reconstruction of MSFNet: calibrated work, strides, overlapping pooling, twin heads."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fastseg.losses import SegLoss, class_boundary, cross_entropy
from fastseg.models import MODELS, MSFNet, create_model
from fastseg.models.msfnet import average

COUNT, BOUNDARY_COUNT = 14_400_859, 734_987  # 19 classes


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(*, aux: bool = False, align_corners: bool = False) -> MSFNet:
    torch.manual_seed(0)
    model = create_model("msfnet", num_classes=5, channels=8, aux=aux, align_corners=align_corners)
    assert isinstance(model, MSFNet)
    return model


def test_it_says_that_it_is_a_reconstruction() -> None:
    first_line, *_ = (MODELS.get("msfnet").__doc__ or "").splitlines()
    assert "reconstruction" in first_line


def test_parameters() -> None:
    with torch.device("meta"):
        assert parameters(create_model("msfnet")) == COUNT
        assert parameters(create_model("msfnet", aux=True)) == COUNT + BOUNDARY_COUNT
        assert parameters(create_model("msfnet", num_classes=11)) == COUNT - 8 * 297
        assert parameters(create_model("msfnet", in_channels=4)) == COUNT + 49 * 64


@pytest.mark.parametrize("aux", [False, True])
@pytest.mark.parametrize(("size", "published"), [((512, 1024), 24.2e9), ((1024, 2048), 96.8e9)])
def test_multiply_adds_in_eval_are_those_published_for_msfnet(
    size: tuple[int, int], published: float, aux: bool
) -> None:
    with torch.device("meta"):
        model = create_model("msfnet", aux=aux).eval()
        with FlopCounterMode(display=False) as counter:
            logits = model(torch.zeros(1, 3, *size)).logits
    assert counter.get_total_flops() / 2 == pytest.approx(published, rel=5e-3)
    assert logits.shape == (1, 19, size[0] // 8, size[1] // 8)


def test_the_boundary_head_is_the_twin_of_the_other_with_weights_of_its_own() -> None:
    model = small(aux=True).train()
    assert model.aux_names == ("boundary",)
    head, twin = model.head, model.aux_heads["boundary"]
    assert {k: v.shape for k, v in head.state_dict().items()} == {k: v.shape for k, v in twin.state_dict().items()}
    assert not {id(p) for p in head.parameters()} & {id(p) for p in twin.parameters()}
    output = model(torch.randn(2, 3, 65, 97))
    assert output.aux["boundary"].shape == output.logits.shape == (2, 5, 9, 13)
    assert not torch.allclose(output.aux["boundary"], output.logits)
    assert model.eval()(torch.randn(1, 3, 65, 97)).aux == {}


@pytest.mark.parametrize("size", [(128, 256), (65, 97), (1, 1)])
def test_maps_are_fused_at_strides_8_to_128_from_the_stages_that_reach_them(size: tuple[int, int]) -> None:
    model = small().eval()
    seen: list[int] = []
    for fuse in model.fusion.fusions:
        fuse.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1] // 8))
    with torch.no_grad():
        fused = model.fusion(model.backbone(torch.randn(1, 3, *size)))
    shapes = [(1, 8, -(-size[0] // stride), -(-size[1] // stride)) for stride in (8, 16, 32, 64, 128)]
    assert [tuple(x.shape) for x in fused] == shapes
    assert seen == [2, 3, 4, 4, 3]  # stages of strides 4, 8, 16, 32; each is pooled by up to 16


@pytest.mark.parametrize("factor", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("size", [(16, 32), (7, 20), (1, 3)], ids=str)
def test_pooling_windows_overlap_and_count_what_lies_inside(factor: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    pooled = average(x, factor)
    assert pooled.shape == (2, 3, -(-size[0] // factor), -(-size[1] // factor))
    for row in range(pooled.shape[2]):
        for column in range(pooled.shape[3]):
            top, left = (max(0, place * factor - factor + 1) for place in (row, column))
            window = x[:, :, top : row * factor + factor, left : column * factor + factor]
            torch.testing.assert_close(pooled[:, :, row, column], window.mean((2, 3)))


def test_a_head_climbs_from_the_coarsest_map_joining_every_finer_one() -> None:
    head = small().head.eval()
    maps = [torch.randn(1, 8, -(-130 // stride), -(-200 // stride)) for stride in (8, 16, 32, 64, 128)]
    with torch.no_grad():
        x = maps[4]
        for step, finer in zip(head.steps, (maps[3], maps[2], maps[1], maps[0]), strict=True):
            x = F.interpolate(x, size=finer.shape[2:], mode="bilinear")
            x = step(torch.cat((x, finer), 1))
        torch.testing.assert_close(head(maps), head.classifier(x))


def test_the_backbone_has_its_own_attribute() -> None:
    with torch.device("meta"):
        model = create_model("msfnet")
        backbone = sum(p.numel() for key, p in model.named_parameters() if key.startswith("backbone."))
    assert backbone == 11_176_512


def test_alignment_changes_logits_and_is_kept_for_the_final_upsampling() -> None:
    one, other = small(), small(align_corners=True)
    other.load_state_dict(one.state_dict())
    images = torch.randn(2, 3, 72, 104)  # two in training mode: batch statistics make the logits vary over the image
    assert not torch.allclose(one(images).logits, other(images).logits)
    assert (one.align_corners, other.align_corners) == (False, True)


def gradient_norms(model: MSFNet, loss: SegLoss, images: Tensor, labels: Tensor) -> dict[str, float]:
    terms = loss(model(images), labels)
    total = torch.stack([loss.weights[name] * term.mean() for name, term in terms.items()]).sum()
    model.zero_grad()
    total.backward()
    return {key: float(p.grad.norm()) for key, p in model.named_parameters() if p.grad is not None}


def test_both_heads_learn_together_from_labels_and_contours() -> None:
    model = small(aux=True).train()
    images, labels = torch.randn(2, 3, 64, 96), torch.randint(0, 5, (2, 64, 96))
    loss = SegLoss(
        cross_entropy(),
        aux_weights={"boundary": 0.5},
        aux_names=model.aux_names,
        aux_losses={"boundary": class_boundary()},
    )
    norms = gradient_norms(model, loss, images, labels)
    assert norms.keys() == dict(model.named_parameters()).keys()
    assert all(norm > 0 for key, norm in norms.items() if key.endswith("classifier.weight"))


MODEL = small().eval()


@given(st.integers(1, 140), st.integers(1, 140))
@settings(max_examples=15, deadline=None)
def test_any_size_from_one_pixel_up(height: int, width: int) -> None:
    with torch.no_grad():
        logits = MODEL(torch.ones(1, 3, height, width)).logits
    assert logits.shape == (1, 5, -(-height // 8), -(-width // 8))
    assert logits.isfinite().all()
