"""Data sets decoded once, on local disk: one memory-mapped file per data set and split.

Every process of this machine maps the same pages, and a crop touches only its own. The file is keyed by the identity
of every sample; when one changes, the file is built anew, and what did not change is copied.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from fastseg.data.cache_file import CacheFile, CacheWriter, planned, sample_key
from fastseg.data.dataset import ConcatDataset, SegDataset
from fastseg.data.findings import number_of
from fastseg.data.listing import shown
from fastseg.environment import usable_cores
from fastseg.errors import ConfigError, DataError, OutputError, printable
from fastseg.locks import holder, sign, try_lock

INSTEAD = "choose another folder (data.cache_dir=...), or data.cache=none or memory"
REPORT_SECONDS = 30.0
DIGEST_BYTES = 6  # at the end of a cache's name

Say = Callable[[str], None]


class DiskCachedDataset(SegDataset):
    """A data set whose samples come from a cache, as arrays that cannot be written to."""

    def __init__(self, dataset: SegDataset, file: CacheFile) -> None:
        self.info = dataset.info
        self.origin = dataset.origin
        self.file = file
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.file.sample(index)

    def load_label(self, index: int) -> np.ndarray:
        return self.file.sample(index)[1]

    def size(self, index: int) -> tuple[int, int]:
        height, width = self.file.sample(index)[1].shape
        return height, width

    def sample_name(self, index: int) -> str:
        return self._dataset.sample_name(index)

    def load_instances(self, index: int) -> np.ndarray | None:
        return self._dataset.load_instances(index)

    def identity(self, index: int) -> str | None:
        return self._dataset.identity(index)


def default_folder() -> Path:
    """`fastseg` in the user's cache folder: $XDG_CACHE_HOME, else ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "fastseg"


def disk_cached(
    dataset: SegDataset, folder: str | os.PathLike[str] | None = None, *, say: Say = print, announce: bool = True
) -> SegDataset:
    """`dataset` read from its cache in `folder` (default: `default_folder()`), which is built first where it is not.

    Of joined data sets each has a file of its own, which others may share. One process builds and the rest wait.
    `say` receives the lines that tell so; without `announce` only those of a process that builds. Raises ConfigError
    for a data set that cannot be cached, OutputError for a disk that is too small or cannot be written, and what a bad
    sample raises.
    """
    if isinstance(dataset, ConcatDataset) and not dataset.origin:
        return ConcatDataset([disk_cached(part, folder, say=say, announce=announce) for part in dataset.parts])
    where = default_folder() if folder is None else Path(folder).expanduser().absolute()
    keys = _keys(dataset)
    path = where / _file_name(dataset, keys)
    file = _matching(path, keys)
    if file is None:
        with _locked(path, say if announce else _silent) as alone:
            file = _matching(path, keys)  # another process may have built it while this one waited
            if file is None:
                _build(dataset, path, keys, say, clean=alone)
                file = _matching(path, keys)
    if file is None:
        raise DataError(f"{printable(path)} was replaced as soon as it was built; give every job its data.cache_dir")
    if announce:
        say(f"cache: reading {number_of(len(dataset), 'sample')} from {printable(path)} ({_amount(file.size)})")
    return DiskCachedDataset(dataset, file)


def find_cache(dataset: SegDataset, folder: str | os.PathLike[str] | None = None) -> SegDataset | None:
    """`dataset` read from its cache where that exists whole and up to date; builds nothing. Raises nothing for none."""
    if isinstance(dataset, ConcatDataset) and not dataset.origin:
        parts = [find_cache(part, folder) for part in dataset.parts]
        found = [part for part in parts if part is not None]
        return ConcatDataset(found) if len(found) == len(parts) else None
    where = default_folder() if folder is None else Path(folder).expanduser().absolute()
    try:
        keys = _keys(dataset)
    except ConfigError:
        return None
    file = _matching(where / _file_name(dataset, keys), keys)
    return None if file is None else DiskCachedDataset(dataset, file)


def _keys(dataset: SegDataset) -> list[bytes]:
    keys = []
    for index in range(len(dataset)):
        identity = dataset.identity(index)
        if identity is None:
            raise ConfigError(
                f"data.cache=disk: samples of {dataset.info.name} have no identity by which a cache on disk could be "
                "told to be up to date; use data.cache=memory or none"
            )
        keys.append(sample_key(identity))
    return keys


def _file_name(dataset: SegDataset, keys: Sequence[bytes]) -> str:
    """One name for a data set and split, whatever becomes of its files, so that a newer cache replaces the older.

    Only the digest at its end differs between roots and arguments.
    """
    origin = dataset.origin.encode(errors="surrogatepass") or b"".join(keys)
    words = dataset.origin.split()[:2] or [dataset.info.name]
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", "-".join(words))[:80]
    return f"{plain}-{hashlib.blake2b(origin, digest_size=DIGEST_BYTES).hexdigest()}.cache"


def _matching(path: Path, keys: Sequence[bytes]) -> CacheFile | None:
    """The cache at `path` if it is whole and holds exactly these samples."""
    file = _opened(path)
    return file if file is not None and file.holds(keys) else None


