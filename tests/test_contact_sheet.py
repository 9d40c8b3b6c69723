"""Contact sheets: the pixels that a network sees, in rows, named, with one legend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastseg import contact_sheet as module
from fastseg.contact_sheet import GAP, HATCH_COLOURS, MARGIN, WIDTH, Tile, contact_sheet
from fastseg.output import LegendEntry
from fastseg.types import DatasetInfo

INFO = DatasetInfo("garden", ("soil", "plant"), ((120, 80, 40), (40, 160, 60)))


def tile(height: int, width: int, *, value: int = 0, grey: int = 100, name: str = "bed.png") -> Tile:
    return Tile(np.full((height, width, 3), grey, np.uint8), np.full((height, width), value, np.uint8), name)


def pixels(tiles: list[Tile], title: str = "") -> np.ndarray:
    return np.asarray(contact_sheet(tiles, INFO, title))


def boxes(sheet: np.ndarray, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what has `colour`."""
    rows, columns = np.nonzero((sheet == colour).all(axis=2))
    return int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1


def test_a_small_image_is_shown_with_its_own_pixels() -> None:
    random = np.random.default_rng(0)
    one = Tile(random.integers(0, 256, (300, 500, 3), dtype=np.uint8), np.zeros((300, 500), np.uint8), "a")
    sheet = pixels([one])
    top = next(y for y in range(len(sheet)) if (sheet[y, MARGIN : MARGIN + 500] == one.image[0]).all())
    assert (sheet[top : top + 300, MARGIN : MARGIN + 500] == one.image).all()
    overlay = sheet[top : top + 300, MARGIN + 500 + GAP : MARGIN + 1000 + GAP].astype(float)
    assert np.abs(overlay - (0.4 * one.image + 0.6 * np.array(INFO.palette[0]))).max() <= 1  # whole grey levels


def test_ignored_pixels_are_hatched_and_others_are_not() -> None:
    label = np.zeros((240, 240), np.uint8)
    label[:120] = 255
    sheet = pixels([Tile(np.full((240, 240, 3), 100, np.uint8), label, "a")])
    top, _, left, _ = boxes(sheet, (100, 100, 100))
    overlay = sheet[top : top + 240, left + 240 + GAP : left + 480 + GAP]
    ignored, known = overlay[:120].reshape(-1, 3), overlay[120:].reshape(-1, 3)
    for colour in HATCH_COLOURS:
        share = (ignored == colour).all(axis=1).mean()
        assert share == pytest.approx(1 / 6, abs=0.02)  # two of twelve pixels
        assert not (known == colour).all(axis=1).any()
    assert (ignored == 100).all(axis=1).mean() == pytest.approx(2 / 3, abs=0.02)  # the image between the stripes


def test_thumbnails_are_enlarged_by_whole_pixels() -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    image[:, ::2] = (7, 200, 90)
    sheet = pixels([Tile(image, np.zeros((10, 20), np.uint8), "a")])
    row = sheet[boxes(sheet, (7, 200, 90))[0]]
    runs = np.flatnonzero(np.diff((row == (7, 200, 90)).all(axis=1).astype(int)))
    assert set(np.diff(runs[:10])) == {12}  # 240 of 20 pixels


@pytest.mark.parametrize(("height", "width"), [(1024, 2048), (352, 480), (3000, 1000), (64, 64), (1, 3000)])
@pytest.mark.parametrize("count", [1, 2, 12])
def test_sheets_are_no_wider_than_they_may_be_and_keep_the_aspect(height: int, width: int, count: int) -> None:
    sheet = pixels([tile(height, width, grey=5) for _ in range(count)])
    assert sheet.shape[1] <= WIDTH
    if count == 1 and height > 1:
        top, bottom, left, right = boxes(sheet, (5, 5, 5))
        assert (right - left) / (bottom - top) == pytest.approx(width / height, rel=0.01)


def test_tiles_of_other_sizes_keep_their_own_aspect() -> None:
    sheet = pixels([tile(300, 100, grey=5), tile(100, 300, grey=9)])
    for grey, ratio in ((5, 1 / 3), (9, 3)):
        top, bottom, left, right = boxes(sheet, (grey, grey, grey))
        assert (right - left) / (bottom - top) == pytest.approx(ratio, rel=0.02)


def test_the_legend_has_the_classes_of_all_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[LegendEntry] = []
    legend = module.with_legend

    def spy(image: Image.Image, entries: list[LegendEntry]) -> Image.Image:
        seen.extend(entries)
        return legend(image, entries)

    monkeypatch.setattr(module, "with_legend", spy)
    contact_sheet([tile(30, 30, value=1), tile(30, 30, value=1), tile(30, 30, value=255), tile(30, 30)], INFO, "")
    assert [(entry.name, entry.share) for entry in seen] == [
        ("plant", "50%"),
        ("soil", "25%"),
        ("ignored (hatched)", "25%"),
    ]
    assert seen[0].color == INFO.palette[1]


def test_names_stand_below_their_tiles() -> None:
    named, unnamed = (pixels([tile(200, 300, name=name)]) for name in ("bed", ""))
    rows, columns = np.nonzero((named != unnamed).any(axis=2))
    _, bottom, left, _ = boxes(unnamed, (100, 100, 100))
    assert bottom < rows.min() < rows.max() < bottom + 30
    assert columns.min() == pytest.approx(left, abs=3)


def test_long_names_end_within_their_tile() -> None:
    left, right = tile(200, 300, name="a/very/long/folder" * 20 + "/name.png"), tile(200, 300, name="")
    sheet = pixels([left, right])
    plain = pixels([tile(200, 300, name=""), right])
    columns = np.nonzero((sheet != plain).any(axis=2))[1]
    assert columns.max() < MARGIN + 600 + GAP + 1


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 60), st.integers(1, 60), st.sampled_from([0, 1, 255]), st.text(max_size=20)),
        min_size=1,
        max_size=9,
    )
)
def test_any_tiles_make_a_sheet(given_tiles: list[tuple[int, int, int, str]]) -> None:
    sheet = contact_sheet([tile(h, w, value=value, name=name) for h, w, value, name in given_tiles], INFO, "title\n")
    assert sheet.mode == "RGB"
    assert sheet.width <= WIDTH


def test_a_sheet_can_be_saved(tmp_path: Path) -> None:
    contact_sheet([tile(20, 30)], INFO, "garden").save(tmp_path / "a.png")
