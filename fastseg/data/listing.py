"""Finding samples: the root folder, list files, pairs by name. All of it is checked here, by stat, before step one.

Shared by the adapters, which only say what their folders are called.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from fastseg.data.readers import IMAGE_SUFFIXES
from fastseg.errors import DataError, MissingFileError, printable
from fastseg.types import DataFile, Sample

SHOWN = 5

# A separator is what follows an image suffix, so paths may hold spaces, commas and semicolons themselves.
_AFTER_SUFFIX = "(?:" + "|".join(f"(?<={re.escape(suffix)})" for suffix in IMAGE_SUFFIXES) + ")"
_SEPARATOR = re.compile(_AFTER_SUFFIX + r'"?\s*[\s,;]\s*"?', re.IGNORECASE)


def require_root(root: str | os.PathLike[str], dataset: str, expected: Sequence[str]) -> Path:
    """The folder that holds `dataset`, with `~` expanded; `expected` names what it should hold, for the message.

    Raises MissingFileError naming the nearest existing parent and its contents, DataError when `root` is a file.
    """
    folder = Path(root).expanduser()
    holds = f"{dataset} expects {', '.join(expected)} there (set data.root=/path/to/{dataset})"
    if not str(root).strip():
        raise DataError(f"data.root is empty; {holds}")
    if folder.is_dir():
        return folder
    if os.path.exists(folder):
        raise DataError(f"data.root={printable(folder)} is a file, not a folder; {holds}")
    parent = next((p for p in folder.absolute().parents if p.is_dir()), Path(folder.absolute().anchor))
    raise MissingFileError(
        f"data.root={printable(folder)} does not exist; the nearest existing parent {printable(parent)} "
        f"contains: {contents(parent)}; {holds}"
    )


def require_folder(folder: Path, dataset: str, expected: Sequence[str]) -> Path:
    """`folder`, a part of a data set that must exist. Raises MissingFileError with what is beside it.

    Where its parent does not exist either, the nearest folder above that does is listed.
    """
    if folder.is_dir():
        return folder
    above = next((parent for parent in folder.parents if parent.is_dir()), folder.parent)
    raise MissingFileError(
        f"{printable(folder)} does not exist; {printable(above)} contains: {contents(above)}; "
        f"{dataset} expects {', '.join(expected)} in data.root"
    )


def read_list(path: Path) -> list[tuple[int, tuple[str, ...]]]:
    """Rows of a list file: (line number from 1, its columns).

    Columns are separated by a tab, or by spaces, commas or semicolons after an image suffix. CRLF, byte order marks,
    blank lines, lines that start with '#' and quotes around a column are accepted.
    """
    raw = path.read_bytes()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # what PowerShell's '>' writes
        text = raw.decode("utf-16", errors="replace")
    else:
        text = raw.decode("utf-8-sig", errors="surrogateescape")  # file names need not be UTF-8
    rows = []
    # not str.splitlines: it also breaks at characters that a file name may hold
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        parts = line.split("\t") if "\t" in line else _SEPARATOR.split(line)
        columns = tuple(part.strip().strip('"') for part in parts)
        columns = tuple(column for column in columns if column)
        if columns:
            rows.append((number, columns))
    return rows


def find_listed(entry: str, root: Path, folders: Iterable[Path] = ()) -> Path | None:
    """The existing file that a list calls `entry`, or None.

    Tried in order: the path itself (absolute, or relative to `root`; `..` is allowed, since a list is the user's own),
    `entry` inside `folders`, and the last components of the path below `root`, two at least, because lists travel
    with the absolute paths of the machine that wrote them (`/SegNet/CamVid/train/x.png`).
    """
    direct = root / entry
    if os.path.isfile(direct):
        return direct
    for folder in folders:
        if os.path.isfile(folder / entry):
            return folder / entry
    for spelling in dict.fromkeys((entry, entry.replace("\\", "/"))):  # a backslash may be part of a name, too
        parts = PurePosixPath(spelling).parts
        for start in range(len(parts) - 1):
            tail = parts[start:]
            # '..' and '/' in the middle of a foreign path say nothing about this root
            if ".." in tail or tail[0] == "/":
                continue
            candidate = root.joinpath(*tail)
            if os.path.isfile(candidate):
                return candidate
    return None


def samples_from_list(
    path: Path,
    root: Path,
    label_of: Callable[[Path], Path | None],
    image_folders: Sequence[Path] = (),
    *,
    elsewhere: Callable[[str], DataFile | None] = lambda entry: None,
) -> list[Sample]:
    """Samples of a list file with rows `image label`, or `image` alone, whose label `label_of` then finds.

    `elsewhere` finds entries that are no files below `root`, in archives for one; such an image needs its label beside
    it in the list.

    Raises DataError for an empty list or a third column, MissingFileError with the count and the first five files
    that do not exist.
    """
    rows = read_list(path)
    if not rows:
        raise DataError(
            f"0 samples found in {printable(path)}: it has no line that names a file; "
            "write one 'image label' pair a line, or delete the list to use the whole folder"
        )
    samples: list[Sample] = []
    missing: list[str] = []
    for number, columns in rows:
        if len(columns) > 2:
            raise DataError(
                f"{printable(path)} line {number} has {len(columns)} columns ({printable(', '.join(columns))}); "
                "allowed are 'image label' or 'image'"
            )
        image = find_listed(columns[0], root, image_folders) or elsewhere(columns[0])
        if image is None:
            missing.append(f"line {number}: {columns[0]}")
        label: DataFile | None = None
        if len(columns) == 2:
            label = find_listed(columns[1], root) or elsewhere(columns[1])
            if label is None:
                missing.append(f"line {number}: {columns[1]}")
        elif image is not None:
            label = label_of(image) if isinstance(image, Path) else None
            if label is None:
                missing.append(f"line {number}: the label of {columns[0]}")
        if image is not None and label is not None:
            samples.append(Sample(image, label))
    if missing:
        raise MissingFileError(
            f"{len(missing)} files named by {printable(path)} ({len(rows)} rows) do not exist below "
            f"{printable(root)}: {first(missing)}; complete the download or correct the list"
        )
    return samples


def samples_from_folders(
    images: Path, labels: Path, *, image_suffixes: Sequence[str], label_suffixes: Sequence[str] = (".png",)
) -> list[Sample]:
    """Samples of two folders whose files carry the same stem, sorted by name.

    Raises DataError when there are none, or when a stem occurs twice; MissingFileError for files without a partner.
    """
    by_stem = files_by_stem(images, image_suffixes)
    labels_by_stem = files_by_stem(labels, label_suffixes)
    if not by_stem.keys() & labels_by_stem.keys():
        raise DataError(
            f"0 samples found under {printable(images)}/*{{{','.join(image_suffixes)}}} with "
            f"{printable(labels)}/*{{{','.join(label_suffixes)}}} of the same stem: "
            f"{len(by_stem)} images, {len(labels_by_stem)} labels, no pair"
        )
    for ours, theirs, kind, place in (
        (by_stem, labels_by_stem, "label", labels),
        (labels_by_stem, by_stem, "image", images),
    ):
        alone = sorted(str(ours[stem]) for stem in ours.keys() - theirs.keys())
        if alone:
            raise MissingFileError(
                f"{len(alone)} of {len(ours)} files have no {kind} of the same stem in {printable(place)}: "
                f"{first(alone)}; complete the download, remove them, or write a list file"
            )
    return [Sample(by_stem[stem], labels_by_stem[stem]) for stem in sorted(by_stem)]


def files_by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Files of `folder` by stem, suffixes in any case; hidden files are left out. Raises DataError for a stem twice."""
    found: dict[str, Path] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith(".") or path.suffix.lower() not in suffixes or not entry.is_file():
                continue
            if path.stem in found:
                raise DataError(
                    f"{printable(path)} and {printable(found[path.stem])} share the stem {printable(path.stem)!r}, "
                    "so their pair is ambiguous; keep one, or write a list file with both columns"
                )
            found[path.stem] = path
    return found


def contents(folder: Path, limit: int = 8) -> str:
    """What `folder` holds, for a message: the first names in order, folders with a slash."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in entries)
    except OSError as error:
        return f"(cannot be listed: {error.strerror})"
    return shown(names, limit)


def shown(names: Sequence[str], limit: int = 8) -> str:
    """The first of `names` in a row, for a message, and how many more there are."""
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return printable(", ".join(names[:limit]) or "nothing") + more


def first(items: Sequence[str]) -> str:
    """The first few of `items`, for a message."""
    more = f"; and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return printable("; ".join(items[:SHOWN])) + more
