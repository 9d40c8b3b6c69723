"""Prediction of files and folders: finding the images, mirroring their tree, one bad file not stopping the rest."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastseg.atomic import remove_abandoned, write_atomically
from fastseg.data.readers import MAX_PIXELS, image_from
from fastseg.errors import FastsegError, OutputError, printable
from fastseg.inputs import find_inputs, refuse_rereading
from fastseg.journal import Journal
from fastseg.output import Prediction, check_kinds, check_target
from fastseg.pipeline import overlap
from fastseg.predict import Predictor, check_batch_size

FAILURES = "failures.json"
ASKED_FOR = ("edges", "confidence")  # kinds of output that a predictor has to be asked for


@dataclass
class Summary:
    """How a run over files went: inputs done, those of them that an earlier run had finished, (input, reason) that
    failed, files written, seconds taken."""

    done: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 when every file is done, otherwise 1."""
        return 1 if self.failed else 0

    def text(self, most: int = 20) -> str:
        """'997 ok, 3 failed', then the first `most` reasons, one per line."""
        earlier = f" ({len(self.skipped)} of them before)" if self.skipped else ""
        lines = [f"{len(self.done)} ok{earlier}, {len(self.failed)} failed"]
        for file, reason in self.failed[:most]:
            name = printable(file)
            lines.append(f"  {reason}" if name in reason else f"  {name}: {reason}")
        if len(self.failed) > most:
            lines.append(f"  and {len(self.failed) - most} more, listed in {FAILURES}")
        return "\n".join(lines)


@dataclass
class _Job:
    """One image, the file of each kind of result, and those that are written."""

    file: Path
    targets: dict[str, Path]
    written: list[Path] = field(default_factory=list)
    replaces: bool = False  # what an interrupted run has left


