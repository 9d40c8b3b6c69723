"""`fastseg bench data`: every configuration, stages that make up the whole, numbers that fit together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from fastseg.cli import main
from fastseg.data import build_dataset

SMALL = ["train.total_batch=2", "augment.crop=[32,64]", "train.device=cpu"]
SCENES = [
    "configs/road_scenes/fast_scnn.yaml",
    "data.args={count: 3, height: 32, width: 64}",
    "data.cache=none",
    "--seconds",
    "0.2",
    *SMALL,
]
FILE_STAGES = ["read files", "decode image", "decode label"]
STAGES = ["window and resize", "colour and blur", "collate", "all, from the files"]


@pytest.fixture
def camvid(tmp_path: Path) -> list[str]:
    """Arguments that bench a tiny CamVid with its caches in the test's folder."""
    scenes = build_dataset("road_scenes", "train", args={"count": 4, "height": 48, "width": 64})
    for split in ("train", "val"):
        for folder, part in ((split, 0), (f"{split}annot", 1)):
            (tmp_path / folder).mkdir()
            for index in range(4):
                Image.fromarray(scenes.load(index)[part]).save(tmp_path / folder / f"{index}.png")
            for path in (tmp_path / folder).glob("*.png") if part else ():
                Image.open(path).point(lambda value: min(value, 11)).save(path)
    return [
        "configs/camvid/fast_scnn.yaml",
        f"data.root={tmp_path}",
        f"data.cache_dir={tmp_path / 'cache'}",
        "data.cache=none",
        "--seconds",
        "0.2",
        *SMALL,
    ]


def bench(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict, str]:
    """The JSON and the text."""
    file = tmp_path / "bench.json"
    assert main(["bench", "data", *arguments, "--json", str(file), "--overwrite"]) == 0
    return json.loads(file.read_text()), capsys.readouterr().out


def test_files_are_timed_stage_by_stage_and_the_whole_takes_as_long_as_its_stages(
    camvid: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, text = bench([*camvid, "--no-network"], tmp_path, capsys)
    times = found["milliseconds"]
    assert list(times) == FILE_STAGES + STAGES
    parts = sum(times[stage] for stage in times if stage not in ("collate", STAGES[-1]))
    assert 0.3 < parts / times[STAGES[-1]] < 3  # the machine may turn to others in between
    assert found["samples"] == 8
    assert found["image"] == [48, 64]
    assert found["network_images_per_second"] is None
    for stage, rate in found["images_per_second_per_core"].items():
        assert rate == pytest.approx(1000 / times[stage])
    assert "no cache of this data on disk" in text
    assert not (tmp_path / "cache").exists()


def test_a_cache_is_built_when_asked_for_and_timed_whenever_it_is_there(
    camvid: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, text = bench([*camvid, "--no-network", "--cache"], tmp_path, capsys)
    assert "cache: decoding 4 samples" in text
    assert list(found["milliseconds"])[-1] == "all, from the cache"
    again, text = bench([*camvid, "--no-network"], tmp_path, capsys)
    assert "cache: decoding" not in text
    assert list(again["milliseconds"])[-1] == "all, from the cache"


def test_the_network_says_how_many_cores_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, text = bench(SCENES, tmp_path, capsys)
    assert list(found["milliseconds"]) == ["make image and label", *STAGES]
    rate = found["network_images_per_second"]
    assert found["network"] == "fast_scnn, training step of 2 x 64x32 in fp32 on cpu, 1 threads"
    needed = rate / found["images_per_second_per_core"][STAGES[-1]]
    assert found["cores_needed"] == {STAGES[-1]: pytest.approx(needed)}
    assert f"all, from the files: {needed:.2f} cores keep it fed" in text


def test_a_cache_in_memory_is_timed_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, _ = bench([*SCENES, "--no-network", "data.cache=memory"], tmp_path, capsys)
    rates = found["images_per_second_per_core"]
    assert rates["all, from the cache"] > rates["all, from the files"]  # a scene takes far longer to paint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seconds", "0"], "--seconds is 0.0; allowed: above 0"),
        (["--cache"], "have no identity"),
        (["data.args={count: 0}"], ""),
    ],
)
def test_mistakes_are_answered_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "data", *SCENES, "--no-network", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_an_existing_file_is_not_overwritten_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.json"
    file.write_text("mine")
    assert main(["bench", "data", *SCENES, "--no-network", "--json", str(file)]) == 2
    assert file.read_text() == "mine"
