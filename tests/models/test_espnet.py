"""ESPNet and ESPNet-C have the sizes of the authors' networks, and their options do what they say."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fastseg.models import create_model
from fastseg.models.espnet import ESPBlock

# the authors' networks, counted; GMACs at 512x1024 are theirs at 20 classes
COUNTS = [
    ("espnet", 19, 3, 201_029, None),
    ("espnet", 19, 8, 362_949, None),
    ("espnet", 20, 3, 202_649, 3.40),
    ("espnet", 20, 5, 267_417, 3.92),
    ("espnet", 20, 8, 364_569, 4.71),
    ("espnet_c", 20, 3, 187_529, 2.16),
    ("espnet_c", 20, 5, 252_297, 2.68),
    ("espnet_c", 20, 8, 349_449, 3.47),
]


@pytest.mark.parametrize(("name", "num_classes", "q", "parameters", "gmacs"), COUNTS)
def test_parameters_and_operations_are_the_authors(
    name: str, num_classes: int, q: int, parameters: int, gmacs: float | None
) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes=num_classes, p=2, q=q).eval()
        images = torch.zeros(1, 3, 512, 1024)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    with FlopCounterMode(display=False) as counter:
        model(images)
    if gmacs is not None:
        assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.005)


def test_the_defaults_are_the_papers_largest_network_and_the_skip_of_its_published_weights() -> None:
    with torch.device("meta"):
        default, other = create_model("espnet"), create_model("espnet", skip_channels=19)
    assert sum(parameter.numel() for parameter in default.parameters()) == 362_949
    # three more channels into a 3x3 convolution to 19
    assert sum(parameter.numel() for parameter in other.parameters()) == 362_949 + 3 * 19 * 9


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (57, 104), (360, 480), (8, 1), (1, 1)], ids=str)
def test_logits_stand_at_stride_8_and_at_full_size(size: tuple[int, int]) -> None:
    images = torch.zeros(1, 3, *size, device="meta")
    with torch.device("meta"):
        encoder, whole = create_model("espnet_c").eval(), create_model("espnet").eval()
    assert encoder(images).logits.shape == (1, 19, -(-size[0] // 8), -(-size[1] // 8))
    assert whole(images).logits.shape == (1, 19, *size)


def test_at_odd_sizes_only_the_far_border_changes() -> None:
    """A decoder that resized instead of cutting would move every label."""
    torch.manual_seed(0)
    model = create_model("espnet", num_classes=5, p=1, q=1).eval()
    images = torch.randn(1, 3, 15, 1200)
    with torch.no_grad():
        whole, odd = model(images).logits, model(images[..., :1199]).logits
    assert odd.shape[-2:] == (15, 1199)
    # the network sees about 450 columns to each side: dilation 16 three times at stride 4, twice at stride 8
    torch.testing.assert_close(odd[..., :700], whole[..., :700])
    assert not torch.allclose(odd[..., 1000:], whole[..., 1000:1199])


@pytest.mark.parametrize("num_classes", range(1, 8))
def test_few_classes_leave_no_branch_empty(num_classes: int) -> None:
    model = create_model("espnet", num_classes=num_classes, q=1).train()
    logits = model(torch.randn(2, 3, 32, 48)).logits
    assert logits.shape == (2, num_classes, 32, 48)
    assert all(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("channels", "widths"), [(64, (16, 12, 12, 12, 12)), (128, (28, 25, 25, 25, 25))])
def test_the_undilated_branch_takes_what_five_do_not_share(channels: int, widths: tuple[int, ...]) -> None:
    block = ESPBlock(channels, channels)
    assert tuple(branch.out_channels for branch in block.branches) == widths
    assert [branch.dilation[0] for branch in block.branches] == [1, 2, 4, 8, 16]  # type: ignore[index]


def test_each_dilation_is_added_to_all_smaller_ones() -> None:
    block = ESPBlock(10, 10).eval()
    block.norm = nn.Identity()  # type: ignore[assignment]
    for branch in block.branches:
        nn.init.zeros_(branch.weight)  # type: ignore[arg-type]
        nn.init.ones_(branch.weight[:, :, 1, 1])  # type: ignore[index]
    x = torch.rand(1, 10, 4, 4)
    with torch.no_grad():
        group = block(x).split(2, dim=1)
    torch.testing.assert_close(group[1], group[0])
    for smaller, larger in pairwise(group[1:]):
        torch.testing.assert_close(larger, smaller + group[0])


def test_the_encoder_of_a_trained_espnet_c_fits_into_espnet() -> None:
    """The authors train in two stages."""
    encoder, whole = create_model("espnet_c", q=3), create_model("espnet", q=3)
    missing, unexpected = whole.load_state_dict(encoder.state_dict(), strict=False)
    assert unexpected == []
    assert not any(name.startswith("encoder.") for name in missing)


def test_other_channels_than_three_reach_both_skips() -> None:
    for skip_channels in (16, 21):
        model = create_model("espnet", in_channels=5, skip_channels=skip_channels, q=1).eval()
        assert model(torch.zeros(1, 5, 16, 16)).logits.shape == (1, 19, 16, 16)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("espnet", {"skip_channels": 17}, r"skip_channels is 17; allowed: 16 .* or 19"),
        ("espnet", {"skip_channels": 19, "in_channels": 4}, r"skip_channels is 19; allowed: 16 .* or 20"),
        ("espnet", {"p": 0}, "p is 0; give 1 or more"),
        ("espnet_c", {"q": 0}, "q is 0; give 1 or more"),
    ],
)
def test_arguments_out_of_range_are_refused(name: str, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(name, **arguments)
