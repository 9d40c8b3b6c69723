"""A network as one file: what is written does what the network does at every size, or nothing is written."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fastseg.engine import export as module
from fastseg.engine.export import Export, ExportCheckError, LabelProgram, export_model, scaled_side
from fastseg.engine.export_check import SIZES, Check, SizeCheck, compare, open_logits
from fastseg.errors import ConfigError, FastsegError, OutputError
from fastseg.exported import open_exported
from fastseg.layers.pyramid_pooling import PyramidPooling
from fastseg.types import Preprocessing, SegModel, SegOutput
from networks import NAMES, SLOW, build
from toys import COLORS, NearestColor, StridedModel, tree

ROOT = Path(__file__).resolve().parent.parent.parent


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [package for package in packages if find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


ONNX = pytest.param(".onnx", id="onnx", marks=needs("onnx", "onnxscript", "onnxruntime"))
OPENVINO = pytest.param(".xml", id="openvino", marks=needs("onnx", "onnxscript", "openvino"))
TORCH = pytest.param(".pt2", id="torch")
FORMATS = (ONNX, OPENVINO, TORCH)


def strided(num_classes: int = 5) -> SegModel:
    return StridedModel(num_classes).eval()


class Pooled(StridedModel):
    """Pools over grids whose columns depend on the image's aspect, and knows every class twice, with one score."""

    def __init__(self, *, aspect: bool) -> None:
        super().__init__(8)
        self.pyramid = PyramidPooling(8, 3, bins=(1, 2, 4), aspect=aspect)
        self.num_classes = 6

    def forward(self, images: Tensor) -> SegOutput:
        logits = self.pyramid(self.layers(images))
        return SegOutput(torch.cat([logits, logits], 1), {})


def pooled(suffix: str) -> SegModel:
    torch.manual_seed(0)
    # PyTorch takes seconds to read a .pt2 with such columns; that they are traced, tests of the layer show
    return Pooled(aspect=suffix != ".pt2").eval()


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Export]:
    """A function from suffix to the export of `pooled`."""

    @functools.cache
    def export(suffix: str) -> Export:
        return export_model(pooled(suffix), tmp_path_factory.mktemp("exports") / f"net{suffix}")

    return export


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_gives_the_networks_labels_and_logits_at_five_sizes(
    suffix: str, exports: Callable[[str], Export]
) -> None:
    export = exports(suffix)
    assert [(size.batch, size.height, size.width) for size in export.check.sizes] == list(SIZES)
    assert export.check.agreement >= 0.9999
    # float32 in another order of sums
    assert export.check.logit_difference < 1e-5 * export.check.largest_logit


@pytest.mark.parametrize("suffix", FORMATS)
def test_sizes_that_no_one_has_compared_work_as_well(suffix: str, exports: Callable[[str], Export]) -> None:
    path, model = exports(suffix).path, pooled(suffix)
    labels_of, logits_of = open_exported(path).labels, open_logits(path)
    for shape in ((3, 7, 50), (1, 2, 1), (4, 33, 8), (1, 100, 20)):
        images = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
        check = compared(model, images, labels_of(images), logits_of(images))
        assert Check((check,), "fp32").passed, shape


@pytest.mark.parametrize("suffix", FORMATS)
def test_ties_go_to_the_lowest_class(suffix: str, exports: Callable[[str], Export]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, 80, 90, 3), np.uint8)
    found = np.unique(open_exported(exports(suffix).path).labels(images))
    assert len(found) > 1
    assert set(found) <= {0, 1, 2}


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_hold_no_path_of_this_machine(suffix: str, exports: Callable[[str], Export]) -> None:
    folder = exports(suffix).path.parent
    for path in folder.iterdir():
        assert str(ROOT).encode() not in path.read_bytes()
        assert str(folder).encode() not in path.read_bytes()


@pytest.mark.parametrize(("suffix", "scale"), [(".pt2", 1.3), pytest.param(".onnx", 0.5, marks=ONNX.marks)])
def test_preprocessing_is_inside_the_file(suffix: str, scale: float, tmp_path: Path) -> None:
    preprocessing = Preprocessing((0.1, 0.5, 0.3), (0.2, 0.3, 0.4), "bgr", scale)
    path = export_model(NearestColor(preprocessing).eval(), tmp_path / f"net{suffix}").path
    classes = np.random.default_rng(0).integers(0, 4, (2, 3, 5)).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    labels = open_exported(path).labels(COLORS[classes])
    assert labels.dtype == np.uint8
    assert (labels[:, 4::8, 4::8] == classes[:, 4::8, 4::8]).all()  # away from the borders of the squares


@given(st.integers(1, 5000), st.integers(1, 4000))
def test_a_scaled_side_is_rounded_as_python_rounds(side: int, thousandths: int) -> None:
    numerator = side * thousandths
    expected = max(1, round(numerator / 1000))  # exact where it matters: halves have a short binary form
    assert scaled_side(side, thousandths / 1000) == expected


