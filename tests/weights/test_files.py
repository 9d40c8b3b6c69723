"""Weights files: what is written comes back, and nothing damaged, foreign or hostile gets in."""

from __future__ import annotations

import json
import os
import pickle
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from fastseg.errors import CheckpointError, FastsegError, MissingFileError
from fastseg.models import create_model
from fastseg.types import DatasetInfo, Preprocessing, SegModel, WeightsInfo
from fastseg.weights import load_state, read_weights, save_weights
from fastseg.weights.files import file_sha256, info_from_dict, info_to_dict

FARM = DatasetInfo("farm", ("field", "bärn", "road"), ((0, 99, 0), (99, 0, 0), (1, 2, 3)), official_ids=(1, 7, 9))
INFO = WeightsInfo(
    model="fast_scnn",
    name="farm",
    file="",
    sha256="",
    dataset=FARM,
    preprocessing=Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bgr", 2.0),
    model_args={"aux": True, "dropout": 0.25},
    metric_published="",
    metric_measured="12.3 mIoU",
    licence="CC0-1.0",
)
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def small_state() -> dict[str, Tensor]:
    return {"conv.weight": torch.randn(2, 3), "bn.num_batches_tracked": torch.tensor(7), "aux_heads.a.b": torch.ones(2)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return save_weights(tmp_path / "w.safetensors", small_state(), INFO)


@pytest.fixture(scope="module")
def model() -> SegModel:
    torch.manual_seed(0)
    return create_model("fast_scnn", num_classes=3)


def test_tensors_and_description_come_back(tmp_path: Path) -> None:
    state = small_state()
    path = save_weights(tmp_path / "deep" / "w.safetensors", state, INFO)
    read, info = read_weights(path)
    assert {name: (x.dtype, x.tolist()) for name, x in read.items()} == {
        name: (x.dtype, x.tolist()) for name, x in state.items()
    }
    assert replace(info, file="", sha256="") == INFO
    assert (info.file, info.sha256) == (str(path), file_sha256(path))
    assert [p.name for p in path.parent.iterdir()] == ["w.safetensors"]  # no temporary file is left


def test_half_stores_floats_in_two_bytes_and_integers_as_they_are(tmp_path: Path) -> None:
    state = small_state()
    read = read_weights(save_weights(tmp_path / "w.safetensors", state, INFO, half=True)).state
    assert read["conv.weight"].dtype == torch.float16
    torch.testing.assert_close(read["conv.weight"].float(), state["conv.weight"], rtol=1e-3, atol=1e-6)
    assert read["bn.num_batches_tracked"].dtype == torch.int64


def test_without_auxiliary_heads_the_description_says_so(tmp_path: Path) -> None:
    read, info = read_weights(save_weights(tmp_path / "w.safetensors", small_state(), INFO, drop_aux=True))
    assert sorted(read) == ["bn.num_batches_tracked", "conv.weight"]
    assert info.model_args == {"aux": False, "dropout": 0.25}
    assert INFO.model_args["aux"] is True


def test_weights_may_lie_scattered_in_memory(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert torch.equal(read_weights(save_weights(tmp_path / "w.safetensors", {"x": x}, INFO)).state["x"], x)


words = st.text(max_size=8)
colours = st.tuples(*[st.integers(0, 255)] * 3)
datasets = st.lists(st.tuples(words, colours, st.integers(-1, 300)), min_size=1, max_size=4).map(
    lambda rows: DatasetInfo("d", tuple(r[0] for r in rows), tuple(r[1] for r in rows), tuple(r[2] for r in rows))
)
numbers = st.floats(-10, 10)
infos = st.builds(
    WeightsInfo,
    model=words,
    name=words,
    file=st.just(""),
    sha256=st.just(""),
    dataset=datasets,
    preprocessing=st.builds(
        Preprocessing, *[st.tuples(numbers, numbers, numbers)] * 2, st.sampled_from(["rgb", "bgr"]), numbers
    ),
    model_args=st.dictionaries(words, st.none() | st.booleans() | st.integers() | numbers | words, max_size=3),
    metric_measured=words,
    licence=words,
)


@given(infos)
@settings(max_examples=60, deadline=None)
def test_any_description_survives_json(info: WeightsInfo) -> None:
    assert info_from_dict(json.loads(json.dumps(info_to_dict(info)))) == info


def test_a_folder_that_is_a_file_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(CheckpointError, match=r"w\.safetensors cannot be written \(0\.\d MB\): "):
        save_weights(tmp_path / "taken" / "w.safetensors", small_state(), INFO)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device; check free space"):
        save_weights(file, {"x": torch.zeros(3)}, INFO)
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


# --- reading what is not right


def test_missing_files_and_folders_without_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"weights file .*none\.safetensors does not exist"):
        read_weights(tmp_path / "none.safetensors")
    with pytest.raises(MissingFileError, match=r"holds no weights; expected best\.safetensors or last\.safetensors"):
        read_weights(tmp_path)


def test_a_run_folder_stands_for_its_best_weights_then_its_last(tmp_path: Path) -> None:
    last = save_weights(tmp_path / "last.safetensors", small_state(), INFO)
    assert read_weights(tmp_path).info.file == str(last)
    best = save_weights(tmp_path / "best.safetensors", small_state(), INFO)
    assert read_weights(tmp_path).info.file == str(best)


@given(length=st.floats(0, 1, exclude_max=True))
@same_folder
def test_a_truncated_file_is_refused(tmp_path: Path, length: float) -> None:
    data = save_weights(tmp_path / "w.safetensors", small_state(), INFO).read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[: int(length * len(data))])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
        read_weights(tmp_path / "cut.safetensors")


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@same_folder
def test_a_flipped_bit_is_refused_or_changes_the_checksum(tmp_path: Path, place: float, bit: int) -> None:
    path = save_weights(tmp_path / "w.safetensors", small_state(), INFO)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    (tmp_path / "flipped.safetensors").write_bytes(data)
    try:
        checksum = read_weights(tmp_path / "flipped.safetensors").info.sha256
    except CheckpointError as error:
        checksum = str(error)
    assert checksum != file_sha256(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ""])
