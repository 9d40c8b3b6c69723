"""List files, roots and pairs: what is accepted, and what a user reads when something is missing."""

from __future__ import annotations

import itertools
import os
import string
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastseg.data import listing
from fastseg.data.files import ArchiveMember
from fastseg.errors import DataError, MissingFileError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def no_label(image: Path) -> Path | None:
    return None


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    """A folder with three pairs, for examples that hypothesis draws (tmp_path would be shared between them)."""
    with tempfile.TemporaryDirectory() as folder:
        for stem in "abc":
            touch(Path(folder, "train", f"{stem}.png"))
            touch(Path(folder, "trainannot", f"{stem}.png"))
        yield Path(folder)


@pytest.mark.parametrize("separator", ["\t", " ", "   ", ",", ", ", ";", " ; "])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_separator_and_newline_gives_the_same_rows(tmp_path: Path, separator: str, newline: str) -> None:
    path = tmp_path / "train.txt"
    path.write_bytes(newline.join(f"t/{i}.jpg{separator}l/{i}.png" for i in range(3)).encode())
    assert read_columns(path) == [(f"t/{i}.jpg", f"l/{i}.png") for i in range(3)]


def test_line_numbers_count_the_blank_and_comment_lines_that_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("# made by hand\n\na.png b.png\n   \nc.png d.png\n")
    assert listing.read_list(path) == [(3, ("a.png", "b.png")), (5, ("c.png", "d.png"))]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks_and_utf_16_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "train.txt"
    path.write_bytes("Straße/ü.png l/ü.png\n".encode(encoding))
    assert read_columns(path) == [("Straße/ü.png", "l/ü.png")]


def test_names_that_are_not_utf_8_reach_the_file_system_unchanged(tmp_path: Path) -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    touch(tmp_path / name)
    path = tmp_path / "train.txt"
    path.write_bytes(b"caf\xe9.png caf\xe9.png")
    (sample,) = listing.samples_from_list(path, tmp_path, no_label)
    assert Path(str(sample.image)).is_file()


@pytest.mark.parametrize(
    "line",
    [
        "my images/a b.png\tmy labels/a b.png",
        "my images/a b.png,my labels/a b.png",
        '"my images/a b.png","my labels/a b.png"',
        "my images/a b.png my labels/a b.png",
    ],
)
def test_paths_may_hold_spaces(tmp_path: Path, line: str) -> None:
    path = tmp_path / "train.txt"
    path.write_text(line)
    assert read_columns(path) == [("my images/a b.png", "my labels/a b.png")]


@given(
    names=st.lists(
        st.text(string.ascii_letters + string.digits + " ,;._-é#'()", min_size=1).map(lambda s: f"d/{s}x.png"),
        min_size=2,
        max_size=6,
    ),
    separator=st.sampled_from(["\t", " ", ",", ";"]),
    newline=st.sampled_from(["\n", "\r\n", "\n\n"]),
    mark=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_rows_survive_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], separator: str, newline: str, mark: bool
) -> None:
    pairs = [(a, b) for a, b in itertools.pairwise(names) if not ambiguous(a) and not ambiguous(b)]
    text = newline.join(f"{a}{separator}{b}" for a, b in pairs)
    path = tmp_path_factory.getbasetemp() / "roundtrip.txt"
    path.write_bytes(text.encode("utf-8-sig" if mark else "utf-8"))
    assert read_columns(path) == pairs


def ambiguous(name: str) -> bool:
    """Whether a suffix followed by a separator stands inside the name itself."""
    return any(f".png{character}" in name for character in " ,;")


@given(text=st.one_of(st.text(), st.text(alphabet='abc./\\tnrig \t,;#"\r\n\0png').map(lambda s: "train/a.png " + s)))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_list_or_a_data_error(tree: Path, text: str) -> None:
    path = tree / "any.txt"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        samples = listing.samples_from_list(path, tree, no_label)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017, either outcome is right, silence is not
    else:
        assert samples
        assert all(Path(str(sample.image)).is_file() and Path(str(sample.label)).is_file() for sample in samples)


FILE_NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & set(b"/\0\t\r\n"))


