"""The images that a command line names, and where each one's results belong."""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import math
import os
import unicodedata
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastseg.data.readers import IMAGE_SUFFIXES, check_exists
from fastseg.errors import DataError, OutputError, printable
from fastseg.output import KINDS

LONGEST_NAME = 255  # bytes, on every common file system
LONGEST_ENDING = max(len(f"_{kind}.png") for kind in KINDS)


def find_inputs(inputs: Sequence[str | Path], *, skip: Path | None = None) -> list[tuple[Path, Path]]:
    """Files, folders and glob patterns -> (image file, its output path below the output folder, without ending).

    A file given by name is taken whatever its suffix; folders (all levels) and patterns (`*`, `?`, `[ab]`, `**`) give
    files with an image suffix, sorted, without hidden ones, below `skip` or reached a second time through links. No
    two output paths are equal, also where case does not count: `a.jpg` and `a.png` keep their suffix. Raises
    MissingFileError for a path that does not exist, DataError where a folder, a pattern or the list holds no image.
    """
    accepted = f"accepted suffixes: {', '.join(IMAGE_SUFFIXES)}"
    if not inputs:
        raise DataError(f"no inputs; give image files, folders or patterns such as 'photos/**/*.jpg'; {accepted}")
    found: dict[str, tuple[Path, Path]] = {}
    for text in inputs:
        root, pattern = _root_and_pattern(text)
        if pattern is None:
            files = [Path(root.name)]
            root = root.parent
        else:
            files = [file for file in _walk(root, pattern, skip) if _matches(file.parts, pattern)]
        if not files:
            raise DataError(f"no images match {printable(text)}; {accepted}")
        for file in files:
            found.setdefault(os.path.abspath(root / file), (root / file, file))
    return list(zip((file for file, _ in found.values()), _distinct_stems(list(found.values())), strict=True))


def _root_and_pattern(text: str | Path) -> tuple[Path, tuple[str, ...] | None]:
    """A file and None, or a folder and the pattern, part by part, of what to take from it."""
    if not str(text):
        raise DataError("an input is empty (an unset shell variable?); give files, folders or patterns, '.' for here")
    path = Path(text)
    if not os.path.lexists(path) and any(set(part) & set("*?[") for part in path.parts):
        fixed = list(itertools.takewhile(lambda part: not set(part) & set("*?["), path.parts))
        root = Path(*fixed)
        check_exists(root)
        return root, path.parts[len(fixed) :]
    check_exists(path)
    return path, ("**", "*") if path.is_dir() else None


def _walk(root: Path, pattern: tuple[str, ...], skip: Path | None) -> list[Path]:
    """Image files below `root`, relative to it and sorted, as deep as the pattern can reach; every folder once."""
    deepest = math.inf if "**" in pattern else len(pattern)
    seen = {_identity(skip)} if skip is not None and _identity(skip) != _identity(root) else set()
    files: list[Path] = []
    folders, links = [Path()], deque[Path]()  # links wait until all real folders are read: files keep their real place
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        identity = _identity(root / folder)
        if identity in seen:
            continue
        seen.add(identity)
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(
                f"the folder {printable(root / folder)} cannot be read: {error.strerror}; check its permissions"
            ) from error
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if os.path.isdir(entry.path):  # entry.is_dir() would raise for a link to itself
                if len(path.parts) < deepest:
                    (links if entry.is_symlink() else folders).append(path)
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                files.append(path)
    return sorted(files)


def _identity(path: Path) -> tuple[int, int] | None:
    """What two names of one folder share, or None where there is nothing."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a relative path fits a pattern in which `**` stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        # At the end it means every file below, as people expect of 'photos/**'.
        return len(pattern) == 1 or any(_matches(parts[i:], pattern[1:]) for i in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _distinct_stems(files: Sequence[tuple[Path, Path]]) -> Iterator[Path]:
    """Output paths for (file, path below its root): the stem; where two would meet, the full name; then with a hash."""
    choices = [
        (relative.stem, relative.name, f"{relative.name}-{_digest(os.path.abspath(file))}") for file, relative in files
    ]
    level = [0] * len(files)

    def stem(index: int) -> Path:
        name = choices[index][level[index]]
        if len(os.fsencode(name)) + LONGEST_ENDING > LONGEST_NAME:
            ending = "-" + _digest(os.path.abspath(files[index][0]))
            while len(os.fsencode(name + ending)) + LONGEST_ENDING > LONGEST_NAME:
                name = name[:-1]
            name += ending
        return files[index][1].with_name(name)

    while True:
        meeting = defaultdict(list)
        for index in range(len(files)):  # as file systems that ignore case and Unicode form would see them
            meeting[unicodedata.normalize("NFC", str(stem(index)).casefold())].append(index)
        raised = [i for group in meeting.values() if len(group) > 1 for i in group if level[i] + 1 < len(choices[i])]
        if not raised:
            return (stem(index) for index in range(len(files)))
        for index in raised:
            level[index] += 1


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:10]


def refuse_rereading(inputs: Sequence[str | Path], stems: Sequence[Path], kinds: Sequence[str], out_dir: Path) -> None:
    """Raises OutputError when a result would be an input of the same command next time."""
    out = out_dir.resolve()
    for text in inputs:
        root, pattern = _root_and_pattern(text)
        root = root.resolve()
        if pattern is None or (root in out.parents):  # below an input folder, out_dir is skipped by the walk
            continue
        for stem, kind in itertools.product(stems, kinds):
            target = out / stem.with_name(f"{stem.name}_{kind}.png")
            if target.is_relative_to(root) and _matches(target.relative_to(root).parts, pattern):
                raise OutputError(
                    f"results would land among the inputs ({printable(target)} fits {printable(text)}) and be read "
                    f"as images next time; choose an output folder other than {printable(out_dir)}"
                )
