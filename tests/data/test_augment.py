"""Augmentation: keyed, exact where nothing is drawn, and image and label never part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.config import AugmentConfig
from fastseg.data.augment import _smoothed, augment, inverse_map, render, snapped
from fastseg.data.coding import Values
from fastseg.data.window import Window

FILL = (124, 116, 104)
COLOURLESS = AugmentConfig(brightness=0, contrast=0, saturation=0, hue=0, blur=0)
IDENTITY = replace(COLOURLESS, scale=(1.0, 1.0), flip=0.0)
PALETTE = np.array([[10, 40, 200], [220, 30, 90], [60, 250, 20], [240, 240, 240]], np.uint8)


def sample(height: int = 24, width: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    label = random.choice(np.array([0, 1, 2, 3, 10, 255], np.uint8), (height, width))
    return image, label


def painted(height: int, width: int, seed: int, block: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """A label of large blocks, and the image that shows each class by its colour."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 4, (-(-height // block), -(-width // block)))
    label = np.kron(coarse, np.ones((block, block), int))[:height, :width].astype(np.uint8)
    return PALETTE[label], label


def flat(label: np.ndarray) -> np.ndarray:
    """Pixels whose 5x5 neighbourhood has one label, away from the edges of classes and of the crop."""
    result = np.zeros(label.shape, bool)
    windows = np.lib.stride_tricks.sliding_window_view(label, (5, 5))
    result[2:-2, 2:-2] = (windows == windows[..., :1, :1]).all((2, 3))
    return result


def test_nothing_to_draw_leaves_a_sample_exactly_as_it_is() -> None:
    image, label = sample()
    config = replace(IDENTITY, crop=label.shape)
    new_image, new_label = augment(image, label, config, input_scale=1.0, key=(0, 0, 0))
    assert np.array_equal(new_image, image)
    assert np.array_equal(new_label, label)


def test_a_certain_flip_mirrors_exactly() -> None:
    image, label = sample()
    config = replace(IDENTITY, crop=label.shape, flip=1.0)
    new_image, new_label = augment(image, label, config, input_scale=1.0, key=(0, 0, 0))
    assert np.array_equal(new_image, image[:, ::-1])
    assert np.array_equal(new_label, label[:, ::-1])


def test_half_of_the_samples_flip() -> None:
    image, label = sample()
    config = replace(IDENTITY, crop=label.shape, flip=0.5)
    flips = sum(
        np.array_equal(augment(image, label, config, input_scale=1.0, key=(0, 0, i))[1], label[:, ::-1])
        for i in range(200)
    )
    assert 70 < flips < 130  # 4 standard deviations of a fair coin


def test_the_input_scale_enlarges_by_whole_pixels_exactly() -> None:
    image, label = sample()
    config = replace(IDENTITY, crop=(48, 80))
    _, new_label = augment(image, label, config, input_scale=2.0, key=(0, 0, 0))
    assert np.array_equal(new_label, label.repeat(2, 0).repeat(2, 1))


BUSY = AugmentConfig(crop=(20, 28), aspect=0.2, rotate=10, blur=0.5)


def test_one_key_gives_the_same_bytes_and_leaves_the_inputs_alone() -> None:
    image, label = sample()
    before = image.copy(), label.copy()
    results = []
    for seed in (7, 8):
        np.random.seed(seed)
        crops = [augment(image, label, BUSY, input_scale=1.5, key=(1, 2, index)) for index in range(20)]
        results.append([(image.tobytes(), label.tobytes()) for image, label in crops])
    assert results[0] == results[1]
    assert np.array_equal(image, before[0])
    assert np.array_equal(label, before[1])


def test_seed_epoch_and_index_each_change_the_sample() -> None:
    image, label = sample()
    keys = [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (3, 2, 1), (2, 1, 3)]
    results = {augment(image, label, BUSY, input_scale=1.5, key=key)[0].tobytes() for key in keys}
    assert len(results) == len(keys)


