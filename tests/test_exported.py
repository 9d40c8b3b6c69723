"""Exported files as predictors: they say what they are, and what cannot be run is told in one line."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastseg.engine.export import export_model
from fastseg.errors import CheckpointError, ConfigError, ImageReadError, MissingFileError, MissingPackageError
from fastseg.export_info import ExportInfo
from fastseg.exported import format_of, is_exported, open_exported, require_packages
from fastseg.predict import Predictor
from fastseg.types import DatasetInfo, Preprocessing, WeightsInfo
from toys import COLORS, INFO, NearestColor

WEIGHTS = WeightsInfo(
    model="nearest",
    name="toy",
    file="somewhere.safetensors",
    sha256="ab" * 32,
    dataset=DatasetInfo("straßen <&>", ("a", "b\n", '"c"', "d"), INFO.palette, (7, 8, 11, 12)),
    preprocessing=Preprocessing((0.4, 0.5, 0.6), (0.2, 0.2, 0.3), "bgr"),
    licence="CC-BY-4.0",
)
Exports: TypeAlias = Callable[[str], Path]
NEEDED = {".onnx": ("onnx", "onnxscript", "onnxruntime"), ".xml": ("onnx", "onnxscript", "openvino"), ".pt2": ()}
FORMATS = [
    pytest.param(suffix, marks=pytest.mark.skipif(not all(map(find_spec, packages)), reason=f"needs {packages}"))
    for suffix, packages in NEEDED.items()
]
needs_onnx = pytest.mark.skipif(not all(map(find_spec, NEEDED[".onnx"])), reason="needs onnx and onnxruntime")


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Exports:
    """A function from suffix to an exported file."""

    @functools.cache
    def path_of(suffix: str) -> Path:
        model = NearestColor(WEIGHTS.preprocessing)
        model.weights_info = WEIGHTS
        return export_model(model.eval(), tmp_path_factory.mktemp("exports") / f"nearest{suffix}").path

    return path_of


def copied(path: Path, folder: Path) -> Path:
    for file in path.parent.glob("nearest.*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder / path.name


def pixels(*shape: int) -> tuple[np.ndarray, np.ndarray]:
    classes = np.random.default_rng(0).integers(0, 4, shape, np.uint8)
    return COLORS[classes], classes


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_says_what_it_is(suffix: str, exports: Exports) -> None:
    opened = open_exported(exports(suffix))
    assert opened.name == "nearest"
    assert opened.dataset == WEIGHTS.dataset
    assert opened.num_classes == 4
    assert opened.preprocessing == WEIGHTS.preprocessing
    assert (opened.weights_info.licence, opened.weights_info.sha256) == ("CC-BY-4.0", "ab" * 32)
    assert (opened.info.minimum_side, opened.info.precision) == (1, "fp32")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_predicts_batches_of_any_size(suffix: str, exports: Exports) -> None:
    opened = open_exported(exports(suffix), threads=1)
    for shape in ((1, 1, 1), (2, 9, 14), (3, 40, 7)):
        images, classes = pixels(*shape)
        labels = opened.labels(images)
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, classes)


@pytest.mark.parametrize("suffix", FORMATS)
def test_labels_stay_when_the_next_image_is_predicted(suffix: str, exports: Exports) -> None:
    opened = open_exported(exports(suffix))
    images, classes = pixels(1, 12, 13)
    labels = opened.labels(images)
    opened.labels(255 - images)
    np.testing.assert_array_equal(labels, classes)


@pytest.mark.parametrize("suffix", FORMATS)
def test_arrays_that_are_read_only_or_not_in_one_piece_work(suffix: str, exports: Exports) -> None:
    images, classes = pixels(1, 12, 14)
    images.flags.writeable = False
    opened = open_exported(exports(suffix))
    np.testing.assert_array_equal(opened.labels(images), classes)
    np.testing.assert_array_equal(opened.labels(images[:, ::2, ::-1]), classes[:, ::2, ::-1])


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_predictor_takes_the_file(suffix: str, exports: Exports) -> None:
    image, classes = pixels(11, 17)
    predictor = Predictor(exports(suffix))
    assert predictor.dataset.class_names == WEIGHTS.dataset.class_names
    np.testing.assert_array_equal(predictor(image).labels, classes)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((4, 5, 3), np.uint8),
        np.zeros((1, 4, 5, 3), np.float32),
        np.zeros((1, 3, 4, 5), np.uint8),
        np.zeros((1, 0, 5, 3), np.uint8),
    ],
    ids=["no batch", "floats", "channels first", "empty"],
)
def test_other_arrays_are_refused(images: np.ndarray, exports: Exports) -> None:
    with pytest.raises(ImageReadError, match=r"give uint8 \(N,H,W,3\)"):
        open_exported(exports(".pt2")).labels(images)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("damage", ["empty", "cut", "noise"])
def test_a_damaged_file_is_told_in_one_line(suffix: str, damage: str, exports: Exports, tmp_path: Path) -> None:
    path = copied(exports(suffix), tmp_path)
    content = path.read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, 1000, np.uint8).tobytes()
    path.write_bytes({"empty": b"", "cut": content[: len(content) // 2], "noise": noise}[damage])
    with pytest.raises(CheckpointError, match=r"nearest\.\w+ cannot be opened as \w+: ") as raised:
        open_exported(path)
    assert "\n" not in str(raised.value)


@needs_onnx
@pytest.mark.parametrize("text", ["no json", "[]", "{}", '{"format_version": 1, "info": {}}'])
def test_damaged_metadata_is_told(text: str, exports: Exports, tmp_path: Path) -> None:
    path = with_metadata(exports(".onnx"), tmp_path / "net.onnx", text)
    with pytest.raises(CheckpointError, match=r"net\.onnx: its fastseg metadata is damaged"):
        open_exported(path)


def test_metadata_of_a_newer_version_asks_for_an_upgrade() -> None:
    newer = json.dumps({**json.loads(ExportInfo(WEIGHTS).text()), "format_version": 99})
    with pytest.raises(CheckpointError, match="format version 99, newer than 1; upgrade fastseg"):
        ExportInfo.from_text(newer, Path("net.onnx"))


@given(
    st.lists(st.text(), min_size=1, max_size=5, unique=True),
    st.text(),
    st.integers(1, 999),
    st.sampled_from(["fp32", "fp16", "int8"]),
)
def test_metadata_is_ascii_and_reads_back_as_it_was(names: list[str], licence: str, side: int, precision: str) -> None:
    dataset = DatasetInfo("any", tuple(names), tuple((i, 0, 255) for i in range(len(names))))
    info = ExportInfo(WeightsInfo("net", "w", "net.onnx", "00", dataset, licence=licence), side, precision)
    text = info.text()
    assert text.isascii()
    assert text.isprintable()  # XML cannot hold control characters
    assert ExportInfo.from_text(text, Path("net.onnx")) == info


def with_metadata(source: Path, target: Path, text: str | None) -> Path:
    import onnx

    model = onnx.load(str(source))
    del model.metadata_props[:]
    if text is not None:
        model.metadata_props.add(key="fastseg", value=text)
    onnx.save(model, str(target))
    return target


@needs_onnx
def test_a_file_without_metadata_has_numbered_classes(exports: Exports, tmp_path: Path) -> None:
    opened = open_exported(with_metadata(exports(".onnx"), tmp_path / "theirs.onnx", None))
    assert opened.name == "theirs"
    assert opened.dataset.class_names[:2] == ("class_0", "class_1")
    images, classes = pixels(1, 5, 6)
    np.testing.assert_array_equal(opened.labels(images), classes)


@needs_onnx
def test_a_network_of_others_that_takes_floats_is_refused(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    shape = [1, 3, 8, 8]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "theirs",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "n.onnx")
    with pytest.raises(CheckpointError, match=r"does not turn uint8 images \(N,H,W,3\) into labels"):
        open_exported(tmp_path / "n.onnx")


def test_a_program_of_others_is_refused(tmp_path: Path) -> None:
    import torch

    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.zeros(2),)), tmp_path / "theirs.pt2")
    with pytest.raises(CheckpointError, match=r"theirs\.pt2 was not written by fastseg"):
        open_exported(tmp_path / "theirs.pt2")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"net\.onnx does not exist"):
        open_exported(tmp_path / "net.onnx")


def test_openvinos_second_file_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "net.xml").write_text("<net/>")
    with pytest.raises(MissingFileError, match=r"net\.bin does not exist"):
        open_exported(tmp_path / "net.xml")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_device_that_is_not_there_is_told(suffix: str, exports: Exports) -> None:
    with pytest.raises(ConfigError, match="device 'tpu'"):
        open_exported(exports(suffix), device="tpu")


@needs_onnx
def test_the_devices_to_use_are_those_that_the_engine_has(exports: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ConfigError, match=r"this ONNX Runtime has cpu; use 'cpu'$"):
        open_exported(exports(".onnx"), device="cuda")


@pytest.mark.parametrize("suffix", FORMATS)
def test_more_threads_than_the_cores_can_serve_are_refused(suffix: str, exports: Exports) -> None:
    with pytest.raises(ConfigError, match=r"threads is 1000000; give 1 to \d+ for the \d+ cores"):
        open_exported(exports(suffix), threads=10**6)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("content", [b"", b"junk", b"<x>junk", b"PK\x05\x06" + 18 * b"\0"])
def test_a_damaged_file_makes_no_library_speak(
    suffix: str, content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.bin").write_bytes(b"junk")
    (tmp_path / f"net{suffix}").write_bytes(content)
    with pytest.raises(CheckpointError, match="export it again") as error:
        open_exported(tmp_path / f"net{suffix}")
    assert "warnings above" not in str(error.value)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_no_threads_are_refused(exports: Exports) -> None:
    with pytest.raises(ConfigError, match="threads is 0; give 1 to "):
        open_exported(exports(".pt2"), threads=0)


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_missing_package_is_named_with_what_installs_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastseg.exported.find_spec", lambda package: None)
    with pytest.raises(MissingPackageError, match=rf"{name} needs .*: pip install 'fastseg-zoo\[{name}\]'"):
        require_packages(name)


def test_formats_go_by_the_suffix() -> None:
    assert [format_of(f"net{suffix}") for suffix in (".onnx", ".XML", ".pt2")] == ["onnx", "openvino", "torch"]
    assert is_exported("a/net.onnx")
    assert not is_exported("fast_scnn")
    assert not is_exported("last.safetensors")
    with pytest.raises(ConfigError, match=r"'\.onx'; did you mean '\.onnx'"):
        format_of("net.onx")


SIGNALLED = """
import os, signal, sys
from fastseg.exported import open_exported

signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
first, second = open_exported(sys.argv[1]), open_exported(sys.argv[1])
del first  # the engine restores the signal stack of its predecessor, which is gone
del second
os.kill(os.getpid(), signal.SIGUSR1)
print("alive")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="signals of POSIX")
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_process_that_opened_files_survives_signals(suffix: str, exports: Exports) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(exports(suffix))], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["handled", "alive"]
