"""A budget of memory changes how an image is computed and not its labels."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastseg.data.road_scenes import render_scene
from fastseg.deploy.bands import amount
from fastseg.errors import ConfigError
from fastseg.memory_budget import bytes_per_pixel, parse_bytes
from fastseg.models import create_model
from fastseg.predict import Predictor
from fastseg.types import SegModel
from toys import RedEdges, StridedModel


@pytest.mark.parametrize(
    ("text", "amount"),
    [("2GB", 2 * 10**9), ("500 mb", 5 * 10**8), ("1.5GiB", 3 * 2**29), ("4096", 4096), (4096, 4096), ("1KiB", 1024)],
)
def test_amounts_of_memory_are_read(text: str | int, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize("text", ["", "lots", "2 giga", "-1GB", "0", "0.1", "1e9", -5, "GB"])
def test_what_is_no_amount_is_refused_with_an_example(text: str | int) -> None:
    with pytest.raises(ConfigError, match="no amount of memory; write it as 500MB"):
        parse_bytes(text)


@given(number=st.integers(1, 10**6), unit=st.sampled_from(["", "KB", "MiB", "GB"]))
def test_amounts_grow_with_their_number(number: int, unit: str) -> None:
    assert parse_bytes(f"{number}{unit}") == number * parse_bytes(f"1{unit}")


def test_the_count_for_a_whole_image_is_its_largest_maps() -> None:
    """A convolution of stride 4 from 3 to 8 channels: 12 bytes per pixel in, 8 x 4 / 16 bytes out."""
    network = StridedModel(num_classes=8).deploy()
    assert 14 <= bytes_per_pixel(network, torch.device("cpu")) <= 2 * 14


@pytest.mark.parametrize(
    ("make", "budget"),
    [
        (lambda: StridedModel(num_classes=8), "1MB"),
        pytest.param(lambda: create_model("fast_scnn", num_classes=5), "8MB", marks=pytest.mark.slow),
    ],
    ids=["one convolution", "fast_scnn"],
)
def test_a_budget_too_small_for_the_whole_image_gives_the_same_labels_in_bands(
    make: Callable[[], SegModel], budget: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastseg.data.notes._said", set())
    model = make().eval()
    image, _ = render_scene(1, 403, 602)
    whole = Predictor(model, device="cpu").predict_array(image)
    with caplog.at_level(logging.INFO, logger="fastseg"):
        bands = Predictor(model, device="cpu", max_mem=budget).predict_array(image)
    assert "602x403 are computed in bands" in caplog.text
    assert (bands == whole).mean() > 0.9999  # rounding may turn two classes that are all but equal


def test_an_image_that_fits_is_computed_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastseg.memory_budget.MemoryBudget._in_bands", lambda *_: pytest.fail("computed in bands"))
    image = np.zeros((40, 60, 3), np.uint8)
    model = StridedModel()
    labels = Predictor(model, device="cpu", max_mem="1MB").predict_array(image)
    assert np.array_equal(labels, Predictor(model, device="cpu").predict_array(image))


def test_a_budget_that_no_bands_meet_names_the_smallest_that_they_do() -> None:
    with pytest.raises(ConfigError, match=r"\d+ ?[KMG]?B"):
        Predictor(StridedModel(), device="cpu", max_mem=1000).predict_array(np.zeros((200, 300, 3), np.uint8))


def test_an_amount_too_small_is_named_readably_and_the_size_width_first() -> None:
    with pytest.raises(ConfigError, match=r"budget is 1 KB, and an image of 300x200 pixels takes at least \S+ [KM]B "):
        Predictor(StridedModel(), device="cpu", max_mem="1KB").predict_array(np.zeros((200, 300, 3), np.uint8))


@pytest.mark.parametrize(
    ("size", "text"), [(7, "7 bytes"), (1000, "1 KB"), (999_001, "1.0 MB"), (13_110_000, "13.2 MB")]
)
def test_amounts_are_written_rounded_up(size: int, text: str) -> None:
    assert amount(size) == text


def test_a_budget_is_for_labels_at_scale_1() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    with pytest.raises(ConfigError, match=r"max_mem holds at scale 1, and the scale is 0\.875"):
        Predictor(StridedModel(), device="cpu", max_mem="1GB").predict_array(image, scale=0.875)
    predictor = Predictor(RedEdges(), device="cpu", max_mem="1GB")
    with pytest.raises(ConfigError, match="not for edges"):
        predictor.edges(image)
    with pytest.raises(ConfigError, match="not for edges"):
        predictor("gone.png", edges=True)


def test_several_views_and_a_budget_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="one look at an image"):
        Predictor(StridedModel(), device="cpu", max_mem="1GB", flip=True)
