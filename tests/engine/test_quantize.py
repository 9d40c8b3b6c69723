"""int8 files: they run, and what they cost is measured on the data that was given, or not claimed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from fastseg.data import SegDataset
from fastseg.engine.quantize import Load, export_int8, image_files
from fastseg.errors import ConfigError, DataError, FastsegError
from fastseg.exported import open_exported
from fastseg.types import DatasetInfo, SegModel, SegOutput
from toys import COLORS, INFO, NearestColor, tree

needs_onnx = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="needs onnx and onnxruntime"
)


class Squares(SegDataset):
    """Squares of the four colours, in another order in every image."""

    info = INFO

    def __len__(self) -> int:
        return 3

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        classes = np.random.default_rng(index).permutation(4).reshape(2, 2).repeat(24, 0).repeat(24, 1).astype(np.uint8)
        return COLORS[classes], classes

    def sample_name(self, index: int) -> str:
        return f"squares {index}"


class Convolved(NearestColor):
    """Scores colours by a convolution: how far they point into each class's direction."""

    def __init__(self) -> None:
        super().__init__()
        directions = torch.tensor(COLORS / 255, dtype=torch.float32) - 0.5
        self.weight = nn.Parameter(directions[:, :, None, None])
        self.bias = nn.Parameter(-(directions**2).sum(1) / 2)

    def forward(self, images: Tensor) -> SegOutput:
        return SegOutput(F.conv2d(self._rgb(images) - 0.5, self.weight, self.bias), {})


def network() -> SegModel:
    return Convolved().eval()


def images(dataset: SegDataset) -> list[Load]:
    return [lambda index=index: dataset.load(index)[0] for index in range(len(dataset))]  # type: ignore[misc]


@needs_onnx
@pytest.mark.parametrize(
    "suffix",
    [
        ".onnx",
        pytest.param(
            ".xml", marks=[pytest.mark.slow, pytest.mark.skipif(not find_spec("nncf"), reason="needs nncf, openvino")]
        ),
    ],
)
def test_both_precisions_are_scored_on_the_users_labels(suffix: str, tmp_path: Path) -> None:
    data = Squares()
    found = export_int8(network(), tmp_path / f"net{suffix}", images(data), scored_on=data)
    assert found.scores is not None
    fp32, int8 = found.scores
    assert fp32.miou == 1
    assert int8.miou > 0.9  # four clean colours survive 8 bits
    assert (found.calibrated_on, found.compared) == (3, 3)
    assert found.agreement > 0.9
    opened = open_exported(found.export.path)
    assert opened.info.precision == "int8"
    assert opened.dataset == INFO
    assert opened.labels(np.zeros((2, 5, 1, 3), np.uint8)).shape == (2, 5, 1)


@needs_onnx
def test_without_labels_no_score_is_claimed(tmp_path: Path) -> None:
    for index in range(2):
        (tmp_path / "photos" / "sub").mkdir(parents=True, exist_ok=True)
        Image.fromarray(Squares().load(index)[0]).save(tmp_path / "photos" / "sub" / f"{index}.png")
    found = export_int8(network(), tmp_path / "net.onnx", image_files(tmp_path / "photos"))
    assert found.scores is None
    assert found.compared == 2


@needs_onnx
def test_a_data_set_of_other_classes_is_refused_before_calibration(tmp_path: Path) -> None:
    class Others(Squares):
        info = DatasetInfo("others", ("cat", "dog", "cow", "hen"), INFO.palette)

        def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            raise AssertionError("not to be read")

    with pytest.raises(FastsegError, match="class 0 is 'red' to the model and 'cat' in others"):
        export_int8(network(), tmp_path / "net.onnx", images(Others()), scored_on=Others())
    assert not tree(tmp_path)


def test_int8_of_a_torch_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="int8 is for ONNX and OpenVINO"):
        export_int8(network(), tmp_path / "net.pt2", images(Squares()))


@needs_onnx
def test_nothing_to_calibrate_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="int8 needs images to calibrate on"):
        export_int8(network(), tmp_path / "net.onnx", [])
