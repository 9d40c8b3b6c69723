"""Whatever images are called and wherever links lead, results stay inside the output folder and apart."""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.folders import predict_files
from fastseg.predict import Predictor
from toys import NearestColor, save_image, tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names here are any bytes")

PREDICTOR = Predictor(NearestColor(), device="cpu")
SPECIAL = (
    *(b"..", b"...", b"..\\x", b"\\", b"C:", b"~", b"$HOME", b"-rf", b"%s{}", b"\n", b" ", b"\xff\xfe", b"x" * 251),
    *(b"a", b"A", b"a.b", b"con", b"_ids", b"failures", "ä".encode(), unicodedata.normalize("NFD", "ä").encode()),
)
COMPONENT = st.sampled_from(SPECIAL) | st.binary(min_size=1, max_size=12).filter(lambda name: not {0, 47} & set(name))
SUFFIX = st.sampled_from([b".png", b".PNG", b".jpg", b".tif", b".png.png"])
PATHS = st.lists(st.tuples(st.lists(COMPONENT, max_size=3), COMPONENT, SUFFIX), min_size=1, max_size=8)
LINKS = st.lists(st.tuples(COMPONENT, st.sampled_from([".", "..", "../outside", "loop", "/"])), max_size=3)


def make_tree(folder: Path, paths: list[tuple[list[bytes], bytes, bytes]], links: list[tuple[bytes, str]]) -> int:
    """Images and links of these names below `folder`, as far as a file system takes them; how many images."""
    folder.mkdir()
    for components, name, suffix in paths:
        parts = [part for part in components if part not in (b".", b"..")]
        with contextlib.suppress(OSError):  # too long, or a file where a folder should be
            save_image(Path(os.fsdecode(b"/".join([os.fsencode(folder), *parts, name + suffix]))))
    count = sum(not path.name.startswith(".") for path in _visible(folder))
    for name, target in links:
        with contextlib.suppress(OSError):
            (folder / os.fsdecode(name)).symlink_to(target if target != "/" else folder)
    return count


def _visible(folder: Path) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def outside_of(out: Path) -> dict[str, bytes | None]:
    """Everything beside a folder."""
    return {name: data for name, data in tree(out.parent).items() if Path(name).parts[0] != out.name}


def check(make: Callable[[str], Path], paths: list[Any], links: list[Any]) -> int:
    """Predict a tree of these names; the number of its images."""
    base = make("names")
    save_image(base / "outside" / "mine.png")
    count = make_tree(base / "in", paths, links)
    before = outside_of(base / "out")
    if not count:
        return 0
    summary = predict_files(PREDICTOR, [base / "in"], base / "out", kinds=("ids",))
    assert outside_of(base / "out") == before
    outside = sum(path.name == "mine.png" for path in summary.done)  # through a link
    assert (len(summary.done) - outside, summary.failed) == (count, [])
    results = [name for name in tree(base / "out") if name.endswith(".png")]
    assert sorted(results) == sorted(str(path.relative_to(base / "out")) for path in summary.written)
    assert len({unicodedata.normalize("NFC", name.casefold()) for name in results}) == len(summary.done)
    return count


@settings(max_examples=25, deadline=None)
@given(paths=PATHS, links=LINKS)
def test_results_stay_inside_and_apart(paths: Any, links: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    check(tmp_path_factory.mktemp, paths, links)


@pytest.mark.slow
@pytest.mark.fuzz
@pytest.mark.timeout(1800)
def test_thousands_of_names(tmp_path_factory: pytest.TempPathFactory) -> None:
    images = 0

    @settings(max_examples=1000, deadline=None, database=None)
    @given(paths=PATHS, links=LINKS)
    def search(paths: Any, links: Any) -> None:
        nonlocal images
        images += check(tmp_path_factory.mktemp, paths, links)

    search()
    print(f"\n{images} names in 1000 trees: every result inside the output folder, no two in one place")
    assert images > 2000
