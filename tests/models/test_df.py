"""DF-Net's published facts: parameters, work, strides, where projections stand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fastseg.models import DFNet, create_backbone
from fastseg.models.backbones.df import Group, ResidualBlock

FACTS = {  # parameters and multiply-adds at 224x224, both with a 1000-way linear classifier
    "df1": (8_533_128, 0.747e9),
    "df2": (17_987_208, 1.774e9),
    "df2a": (19_151_240, 1.916e9),
}
CHANNELS = {"df1": (64, 64, 128, 512), "df2": (64, 128, 256, 512), "df2a": (64, 128, 1024, 1024)}


def net(name: str, **arguments: int) -> DFNet:
    backbone = create_backbone(name, **arguments)
    assert isinstance(backbone, DFNet)
    return backbone


@pytest.mark.parametrize("name", FACTS)
def test_parameters_with_a_classifier(name: str) -> None:
    with torch.device("meta"):
        backbone = net(name)
        classifier = nn.Linear(backbone.feature_info[-1].channels, 1000)
    count = sum(p.numel() for module in (backbone, classifier) for p in module.parameters())
    assert count == FACTS[name][0]


@pytest.mark.parametrize("name", FACTS)
def test_multiply_adds_with_a_classifier(name: str) -> None:
    with torch.device("meta"):
        backbone = net(name).eval()
        with FlopCounterMode(display=False) as counter:
            backbone(torch.zeros(1, 3, 224, 224))
    classifier = 1000 * backbone.feature_info[-1].channels
    assert counter.get_total_flops() / 2 + classifier == pytest.approx(FACTS[name][1], abs=0.5e6)


def test_input_channels_reach_the_stem() -> None:
    with torch.device("meta"):
        counts = [sum(p.numel() for p in net("df1", in_channels=n).parameters()) for n in (3, 5)]
    assert counts[1] - counts[0] == 2 * 9 * 32


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 31), (1, 1)], ids=str)
@pytest.mark.parametrize("name", FACTS)
def test_maps_are_as_the_feature_info_says_at_every_size(name: str, size: tuple[int, int]) -> None:
    with torch.device("meta"):
        backbone = net(name).eval()
        maps = backbone(torch.zeros(2, 3, *size))
    assert [(info.channels, info.stride) for info in backbone.feature_info] == list(
        zip(CHANNELS[name], (4, 8, 16, 32), strict=True)
    )
    for x, info in zip(maps, backbone.feature_info, strict=True):
        assert x.shape == (2, info.channels, -(-size[0] // info.stride), -(-size[1] // info.stride))


def test_each_group_projects_in_its_first_block_only() -> None:
    with torch.device("meta"):
        blocks = list(net("df2a").stage4)
    projected = [block.projection is not None for block in blocks]
    assert projected == [
        True,
        False,
        False,
        False,
        True,
        False,
    ]  # 4 + 2 blocks, the second group keeps size and channels


@pytest.mark.parametrize("group", [Group(1, 8), Group(1, 8, bottleneck=4)])
def test_a_block_is_the_relu_of_path_plus_shortcut_and_leaves_its_input_alone(group: Group) -> None:
    x = torch.randn(1, 8, 5, 5)
    before = x.clone()
    block = ResidualBlock(8, group, stride=1, project=False).eval()
    with torch.no_grad():
        torch.testing.assert_close(block(x), torch.relu(block.path(x) + x))
        assert torch.equal(x, before)
        nn.init.zeros_(block.path[-1].bn.weight)  # type: ignore[union-attr, arg-type]
        assert torch.equal(block(x), torch.relu(x))
