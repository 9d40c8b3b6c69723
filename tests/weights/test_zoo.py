"""Models with weights: what is published is intact and complete, and names are checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fastseg
from fastseg.errors import CheckpointError, MissingFileError, UnknownNameError
from fastseg.models import MODELS
from fastseg.types import DatasetInfo, Preprocessing, SegModel, WeightsInfo
from fastseg.weights import create_model, list_models, load_model, published_weights, read_weights, save_weights, zoo
from fastseg.weights.files import file_sha256

FARM = DatasetInfo("farm", ("field", "barn", "road"), ((0, 99, 0), (99, 0, 0), (1, 2, 3)))
INFO = WeightsInfo("fast_scnn", "farm", "", "", FARM, Preprocessing(input_scale=2.0), model_args={"aux": True})
IMAGES = torch.randn(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def trained() -> SegModel:
    torch.manual_seed(0)
    return MODELS.build("fast_scnn", num_classes=3, aux=True).eval()


@pytest.fixture
def file(tmp_path: Path, trained: SegModel) -> Path:
    return save_weights(tmp_path / "farm.safetensors", trained.state_dict(), INFO)


@pytest.fixture
def table(file: Path, trained: SegModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sets of published weights for fast_scnn, `farm` (default) and `yard`."""
    yard = save_weights(file.with_name("yard.safetensors"), trained.state_dict(), INFO, drop_aux=True)
    published = {"farm": (file.name, file_sha256(file)), "yard": (yard.name, file_sha256(yard))}
    monkeypatch.setattr(zoo, "EMBEDDED", file.parent)
    monkeypatch.setattr(zoo, "_PUBLISHED", {"fast_scnn": published})
    return file


def logits(model: SegModel) -> torch.Tensor:
    with torch.no_grad():
        return model(IMAGES).logits


# --- the real table


def test_every_published_file_is_there_intact_small_and_complete() -> None:
    names = set()
    for info in published_weights():
        path = Path(info.file)
        entry = zoo._PUBLISHED[info.model][info.name]
        assert path.parent == zoo.EMBEDDED
        assert path.name == entry[0]
        assert info.sha256 == file_sha256(path) == entry[1]
        assert path.stat().st_size < 5_000_000
        assert info.licence
        assert info.metric_measured
        assert info.dataset.num_classes == len(info.dataset.palette) > 1
        state, _ = read_weights(path)
        assert {x.dtype for x in state.values() if x.is_floating_point()} == {torch.float16}
        assert not any(name.startswith("aux_heads.") for name in state)
        assert all(x.isfinite().all() for x in state.values())
        names.add((info.model, info.name))
    assert names == {(model, name) for model, entries in zoo._PUBLISHED.items() for name in entries}


def test_every_published_model_builds_and_predicts() -> None:
    for info in published_weights():
        model = create_model(info.model, pretrained=info.name)
        assert model.weights_info is not None
        assert model.weights_info.dataset == info.dataset
        assert not model.training
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert logits(model).shape[1] == info.dataset.num_classes
        assert info.model in list_models(pretrained=True)


def test_nothing_lies_in_the_folder_that_the_table_does_not_name() -> None:
    known = {file for entries in zoo._PUBLISHED.values() for file, _ in entries.values()}
    assert {p.name for p in zoo.EMBEDDED.glob("*.safetensors")} == known


# --- names


def test_without_pretrained_the_model_is_untrained() -> None:
    for pretrained in (None, False):
        model = create_model("fast_scnn", pretrained=pretrained, num_classes=4)
        assert (model.num_classes, model.weights_info) == (4, None)
    assert fastseg.create_model is create_model


@pytest.mark.parametrize("pretrained", [None, True, "farm"])
def test_an_unknown_model_offers_the_nearest(pretrained: str | bool | None) -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'fast_scn'; did you mean 'fast_scnn'"):
        create_model("fast_scn", pretrained=pretrained)
    with pytest.raises(UnknownNameError, match="did you mean 'fast_scnn'"):
        load_model("fast_scn")
    with pytest.raises(UnknownNameError, match="did you mean 'fast_scnn'"):
        load_model("fast_scn", weights="farm")


def test_a_model_without_published_weights_says_which_have_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_PUBLISHED", {})
    with pytest.raises(UnknownNameError, match="'fast_scnn' has no published weights; models that have: none yet"):
        create_model("fast_scnn", pretrained=True)
    assert list_models(pretrained=True) == []