@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n", b"\xff" * 64, b"PK\x03\x04" + b"\0" * 60, b"\x80\x02." * 9])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="foreign"):
        read_weights(path)


def test_a_header_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(CheckpointError):
        read_weights(tmp_path / "w.safetensors")


def test_safetensors_of_others_do_not_say_what_they_are(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="does not say which network, classes and preprocessing"):
        read_weights(tmp_path / "w.safetensors")


def described(**changes: Any) -> dict[str, str]:
    table = {**info_to_dict(INFO), **changes}
    return {"format": "fastseg", "format_version": "1", "info": json.dumps(table)}


@pytest.mark.parametrize(
    "metadata",
    [
        {**described(), "info": "{"},
        {**described(), "info": "[]"},
        {**described(), "info": "null"},
        {**described(), "info": "{}"},
        {**described(), "format_version": "one"},
        {**described(), "format_version": ""},
        described(model=3),
        described(model_args=["aux"]),
        described(dataset="farm"),
        described(dataset={"name": "farm"}),
        described(preprocessing={"mean": 3, "std": 4}),
        described(preprocessing={"mean": ["a", "b", "c"], "std": [1, 1, 1]}),
        described(unknown_field=1),
    ],
    ids=str,
)
def test_damaged_metadata_is_refused(tmp_path: Path, metadata: dict[str, str]) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "w.safetensors", metadata)
    with pytest.raises(CheckpointError, match=r"w\.safetensors"):
        read_weights(tmp_path / "w.safetensors")


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "w.safetensors", {**described(), "format_version": "2"})
    with pytest.raises(CheckpointError, match="format version 2, newer than 1; upgrade fastseg"):
        read_weights(tmp_path / "w.safetensors")


# --- weights inside training checkpoints


def checkpoint(**changes: Any) -> dict[str, Any]:
    return {
        "format_version": 1,
        "model": {"x": torch.zeros(2)},
        "ema": None,
        "info": info_to_dict(INFO),
        **changes,
    }