@settings(max_examples=60, deadline=None)
@given(
    names=st.lists(FILE_NAMES, min_size=1, max_size=4, unique=True),
    written=st.lists(st.sampled_from(["", "./", "l/../", "absolute", "foreign"]), min_size=8, max_size=8),
    newline=st.sampled_from([b"\n", b"\r\n", b"\r", b"\n \t\n", b"\n# a comment\n"]),
    mark=st.booleans(),
    quoted=st.booleans(),
)
def test_pairs_of_any_file_names_are_found_however_the_list_writes_them(
    names: list[bytes], written: list[str], newline: bytes, mark: bool, quoted: bool
) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        pairs = []
        for name in names:
            paths = [root / folder / os.fsdecode(name + b".png") for folder in ("my images", "l")]
            for path in paths:
                touch(path)
            pairs.append(tuple(paths))
        before = {"absolute": f"{place}/", "foreign": "/data/of another/machine/"}
        columns = [
            before.get(how, how) + path.relative_to(root).as_posix()
            for how, path in zip(written, [path for pair in pairs for path in pair], strict=False)
        ]
        quote = b'"' if quoted else b""
        cells = [quote + os.fsencode(column) + quote for column in columns]
        rows = [b"\t".join(cells[i : i + 2]) for i in range(0, len(cells), 2)]
        (root / "any.txt").write_bytes(b"\xef\xbb\xbf" * mark + newline.join(rows) + newline)
        samples = listing.samples_from_list(root / "any.txt", root, no_label)
        found = [(Path(str(sample.image)), Path(str(sample.label))) for sample in samples]
        assert all(path.is_file() for pair in found for path in pair)
        assert [tuple(map(os.path.realpath, pair)) for pair in found] == [
            tuple(map(os.path.realpath, pair)) for pair in pairs
        ]


def test_what_is_no_file_is_looked_for_elsewhere(tree: Path) -> None:
    path = tree / "mixed.txt"
    path.write_text("train/a.png trainannot/a.png\ntrain/z.png trainannot/b.png\ntrain/y.png z.png\n")
    member = ArchiveMember(Path("images.zip"), "train/z.png")
    asked = []

    def elsewhere(entry: str) -> ArchiveMember | None:
        asked.append(entry)
        return member if entry.endswith("z.png") else None

    with pytest.raises(MissingFileError, match=r"1 files named by .*line 3: train/y\.png; complete"):
        listing.samples_from_list(path, tree, no_label, elsewhere=elsewhere)
    assert asked == ["train/z.png", "train/y.png", "z.png"]
    path.write_text("train/a.png trainannot/a.png\ntrain/z.png trainannot/b.png\n")
    samples = listing.samples_from_list(path, tree, no_label, elsewhere=elsewhere)
    assert [sample.image for sample in samples] == [tree / "train/a.png", member]


def test_an_image_in_an_archive_needs_its_label_in_the_list(tree: Path) -> None:
    path = tree / "alone.txt"
    path.write_text("train/z.png\n")
    with pytest.raises(MissingFileError, match=r"line 1: the label of train/z\.png"):
        listing.samples_from_list(
            path, tree, lambda image: image, elsewhere=lambda entry: ArchiveMember(Path("images.zip"), entry)
        )


@pytest.mark.parametrize(
    "entry",
    [
        "train/a.png",
        "./train/a.png",
        "trainannot/../train/a.png",
        "/SegNet/CamVid/train/a.png",
        "CamVid/train/a.png",
        "train\\a.png",
        "C:\\SegNet\\CamVid\\train\\a.png",
    ],
)
def test_listed_paths_are_found_below_the_root(tree: Path, entry: str) -> None:
    found = listing.find_listed(entry, tree)
    assert found is not None
    assert found.resolve() == (tree / "train" / "a.png").resolve()


def test_absolute_paths_may_lie_outside_the_root(tree: Path, tmp_path: Path) -> None:
    outside = touch(tmp_path / "elsewhere.png")
    assert listing.find_listed(str(outside), tree) == outside


def test_last_components_of_foreign_paths_never_climb_out_of_the_root(tree: Path) -> None:
    touch(tree / "outside" / "x.png")
    assert listing.find_listed("/foreign/../outside/x.png", tree / "train") is None


def test_a_bare_name_does_not_match_by_its_last_component_alone(tree: Path) -> None:
    assert listing.find_listed("a.png", tree) is None
    assert listing.find_listed("a.png", tree, folders=[tree / "train"]) == tree / "train" / "a.png"


def test_missing_files_are_counted_and_the_first_five_named(tmp_path: Path) -> None:
    for i in range(20):
        touch(tmp_path / "t" / f"{i}.png")
        touch(tmp_path / "l" / f"{i}.png")
    path = tmp_path / "train.txt"
    path.write_text("".join(f"t/{i}.png l/{i}.png\n" for i in range(20)))
    for i in (3, 7, 11):
        (tmp_path / "t" / f"{i}.png").unlink()
    with pytest.raises(MissingFileError) as caught:
        listing.samples_from_list(path, tmp_path, no_label)
    message = str(caught.value)
    assert message.startswith(f"3 files named by {path} (20 rows)")
    assert "line 4: t/3.png; line 8: t/7.png; line 12: t/11.png" in message

    for i in range(20):
        (tmp_path / "l" / f"{i}.png").unlink()
    with pytest.raises(MissingFileError, match=r"^23 files .*and 18 more"):
        listing.samples_from_list(path, tmp_path, no_label)


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "\ufeff", "\t\n"])
def test_a_list_without_rows_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "train.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"0 samples found in .*train\.txt"):
        listing.samples_from_list(path, tmp_path, no_label)


