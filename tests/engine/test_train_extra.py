"""Training on several data sets, on some of them repeatedly, and on crops of rare classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastseg.config import Config, DataPart, load_config
from fastseg.data import DATASETS, SegDataset
from fastseg.data.class_uniform import ClassUniform
from fastseg.data.loader import FocusedKey, Key, StreamSampler
from fastseg.data.road_scenes import ROAD_SCENES, RoadScenes, road_scenes
from fastseg.engine import train as engine
from fastseg.engine import training_data
from fastseg.engine.build import build_split
from fastseg.engine.checkpoint import load_checkpoint
from fastseg.engine.distributed import processes
from fastseg.engine.train import train
from fastseg.engine.training_data import build_training_data, class_uniform, described, repeated
from fastseg.errors import ConfigError, DataError, LabelError, MissingFileError
from fastseg.types import DatasetInfo
from fastseg.weights.files import read_weights
from trees.cityscapes import write_cityscapes
from trees.mapillary import write_mapillary
from workers import TwoProcesses, column, short_config

pytestmark = pytest.mark.usefixtures("light_runs", "registered")


def other(split: str, classes: str = "own", count: int = 2, root: str = "") -> SegDataset:
    """Road scenes of other seeds, wherever they are said to be; their classes are called otherwise, unless the road
    scenes' are asked for."""
    scenes = road_scenes(split, count=count, height=32, width=64, seed=5)
    names = tuple(name.upper() for name in ROAD_SCENES.class_names)  # one class all the same
    if classes == "own":
        names = (*names[:2], "water", *names[3:])
    if classes == "fewer":
        names = names[:-1]
    scenes.info = DatasetInfo("other", names, ROAD_SCENES.palette[: len(names)])
    return scenes


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS._builders, "other", other)


def extra_config(run_dir: Path | str, **part: Any) -> Config:
    config = short_config(run_dir)
    config.data.extra = [DataPart(**{"name": "other", "args": {"classes": "road_scenes"}} | part)]
    return config


def test_an_epoch_shows_every_part_as_often_as_asked_for(tmp_path: Path) -> None:
    config = extra_config(tmp_path, repeat=3, split="train+val")
    config.data.repeat = 2
    images, sources = build_training_data(config)
    shown = repeated(images, sources)
    assert (len(images), len(shown)) == (8, 20)
    main, rest = road_scenes("train", count=4, height=32, width=64), other("train", "road_scenes")
    assert np.array_equal(shown.load(5)[0], main.load(1)[0])
    assert np.array_equal(shown.load(9)[0], rest.load(1)[0])
    assert np.array_equal(shown.load(17)[0], rest.load(1)[0])
    assert shown.info is images.info
    assert shown.info.class_names == ROAD_SCENES.class_names
    assert described(sources) == " (2 x 4 road_scenes train + 3 x 4 other train+val)"
    assert described(build_training_data(short_config(tmp_path))[1]) == ""


def test_the_header_says_where_the_images_come_from_and_validation_is_the_mains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(engine.Record, "say", lambda _, text: said.extend(text.splitlines()))
    result = train(extra_config(tmp_path / "run", repeat=3))
    assert said[1].endswith("; 10 images (4 road_scenes train + 3 x 2 other train), 5.0 iterations per epoch")
    assert "on 4 images of val; " in said[2]
    assert result.weights is not None
    assert read_weights(result.weights).info.dataset.name == "road_scenes"


def test_every_image_of_every_part_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: set[tuple[int, str, int]] = set()
    load = RoadScenes.load

    def counted(self: RoadScenes, index: int) -> tuple[np.ndarray, np.ndarray]:
        loaded.add((self.seed, self.split, index))
        return load(self, index)

    config = extra_config(tmp_path / "run")
    config.schedule.iterations, config.schedule.epochs = None, 1.0
    config.train.eval_every = 50.0
    monkeypatch.setattr(RoadScenes, "load", counted)
    monkeypatch.setattr(engine, "check_samples", lambda *_: None)  # which reads images, too
    train(config)
    assert {item for item in loaded if item[1] == "train"} == {(0, "train", i) for i in range(4)} | {
        (5, "train", i) for i in range(2)
    }


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"args": {}}, r"^tiny\.yaml: data\.extra\[0\] \(other\) has other classes than road_scenes, the main data "
                       r"set: class 2 is 'water' of 10 there and '.*' of 10 here; set "
                       r"data\.extra\[0\]\.args\.classes=road_scenes, or leave the part out$"),
        ({"args": {"classes": "fewer"}}, r"class 9 is none of 9 there and '.*' of 10 here"),
        ({"name": "camvid11_480", "root": "/nowhere", "args": {}}, r"data\.extra\[0\]: .*/nowhere does not exist"),
        ({"name": "camvid11_480", "args": {}}, r"data\.extra\[0\]: .* needs the folder .*: data\.extra\[0\]\.root="),
        ({"split": "trian"}, r"data\.extra\[0\]: .*trian"),
    ],
)  # fmt: skip
def test_a_part_that_does_not_fit_is_refused_by_its_key(tmp_path: Path, part: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError, MissingFileError), match=message):
        train(extra_config(tmp_path / "run", **part))