configs = st.builds(
    AugmentConfig,
    crop=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    scale=st.tuples(st.floats(0.2, 3), st.floats(0.2, 3)).map(lambda pair: (min(pair), max(pair))),
    aspect=st.floats(0, 1),
    rotate=st.floats(0, 180),
    flip=st.floats(0, 1),
    brightness=st.floats(0, 1),
    contrast=st.floats(0, 1),
    saturation=st.floats(0, 1),
    hue=st.floats(0, 0.5),
    blur=st.floats(0, 1),
)


@given(config=configs, height=st.integers(1, 40), width=st.integers(1, 40), index=st.integers(0, 10**6))
@settings(max_examples=120, deadline=None)
def test_the_result_has_the_crops_size_and_no_label_that_was_not_there(
    config: AugmentConfig, height: int, width: int, index: int
) -> None:
    image, label = sample(height, width)
    new_image, new_label = augment(image, label, config, input_scale=1.5, key=(0, 0, index))
    assert new_image.shape == (*config.crop, 3)
    assert new_label.shape == config.crop
    assert new_image.dtype == new_label.dtype == np.uint8
    assert new_image.flags.c_contiguous
    assert new_label.flags.c_contiguous
    assert set(np.unique(new_label)) <= {*np.unique(label), 255}


@given(
    scale=st.floats(0.6, 3),
    aspect=st.floats(0, 0.3),
    rotate=st.floats(0, 30),
    flip=st.sampled_from([0.0, 1.0]),
    index=st.integers(0, 10**6),
)
@settings(max_examples=80, deadline=None)
def test_image_and_label_stay_aligned(scale: float, aspect: float, rotate: float, flip: float, index: int) -> None:
    image, label = painted(96, 128, seed=index)
    config = replace(COLOURLESS, crop=(64, 80), scale=(scale, scale), aspect=aspect, rotate=rotate, flip=flip)
    new_image, new_label = augment(image, label, config, input_scale=1.0, key=(0, 0, index))
    inner = flat(new_label) & (new_label != 255)
    assert inner.any()
    assert np.array_equal(new_image[inner], PALETTE[new_label[inner]])
    outside = flat(new_label) & (new_label == 255)
    assert (new_image[outside] == FILL).all()


@given(scale=st.floats(0.6, 3), rotate=st.floats(0, 180), flip=st.sampled_from([0.0, 1.0]), index=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_image_and_label_show_the_same_place_to_half_a_pixel(
    scale: float, rotate: float, flip: float, index: int
) -> None:
    # image and label both hold the source's row, then its column, so each pixel says where it was taken from
    config = replace(COLOURLESS, crop=(64, 80), scale=(scale, scale), aspect=0.2, rotate=rotate, flip=flip)
    taken = []
    for place in np.indices((96, 128)).astype(np.uint8):
        image = np.repeat(place[..., None], 3, 2)
        new_image, new_label = augment(image, place, config, input_scale=1.0, key=(0, 0, index))
        taken.append((new_image[..., 0].astype(int), new_label))
    (_, rows), (_, columns) = taken
    inner = (rows >= 4) & (rows < 92) & (columns >= 4) & (columns < 124)  # at the border, fill is mixed in
    for values, label in taken:
        assert np.abs(values[inner] - label[inner]).max(initial=0) <= 1  # half a pixel and rounding


def test_what_lies_outside_the_image_is_fill_and_ignored() -> None:
    image, label = sample(10, 10)
    label[:] = 3
    config = replace(IDENTITY, crop=(30, 40))
    new_image, new_label = augment(image, label, config, input_scale=1.0, key=(0, 0, 5), fill=(1, 2, 3))
    assert (new_label == 3).sum() == 100  # an image smaller than the crop is all there
    assert (new_label == 255).sum() == 30 * 40 - 100
    border = flat(new_label) & (new_label == 255)
    assert (new_image[border] == (1, 2, 3)).all()


def test_scales_are_drawn_log_uniformly_from_their_range() -> None:
    image, label = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8)
    config = replace(COLOURLESS, crop=(100, 100), scale=(0.5, 2.0), flip=0.0)
    sides = [np.sqrt((augment(image, label, config, input_scale=1.0, key=(0, 0, i))[1] == 0).sum()) for i in range(300)]
    assert 19 <= min(sides) < 23
    assert 70 < max(sides) <= 81
    # half of the draws lie below the geometric middle, 40; uniform draws would leave a third there
    assert 0.4 < np.mean(np.array(sides) < 40) < 0.6


