"""Pictures of predictions: exact pixels, values that can be read back, files that appear whole."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastseg.atomic import write_atomically
from fastseg.data.readers import read_image, read_label
from fastseg.errors import ConfigError, OutputError
from fastseg.output import Prediction, distinct_palette
from fastseg.types import DatasetInfo

INFO = DatasetInfo("toy", ("road", "sky", "Fußgänger"), ((128, 64, 128), (70, 130, 180), (220, 20, 60)), (7, 23, 24))
RANDOM = np.random.default_rng(0)


def prediction(height: int = 20, width: int = 30, info: DatasetInfo = INFO) -> Prediction:
    labels = RANDOM.integers(0, info.num_classes, (height, width), dtype=np.uint8)
    labels[0, 0] = 255
    return Prediction(labels, RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8), info, "a.png")


def test_color_follows_the_palette_and_ignored_is_black() -> None:
    result = prediction()
    color = result.color()
    for index in range(3):
        assert (color[result.labels == index] == INFO.palette[index]).all()
    assert (color[0, 0] == 0).all()


def test_counts_name_the_classes_that_occur_and_add_up() -> None:
    labels = np.array([[0, 0, 2], [255, 0, 2]], np.uint8)
    result = Prediction(labels, np.zeros((2, 3, 3), np.uint8), INFO)
    assert result.counts() == {"road": 3, "Fußgänger": 2, "ignored": 1}


def test_overlay_without_legend_is_the_mean_of_image_and_colour() -> None:
    result = prediction()
    overlay = np.asarray(result.overlay(alpha=0.5, legend=False)).astype(int)
    expected = (result.image.astype(int) + result.color()) / 2
    known = result.labels != 255
    assert overlay.shape == result.image.shape
    assert np.abs(overlay - expected)[known].max() <= 0.5  # rounding to whole grey levels
    assert (overlay[0, 0] == result.image[0, 0]).all()  # ignored: uncoloured


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 700), (700, 1), (20, 30), (90, 400)])
def test_the_legend_leaves_every_image_pixel_in_place(height: int, width: int) -> None:
    result = prediction(height, width)
    plain = np.asarray(result.overlay(legend=False))
    framed = np.asarray(result.overlay(legend=True))
    assert np.array_equal(framed[:height, :width], plain)
    assert framed.shape[0] > height


def test_the_legend_shows_the_classes_that_occur_and_no_other() -> None:
    labels = np.zeros((60, 200), np.uint8)
    labels[:, 150:] = 2
    strip = np.asarray(Prediction(labels, np.zeros((60, 200, 3), np.uint8), INFO).overlay())[60:].reshape(-1, 3)
    colors = {tuple(map(int, color)) for color in strip}
    assert INFO.palette[0] in colors
    assert INFO.palette[2] in colors
    assert INFO.palette[1] not in colors


def test_the_legend_holds_150_classes_with_hostile_names() -> None:
    names = tuple(f"class\n{index} \ud800 日本 {'x' * (index % 40)}" for index in range(150))
    info = DatasetInfo("many", names, distinct_palette(150))
    assert prediction(40, 50, info).overlay().size[1] > 40


def test_alpha_outside_its_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"alpha is 1\.5"):
        prediction().overlay(alpha=1.5)


def test_generated_colours_are_distinct_and_stable() -> None:
    palette = distinct_palette(256)
    assert len(set(palette)) == 256
    assert (0, 0, 0) not in palette
    assert palette[:19] == distinct_palette(19)


def test_ids_and_color_files_give_the_labels_back(tmp_path: Path) -> None:
    result = prediction()
    ids = result.save(tmp_path / "new" / "folder" / "a_ids.png", "ids")
    color = result.save(tmp_path / "a_color.png", "color")
    assert Image.open(ids).mode == "L"
    assert Image.open(color).mode == "P"
    assert np.array_equal(read_label(ids), result.labels)
    assert np.array_equal(read_label(color), result.labels)
    assert np.array_equal(read_image(color), result.color())


def test_an_edges_file_has_white_for_certain_and_steps_of_one_255th(tmp_path: Path) -> None:
    edges = RANDOM.random((20, 30), np.float32)
    edges[0, :2] = 0, 1
    path = replace(prediction(), edges=edges).save(tmp_path / "a_edges.png", "edges")
    picture = np.asarray(Image.open(path))
    assert Image.open(path).mode == "L"
    assert picture[0, :2].tolist() == [0, 255]
    assert np.abs(picture / 255 - edges).max() <= 0.5 / 255 + 1e-6  # rounded to the nearest grey, in float32


def test_a_prediction_without_edges_writes_none(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="has no edges; predict with --edges"):
        prediction().save(tmp_path / "a.png", "edges")
    assert not list(tmp_path.iterdir())


def test_official_ids_are_written_when_asked(tmp_path: Path) -> None:
    result = prediction()
    path = result.save(tmp_path / "a.png", "ids", official=True)
    official = {0: 7, 1: 23, 2: 24, 255: 255}
    assert np.array_equal(read_label(path), np.vectorize(official.get)(result.labels))


def test_official_ids_above_255_make_a_16_bit_file() -> None:
    info = DatasetInfo("wide", ("a", "b"), ((1, 1, 1), (2, 2, 2)), (3, 2978))
    ids = Prediction(np.array([[0, 1, 255]], np.uint8), np.zeros((1, 3, 3), np.uint8), info).ids(official=True)
    assert ids.dtype == np.uint16
    assert ids.tolist() == [[3, 2978, 255]]


def test_official_ids_of_a_data_set_without_them_are_refused() -> None:
    info = DatasetInfo("plain", ("a",), ((1, 1, 1),))
    with pytest.raises(OutputError, match="'plain' defines no official ids"):
        prediction(info=info).ids(official=True)


def test_an_existing_file_is_kept_unless_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"a\.png exists already; .*--overwrite"):
        prediction().save(path, "ids")
    assert path.read_bytes() == b"mine"
    prediction().save(path, "ids", overwrite=True)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "elsewhere.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("link.png", "folder.png"):
        with pytest.raises(OutputError, match="no regular file"):
            prediction().save(tmp_path / name, overwrite=True)


@pytest.mark.parametrize(
    ("kind", "suffix"), [("ids", ".jpg"), ("edges", ".jpg"), ("color", ".webp"), ("overlay", ".xyz"), ("ids", "")]
)
def test_suffixes_that_would_change_values_are_refused(kind: str, suffix: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"is written as \.png"):
        prediction().save(tmp_path / f"a{suffix}", kind)
    assert not list(tmp_path.iterdir())


def test_an_overlay_can_be_a_jpeg(tmp_path: Path) -> None:
    assert Image.open(prediction().save(tmp_path / "a.JPG")).format == "JPEG"


def test_an_unknown_kind_offers_the_right_spelling(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'overlay'"):
        prediction().save(tmp_path / "a.png", "overlays")


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OutputError, match=r"a\.png cannot be written.*No space left"):
        write_atomically(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"old"


def test_a_parent_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        prediction().save(tmp_path / "file" / "a.png")
    with pytest.raises(OutputError, match="cannot be written"):
        write_atomically(tmp_path / "file" / "a.png", b"")


def test_results_follow_the_umask_and_not_the_temporary_files_mode(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        path = prediction().save(tmp_path / "a.png", "ids")
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o644
