"""Files that earlier versions wrote are read for ever. Never write these anew: add one for each new format."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastseg.engine.checkpoint import load_checkpoint
from fastseg.engine.resume import TABLE_KEYS
from fastseg.errors import CheckpointError
from fastseg.types import DatasetInfo, Preprocessing
from fastseg.weights.files import FORMAT_VERSION, read_torch_file, read_weights

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
STATE = {
    "a.weight": torch.arange(12.0).view(3, 4),
    "a.bias": torch.tensor([0.5, -0.25], dtype=torch.float16),
    "norm.num_batches_tracked": torch.tensor(3),
}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def test_every_format_has_its_files() -> None:
    for version in range(1, FORMAT_VERSION + 1):
        assert {path.name for path in GOLDEN.glob(f"format_{version}.*")} == {
            f"format_{version}.{suffix}" for suffix in ("pt", "json", "safetensors")
        }


def test_weights_of_format_1() -> None:
    weights = read_weights(GOLDEN / "format_1.safetensors")
    assert equal(weights.state, STATE)
    info = weights.info
    assert info.dataset == DatasetInfo("things", ("a", "b"), ((0, 0, 0), (255, 255, 255)), (7, 8))
    assert info.preprocessing == Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bgr", 0.5)
    assert (info.model, info.licence, info.metric_measured) == ("fast_scnn", "Apache-2.0", "12.34 mIoU on things val")


def test_a_checkpoint_of_format_1() -> None:
    table = load_checkpoint(GOLDEN / "format_1.pt")
    assert set(TABLE_KEYS) <= table.keys()
    assert equal(table["model"], STATE)
    assert table["progress"] == {"iteration": 7, "evaluated": -1, "best": -1.0}
    averaged = read_weights(GOLDEN / "format_1.pt")
    assert equal(averaged.state, {name: 2 * value for name, value in STATE.items()})


def test_a_newer_format_asks_for_a_newer_fastseg(tmp_path: Path) -> None:
    path = tmp_path / "new.pt"
    torch.save({"format_version": FORMAT_VERSION + 1}, path)
    with pytest.raises(CheckpointError, match=rf"format version {FORMAT_VERSION + 1}, newer than .*; upgrade fastseg"):
        read_weights(path)


def deflated(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", pickle.dumps({}))
        archive.writestr("bomb/data/0", content)
    return path


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = deflated(tmp_path / "bomb.pt", bytes(64 << 20))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(torch, "load", pytest.fail)
    with pytest.raises(CheckpointError, match=r"bomb\.pt has \d+ bytes and unpacks to 671\d+"):
        read_torch_file(path)


def test_a_file_that_somebody_packed_again_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="compresses nothing"):
        read_torch_file(deflated(tmp_path / "small.pt", b"x"))