def predict_files(
    predictor: Predictor | Callable[..., Prediction],
    inputs: Sequence[str | Path],
    out_dir: str | Path,
    *,
    kinds: Sequence[str] = ("overlay",),
    overwrite: bool = False,
    resume: bool = False,
    official: bool = False,
    max_pixels: int = MAX_PIXELS,
    batch_size: int = 1,
    on_progress: Callable[[int, int, Path], None] | None = None,
) -> Summary:
    """Predict files, folders (with their subfolders) and glob patterns into `out_dir`, which mirrors their tree.

    `photos/a/b.jpg` of the folder `photos` becomes `out_dir/a/b_overlay.png` (`_color.png`, `_ids.png`, `_edges.png`,
    `_confidence.png`: see `Prediction.save` for `kinds` and `official`). Nothing is written outside `out_dir`. A file
    that cannot be read, or whose result exists already (without `overwrite`), is listed as failed and the rest goes on;
    such a run leaves `out_dir/failures.json`, which a run without failures removes. After each file, in order,
    `on_progress(finished, total, file)` is called.

    Images are decoded and results encoded by threads while the network runs; of a Predictor up to `batch_size`
    neighbours of one size run together. What is no Predictor is called with a path and `max_pixels`, and with
    `edges=True` and `confidence=True` where they are among the kinds. An interrupt leaves whole files only.

    A journal in `out_dir` says what is finished. With `resume`, images whose results the journal has, and which are as
    they were, are left out; what an earlier run had begun is made anew, and the folder ends as if it had never been
    interrupted. Other files are as safe as without.

    Raises MissingFileError and DataError when there is nothing to do, OutputError for an `out_dir` whose results would
    be inputs of the next run, ConfigError for unknown kinds, a `batch_size` below 1, what a Predictor does not give,
    and `resume` of results that were made with other weights or options.
    """
    started = time.perf_counter()
    check_kinds(kinds)
    check_batch_size(batch_size)
    asked = {kind: True for kind in ASKED_FOR if kind in kinds}
    if isinstance(predictor, Predictor):
        predictor.check(**asked)  # one message before the first image, instead of one per image
    out_dir = Path(out_dir)
    found = find_inputs(inputs, skip=out_dir)
    refuse_rereading(inputs, [stem for _, stem in found], kinds, out_dir)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"the output folder {printable(out_dir)} cannot be made: {error}; choose another") from error
    journal = Journal(out_dir, _settings(predictor, kinds, official), resume=resume)
    all_jobs = [
        _Job(file, {kind: out_dir / stem.with_name(f"{stem.name}_{kind}.png") for kind in kinds})
        for file, stem in found
    ]
    summary, jobs = Summary(), []
    with contextlib.ExitStack() as on_error:
        on_error.callback(journal.close)
        for job in all_jobs:
            if resume and journal.is_finished(job.file, job.targets.values()):
                summary.skipped.append(job.file)
            else:
                job.replaces = overwrite or journal.was_begun(job.file)
                jobs.append(job)
        remove_abandoned(target for job in jobs for target in job.targets.values())  # the journal is ours alone
        on_error.pop_all()
    summary.done += summary.skipped

    def read(job: _Job) -> np.ndarray | None:
        for target in job.targets.values():  # before the network's work
            _check_inside(target, out_dir)
            check_target(target, overwrite=job.replaces)
        journal.begin(job.file)
        return image_from(job.file, max_pixels=max_pixels) if isinstance(predictor, Predictor) else None

    def predict(batch: Sequence[_Job], images: Sequence[np.ndarray | None]) -> Sequence[Prediction]:
        if isinstance(predictor, Predictor):
            known = [image for image in images if image is not None]
            return predictor.predict_images(known, [printable(job.file) for job in batch], **asked)
        return [predictor(job.file, max_pixels=max_pixels, **asked) for job in batch]

    def save(job: _Job, prediction: Prediction) -> None:
        for kind, target in job.targets.items():
            job.written.append(prediction.save(target, kind, overwrite=job.replaces, official=official))
        journal.finish(job.file, job.written)

    outcomes = overlap(
        jobs, read, predict, save, batch_size=batch_size, alike=lambda image: None if image is None else image.shape
    )
    with closing(journal), closing(outcomes):
        for finished, (job, outcome) in enumerate(outcomes, start=1 + len(summary.skipped)):
            try:
                outcome.result()
                summary.done.append(job.file)
            except FastsegError as error:
                summary.failed.append((job.file, str(error)))
            except MemoryError:
                summary.failed.append((job.file, "not enough memory for an image of this size; make it smaller"))
            summary.written.extend(job.written)
            if on_progress is not None:
                on_progress(finished, len(all_jobs), job.file)
    summary.seconds = time.perf_counter() - started
    _record_failures(out_dir / FAILURES, summary)
    return summary


def _settings(predictor: object, kinds: Sequence[str], official: bool) -> dict[str, Any]:
    """What results depend on besides their images."""
    settings: dict[str, Any] = {"save": sorted(kinds), "official": official}
    if isinstance(predictor, Predictor):
        info = predictor.model.weights_info
        settings |= {"weights": None if info is None else info.sha256, "precision": predictor.precision}
        settings |= {"scales": list(predictor.scales), "flip": predictor.flip}
    return settings


def _check_inside(target: Path, out_dir: Path) -> None:
    """Raises OutputError when a link in the output folder would carry `target` out of it."""
    try:
        inside = target.parent.resolve().is_relative_to(out_dir.resolve())
    except (OSError, RuntimeError):  # a loop of links
        inside = False
    if not inside:
        raise OutputError(
            f"{printable(target)} leads out of the output folder {printable(out_dir)} through a link; remove the link"
        )


def _record_failures(path: Path, summary: Summary) -> None:
    """Leave the list of failures, or take away that of an earlier run; a file of another kind is never touched."""
    with contextlib.suppress(OSError, ValueError):
        earlier = json.loads(path.read_bytes())
        if not isinstance(earlier, dict) or earlier.keys() != {"failed"}:
            return
    if not summary.failed:
        with contextlib.suppress(OSError):
            path.unlink()
        return
    rows = [{"file": str(file), "error": reason} for file, reason in summary.failed]
    try:
        write_atomically(path, json.dumps({"failed": rows}, indent=1).encode("ascii"))
    except OutputError as error:  # the run is over and its results stand
        summary.failed.append((path, str(error)))
