"""`fastseg data show`: the samples of the first step, as the network gets them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fastseg.contact_sheet
from fastseg.cli import main
from fastseg.config import load_config
from fastseg.contact_sheet import Tile
from fastseg.data.loader import StreamSampler, training_loader
from fastseg.engine.build import build_split
from trees.pairs import read, write, write_pairs

CONFIG = "data: {{name: camvid, root: {root}}}\naugment: {{crop: [24, 32]}}\ntrain: {{seed: 5}}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_pairs(tmp_path, {"train": 5, "val": 2})
    (tmp_path / "garden.yaml").write_text(CONFIG.format(root=tmp_path))
    return tmp_path


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> list[Tile]:
    """What goes onto the sheet."""
    seen: list[Tile] = []
    draw = fastseg.contact_sheet.contact_sheet

    def spy(given: list[Tile], *rest: object) -> Image.Image:
        seen.extend(given)
        return draw(given, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(fastseg.contact_sheet, "contact_sheet", spy)
    return seen


def show(root: Path, *arguments: str) -> int:
    return main(["data", "show", str(root / "garden.yaml"), "--out", str(root / "sheet.png"), *arguments])


def test_the_samples_are_those_of_the_first_step(root: Path, tiles: list[Tile]) -> None:
    assert show(root, "--count", "4") == 0
    config = load_config(root / "garden.yaml")
    dataset = build_split(config, "train")
    sampler = StreamSampler(len(dataset), batch_size=4, rank=0, world_size=1, seed=5, start=0, stop=1)
    (batch,) = training_loader(
        dataset, config.augment, input_scale=1.0, seed=5, sampler=sampler, workers=0, pin_memory=False
    )
    assert [tile.name for tile in tiles] == batch.names
    for tile, image, label in zip(tiles, batch.images, batch.labels, strict=True):
        assert np.array_equal(tile.image, image.numpy())
        assert np.array_equal(tile.label, label.numpy())


def test_raw_samples_are_those_on_the_disk_each_once(root: Path, tiles: list[Tile]) -> None:
    assert show(root, "--raw", "--count", "12") == 0
    assert sorted(tile.name for tile in tiles) == [f"{index}.png" for index in range(5)]
    for tile in tiles:
        assert np.array_equal(tile.image, read(root / "train" / tile.name))


def test_raw_and_augmented_sheets_show_the_same_samples(root: Path, tiles: list[Tile]) -> None:
    show(root, "--count", "3")
    show(root, "--count", "3", "--raw", "--overwrite")
    names = [tile.name for tile in tiles]
    assert names[:3] == names[3:]


def test_another_seed_draws_other_crops(root: Path, tiles: list[Tile]) -> None:
    for seed in ("5", "6"):
        show(root, "--count", "5", "--seed", seed, "--overwrite")
    assert not all(np.array_equal(a.image, b.image) for a, b in zip(tiles[:5], tiles[5:], strict=True))


def test_class_uniform_crops_are_shown_as_they_are_drawn(root: Path, tiles: list[Tile]) -> None:
    write_pairs(root, {"train": 40})
    for path in sorted((root / "trainannot").glob("*.png"))[1:]:
        write(path, np.zeros((12, 20), np.uint8))  # ten classes in one image only
    show(root, "data.class_uniform=1", "--count", "20")
    assert len({tile.name for tile in tiles}) < 10  # of 20 tiles about 18 are of that image


def test_a_split_of_ones_own_choice(root: Path, tiles: list[Tile], capsys: pytest.CaptureFixture[str]) -> None:
    assert show(root, "--split", "val", "--raw") == 0
    assert sorted(tile.name for tile in tiles) == ["0.png", "1.png"]
    assert "camvid val: 2 of 2 samples, as they are stored" in capsys.readouterr().out


def test_the_sheet_is_a_picture_and_is_not_replaced_unasked(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert show(root) == 0
    with Image.open(root / "sheet.png") as picture:
        assert picture.format == "PNG"
    before = (root / "sheet.png").read_bytes()
    assert show(root, "--seed", "9") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (root / "sheet.png").read_bytes() == before
    assert show(root, "--seed", "9", "--overwrite") == 0
    assert (root / "sheet.png").read_bytes() != before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--count", "0"], "--count is 0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--out", "sheet.gif"], "sheet.gif: a sheet is written as"),
        (["--split", "vall"], "vall"),
    ],
)
def test_mistakes_are_one_line(
    root: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show(root, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not (root / "sheet.png").exists()


@pytest.mark.parametrize("raw", [[], ["--raw"]])
def test_a_bad_sample_is_left_out_and_named(
    root: Path, raw: list[str], tiles: list[Tile], capsys: pytest.CaptureFixture[str]
) -> None:
    write(root / "trainannot/2.png", np.full((12, 20), 50, np.uint8))
    assert show(root, *raw) == 1
    assert {tile.name for tile in tiles} == {"0.png", "1.png", "3.png", "4.png"}
    out, err = capsys.readouterr()
    assert f": {len(tiles)} of 5 samples" in out
    left_out, advice = err.splitlines()
    assert left_out.startswith("left out: ")
    assert "trainannot/2.png has values {50: 240 px}" in left_out
    assert advice.startswith(f"`fastseg data check {root / 'garden.yaml'}` ")


@pytest.mark.parametrize("raw", [[], ["--raw"]])
def test_bad_labels_alone_are_one_line(root: Path, raw: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for path in (root / "trainannot").glob("*.png"):
        write(path, np.full((12, 20), 50, np.uint8))
    assert show(root, *raw) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "{50: 240 px}" in line