def test_crops_come_from_everywhere() -> None:
    label = np.arange(64, dtype=np.uint8).reshape(8, 8).repeat(8, 0).repeat(8, 1)
    image = np.zeros((64, 64, 3), np.uint8)
    config = replace(IDENTITY, crop=(16, 16))
    crops = [augment(image, label, config, input_scale=1.0, key=(0, 0, i))[1] for i in range(300)]
    assert np.unique(crops).tolist() == list(range(64))


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_every_colour_strength_changes_colours_and_no_labels(name: str) -> None:
    image, label = sample()
    config = replace(IDENTITY, crop=label.shape)
    setattr(config, name, 0.4)
    new_image, new_label = augment(image, label, config, input_scale=1.0, key=(0, 0, 1))
    assert not np.array_equal(new_image, image)
    assert np.array_equal(new_label, label)


def test_saturation_and_hue_leave_grey_and_brightness_alone() -> None:
    grey = np.repeat(np.arange(20, 230, dtype=np.uint8).reshape(10, 21, 1), 3, 2)
    label = np.zeros((10, 21), np.uint8)
    config = replace(IDENTITY, crop=label.shape, saturation=0.9, hue=0.5)
    for index in range(10):
        new_image, _ = augment(grey, label, config, input_scale=1.0, key=(0, 0, index))
        assert np.abs(new_image.astype(int) - grey).max() <= 1  # rounding


def test_brightness_is_a_factor_within_its_range() -> None:
    image, label = np.full((4, 4, 3), 100, np.uint8), np.zeros((4, 4), np.uint8)
    config = replace(IDENTITY, crop=(4, 4), brightness=0.2)
    values = [int(augment(image, label, config, input_scale=1.0, key=(0, 0, i))[0][0, 0, 0]) for i in range(100)]
    assert 80 <= min(values) < 85
    assert 115 < max(values) <= 120


def test_blur_smooths_the_image_only() -> None:
    image, label = sample()
    config = replace(IDENTITY, crop=label.shape, blur=1.0)
    new_image, new_label = augment(image, label, config, input_scale=1.0, key=(0, 0, 1))
    assert new_image.astype(float).std() < image.astype(float).std()
    assert np.array_equal(new_label, label)


