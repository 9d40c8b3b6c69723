"""A run that begins with another's weights: what is loaded, what begins anew, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fastseg.config import Config
from fastseg.data import DATASETS, SegDataset
from fastseg.data.camvid import CAMVID
from fastseg.data.road_scenes import road_scenes
from fastseg.engine import train as engine
from fastseg.engine.build import build_model, weights_info
from fastseg.engine.distributed import processes
from fastseg.engine.init_from import begin
from fastseg.engine.train import TrainResult, train
from fastseg.errors import CheckpointError, ConfigError, MissingFileError
from fastseg.models import MODELS
from fastseg.types import DatasetInfo, Preprocessing, SegModel
from fastseg.weights import create_model
from fastseg.weights.files import Weights, load_state, read_weights, save_weights
from workers import TwoProcesses, lighten, short_config, tiny_config

pytestmark = pytest.mark.usefixtures("light_runs")


def classes(name: str, *names: str) -> DatasetInfo:
    return DatasetInfo(name, names, tuple((i, i, i) for i in range(len(names))))


GARDEN = classes("garden", "soil", "Sign_Symbol", "plant")
LAWN = classes("lawn", "soil", "sign symbol", "plant")  # the same, as others spell them
SWAPPED = classes("swapped", "soil", "plant", "sign symbol")
YARD = classes("yard", "soil", "stone", "plant", "water", "fence")


def toy_config(name: str = "fast_scnn", **args: object) -> Config:
    config = Config(source="tiny.yaml")
    config.model.name, config.model.args = name, dict(args)
    return config


def write(path: Path, config: Config, dataset: DatasetInfo) -> dict[str, Tensor]:
    """Weights of the configured network, drawn at random throughout. Returns them."""
    model = build_model(config, dataset.num_classes)
    state = {name: torch.rand_like(t) if t.is_floating_point() else t for name, t in model.state_dict().items()}
    save_weights(path, state, weights_info(config, dataset))
    return state


def begun(path: Path, config: Config, dataset: DatasetInfo) -> tuple[str, SegModel, dict[str, Tensor]]:
    """What is said, the network, and what it was before."""
    config.init_from = str(path)
    model = build_model(config, dataset.num_classes)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with processes("cpu") as procs:
        return begin(config, model, dataset, procs), model, before


def unlike(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    """Names of `one` whose tensors `other` lacks or has otherwise."""
    return {
        name
        for name, tensor in one.items()
        if name not in other or tensor.shape != other[name].shape or not torch.equal(tensor, other[name])
    }


@pytest.mark.parametrize("dataset", [GARDEN, LAWN])
def test_weights_of_the_same_classes_are_loaded_whole(tmp_path: Path, dataset: DatasetInfo) -> None:
    state = write(tmp_path / "w.safetensors", toy_config(aux=True), GARDEN)
    line, model, _ = begun(tmp_path / "w.safetensors", toy_config(aux=True), dataset)
    assert not unlike(model.state_dict(), state)
    assert line == f"init_from {tmp_path}/w.safetensors (garden, 3 classes): {len(state)} tensors loaded"


CLASSIFIERS = {f"{part}.{kind}" for part in ("classifier.conv", "aux_heads.detail.classifier",
               "aux_heads.context.classifier") for kind in ("weight", "bias")}  # fmt: skip


@pytest.mark.parametrize("dataset", [YARD, SWAPPED, classes("yard", "soil", "sign symbol", "stone")])
def test_other_classes_begin_anew_also_where_there_are_as_many(tmp_path: Path, dataset: DatasetInfo) -> None:
    state = write(tmp_path / "w.safetensors", toy_config(aux=True), GARDEN)
    line, model, before = begun(tmp_path / "w.safetensors", toy_config(aux=True), dataset)
    after = model.state_dict()
    assert unlike(after, state) == CLASSIFIERS
    assert not unlike({name: after[name] for name in CLASSIFIERS}, before)
    assert line == (
        f"init_from {tmp_path}/w.safetensors (garden, 3 classes): {len(state) - 6} tensors loaded; new for "
        f"{dataset.num_classes} classes ({dataset.name}): classifier.conv.weight, classifier.conv.bias (+4 more)"
    )


NUMBERED = classes("street", "background", "class_1", "class_2")


@pytest.mark.parametrize(
    ("theirs", "ours", "kept"),
    [
        (NUMBERED, replace(NUMBERED, name="cells"), False),
        (replace(NUMBERED, name="cells"), classes("street", "background", "Class 1", "class-2"), False),
        (NUMBERED, classes("street", "background", "Class 1", "class-2"), True),
        (classes("street", "class_a", "classroom", "class"), classes("cells", "class_a", "classroom", "class"), True),
    ],
)
def test_classes_that_are_only_numbered_are_another_data_sets_own(
    tmp_path: Path, theirs: DatasetInfo, ours: DatasetInfo, kept: bool
) -> None:
    state = write(tmp_path / "w.safetensors", toy_config(aux=True), theirs)
    line, model, _ = begun(tmp_path / "w.safetensors", toy_config(aux=True), ours)
    assert unlike(model.state_dict(), state) == (set() if kept else CLASSIFIERS)
    new = f"; new for 3 classes ({ours.name}; names like class_0 say nothing): classifier.conv.weight, "
    assert (new in line) != kept


ENCNET = {"head.classifier", "aux_heads.auxiliary.classifier"}


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        # of dfseg's layers of 19 channels, the number of Cityscapes' classes, only the last has one for each class
        ("dfseg_df1", {}, {"head.classifier.conv", "head.classifier.bn"}),
        ("encoder_decoder", {"backbone": "resnet18", "head": "encnet", "aux": True}, ENCNET),
        ("espnet_c", {}, {"encoder.classifier"}),
    ],
)
def test_what_depends_on_the_classes_is_found_by_shape(
    tmp_path: Path, name: str, args: dict[str, object], expected: set[str]
) -> None:
    cityscapes = classes("cityscapes", *map(str, range(19)))
    state = write(tmp_path / "w.safetensors", toy_config(name, **args), GARDEN)
    _, model, before = begun(tmp_path / "w.safetensors", toy_config(name, **args), cityscapes)
    after = model.state_dict()
    new = unlike(after, state)
    assert {name.rpartition(".")[0] for name in new} == expected
    assert not unlike({name: after[name] for name in new}, before)


def test_tensors_that_only_some_numbers_of_classes_have_begin_anew_too(tmp_path: Path) -> None:
    # ESPNet's decoder has a channel for each class throughout, and five branches where there are five classes
    state = write(tmp_path / "w.safetensors", toy_config("espnet"), GARDEN)
    line, model, _ = begun(tmp_path / "w.safetensors", toy_config("espnet"), YARD)
    new = unlike(model.state_dict(), state)
    assert f"(+{len(new) - 2} more)" in line
    assert "level2_fuse.branches.4.weight" in new - state.keys()
    assert len(new) > 30
    assert not any(name.startswith("encoder.level1") for name in new)
    write(tmp_path / "back.safetensors", toy_config("espnet"), YARD)
    assert "new for 3 classes" in begun(tmp_path / "back.safetensors", toy_config("espnet"), GARDEN)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS.names())
def test_every_network_can_change_its_classes(tmp_path: Path, name: str) -> None:
    args = {"aux": True} if "aux" in MODELS.arguments(name) else {}
    state = write(tmp_path / "w.safetensors", toy_config(name, **args), GARDEN)
    _, model, before = begun(tmp_path / "w.safetensors", toy_config(name, **args), YARD)
    after = model.state_dict()
    new = unlike(after, state)
    assert 0 < len(new) < len(after) / 4
    assert not unlike({name: after[name] for name in new}, before)


def test_auxiliary_heads_that_one_of_both_lacks_are_named(tmp_path: Path) -> None:
    state = write(tmp_path / "with.safetensors", toy_config(aux=True), GARDEN)
    line, model, _ = begun(tmp_path / "with.safetensors", toy_config(), GARDEN)
    assert not unlike(model.state_dict(), state)
    assert line.endswith("tensors loaded; auxiliary heads that this run lacks, left out: context, detail")

    state = write(tmp_path / "without.safetensors", toy_config(), GARDEN)
    line, model, before = begun(tmp_path / "without.safetensors", toy_config(aux=True), YARD)
    heads = {name for name in model.state_dict() if name.startswith("aux_heads.")}
    assert unlike(model.state_dict(), state) == heads | {"classifier.conv.weight", "classifier.conv.bias"}
    assert not unlike({name: model.state_dict()[name] for name in heads}, before)
    assert line.endswith(
        "new for 5 classes (yard): classifier.conv.weight, classifier.conv.bias; auxiliary heads that the file lacks, "
        "new: context, detail"
    )


def test_another_network_is_refused_by_both_names(tmp_path: Path) -> None:
    write(tmp_path / "w.safetensors", toy_config("espnet_c"), GARDEN)
    with pytest.raises(
        ConfigError, match=r"tiny\.yaml: init_from=.*w\.safetensors holds .* 'espnet_c' and model\.name is 'fast_scnn'"
    ):
        begun(tmp_path / "w.safetensors", toy_config(), GARDEN)


def test_tensors_that_do_not_fit_are_named_with_the_arguments_they_come_from(tmp_path: Path) -> None:
    write(tmp_path / "w.safetensors", toy_config("encoder_decoder", backbone="resnet18", head="psp"), GARDEN)
    other = toy_config("encoder_decoder", backbone="resnet18", head="fcn")
    with pytest.raises(
        CheckpointError, match=r"does not fit .*trained with model\.args=.*'psp'.* this run has .*'fcn'"
    ):
        begun(tmp_path / "w.safetensors", other, YARD)
    dropout = toy_config(dropout=0.3)  # other arguments and the same tensors
    write(tmp_path / "d.safetensors", toy_config(dropout=0.1), GARDEN)
    assert "tensors loaded" in begun(tmp_path / "d.safetensors", dropout, YARD)[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"channel_order": "bgr"}, r"channel_order=bgr, and this run has .*channel_order=rgb"),
        ({"mean": (0.3, 0.3, 0.3)}, r"input\.mean=\[0\.3,0\.3,0\.3\].* and this run has input\.mean=\[0\.485,0"),
        (
            {"std": (1.0, 1.0, 1.0)},
            r"input\.std=\[1\.0,1\.0,1\.0\] .*; set those of the weights, or begin with others$",
        ),
    ],
)
def test_other_preprocessing_is_refused_with_both_and_the_way_out(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    state = write(tmp_path / "w.safetensors", toy_config(), GARDEN)
    info = replace(weights_info(toy_config(), GARDEN), preprocessing=replace(Preprocessing(), **change))
    save_weights(tmp_path / "w.safetensors", state, info)
    with pytest.raises(ConfigError, match=said):
        begun(tmp_path / "w.safetensors", toy_config(), GARDEN)


@pytest.mark.parametrize("change", [{"input_scale": 2.0}, {"mean": (0.48500001, 0.456, 0.406)}])
def test_another_scale_and_rounding_are_no_other_preprocessing(tmp_path: Path, change: dict[str, Any]) -> None:
    state = write(tmp_path / "w.safetensors", toy_config(), GARDEN)
    info = replace(weights_info(toy_config(), GARDEN), preprocessing=replace(Preprocessing(), **change))
    save_weights(tmp_path / "w.safetensors", state, info)
    assert "tensors loaded" in begun(tmp_path / "w.safetensors", toy_config(), GARDEN)[0]


def test_published_weights_of_the_network_are_begun_with_by_name() -> None:
    line, model, before = begun(Path("camvid"), toy_config(), CAMVID)
    published = create_model("fast_scnn", pretrained="camvid").state_dict()
    assert line == f"init_from camvid (camvid, 11 classes): {len(published)} tensors loaded"
    assert not unlike(model.state_dict(), published)
    assert unlike(before, published)


def test_a_file_that_is_not_there_is_named_by_its_key(tmp_path: Path) -> None:
    advice = r"; train it first, or name a weights file, checkpoint or run folder of 'fast_scnn'"
    published = ", or one of its published weights: camvid, road_scenes$"
    missing = r"^tiny\.yaml: init_from: weights file .*nothing\.pt does not exist"
    with pytest.raises(MissingFileError, match=missing + advice + published):
        begun(tmp_path / "nothing.pt", toy_config(), GARDEN)
    with pytest.raises(MissingFileError, match=missing + advice.replace("fast_scnn", "espnet_c") + "$"):
        begun(tmp_path / "nothing.pt", toy_config("espnet_c"), GARDEN)
    with pytest.raises(MissingFileError, match=r"^tiny\.yaml: init_from: folder .* holds no weights"):
        begun(tmp_path, toy_config(), GARDEN)


def test_weights_of_the_backbone_are_not_fetched_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = MODELS.get("fast_scnn")

    def started(num_classes: int = 19, backbone_weights: str | None = None) -> SegModel:
        assert backbone_weights is None, "fetched"
        return plain(num_classes=num_classes)

    monkeypatch.setitem(MODELS._builders, "started", started)
    config = toy_config("started", backbone_weights="imagenet")
    write(tmp_path / "w.safetensors", config, GARDEN)
    line = begun(tmp_path / "w.safetensors", config, GARDEN)[0]
    assert line.endswith("tensors loaded; model.args.backbone_weights=imagenet not read")
    config.init_from = None
    with pytest.raises(AssertionError, match="fetched"), processes("cpu") as procs:
        begin(config, build_model(config, 3), GARDEN, procs)


# whole runs


def three(split: str, count: int = 4, height: int = 32, width: int = 64) -> SegDataset:
    """Road scenes in three classes."""
    scenes = road_scenes(split, count=count, height=height, width=width)

    class Three(type(scenes)):  # type: ignore[misc]
        def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            image, label = super().load(index)
            return image, np.where(label == 255, label, label % 3).astype(np.uint8)

    scenes.__class__ = Three
    scenes.info = classes("three", "a", "b", "c")
    return scenes


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A finished run of two steps on ten classes."""
    with pytest.MonkeyPatch.context() as patched:
        lighten(patched)
        return train(short_config(tmp_path_factory.mktemp("first") / "run", steps=2))