def test_a_checkpoint_gives_its_average_where_it_has_one(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    torch.save(checkpoint(), path)
    assert read_weights(path).state["x"].tolist() == [0, 0]
    torch.save(checkpoint(ema={"x": torch.ones(2)}), path)
    read, info = read_weights(path)
    assert read["x"].tolist() == [1, 1]
    assert replace(info, file="", sha256="") == INFO


@pytest.mark.parametrize(
    "table",
    [
        [1, 2],
        {"model": {}},
        {"format_version": 1},
        {"format_version": 1, "ema": None, "model": {}},
        checkpoint(format_version=2),
        checkpoint(format_version="one"),
        checkpoint(format_version=None),
        checkpoint(info=None),
        checkpoint(info={}),
        checkpoint(info="farm"),
        checkpoint(model=[torch.zeros(2)]),
        checkpoint(model={"x": 3}),
        checkpoint(ema="averaged"),
        torch.zeros(3),
    ],
    ids=lambda table: str(table)[:60],
)
def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path, table: object) -> None:
    torch.save(table, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=r"odd\.pt"):
        read_weights(tmp_path / "odd.pt")


class Bomb:
    """Unpickling it touches a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_that_runs_code_is_refused_without_running_it(tmp_path: Path, writer: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / "bomb.pt"
    content = checkpoint(extra=Bomb(canary))
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))  # the one torch expects
    with pytest.raises(CheckpointError, match=r"bomb\.pt cannot be read as a checkpoint") as caught:
        read_weights(path)
    assert not canary.exists()
    assert "weights_only" not in str(caught.value)  # torch's text advises to lift the safeguard
    pickle.loads(pickle.dumps(Bomb(canary)))
    assert canary.exists()  # the bomb is live


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
@same_folder
def test_a_damaged_checkpoint_is_refused_or_read(tmp_path: Path, place: float, bit: int, cut: bool) -> None:
    torch.save(checkpoint(), tmp_path / "whole.pt")
    data = bytearray((tmp_path / "whole.pt").read_bytes())
    position = int(place * len(data))
    if cut:
        del data[position:]
    else:
        data[position] ^= 1 << bit
    (tmp_path / "damaged.pt").write_bytes(data)
    try:
        read_weights(tmp_path / "damaged.pt")
        refused = False
    except CheckpointError as error:
        refused = "damaged.pt" in str(error)
    assert refused or not cut


# --- into a model


def test_loading_is_exact_and_wrappers_prefixes_are_stripped(model: SegModel) -> None:
    for prefix in ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
        torch.manual_seed(1)
        other = create_model("fast_scnn", num_classes=3)
        load_state(other, {prefix + name: x for name, x in model.state_dict().items()}, "here")
        loaded = other.state_dict()
        assert all(torch.equal(x, loaded[name]) for name, x in model.state_dict().items())


def test_halves_load_into_float32(model: SegModel) -> None:
    other = create_model("fast_scnn", num_classes=3)
    load_state(other, {n: x.half() if x.is_floating_point() else x for n, x in model.state_dict().items()}, "here")
    assert {p.dtype for p in other.parameters()} == {torch.float32}
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=1e-3, atol=1e-6)


def test_another_number_of_classes_is_said_in_those_words(model: SegModel) -> None:
    with pytest.raises(CheckpointError, match=r"^w\.pt has 3 classes, the model has 5; build it with num_classes=3"):
        load_state(create_model("fast_scnn", num_classes=5), model.state_dict(), "w.pt")


def test_missing_extra_and_misshapen_tensors_are_counted_and_shown_and_nothing_is_loaded(model: SegModel) -> None:
    state = dict(model.state_dict())
    del state["classifier.conv.bias"]
    state["stranger"] = torch.zeros(1)
    state["feature_fusion.depthwise.conv.weight"] = torch.zeros(128, 1, 5, 5)
    other = create_model("fast_scnn", num_classes=3)
    before = {name: x.clone() for name, x in other.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_state(other, state, "w.pt")
    message = str(caught.value)
    assert message.startswith("w.pt does not fit FastSCNN")
    assert "1 missing (classifier.conv.bias)" in message
    assert "1 unexpected (stranger)" in message
    assert "1 of another shape (feature_fusion.depthwise.conv.weight)" in message
    assert all(torch.equal(x, before[name]) for name, x in other.state_dict().items())


def test_a_checkpoint_error_is_the_users_to_mend() -> None:
    assert issubclass(CheckpointError, FastsegError)