def test_a_third_column_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("a.png b.png c.png\n")
    with pytest.raises(DataError, match="line 1 has 3 columns"):
        listing.samples_from_list(path, tmp_path, no_label)


def test_a_list_of_25_thousand_pairs_is_checked_in_two_seconds(tree: Path) -> None:
    path = tree / "long.txt"
    path.write_text("train/a.png trainannot/a.png\n" * 25_000)
    start = time.process_time()
    assert len(listing.samples_from_list(path, tree, no_label)) == 25_000
    assert time.process_time() - start < 2


def test_a_misspelt_root_names_its_nearest_parent_and_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "CamVid").mkdir()
    touch(tmp_path / "notes.txt")
    with pytest.raises(MissingFileError) as caught:
        listing.require_root(tmp_path / "CamVdi" / "deep", "camvid", ["train/", "trainannot/"])
    message = str(caught.value)
    assert f"data.root={tmp_path / 'CamVdi' / 'deep'} does not exist" in message
    assert f"nearest existing parent {tmp_path} contains: CamVid/, notes.txt" in message
    assert "expects train/, trainannot/" in message
    assert isinstance(caught.value, FileNotFoundError)


def test_an_empty_root_and_a_file_as_root_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root is empty"):
        listing.require_root(" ", "camvid", ["train/"])
    with pytest.raises(DataError, match="is a file, not a folder"):
        listing.require_root(touch(tmp_path / "camvid.zip"), "camvid", ["train/"])


def test_a_missing_part_shows_what_is_beside_it(tmp_path: Path) -> None:
    (tmp_path / "gtfine").mkdir()
    with pytest.raises(MissingFileError, match=r"gtFine does not exist; .* contains: gtfine/"):
        listing.require_folder(tmp_path / "gtFine", "cityscapes", ["leftImg8bit/", "gtFine/"])


def test_a_part_whose_parent_is_missing_too_shows_the_nearest_folder_there_is(tmp_path: Path) -> None:
    (tmp_path / "Images").mkdir()
    with pytest.raises(MissingFileError, match=rf"training does not exist; {tmp_path} contains: Images/; "):
        listing.require_folder(tmp_path / "images" / "training", "ade20k", ["images/", "annotations/"])


def test_long_folders_are_shown_in_part(tmp_path: Path) -> None:
    assert listing.contents(tmp_path) == "nothing"
    for i in range(10):
        touch(tmp_path / f"{i}.png")
    assert listing.contents(tmp_path) == ", ".join(f"{i}.png" for i in range(8)) + ", and 2 more"


def test_folders_pair_by_stem_in_order_and_leave_hidden_files_out(tree: Path) -> None:
    touch(tree / "train" / "._a.png")
    touch(tree / "train" / "Thumbs.db")
    samples = listing.samples_from_folders(tree / "train", tree / "trainannot", image_suffixes=[".png"])
    assert [(s.image.name, s.label.name) for s in samples] == [(f"{x}.png", f"{x}.png") for x in "abc"]


def test_folders_without_pairs_name_both_patterns(tmp_path: Path) -> None:
    touch(tmp_path / "images" / "a.tga")
    touch(tmp_path / "labels" / "b.png")
    with pytest.raises(DataError, match=r"0 samples found under .*images/\*\{\.png\} with .*labels/\*\{\.png\}"):
        listing.samples_from_folders(tmp_path / "images", tmp_path / "labels", image_suffixes=[".png"])


@pytest.mark.parametrize(("folder", "kind"), [("images", "label"), ("labels", "image")])
def test_a_file_without_its_partner_is_an_error(tmp_path: Path, folder: str, kind: str) -> None:
    touch(tmp_path / "images" / "a.png")
    touch(tmp_path / "labels" / "a.png")
    touch(tmp_path / folder / "extra.png")
    with pytest.raises(MissingFileError, match=rf"1 of 2 files have no {kind} of the same stem.*extra\.png"):
        listing.samples_from_folders(tmp_path / "images", tmp_path / "labels", image_suffixes=[".png"])


def test_one_stem_in_two_formats_is_ambiguous(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    touch(tmp_path / "a.JPG")
    with pytest.raises(DataError, match="share the stem 'a'"):
        listing.files_by_stem(tmp_path, [".png", ".jpg"])


def read_columns(path: Path) -> list[tuple[str, ...]]:
    return [columns for _, columns in listing.read_list(path)]