def second_config(run_dir: Path, first: TrainResult, source: str = "") -> Config:
    config = tiny_config(run_dir)
    config.data.name = "three"
    config.schedule.iterations, config.schedule.epochs = None, 2.0
    config.init_from = str(first.run_dir / source)
    return config


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS._builders, "three", three)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("source", ["", "last.safetensors", "checkpoints/step_00000002.pt"])
def test_two_epochs_on_other_classes_begin_from_a_run_a_file_or_a_checkpoint(
    tmp_path: Path, first: TrainResult, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    said: list[str] = []
    monkeypatch.setattr(engine.Record, "say", lambda _, text: said.extend(text.splitlines()))
    config = second_config(tmp_path / "run", first, source)
    config.optim.lr = 1e-30  # too small a step to change a weight
    result = train(config)
    assert result.iterations == 4
    lines = [line for line in said if "init_from" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"init_from {first.run_dir / source} (road_scenes, 10 classes): ")
    assert "new for 3 classes (three): classifier.conv.weight, classifier.conv.bias (+4 more)" in lines[0]
    assert result.weights is not None
    weights, origin = read_weights(result.weights), read_weights(first.run_dir / source)
    assert weights.info.dataset.class_names == ("a", "b", "c")
    assert weights.state["classifier.conv.weight"].shape[0] == 3
    learned = [name for name, _ in build_model(config, 3).named_parameters() if name not in CLASSIFIERS]
    assert len(learned) > 50
    for name in learned:
        assert torch.allclose(weights.state[name], origin.state[name], rtol=1e-6, atol=1e-12), name  # averaging rounds


@pytest.mark.usefixtures("registered")
def test_a_resumed_and_a_dry_run_read_no_weights_to_begin_with(
    tmp_path: Path, first: TrainResult, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    config = second_config(tmp_path / "run", first)
    config.schedule.iterations = 2
    train(config)
    said: list[str] = []
    monkeypatch.setattr(engine.Record, "say", lambda _, text: said.append(text))
    config.init_from = str(tmp_path / "gone")
    train(config, resume="auto")
    assert "resumed from" in said[0]
    assert "init_from" not in said[0]
    capsys.readouterr()
    config.run_dir = str(tmp_path / "dry")
    train(config, dry_run=True)
    assert f"; not checked: init_from={tmp_path}/gone, read when training begins" in capsys.readouterr().out
    with pytest.raises(MissingFileError, match="init_from"):
        train(config)


def test_one_process_reads_them_and_the_others_copy(two_processes: TwoProcesses, tmp_path: Path) -> None:
    config = toy_config()
    state = write(tmp_path / "w.safetensors", config, GARDEN)
    config.init_from = str(tmp_path / "w.safetensors")
    one, two = two_processes(begin_on_this_process, config, YARD)
    assert one[0] == two[0]
    assert one[2] == [config.init_from]
    assert two[2] == []
    assert not unlike(one[1], two[1])
    assert unlike(two[1], state) == {"classifier.conv.weight", "classifier.conv.bias"}
    config.init_from = str(tmp_path / "nothing.pt")
    for answer in two_processes(begin_on_this_process, config, YARD):
        assert "nothing.pt does not exist" in answer[0]


def begin_on_this_process(config: Config, dataset: DatasetInfo) -> tuple[str, dict[str, Tensor], list[str]]:
    """On one of two processes: what is said or refused, the tensors, and which files were read."""
    from fastseg.engine import init_from

    files: list[str] = []
    original = init_from.read_weights

    def recorded(path: str | Path) -> Weights:
        files.append(str(path))
        return original(path)

    init_from.read_weights = recorded
    try:
        with processes("cpu") as procs:
            torch.manual_seed(procs.rank)
            model = build_model(config, dataset.num_classes)
            try:
                said = begin(config, model, dataset, procs)
            except MissingFileError as error:
                said = str(error)
    finally:
        init_from.read_weights = original
    return said, dict(model.state_dict()), files


def test_the_fixture_would_notice_other_weights(first: TrainResult) -> None:
    """The first run's weights are none that a new run has by chance."""
    torch.manual_seed(0)
    model = build_model(short_config(first.run_dir), 10)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_state(model, read_weights(first.run_dir / "last.safetensors").state, "first")
    assert unlike(model.state_dict(), own)
