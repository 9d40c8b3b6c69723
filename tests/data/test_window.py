"""Where a crop lies: the same random numbers as ever, away from what fills it, upon what it must show."""

from __future__ import annotations

from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.config import AugmentConfig
from fastseg.data.augment import inverse_map
from fastseg.data.window import TRIES, Window, _largest_share, draw_window

STILL = AugmentConfig(crop=(16, 16), scale=(1.0, 1.0), flip=0.0)
BUSY = AugmentConfig(crop=(20, 28), aspect=0.2, rotate=10)


class Counted:
    """A generator that counts how many numbers were drawn."""

    def __init__(self, seed: int) -> None:
        self.generator, self.draws = keyed(seed), 0

    def uniform(self, low: float, high: float) -> float:
        self.draws += 1
        return float(self.generator.uniform(low, high))

    def random(self) -> float:
        self.draws += 1
        return float(self.generator.random())


def keyed(*key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def draw(
    label: np.ndarray, config: AugmentConfig, seed: int, focus: tuple[int, int] | None = None
) -> tuple[Window, int]:
    """A window and how many random numbers it took."""
    random = Counted(seed)
    return draw_window(label, config, random, input_scale=1.0, focus=focus), random.draws  # type: ignore[arg-type]


def shares(label: np.ndarray, window: Window) -> np.ndarray:
    """Shares of the classes among the labelled pixels that STILL shows, at a window on whole pixels or between."""
    left, top = round(window.center_x + 0.5 - 8), round(window.center_y + 0.5 - 8)
    pixels = label[top : top + 16, left : left + 16]
    counts = np.bincount(pixels[pixels != 255], minlength=2)
    return counts / max(counts.sum(), 1)


def test_the_windows_of_earlier_versions_are_drawn_again() -> None:
    # written down from the code that knew neither cat_max_ratio nor focus; the last number is the next to be drawn
    expected = [
        (23.83323542016601, 28.2731806677547, 1.0512815301707603, 1.2279772100881017, 0.0820673395061009, True),
        (29.191736132463003, 27.993010402225245, 1.8747456185393294, 1.922048905915556, 0.10821596848089951, False),
    ]
    after = [0.858366514300261, 0.22174651176799764]
    for index in range(2):
        random = keyed(1, 2, index)
        window = draw_window(np.zeros((40, 60), np.uint8), BUSY, random, input_scale=1.5)
        assert astuple(window) == pytest.approx(expected[index], rel=1e-12)  # logarithms differ between machines
        assert random.random() == after[index]


def halves() -> np.ndarray:
    """Class 0 on the left three quarters, class 1 on the right."""
    label = np.zeros((64, 128), np.uint8)
    label[:, 96:] = 1
    return label


def test_a_class_that_fills_a_window_is_avoided_where_other_windows_are_drawn() -> None:
    label, limited = halves(), replace(STILL, cat_max_ratio=0.75)
    seeds = range(200)
    free = [shares(label, draw(label, STILL, seed)[0]).max() for seed in seeds]
    drawn = [draw(label, limited, seed) for seed in seeds]
    settled = [shares(label, window).max() for window, draws in drawn if draws < 3 + 2 * TRIES]
    # 7 of 113 columns show at least a quarter of either class, so that ten tries find one for half of the crops
    assert np.mean(np.array(free) > 0.75) > 0.85
    assert 60 < len(settled) < 140
    assert max(settled) <= 0.75 + 1 / 16  # a window between two columns is counted on the nearer one


def test_a_window_that_is_mixed_already_costs_no_further_number() -> None:
    label = np.indices((64, 128)).sum(0).astype(np.uint8) % 2
    assert draw(label, replace(STILL, cat_max_ratio=0.75), 3) == draw(label, STILL, 3)


@pytest.mark.parametrize("value", [0, 255])
def test_an_image_of_one_class_or_none_ends_after_ten_windows(value: int) -> None:
    label = np.full((64, 128), value, np.uint8)
    free, few = draw(label, STILL, 1)
    last, draws = draw(label, replace(STILL, cat_max_ratio=0.75), 1)
    assert draws == few + 2 * (TRIES - 1)
    assert (last.center_x, last.center_y) != (free.center_x, free.center_y)


def test_ignored_pixels_count_for_no_class() -> None:
    label = np.full((64, 128), 255, np.uint8)
    label[::8, ::8] = 0
    label[4::8, ::8] = 1
    assert draw(label, replace(STILL, cat_max_ratio=0.75), 5) == draw(label, STILL, 5)


def test_only_the_place_is_drawn_again() -> None:
    label, config = np.zeros((64, 128), np.uint8), replace(BUSY, scale=(0.5, 2.0))
    free = draw(label, config, 2)[0]
    limited = draw(label, replace(config, cat_max_ratio=0.5), 2)[0]
    assert limited != free
    assert replace(limited, center_x=free.center_x, center_y=free.center_y) == free


def test_large_windows_are_counted_well_enough() -> None:
    # two thirds of the window are class 0; a count of every third or fifth pixel may be off by a few hundredths
    label = (np.arange(1000 * 1400).reshape(1000, 1400) // 7 % 3 == 0).astype(np.uint8)
    config = replace(STILL, crop=(900, 1300))
    assert draw(label, replace(config, cat_max_ratio=0.72), 0)[1] == draw(label, config, 0)[1]
    assert draw(label, replace(config, cat_max_ratio=0.62), 0)[1] > draw(label, config, 0)[1]


configs = st.builds(
    AugmentConfig,
    crop=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    scale=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3)).map(lambda pair: (min(pair), max(pair))),
    aspect=st.floats(0, 1),
    cat_max_ratio=st.floats(0.01, 1),
)