class Mirrored(StridedModel):
    """Refuses images of one row or column, for which nothing can be mirrored."""

    def forward(self, images: Tensor) -> SegOutput:
        return SegOutput(self.layers(nn.functional.pad(images, (1, 1, 1, 1), mode="reflect")), {})


def test_a_file_knows_the_smallest_side_that_it_takes(tmp_path: Path) -> None:
    export = export_model(Mirrored().eval(), tmp_path / "net.pt2")
    assert export.info.minimum_side == 2
    opened = open_exported(export.path)
    assert opened.info.minimum_side == 2
    opened.labels(np.zeros((1, 2, 2, 3), np.uint8))
    with pytest.raises(FastsegError, match=r"the image is 5x1; .* takes 2 pixels a side or more"):
        opened.labels(np.zeros((1, 1, 5, 3), np.uint8))


class Wrong(LabelProgram):
    """Answers with the class after the right one, as a defective converter might."""

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        labels = super().forward(images)
        return labels + 1 if isinstance(labels, Tensor) else (labels[0] + 1, labels[1])


def test_a_file_of_other_labels_never_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"the old one")
    monkeypatch.setattr(module, "LabelProgram", Wrong)
    with pytest.raises(ExportCheckError, match="labels differ where the network's scores are no tie"):
        export_model(strided(), path, overwrite=True)
    assert tree(tmp_path) == {path.name: b"the old one"}


def compared(model: SegModel, images: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> SizeCheck:
    return compare(model, copy.deepcopy(model).double(), images, labels, torch.from_numpy(logits))


@torch.no_grad()
def test_other_logits_are_a_failure_though_labels_agree() -> None:
    model = strided()
    images = np.random.default_rng(0).integers(0, 256, (1, 20, 30, 3), np.uint8)
    labels, logits = (each.numpy() for each in LabelProgram(model, logits=True)(torch.from_numpy(images)))
    assert Check((compared(model, images, labels, logits),), "fp32").passed
    scaled = compared(model, images, labels, logits * np.float32(1.001))
    assert scaled.different == 0
    assert "a logit is off by" in Check((scaled,), "fp32").verdict
    missing = compared(model, images, labels, logits * np.float32("nan"))
    assert "a logit is off by" in Check((missing,), "fp32").verdict


@torch.no_grad()
def test_labels_that_stand_for_no_class_are_a_failure() -> None:
    model = strided()
    images = np.zeros((1, 8, 8, 3), np.uint8)
    _, logits = LabelProgram(model, logits=True)(torch.from_numpy(images))
    check = compared(model, images, np.full((1, 8, 8), 255, np.uint8), logits.numpy())
    assert check.beyond_ties == 64
    assert "labels differ where" in Check((check,), "fp32").verdict


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_exists_is_replaced_on_request_only(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    taken = path.with_suffix(".bin") if suffix == ".xml" else path
    taken.write_bytes(b"precious")
    with pytest.raises(OutputError, match=f"{taken.name} exists already; .*--overwrite"):
        export_model(strided(), path)
    assert tree(tmp_path) == {taken.name: b"precious"}


def test_the_network_stays_as_it_is(tmp_path: Path) -> None:
    model = StridedModel().train()
    before = copy.deepcopy(model.state_dict())
    export_model(model, tmp_path / "net.pt2")
    assert model.training
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


@pytest.mark.slow
@needs("onnx", "onnxscript", "openvino")
def test_half_precision_is_smaller_and_close(tmp_path: Path) -> None:
    model = strided(64)
    full, half = export_model(model, tmp_path / "full.xml"), export_model(model, tmp_path / "half.xml", fp16=True)
    sizes = [export.path.with_suffix(".bin").stat().st_size for export in (full, half)]
    assert sizes[1] < 0.6 * sizes[0]
    assert half.info.precision == "fp16"
    assert 0 < half.check.logit_difference < 0.01 * half.check.largest_logit  # 11 bits


def test_half_precision_of_other_formats_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"fp16 is for OpenVINO; .*net\.pt2 is torch"):
        export_model(strided(), tmp_path / "net.pt2", fp16=True)


def test_more_classes_than_uint8_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="257 classes; labels of uint8 hold 256"):
        export_model(strided(257), tmp_path / "net.pt2")


def test_a_network_that_cannot_be_traced_is_told_so(tmp_path: Path) -> None:
    class Undecided(StridedModel):
        def forward(self, images: Tensor) -> SegOutput:
            return SegOutput(self.layers(images if float(images.sum()) > 0 else -images), {})

    with pytest.raises(FastsegError, match="Undecided cannot be exported to torch: "):
        export_model(Undecided().eval(), tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())


MINIMUM_SIDE = {("espnet", ".xml"): 9}  # OpenVINO plans its cuts of odd maps for larger ones


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [ONNX, OPENVINO])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in SLOW])
@pytest.mark.timeout(900)
def test_every_network_exports_for_all_sizes(name: str, suffix: str, tmp_path: Path) -> None:
    export = export_model(build(name), tmp_path / f"net{suffix}")
    assert export.info.minimum_side == MINIMUM_SIDE.get((name, suffix), 1)
    assert export.check.agreement >= 0.9999
