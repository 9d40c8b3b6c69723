"""MATLAB level-5 files: against files made here by the format's description, and against scipy where that is there."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.data.matlab import read_matrix
from fastseg.errors import DataError, ImageReadError, LabelError, MissingFileError
from trees.pascal_context import matlab_file

MAP = np.arange(12, dtype=np.uint16).reshape(3, 4) * 40  # not symmetric: a transposed reading would show
KINDS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [True, False])
def test_rows_stay_rows_in_both_byte_orders_compressed_or_not(compressed: bool, order: str) -> None:
    found = read_matrix(matlab_file({"LabelMap": MAP}, compressed=compressed, order=order), "LabelMap")
    assert found.dtype == np.uint16
    assert np.array_equal(found, MAP)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_class_of_numbers_is_read(kind: str, order: str) -> None:
    found = read_matrix(matlab_file({"x": (MAP % 100).astype(kind)}, order=order), "x")
    assert found.dtype == np.dtype(kind)
    assert np.array_equal(found, MAP % 100)


def test_numbers_may_be_stored_narrower_than_their_class() -> None:
    """MATLAB saves space so: a double that holds whole numbers below 256 lies in the file as bytes."""
    found = read_matrix(matlab_file({"x": (MAP % 256).astype("f8")}, stored="u1"), "x")
    assert found.dtype == np.float64
    assert np.array_equal(found, MAP % 256)


def test_the_variable_is_found_among_others_and_a_missing_one_is_told_with_those_there() -> None:
    content = matlab_file({"first": MAP + 1, "LabelMap": MAP, "b": MAP + 2})
    assert np.array_equal(read_matrix(content, "LabelMap"), MAP)
    with pytest.raises(LabelError, match=r"no variable labels; it has first, LabelMap, b"):
        read_matrix(content, "labels")


def test_one_pixel_is_stored_in_the_short_form() -> None:
    assert read_matrix(matlab_file({"x": np.array([[7]], np.uint16)}, compressed=False), "x").tolist() == [[7]]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_matrix_comes_back(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    values = data.draw(st.lists(st.integers(0, 65535), min_size=height * width, max_size=height * width))
    array = np.array(values, np.uint16).reshape(height, width)
    name = data.draw(st.text("abcXYZ_09", min_size=1, max_size=20))
    content = matlab_file({name: array}, compressed=data.draw(st.booleans()), order=data.draw(st.sampled_from("<>")))
    assert np.array_equal(read_matrix(content, name), array)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_file_cut_anywhere_is_damaged(tmp_path: Path, compressed: bool) -> None:
    content = matlab_file({"LabelMap": MAP}, compressed=compressed)
    path = tmp_path / "x.mat"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"x\.mat"):
            read_matrix(path, "LabelMap")


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 300), value=st.integers(0, 255), compressed=st.booleans(), order=st.sampled_from("<>"))
def test_a_changed_byte_gives_a_matrix_or_an_error_of_ours(
    place: int, value: int, compressed: bool, order: str
) -> None:
    content = bytearray(matlab_file({"LabelMap": MAP}, compressed=compressed, order=order))
    content[place % len(content)] = value
    with contextlib.suppress(DataError):
        assert read_matrix(bytes(content), "LabelMap").ndim == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"no MATLAB level-5 file: it is empty"),
        (b"<html>404</html>" * 20, r"no MATLAB level-5 file: it begins with b'<html>404</html>'"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(400), r"MATLAB 7\.3 file \(HDF5\).*save it with -v7"),
        (matlab_file({}), r"no variable LabelMap; it has none"),
        (matlab_file({"LabelMap": np.zeros((2, 2, 2))}), r"LabelMap is no real matrix of numbers"),
        (matlab_file({"LabelMap": np.zeros((0, 4))}), r"is 4x0; it needs at least one pixel"),
    ],
)
def test_what_is_no_matrix_says_what_it_is(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_matrix(content, "LabelMap")


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    content = matlab_file({"LabelMap": np.zeros((3000, 1000))})
    assert len(content) < 30_000  # of 24 MB
    with pytest.raises(ImageReadError, match="3000000 pixels, above the limit of 1000"):
        read_matrix(content, "LabelMap", max_pixels=1000)
    with pytest.raises(ImageReadError, match=r"is 10x10 = 100 pixels, above the limit of 99"):
        read_matrix(matlab_file({"LabelMap": np.zeros((10, 10), np.uint8)}), "LabelMap", max_pixels=99)


def test_a_size_that_lies_takes_no_memory() -> None:
    content = bytearray(matlab_file({"LabelMap": MAP}, compressed=False))
    at = content.index(struct.pack("<2i", 3, 4))
    content[at : at + 8] = struct.pack("<2i", 1 << 30, 1 << 30)
    with pytest.raises(ImageReadError, match="above the limit"):
        read_matrix(bytes(content), "LabelMap")


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"x\.mat does not exist"):
        read_matrix(tmp_path / "x.mat", "LabelMap")


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kind", ["u1", "u2", "i4", "f8"])
def test_what_scipy_writes_is_read_and_what_we_write_it_reads(kind: str, compressed: bool) -> None:
    scipy_io = pytest.importorskip("scipy.io", reason="scipy is not installed: no second opinion on the format")
    random = np.random.default_rng(0)
    array = random.integers(0, 120, (17, 23)).astype(kind)
    buffer = io.BytesIO()
    others = {"text": "a name", "cell": np.array([1, "two"], object), "struct": {"a": 1.0}, "z": np.array([[1j]])}
    scipy_io.savemat(buffer, {**others, "LabelMap": array}, do_compression=compressed)
    found = read_matrix(buffer.getvalue(), "LabelMap")
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    with pytest.raises(LabelError, match="z is no real matrix"):
        read_matrix(buffer.getvalue(), "z")
    ours = scipy_io.loadmat(io.BytesIO(matlab_file({"LabelMap": array}, compressed=compressed)))["LabelMap"]
    assert ours.dtype == array.dtype
    assert np.array_equal(ours, array)