@given(
    config=configs,
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    place=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=200, deadline=None)
def test_a_focus_lies_in_the_middle_half_of_its_crop_or_the_image_ends_there(
    config: AugmentConfig, size: tuple[int, int], place: tuple[float, float], seed: int
) -> None:
    height, width = size
    focus = int(place[0] * width), int(place[1] * height)
    window = draw(np.zeros(size, np.uint8), config, seed, focus)[0]
    for at, center, scale, side, crop in (
        (focus[0], window.center_x, window.scale_x, width, config.crop[1]),
        (focus[1], window.center_y, window.scale_y, height, config.crop[0]),
    ):
        beyond = (at - center) * scale / crop  # from the middle of the crop, in crops
        begin, end = center + 0.5 - crop / 2 / scale, center + 0.5 + crop / 2 / scale
        at_the_border = begin < 1e-6 or end > side - 1e-6
        assert abs(beyond) <= 0.25 + 1e-6 or at_the_border
        inside = (begin > -1e-6 and end < side + 1e-6) or (begin < 1e-6 and end > side - 1e-6)
        assert inside, "a crop reaches over one edge of the image only where it holds the whole side"
        assert abs(beyond) <= 0.5 + 1e-6


def test_crops_of_one_focus_lie_in_many_places() -> None:
    label = np.zeros((64, 128), np.uint8)
    windows = {draw(label, STILL, seed, (64, 32))[0].center_x for seed in range(50)}
    assert len(windows) == 50
    assert max(windows) - min(windows) > 6  # of the 8 pixels that half a crop allows


def shown_at(window: Window, focus: tuple[int, int], crop: tuple[int, int]) -> tuple[float, float]:
    """Where in the crop a pixel of the source lies, in pixels from the crop's left and top edge."""
    there = inverse_map(window, crop)
    x, y = np.linalg.solve(there[:, :2], np.array(focus) - there[:, 2])
    return float(x) + 0.5, float(y) + 0.5


@given(
    config=configs,
    rotate=st.floats(0.1, 45),
    flip=st.sampled_from([0.0, 1.0]),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    place=st.tuples(st.sampled_from([0, 0.05, 0.5, 0.95, 0.999]), st.sampled_from([0, 0.05, 0.5, 0.95, 0.999])),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=200, deadline=None)
def test_a_turned_crop_shows_its_focus_at_the_border_too(
    config: AugmentConfig,
    rotate: float,
    flip: float,
    size: tuple[int, int],
    place: tuple[float, float],
    seed: int,
) -> None:
    focus = int(place[0] * size[1]), int(place[1] * size[0])
    window = draw(np.zeros(size, np.uint8), replace(config, rotate=rotate, flip=flip), seed, focus)[0]
    x, y = shown_at(window, focus, config.crop)
    assert -1e-6 <= x <= config.crop[1] + 1e-6
    assert -1e-6 <= y <= config.crop[0] + 1e-6


def test_a_rotation_is_left_out_where_it_would_hide_the_focus_and_nowhere_else() -> None:
    label, config = np.zeros((128, 256), np.uint8), replace(STILL, crop=(64, 64), rotate=30, flip=0.5)
    for focus, few, many in (((1, 1), 1, 60), ((128, 64), 0, 0)):
        free = [draw(label, config, seed) for seed in range(60)]
        focused = [draw(label, config, seed, focus) for seed in range(60)]
        assert few <= sum(window.angle == 0 for window, _ in focused) <= many
        for (one, draws), (other, as_many) in zip(free, focused, strict=True):
            assert other.angle in (0, one.angle)
            assert (other.flip, as_many) == (one.flip, draws)
            if other.angle == 0:
                x, y = shown_at(replace(other, angle=one.angle), focus, config.crop)
                assert min(x, y, 64 - x, 64 - y) < 0


@pytest.mark.parametrize("upper", [False, True])
def test_the_share_is_counted_where_the_window_lies(upper: bool) -> None:
    # left of the middle of this label lies what is dominant; above it, nothing is: x and y must not be confused
    label = np.indices((64, 200)).sum(0).astype(np.uint8) % 2
    label[:, :100] = 0
    window, crop = Window(180, 20 if upper else 40, 1.0, 1.0, 0.0, False), (20, 20)
    assert _largest_share(label, window, crop) == 0.5
    assert _largest_share(label, replace(window, center_x=20), crop) == 1
    across = np.ascontiguousarray(label.T)
    assert _largest_share(across, Window(20, 180, 1.0, 1.0, 0.0, False), crop) == 0.5
    assert _largest_share(across, Window(40, 20, 1.0, 1.0, 0.0, False), crop) == 1