def test_unknown_weights_offer_the_nearest(table: Path) -> None:
    with pytest.raises(UnknownNameError, match="'fast_scnn' has no weights 'fram'; did you mean 'farm'"):
        create_model("fast_scnn", pretrained="fram")
    with pytest.raises(UnknownNameError, match="did you mean 'farm'"):
        load_model("fast_scnn", weights="fram")


def test_names_lead_to_published_weights_and_their_description(table: Path, trained: SegModel) -> None:
    for model in (
        create_model("fast_scnn", pretrained=True),
        create_model("fast_scnn", pretrained="farm"),
        load_model("fast_scnn"),
        load_model("fast_scnn", weights="farm"),
    ):
        assert torch.equal(logits(model), logits(trained))
        assert not model.training
        assert model.weights_info is not None
        assert model.weights_info.file == str(table)
        assert model.weights_info.preprocessing.input_scale == 2.0
        assert model.aux_names == ("detail", "context")
    assert create_model("fast_scnn", pretrained="yard").aux_names == ()
    assert list_models(pretrained=True) == ["fast_scnn"]


def test_a_damaged_published_file_is_refused(table: Path) -> None:
    data = bytearray(table.read_bytes())
    data[-1] ^= 1  # in a tensor: only the checksum can tell
    table.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"farm\.safetensors is damaged \(SHA-256 .*; reinstall fastseg-zoo"):
        create_model("fast_scnn", pretrained=True)
    table.unlink()
    with pytest.raises(MissingFileError, match=r"farm\.safetensors"):
        create_model("fast_scnn", pretrained=True)


def test_arguments_that_do_not_fit_the_weights_are_refused(table: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has 3 classes, the model has 7"):
        create_model("fast_scnn", pretrained=True, num_classes=7)
    with pytest.raises(CheckpointError, match="unexpected"):
        create_model("fast_scnn", pretrained=True, aux=False)
    with pytest.raises(UnknownNameError, match="did you mean 'dropout'"):
        create_model("fast_scnn", pretrained=True, dropuot=0.1)
    assert create_model("fast_scnn", pretrained=True, dropout=0.5).num_classes == 3


# --- files


def test_a_file_or_run_folder_is_a_model(file: Path, trained: SegModel) -> None:
    file.rename(file.with_name("best.safetensors"))
    best = file.with_name("best.safetensors")
    for model in (
        load_model(best),
        load_model(str(best)),
        load_model(file.parent),
        load_model("fast_scnn", weights=best),
    ):
        assert torch.equal(logits(model), logits(trained))
        assert model.weights_info is not None
        assert model.weights_info.dataset == FARM


def test_weights_of_another_model_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS._builders, "slow_scnn", MODELS.get("fast_scnn"))
    with pytest.raises(CheckpointError, match=r"holds weights of 'fast_scnn', not of 'slow_scnn'"):
        load_model("slow_scnn", weights=file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"gone\.safetensors does not exist"):
        load_model(tmp_path / "gone.safetensors")
    with pytest.raises(MissingFileError, match=r"gone\.safetensors does not exist"):
        load_model("gone.safetensors")


@pytest.mark.parametrize(
    "info",
    [
        replace(INFO, model_args={"pyramid_fuse_kernel": 5}),
        replace(INFO, model_args={"dropout": "much"}),
        replace(INFO, model_args={"num_classes": -1}),
        replace(INFO, model_args={"num_classes": "many"}),
    ],
    ids=lambda info: str(info.model_args),
)
def test_a_file_whose_model_cannot_be_built_is_named(tmp_path: Path, trained: SegModel, info: WeightsInfo) -> None:
    path = save_weights(tmp_path / "odd.safetensors", trained.state_dict(), info)
    with pytest.raises(CheckpointError, match=r"odd\.safetensors: model 'fast_scnn' cannot be built with num_classes="):
        load_model(path)


def test_a_file_of_an_unknown_model_names_the_nearest(tmp_path: Path, trained: SegModel) -> None:
    path = save_weights(tmp_path / "w.safetensors", trained.state_dict(), replace(INFO, model="fast_scn2"))
    with pytest.raises(UnknownNameError, match="unknown model 'fast_scn2'"):
        load_model(path)


def test_a_folder_of_the_same_name_does_not_hide_published_weights(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "farm").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert load_model("fast_scnn", weights="farm").num_classes == 3
