"""DF-Seg's published facts: parameters, work, strides, the decoder's widths and upsampling."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from descriptions import Weights, assert_same, uneven, upsample
from fastseg.layers.resize import resize
from fastseg.models import DFSegHead, EncoderDecoder, create_head, create_model
from fastseg.types import FeatureInfo

FACTS = {  # trained parameters at 19 classes; multiply-adds of convolutions at 1024x2048
    "dfseg_df1": (13_107_243, 41.6e9),
    "dfseg_df2_1": (22_498_216, 84.3e9),
    "dfseg_df2_2": (24_115_147, 95.3e9),
}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", FACTS)
def test_parameters(name: str) -> None:
    with torch.device("meta"):
        assert parameters(create_model(name)) == FACTS[name][0]


@pytest.mark.parametrize("name", FACTS)
def test_multiply_adds_and_logits_at_stride_8(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name).eval()
        with FlopCounterMode(display=False) as counter:
            logits = model(torch.zeros(1, 3, 1024, 2048)).logits
    counts = {str(operator): flops for operator, flops in counter.get_flop_counts()["Global"].items()}
    assert counts["aten.convolution"] / 2 == pytest.approx(FACTS[name][1], abs=0.05e9)
    # pooling is matrix products, so it is counted too
    assert counter.get_total_flops() / 2 == pytest.approx(FACTS[name][1], rel=2e-3)
    assert logits.shape == (1, 19, 128, 256)


def test_only_the_last_layer_knows_the_number_of_classes() -> None:
    with torch.device("meta"):
        few, many = (create_model("dfseg_df1", num_classes=n).state_dict() for n in (2, 150))
    assert {key.rsplit(".", 2)[0] for key in few if few[key].shape != many[key].shape} == {"head.classifier"}


def test_input_channels_reach_the_backbone() -> None:
    with torch.device("meta"):
        assert parameters(create_model("dfseg_df1", in_channels=4)) == FACTS["dfseg_df1"][0] + 9 * 32


def test_the_grids_of_a_cityscapes_image_are_the_papers() -> None:
    with torch.device("meta"):
        model = create_model("dfseg_df1").eval()
        assert isinstance(model, EncoderDecoder)
        assert isinstance(model.head, DFSegHead)
        seen: list[tuple[int, ...]] = []
        for branch in model.head.pyramid.branches:
            branch.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
        model(torch.zeros(1, 3, 1024, 2048))
    assert seen == [(1, 2), (2, 4), (4, 8), (8, 16)]


def test_resizing_is_the_authors_fixed_deconvolution_but_for_the_outermost_pixels() -> None:
    x = torch.randn(1, 2, 5, 7)
    triangle = torch.tensor([0.25, 0.75, 0.75, 0.25])
    kernel = (triangle[:, None] * triangle[None, :]).expand(2, 1, 4, 4)
    theirs = F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=2)
    ours = resize(x, (10, 14))
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], theirs[..., 1:-1, 1:-1])
    assert not torch.allclose(ours[..., 0, :], theirs[..., 0, :])


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_head_takes_the_last_three_maps_of_any_backbone_or_those_there_are(count: int) -> None:
    info = tuple(FeatureInfo(channels=c, stride=s) for c, s in ((3, 2), (2, 4), (5, 8), (1, 8), (7, 32)))[-count:]
    head = create_head("dfseg", info, 4).train()
    maps = [torch.randn(2, i.channels, -(-72 // i.stride), -(-104 // i.stride), requires_grad=True) for i in info]
    logits = head(maps)
    assert logits.shape == (2, 4, *maps[-min(3, count)].shape[2:])
    (logits * torch.randn_like(logits)).sum().backward()
    assert [x.grad is not None for x in maps] == [i >= count - 3 for i in range(count)]
    assert all(p.grad is not None for p in head.parameters())


def test_other_numbers_of_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lateral_channels is \[8, 8\] .* give three and two widths, finest first"):
        create_head("dfseg", [FeatureInfo(8, 8)], 4, lateral_channels=[8, 8])


def test_the_head_goes_under_another_backbone_with_other_widths() -> None:
    with torch.device("meta"):
        arguments: dict[str, Any] = {"lateral_channels": [64, 64, 128], "node_channels": [64, 64]}
        model = create_model("encoder_decoder", backbone="resnet18", head="dfseg", head_args=arguments)
        logits = model.eval()(torch.zeros(1, 3, 65, 97)).logits
    assert logits.shape == (1, 19, 9, 13)


def test_alignment_changes_logits_and_is_kept_for_the_final_upsampling() -> None:
    torch.manual_seed(0)
    one, other = (create_model("dfseg_df1", align_corners=aligned) for aligned in (False, True))
    other.load_state_dict(one.state_dict())
    images = torch.randn(2, 3, 72, 104)  # two in training mode: batch statistics make the logits vary over the image
    assert not torch.allclose(one(images).logits, other(images).logits)
    assert (one.align_corners, other.align_corners) == (False, True)


def network_by_its_description(weights: Weights, images: Tensor) -> Tensor:
    """DF1-Seg as the authors' network files have it, but for the ways to pool and upsample (see the module)."""
    x = weights.conv_norm_relu("backbone.stem.0", images, stride=2)
    x = weights.conv_norm_relu("backbone.stem.1", x, stride=2)
    maps = []
    for stage, blocks, projecting in ((2, 3, (0,)), (3, 3, (0,)), (4, 4, (0, 3))):  # 64x3, 128x3, 256x3 and 512x1
        for block in range(blocks):
            name, stride = f"backbone.stage{stage}.{block}", 2 if block == 0 else 1
            inner = weights.conv_norm_relu(f"{name}.path.0", x, stride=stride)
            inner = weights.conv_norm(f"{name}.path.1", inner)
            x = F.relu(
                inner + (weights.conv_norm(f"{name}.projection", x, stride=stride) if block in projecting else x)
            )
        maps.append(x)
    stride8, stride16, stride32 = maps
    pooled = [stride32]
    for place, rows in enumerate((1, 2, 4, 8)):
        columns = max(1, round(rows * stride32.shape[3] / stride32.shape[2]))
        grid = F.adaptive_avg_pool2d(stride32, (rows, columns))
        pooled.append(upsample(weights.conv_norm_relu(f"head.pyramid.branches.{place}", grid), stride32))
    x = weights.conv_norm_relu("head.pyramid.fuse", torch.cat(pooled, 1))
    x = weights.conv_norm_relu("head.laterals.2", x)
    for place, finer in ((1, stride16), (0, stride8)):
        lateral = weights.conv_norm_relu(f"head.laterals.{place}", finer)
        coarse = upsample(weights.conv_norm_relu(f"head.nodes.{place}.projection", x), lateral)
        x = weights.conv_norm_relu(f"head.nodes.{place}.fuse", torch.cat([coarse, lateral], 1))
    return weights.conv_norm("head.classifier", x)


@pytest.mark.parametrize("size", [(64, 96), (65, 97)])
def test_the_network_is_its_description(size: tuple[int, int]) -> None:
    model = create_model("dfseg_df1", num_classes=5)
    uneven(model)
    weights, images = Weights(model), torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        assert_same(model(images).logits, network_by_its_description(weights, images))
    assert not weights.unread
