"""What a run over files has finished, so that one that was interrupted goes on where it stopped."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fastseg.errors import ConfigError, OutputError, printable
from fastseg.locks import try_lock
from fastseg.output import check_target
from fastseg.weights.files import file_sha256

JOURNAL = ".fastseg_predict.jsonl"
BEGIN = b'{"settings": '


class Journal:
    """A file beside the results: how they are made, and a line when an image is begun and when it is finished.

    Lines are only appended; one that was cut off by a kill does not count. Safe to use from several threads. With
    `resume` the earlier run's lines count, unless it made results otherwise: ConfigError names what differs. Raises
    OutputError where the folder takes no file, and while another run writes to it.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, resume: bool = False) -> None:
        self._path = folder / JOURNAL
        self._lock = threading.Lock()
        self._begun: set[str] = set()
        self._finished: dict[str, dict[str, Any]] = {}
        own = json.loads(json.dumps(settings))  # tuples become lists, as they are read back
        self._check_it_is_ours()
        try:
            self._file = open(self._path, "ab")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self._begin(own, resume=resume)
        except BaseException:
            self._file.close()
            raise

    def _begin(self, settings: dict[str, Any], *, resume: bool) -> None:
        if try_lock(self._file) is False:
            raise OutputError(
                f"another run is writing to {printable(self._path.parent)}; wait for it, or choose another --out"
            )
        earlier = self._earlier()
        if resume and earlier:
            self._refuse_changes(earlier[0]["settings"], settings)
            self._take(earlier[1:])
        if earlier and earlier[0]["settings"] == settings:
            self._write(b"\n")  # the last line may have been cut off
        else:
            self._file.truncate(0)
            self._add({"settings": settings})

    def is_finished(self, file: Path, targets: Iterable[Path]) -> bool:
        """Whether the earlier run made these results of the file as it is now, and they are as it left them."""
        line = self._finished.get(os.fspath(file))
        if line is None or line["image"] != _identity(file):
            return False
        return line["results"] == {os.fspath(target.name): digest(target) for target in targets}

    def was_begun(self, file: Path) -> bool:
        """Whether the earlier run may have written results of the file: nobody else's are ever replaced."""
        return os.fspath(file) in self._begun

    def begin(self, file: Path) -> None:
        """Results of the file will be written from now on."""
        self._add({"begun": os.fspath(file)})

    def finish(self, file: Path, targets: Iterable[Path]) -> None:
        """These results of the file are whole."""
        results = {os.fspath(target.name): digest(target) for target in targets}
        self._add({"finished": os.fspath(file), "image": _identity(file), "results": results})

    def close(self) -> None:
        self._file.close()

    def _add(self, line: dict[str, Any]) -> None:
        self._write(json.dumps(line).encode("ascii") + b"\n")

    def _write(self, line: bytes) -> None:
        with self._lock:
            try:
                self._file.write(line)
                self._file.flush()
            except OSError as error:
                raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(
            f"{printable(self._path)} cannot be written: {error.strerror}; free space, or choose another --out"
        )

    def _check_it_is_ours(self) -> None:
        """Nothing is written through a link out of the folder, or over what somebody else keeps under this name."""
        check_target(self._path, overwrite=True)
        with contextlib.suppress(OSError):
            begin = self._path.read_bytes()[: len(BEGIN)]
            if not BEGIN.startswith(begin):
                raise OutputError(
                    f"{printable(self._path)} is no journal of fastseg's; move it, or choose another --out"
                )

    def _earlier(self) -> list[dict[str, Any]]:
        """The lines that can be read; none without settings in the first."""
        try:
            content = self._path.read_bytes()
        except OSError:
            return []
        lines = []
        for text in content.splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict):
                lines.append(line)
        return lines if lines and isinstance(lines[0].get("settings"), dict) else []

    def _refuse_changes(self, earlier: dict[str, Any], settings: dict[str, Any]) -> None:
        changed = [key for key in {**earlier, **settings} if earlier.get(key) != settings.get(key)]
        if changed:
            parts = ", ".join(f"{key} (then {earlier.get(key)!r}, now {settings.get(key)!r})" for key in changed)
            raise ConfigError(
                f"the results in {printable(self._path.parent)} were made otherwise: {parts}; set it back, replace "
                "them with --overwrite, or choose another --out"
            )

    def _take(self, lines: Iterable[dict[str, Any]]) -> None:
        for line in lines:
            if isinstance(line.get("begun"), str):
                self._begun.add(line["begun"])
            if isinstance(line.get("finished"), str) and {"image", "results"} <= line.keys():
                self._finished[line["finished"]] = line


def digest(path: Path) -> str | None:
    """SHA-256 of a file, or None where none can be read."""
    with contextlib.suppress(OSError):
        return file_sha256(path)
    return None


def _identity(file: Path) -> list[int] | None:
    """Size and time of change, by which a file that was exchanged is known."""
    try:
        status = file.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
