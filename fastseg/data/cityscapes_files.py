"""Where Cityscapes' files are: in folders, or still in the zip archives that the project publishes.

<package>/<split>/<city>/<city>_<sequence>_<frame>_<ending>, below the root, below a folder called like the archive
(what unpacking with a click makes), or inside the archive. A folder is read where there is one, not the archive.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fastseg.data import listing
from fastseg.data.files import ArchiveMember, open_archive
from fastseg.errors import DataError, printable, suggest
from fastseg.types import DataFile

IMAGES = "leftImg8bit"
IMAGE_ENDING = f"_{IMAGES}.png"
SPLITS = ("train", "val", "test", "train_extra")
TEXTS = {"license", "readme"}  # .txt files that the archives bring along, no lists
ARCHIVES = {  # package -> split -> the archive that holds it
    IMAGES: {
        **dict.fromkeys(("train", "val", "test"), "leftImg8bit_trainvaltest.zip"),
        "train_extra": "leftImg8bit_trainextra.zip",
    },
    "gtFine": dict.fromkeys(("train", "val", "test"), "gtFine_trainvaltest.zip"),
    "gtCoarse": dict.fromkeys(("train", "train_extra", "val"), "gtCoarse.zip"),
}


@dataclass(frozen=True)
class Part:
    """One split of one package: the folder `place`, or with `archive` the path `place` inside that.

    `unread` is an archive of the same content, beside a folder that is read instead.
    """

    place: Path | PurePosixPath
    archive: Path | None = None
    unread: Path | None = None

    def __str__(self) -> str:
        return f"{self.archive}!{self.place}" if self.archive else str(self.place)

    def files(self, ending: str) -> dict[str, DataFile]:
        """Files <city>/<name><ending> by 'city/name', sorted. Raises ImageReadError for a damaged archive."""
        found: dict[str, DataFile] = {}
        for city, file in self._archived() if self.archive else self._unpacked():
            if file.name.endswith(ending) and not file.name.startswith("."):
                found[f"{city}/{file.name.removesuffix(ending)}"] = file
        return dict(sorted(found.items()))

    def contents(self) -> str:
        """What stands in it, for a message."""
        if self.archive is None:
            return listing.contents(Path(self.place))
        return listing.shown(sorted({f"{city}/" for city, _ in self._archived()}))

    def note(self) -> str:
        """Part of a message about missing files: where they were not looked for."""
        return f" (read is this folder, not {printable(self.unread)})" if self.unread else ""

    def _unpacked(self) -> list[tuple[str, DataFile]]:
        cities = [path for path in Path(self.place).iterdir() if path.is_dir()]
        return [(city.name, city / name) for city in cities for name in os.listdir(city)]

    def _archived(self) -> list[tuple[str, DataFile]]:
        assert self.archive is not None
        inside = f"{self.place}/"
        paths = [name for name in open_archive(self.archive).namelist() if name.startswith(inside)]
        parts = [(path, path.removeprefix(inside).split("/")) for path in paths]
        return [(names[0], ArchiveMember(self.archive, path)) for path, names in parts if len(names) == 2 and names[1]]


def find_part(root: Path, package: str, split: str, expected: Sequence[str]) -> Part:
    """The split where it is.

    Raises MissingFileError with what is there instead, ImageReadError for an archive that cannot be read.
    """
    archive = archive_of(root, package, split)
    for base in _bases(root, package, split):
        if (base / package / split).is_dir():
            return Part(base / package / split, unread=archive)
    if archive is not None:
        open_archive(archive)
        return Part(PurePosixPath(package, split), archive)
    listing.require_folder(root / package, "cityscapes", expected)
    return Part(listing.require_folder(root / package / split, "cityscapes", expected))


def find_entry(root: Path, entry: str) -> DataFile | None:
    """What a list calls `entry`, in an archive or beside it, when its path ends in that of an official file; or None.

    Raises ImageReadError for a damaged archive.
    """
    parts = entry.replace("\\", "/").split("/")
    for start, (package, split) in enumerate(itertools.pairwise(parts)):
        tail = "/".join(parts[start:])
        if split not in ARCHIVES.get(package, {}) or ".." in parts[start:]:
            continue
        for base in _bases(root, package, split):
            if os.path.isfile(base / tail):
                return base / tail
        archive = archive_of(root, package, split)
        if archive is not None and tail in open_archive(archive).NameToInfo:
            return ArchiveMember(archive, tail)
    return None


def archive_of(root: Path, package: str, split: str) -> Path | None:
    """The archive of this split, if it lies in `root`."""
    name = ARCHIVES[package].get(split)
    return root / name if name and (root / name).is_file() else None


def sibling(file: DataFile, name: str) -> DataFile | None:
    """The file called `name` in the folder of `file`, if it is there."""
    if isinstance(file, ArchiveMember):
        member = f"{file.member.rpartition('/')[0]}/{name}"
        return ArchiveMember(file.archive, member) if member in open_archive(file.archive).NameToInfo else None
    beside = Path(str(file)).with_name(name)
    return beside if beside.is_file() else None


def require_split(root: Path, split: str, known: Sequence[str]) -> None:
    """Raises DataError for a name that is no split: neither one of `known` nor a folder of images."""
    images = root / IMAGES
    folders = {path.name for path in images.iterdir() if path.is_dir()} if images.is_dir() else set()
    if split not in folders | set(known):
        lists = {path.stem for path in root.glob("*.txt")} - TEXTS
        allowed = (lists | folders | set(known)) - {"test"}
        raise DataError(f"cityscapes has no split {split!r}; {suggest(split, allowed)}")


def require_images(part: Part) -> dict[str, DataFile]:
    """The images of a split by 'city/name', sorted. Raises DataError when there is none."""
    images = part.files(IMAGE_ENDING)
    if not images:
        archive = ARCHIVES[IMAGES].get(part.place.name, "leftImg8bit_trainvaltest.zip")
        raise DataError(
            f"0 samples found under {printable(part)}/*/*{IMAGE_ENDING}{part.note()}; there is: {part.contents()}; "
            f"put {archive} into data.root, or unpack it there"
        )
    return images


def _bases(root: Path, package: str, split: str) -> list[Path]:
    """Where the package's folder may be."""
    name = ARCHIVES[package].get(split)
    return [root, root / name.removesuffix(".zip")] if name else [root]