def smooth(height: int, width: int) -> np.ndarray:
    """A picture whose neighbouring pixels differ by 3 at most, so that a thirty-second of a pixel shows in no digit."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin(columns / 40 + phase) * np.cos(rows / 50 - phase) for phase in range(3)]
    return np.stack(waves, -1).astype(np.uint8)


def whole(window: Window, crop: tuple[int, int]) -> Window:
    """The same window moved to whole source pixels."""
    left, top, width, height = snapped(window, crop)
    return replace(
        window,
        center_x=left + width / 2 - 0.5,
        center_y=top + height / 2 - 0.5,
        scale_x=crop[1] / width,
        scale_y=crop[0] / height,
    )


windows = st.builds(
    Window,
    center_x=st.floats(-60, 260),  # also beside the image
    center_y=st.floats(-60, 210),
    scale_x=st.floats(0.5, 3),
    scale_y=st.floats(0.5, 3),
    angle=st.just(0.0),
    flip=st.booleans(),
)
crops = st.tuples(st.integers(96, 160), st.integers(96, 200))  # at scale 3, 32 source pixels a side


@given(window=windows, crop=crops)
@settings(max_examples=60, deadline=None)
def test_a_window_that_is_not_turned_shows_what_the_warp_shows(window: Window, crop: tuple[int, int]) -> None:
    image, label = smooth(150, 200), np.random.default_rng(1).integers(0, 9, (150, 200), np.uint8)
    window = whole(window, crop)
    new_image, new_label = render(image, label, window, crop, fill=FILL)
    # a turn too small to move a pixel takes the other way
    warped_image, warped_label = render(image, label, replace(window, angle=1e-9), crop, fill=FILL)
    columns, rows = (
        inverse_map(window, crop) @ np.stack([*np.indices(crop)[::-1].reshape(2, -1), np.ones(crop).ravel()])
    ).reshape(2, *crop)
    # at the crop's border resizing repeats the last pixel where warping looks beyond; at the image's, fill is mixed in
    edge = int(np.ceil(max(window.scale_x, window.scale_y))) + 1
    inner = np.zeros(crop, bool)
    inner[edge:-edge, edge:-edge] = True
    inside = inner & (rows > 1) & (rows < 148) & (columns > 1) & (columns < 198)
    assert np.abs(new_image[inside].astype(int) - warped_image[inside]).max(initial=0) <= 1  # rounding
    # warpAffine rounds places to a thirty-second of a pixel, which decides ties of nearest neighbours
    ties = (np.abs(rows % 1 - 0.5) < 0.05) | (np.abs(columns % 1 - 0.5) < 0.05)
    assert np.array_equal(new_label[~ties], warped_label[~ties])


@given(window=windows, crop=crops)
@settings(max_examples=60, deadline=None)
def test_moving_a_window_to_whole_pixels_moves_nothing_by_more_than_a_pixel(
    window: Window, crop: tuple[int, int]
) -> None:
    corners = np.array([[0, crop[1] - 1], [0, crop[0] - 1], [1, 1]])
    before, after = inverse_map(window, crop) @ corners, inverse_map(whole(window, crop), crop) @ corners
    assert np.abs(before - after).max() <= 1  # half a pixel of place, half of size


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("angle", [0.0, 1e-9])
@given(scale=st.floats(0.5, 3), center=st.floats(60, 140), edge=st.integers(80, 120))
@settings(max_examples=25, deadline=None)
def test_a_planted_edge_lands_where_the_window_says(
    flip: bool, angle: float, scale: float, center: float, edge: int
) -> None:
    label = np.repeat((np.arange(200) >= edge)[None], 150, 0).astype(np.uint8)
    image = np.repeat(label[..., None] * np.uint8(200), 3, 2)
    crop = (100, 150)
    window = Window(center, 75, scale, scale, angle, flip)
    if angle == 0:
        window = whole(window, crop)
    new_image, new_label = render(image, label, window, crop, fill=FILL)
    columns = (inverse_map(window, crop) @ np.array([np.arange(150), np.full(150, 50), np.ones(150)]))[0]
    expected = np.where((columns < -0.5) | (columns > 199.5), 255, columns >= edge - 0.5)
    clear = (np.abs(columns - (edge - 0.5)) > 0.05) & (np.abs(columns + 0.5) > 0.05) & (np.abs(columns - 199.5) > 0.05)
    assert np.array_equal(new_label[50][clear], expected[clear])
    # the image is above half of its brightness exactly where the label is 1, but for the pixel that holds the edge
    shown = (columns > 2) & (columns < 197) & (np.abs(columns - (edge - 0.5)) > 0.1)
    assert np.array_equal(new_image[50, shown, 0] > 100, new_label[50, shown] == 1)


@pytest.mark.parametrize("scale", [0.3, 0.55, 0.74])
@pytest.mark.parametrize(
    ("rows", "columns"), [(slice(0, 30), slice(0, 40)), (slice(20, 41), slice(33, 70)), (slice(50, 64), slice(60, 96))]
)
def test_smoothing_a_window_is_smoothing_the_image(scale: float, rows: slice, columns: slice) -> None:
    image, _ = sample(64, 96)
    all_of_it = _smoothed(image, slice(0, 64), slice(0, 96), 0.75, scale_x=scale, scale_y=scale)
    assert not np.array_equal(all_of_it, image)
    part = _smoothed(image, rows, columns, 0.75, scale_x=scale, scale_y=scale)
    assert np.array_equal(part, all_of_it[rows, columns])


@pytest.mark.parametrize(("scale", "rotate"), [(0.45, 0.0), (0.4, 0.0), (0.5, 5.0), (0.6, 5.0), (0.7, 5.0)])
def test_shrinking_averages_instead_of_picking(scale: float, rotate: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    config = replace(COLOURLESS, crop=(80, 80), scale=(scale, scale), flip=0.0, rotate=rotate)
    new_image, _ = augment(image, np.zeros((200, 200), np.uint8), config, input_scale=1.0, key=(0, 0, 1))
    picked = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    assert new_image.astype(float).std() < 0.75 * picked.astype(float).std()


@pytest.mark.parametrize("scale", [0.5, 0.6, 0.7])
def test_down_to_half_the_size_a_resize_is_what_others_do(scale: float) -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    crop = (round(200 * scale), round(200 * scale))
    window = Window(99.5, 99.5, crop[1] / 200, crop[0] / 200, 0.0, False)
    new_image, _ = render(image, np.zeros((200, 200), np.uint8), window, crop)
    assert np.array_equal(new_image, cv2.resize(image, crop[::-1], interpolation=cv2.INTER_LINEAR))


@pytest.mark.parametrize("config", [IDENTITY, replace(IDENTITY, flip=1.0), COLOURLESS, BUSY, AugmentConfig()])
def test_inputs_may_be_read_only_and_results_are_memory_of_their_own(config: AugmentConfig) -> None:
    image, label = sample(64, 96)
    image.flags.writeable = label.flags.writeable = False
    config = replace(config, crop=(40, 50))
    new_image, new_label = augment(image, label, config, input_scale=1.0, key=(0, 0, 1))
    for new, old in ((new_image, image), (new_label, label)):
        assert new.flags.writeable
        assert not np.shares_memory(new, old)


@pytest.mark.parametrize(
    ("center", "scale", "crop", "expected"),
    [
        ((49.5, 29.5), (1, 1), (20, 40), (30, 20, 40, 20)),  # even sides, middle between two pixels: as it is
        ((50.0, 30.0), (1, 1), (21, 41), (30, 20, 41, 21)),  # odd sides, middle on a pixel: as it is
        ((50.0, 30.0), (1, 1), (20, 40), (31, 21, 40, 20)),  # half a pixel off goes up
        ((49.9, 29.9), (1, 1), (20, 40), (30, 20, 40, 20)),
        ((49.6, 29.6), (1, 1), (21, 41), (30, 20, 41, 21)),
        ((49.4, 29.4), (1, 1), (21, 41), (29, 19, 41, 21)),
        ((49.5, 29.5), (2, 0.5), (20, 40), (40, 10, 20, 40)),
        ((49.5, 29.5), (3, 1.5), (20, 40), (44, 24, 13, 13)),
        ((-0.5, -0.5), (1, 1), (20, 40), (-20, -10, 40, 20)),
        ((0.0, 0.0), (1, 1), (21, 41), (-20, -10, 41, 21)),
    ],
)
def test_a_window_moves_to_the_nearest_whole_pixels(
    center: tuple[float, float], scale: tuple[float, float], crop: tuple[int, int], expected: tuple[int, int, int, int]
) -> None:
    assert snapped(Window(*center, *scale, 0.0, False), crop) == expected


@pytest.mark.parametrize("use", ["augment", "decode"])
def test_opencv_starts_no_threads_for_a_sample(use: str) -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(3)
        if use == "augment":
            augment(*sample(), replace(IDENTITY, crop=(24, 40)), input_scale=1.0, key=(0, 0, 0))
        else:
            Values.of((0,), (255,), "farm").decode(np.zeros((2, 3), np.uint8), Path("x.png"))
        assert cv2.getNumThreads() == 1  # it counts the one that calls
    finally:
        cv2.setNumThreads(before)