def _opened(path: Path, say: Say | None = None) -> CacheFile | None:
    """None where there is no whole cache, which will be built; `say` hears why what lies there is none."""
    try:
        return CacheFile(path)
    except FileNotFoundError:
        return None
    except (OSError, DataError) as error:
        if say is not None:
            say(f"cache: {error}; it is built anew")
        return None


def _build(dataset: SegDataset, path: Path, keys: list[bytes], say: Say, *, clean: bool) -> None:
    """Write the cache at `path`, whole or not at all. `clean`: nobody else writes there, so what lies there is dead."""
    before = _opened(path, say)
    known = {} if before is None else {key: index for index, key in enumerate(before.table["key"].tolist())}
    table, size = planned(keys, [dataset.size(index) for index in range(len(dataset))])
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        if clean:
            for dead in path.parent.glob(f".{path.name}.*.tmp"):  # of builds that were killed
                dead.unlink()
        free = shutil.disk_usage(path.parent).free
        if size > free and path.exists():  # the old file is of no use, unless as a source of copies
            path.unlink()
            before, known = None, {}
            free = shutil.disk_usage(path.parent).free
        if size > free:
            raise OutputError(
                f"data.cache=disk: {dataset.info.name} needs {_amount(size)} ({size} bytes) decoded and "
                f"{printable(path.parent)} has {_amount(free)} ({free} bytes) free; {INSTEAD}"
            )
        copied = sum(key in known for key in keys)
        say(
            f"cache: decoding {number_of(len(keys) - copied, 'sample')} of {dataset.info.name} into {printable(path)}: "
            f"{_amount(size)}, {_amount(free)} free there" + (f"; {copied} unchanged and copied" if copied else "")
        )
        began = time.monotonic()
        writer = CacheWriter(temporary, table, size)
        try:
            _fill(writer, dataset, keys, before, known, say)
            writer.finish()
        finally:
            writer.close()
        os.replace(temporary, path)
        say(f"cache: built in {time.monotonic() - began:.1f} s")
        _report_others(path, say)
    except OSError as error:
        raise OutputError(
            f"data.cache=disk: {printable(path)} ({_amount(size)}) cannot be written: {error.strerror}; {INSTEAD}"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # renamed, or never made
            temporary.unlink()


def _report_others(path: Path, say: Say) -> None:
    """Name the caches beside `path` of the same data set and split: nothing but the user removes them."""
    name = re.compile(re.escape(path.stem[: -2 * DIGEST_BYTES]) + f"[0-9a-f]{{{2 * DIGEST_BYTES}}}")
    sizes: dict[str, int] = {}
    for other in sorted(path.parent.glob("*.cache")):
        if other != path and name.fullmatch(other.stem):
            with contextlib.suppress(OSError):  # removed just now
                sizes[other.name] = other.stat().st_size
    if sizes:
        take = f"{'takes' if len(sizes) == 1 else 'take'} {_amount(sum(sizes.values()))}"
        say(
            f"cache: {number_of(len(sizes), 'other cache')} of this data set and split (another data.root or "
            f"data.args) in {printable(path.parent)} {take}; "
            f"delete what no run uses: {shown(list(sizes))}"
        )


def _fill(
    writer: CacheWriter,
    dataset: SegDataset,
    keys: Sequence[bytes],
    before: CacheFile | None,
    known: dict[bytes, int],
    say: Say,
) -> None:
    """Every sample, copied where `known` says where in `before`, else decoded; on all cores."""

    def put(index: int) -> None:
        if before is not None and keys[index] in known:
            writer.put(index, *before.sample(known[keys[index]]))
        else:
            writer.put(index, *dataset.load(index))

    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="cache") as pool:
        futures = [pool.submit(put, index) for index in range(len(keys))]
        try:
            with _progress(len(keys), say) as advance:
                for done, future in enumerate(futures, 1):
                    future.result()
                    advance(done)
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _progress(total: int, say: Say) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line every half minute elsewhere."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, unit="sample", dynamic_ncols=True, leave=False) as bar:
            yield lambda done: bar.update(done - bar.n)
        return
    last = time.monotonic()

    def report(done: int) -> None:
        nonlocal last
        if time.monotonic() - last > REPORT_SECONDS:
            last = time.monotonic()
            say(f"cache: {done} of {total} samples")

    yield report


@contextlib.contextmanager
def _locked(path: Path, say: Say) -> Iterator[bool]:
    """Wait until no other process builds `path`; the kernel unlocks what a dead one held. False where nothing locks.

    Raises OutputError when the folder cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path.with_name(f"{path.name}.lock"), "a+")  # noqa: SIM115 - closed below
    except OSError as error:
        raise OutputError(
            f"data.cache=disk: {printable(path.parent)} cannot be written: {error.strerror}; {INSTEAD}"
        ) from None
    with file:
        waiting = False
        while (locked := try_lock(file)) is False:
            if not waiting:
                say(f"cache: waiting for {holder(file)}, which builds {printable(path)}")
                waiting = True
            time.sleep(0.1)
        sign(file)
        yield bool(locked)  # where nothing locks, each builds its own file, and the last stays


def _amount(size: int) -> str:
    """In the unit that shows it: '41 kB', '3.2 MB', '52.40 GB'."""
    if size < 1e6:
        return f"{size / 1e3:.0f} kB"
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def _silent(_: str) -> None:
    pass