def test_mapillary_goes_beside_cityscapes_once_its_classes_are_mapped(tmp_path: Path) -> None:
    write_cityscapes(tmp_path / "cityscapes", size=(16, 24))
    write_mapillary(tmp_path / "mapillary", size=(16, 24))
    config = extra_config(tmp_path, name="mapillary", root=str(tmp_path / "mapillary"), args={"classes": "cityscapes"})
    config.data.name, config.data.args, config.data.root = "cityscapes", {}, str(tmp_path / "cityscapes")
    images, sources = build_training_data(config)
    assert images.info.name == "cityscapes"
    assert [source.images > 0 for source in sources] == [True, True]
    assert len(images) == sum(source.images for source in sources)
    assert all(set(np.unique(images.load_label(index))) <= {*range(19), 255} for index in range(len(images)))
    config.data.extra[0].args = {}
    with pytest.raises(ConfigError, match=r"set data\.extra\[0\]\.args\.classes=cityscapes, or leave the part out"):
        build_training_data(config)


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"name": "othre"}, r"tiny\.yaml: data\.extra\[0\]\.name: unknown data set 'othre'; did you mean 'other'"),
        ({"name": ""}, r"tiny\.yaml: data\.extra\[0\]\.name is missing; allowed: .*camvid"),
        ({"args": {"clases": 1}}, r"data\.extra\[0\]\.args\.clases: .*no argument 'clases'; did you mean 'classes'"),
        ({"repeat": 0}, r"data\.extra\[0\]\.repeat is 0; allowed: at least 1"),
    ],
)
def test_misspelt_parts_are_found_by_a_dry_run_too(
    tmp_path: Path, part: dict[str, Any], message: str, dry_run: bool
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(extra_config(tmp_path / "run", **part), dry_run=dry_run)


def test_a_part_in_a_file_is_read_and_its_keys_are_checked(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data:\n  extra:\n  - {name: other, args: {classes: road_scenes}, repeat: 2}\n")
    config = load_config(file)
    assert config.data.extra == [DataPart("other", None, {"classes": "road_scenes"}, "train", 2)]
    file.write_text("data:\n  extra:\n  - {name: other, repaet: 2}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: .*repaet.*'repeat'"):
        load_config(file)


def test_a_part_may_have_moved_when_a_run_goes_on_and_nothing_else(tmp_path: Path) -> None:
    config = extra_config(tmp_path / "run")
    train(config)
    config.data.extra[0].root = "/elsewhere"
    assert train(config, resume="auto").iterations == 4
    config.data.extra[0].repeat = 2
    with pytest.raises(ConfigError, match=r"of a run with other values: data\.extra \(then .*set them back"):
        train(config, resume="auto")


# class-uniform crops


def rare_config(run_dir: Path | str) -> Config:
    config = extra_config(run_dir)
    config.data.class_uniform = 0.5
    config.augment.crop = (32, 32)
    config.augment.scale = (1.0, 1.5)
    config.augment.cat_max_ratio = 0.75
    return config


def found(config: Config) -> tuple[ClassUniform, list[str]]:
    said: list[str] = []
    images, sources = build_training_data(config)
    with processes("cpu") as procs:
        places = class_uniform(config, repeated(images, sources), procs, said.append)
    assert places is not None
    return places, said


def test_places_are_found_in_all_parts_and_told(tmp_path: Path) -> None:
    config = rare_config(tmp_path)
    places, said = found(config)
    data = repeated(*build_training_data(config))
    assert set(places.table[:, 1].tolist()) == set(range(6))
    for value, sample, x, y in places.table.tolist():
        assert data.load(sample)[1][y, x] == value
    present = set(places.classes.tolist())
    never = [name for i, name in enumerate(ROAD_SCENES.class_names) if i not in present]
    assert said[0] == "data.class_uniform=0.5: reading 6 labels to find where classes occur"
    assert said[1].startswith(f"data.class_uniform=0.5: {len(present)} of 10 classes occur")
    assert (f"(never: {', '.join(never)})" in said[1]) == bool(never)
    config.data.class_uniform = 0.0
    with processes("cpu") as procs:
        assert class_uniform(config, data, procs, said.append) is None


def test_a_run_with_class_uniform_crops_goes_on_as_if_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Key] = []
    key_of = StreamSampler._key

    def recorded(self: StreamSampler, position: int) -> Key:
        used.append(key_of(self, position))
        return used[-1]

    monkeypatch.setattr(StreamSampler, "_key", recorded)
    whole = rare_config(tmp_path / "whole")
    whole.schedule.iterations = 6
    train(whole)
    keys = [*used]
    assert 0 < sum(isinstance(key, FocusedKey) for key in keys) < len(keys) == 12

    broken = rare_config(tmp_path / "broken")
    broken.schedule.iterations = 6
    broken.train.checkpoint_every = 2
    monkeypatch.setattr(engine.Record, "advance", interrupting := Interrupting(after=3))
    with pytest.raises(KeyboardInterrupt):
        train(broken)
    interrupting.after = 100
    train(broken, resume="auto")
    one, two = (load_checkpoint(Path(c.run_dir) / "checkpoints/step_00000006.pt") for c in (whole, broken))
    assert all(torch.equal(tensor, two["model"][name]) for name, tensor in one["model"].items())
    assert column(Path(whole.run_dir), "loss") == column(Path(broken.run_dir), "loss")

    usual = rare_config(tmp_path / "usual")
    usual.schedule.iterations, usual.data.class_uniform = 6, 0.0
    train(usual)
    assert column(Path(usual.run_dir), "loss") != column(Path(whole.run_dir), "loss")


class Interrupting:
    """Stands for Record.advance and ends the run in its fourth step."""

    def __init__(self, after: int) -> None:
        self.after, self.steps = after, 0

    def __call__(self) -> None:
        self.steps += 1
        if self.steps > self.after:
            raise KeyboardInterrupt

    def __get__(self, instance: object, owner: object) -> Callable[[], None]:
        return self


def test_two_processes_find_the_same_places_and_share_one_stream(two_processes: TwoProcesses, tmp_path: Path) -> None:
    config = rare_config(tmp_path)
    alone = found(config)[0]
    with processes("cpu"):
        whole = stream(config, alone, rank=0, world_size=1)
    (first, read_first), (second, read_second) = two_processes(stream_here, config)
    assert [a + b for a, b in zip(first, second, strict=True)] == whole
    assert any(isinstance(key, FocusedKey) for batch in whole for key in batch)
    assert (read_first, read_second) == ([0, 2, 4], [1, 3, 5])


def stream(config: Config, places: ClassUniform, rank: int, world_size: int) -> list[list[Any]]:
    sampler = StreamSampler(
        6, batch_size=4 // world_size, rank=rank, world_size=world_size, seed=3, start=0, stop=6, class_uniform=places
    )
    return list(sampler)


def stream_here(config: Config) -> tuple[list[list[Any]], list[int]]:
    """On one of two processes: its keys, and the labels it read."""
    DATASETS._builders["other"] = other
    read: list[int] = []
    find = training_data.find_places

    def recorded(data: SegDataset, indices: Sequence[int], **options: Any) -> np.ndarray:
        read.extend(indices)
        return find(data, indices, **options)

    training_data.find_places = recorded  # type: ignore[assignment]
    try:
        with processes("cpu") as procs:
            data = repeated(*build_training_data(config))
            places = class_uniform(config, data, procs, lambda _: None)
            assert places is not None
            return stream(config, places, procs.rank, procs.world_size), read
    finally:
        training_data.find_places = find
        del DATASETS._builders["other"]


def test_a_label_that_cannot_be_read_ends_both_processes(two_processes: TwoProcesses, tmp_path: Path) -> None:
    assert two_processes(torn_here, rare_config(tmp_path)) == ["3.png is torn", "3.png is torn"]


def torn_here(config: Config) -> str:
    class Torn(RoadScenes):
        def load_label(self, index: int) -> np.ndarray:
            if index == 3:  # which the second process reads
                raise LabelError("3.png is torn")
            return super().load_label(index)

    config.data.extra = []
    images, sources = build_training_data(config)
    images.__class__ = Torn
    with processes("cpu") as procs:
        try:
            class_uniform(config, repeated(images, sources), procs, lambda _: None)
        except LabelError as error:
            return str(error)
    return "read"


def noted(config: Config) -> list[str]:
    return training_data.notes(config, build_training_data(config)[0], build_split(config, config.data.val_split))


TOO = " trained on, too: its score says nothing about new images"


@pytest.mark.parametrize(
    ("train_split", "val_split", "expected"),
    [
        ("train", "val", []),
        ("train+val", "val", [f"note: val is{TOO}"]),
        ("train + val", "val", [f"note: val is{TOO}"]),
        ("train", "train", [f"note: train is{TOO}"]),
        ("train+train", "val", ["note: data.train_split=train+train has train 2 times"]),
        ("train", "val+val", ["note: data.val_split=val+val has val 2 times"]),
    ],
)
def test_training_on_what_is_scored_is_noted(
    tmp_path: Path, train_split: str, val_split: str, expected: list[str]
) -> None:
    config = short_config(tmp_path)
    config.data.train_split, config.data.val_split = train_split, val_split
    assert noted(config) == expected


def test_images_that_are_trained_on_and_scored_are_found_by_their_files(tmp_path: Path) -> None:
    write_cityscapes(tmp_path / "city")
    config = short_config(tmp_path / "run")
    config.augment.crop = (8, 8)
    config.data.name, config.data.root, config.data.args = "cityscapes", str(tmp_path / "city"), {}
    scored = len(build_split(config, "val"))
    assert noted(config) == []
    config.data.extra = [DataPart(name="cityscapes", root=config.data.root, split="val")]
    assert noted(config) == [f"note: {scored} of the {scored} images of data.val_split are{TOO}"]


@pytest.mark.parametrize(
    ("crop", "scale", "input_scale", "noticed"),
    [
        ((65, 129), (0.5, 2.0), 1.0, True),
        ((64, 128), (0.5, 2.0), 1.0, False),
        ((65, 128), (0.5, 2.0), 1.0, False),
        ((64, 129), (0.5, 2.0), 1.0, False),
        ((64, 128), (0.5, 1.5), 1.0, True),
        ((65, 129), (0.5, 2.0), 1.5, False),
    ],
)
def test_a_crop_that_no_image_fills_is_noted(
    tmp_path: Path, crop: tuple[int, int], scale: tuple[float, float], input_scale: float, noticed: bool
) -> None:
    config = short_config(tmp_path)  # images of 32 x 64
    config.augment.crop, config.augment.scale, config.input.scale = crop, scale, input_scale
    said = (
        f"note: augment.crop is {crop[1]}x{crop[0]} and the first image {64 * scale[1]:.0f}x{32 * scale[1]:.0f} at its "
    )
    lines = noted(config)
    assert len(lines) == noticed
    assert all(line.startswith(said) for line in lines)


def test_a_part_whose_classes_are_only_numbered_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(f"class_{index}" for index in range(10))

    def numbered(split: str, name: str) -> SegDataset:
        scenes = road_scenes(split, count=2, height=32, width=64)
        scenes.info = DatasetInfo(name, names, ROAD_SCENES.palette)
        return scenes

    monkeypatch.setitem(DATASETS._builders, "numbered", numbered)
    config = short_config(tmp_path)
    config.data.name, config.data.args = "numbered", {"name": "street"}
    config.data.extra = [DataPart(name="numbered", args={"name": name}) for name in ("street", "cells")]
    (line,) = noted(config)
    assert line.endswith("whether the classes of data.extra[1] (cells) are those of street")


def test_the_header_of_a_run_has_the_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(engine.Record, "say", lambda _, text: said.extend(text.splitlines()))
    config = short_config(tmp_path / "run", steps=1)
    config.data.train_split = "train+val"
    train(config)
    assert [line for line in said[:5] if line.startswith("note: ")] == [f"note: val is{TOO}"]
