"""What stands in Cityscapes' label files: official ids or train ids. The pixels say so, whatever the files are called.

Files of 0-18 alone fit both; values of 19-33 are official ids only, and 255 is the void of train ids only. Wrong either
way, a network learns nonsense without an error.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np

from fastseg.data.notes import say_once
from fastseg.data.readers import read_label
from fastseg.errors import LabelError, printable
from fastseg.types import IGNORE_INDEX, DataFile

PROOFS = {"labelIds": range(19, 34), "labelTrainIds": (IGNORE_INDEX,)}  # the values that one kind only has
FEW = 4  # files that are looked at in any case: nearly every one decides


def kind_of(labels: Sequence[DataFile], asked: str, *, what: str) -> str:
    """'labelIds' or 'labelTrainIds': what `asked` says, or where that is 'auto', what the files hold.

    Looks at a few files, evenly spaced, and with 'auto' at more of them while none decides; then their names do. Says
    the outcome of 'auto' in one line, which begins with `what`.

    Raises LabelError, naming the files, when they hold both kinds, another one than `asked`, or nothing that decides.
    """
    found: dict[str, tuple[DataFile, int]] = {}  # kind -> file and value that prove it
    for count, place in enumerate(spread(len(labels), FEW)):
        if count >= FEW and (found or asked != "auto"):
            break
        for kind, value in proofs(read_label(labels[place])).items():
            found.setdefault(kind, (labels[place], value))
    if asked != "auto":
        for kind, (file, value) in found.items():
            if kind != asked:
                raise LabelError(
                    f"{printable(file)} has the value {value}, which {kind} files have and {asked} files never do, but "
                    f"data.args.labels={asked}; set data.args.labels={kind}, or auto"
                )
        return asked
    if len(found) > 1:
        (first, one), (second, other) = found.values()
        if first is second:
            raise LabelError(
                f"{what}: {printable(first)} holds a number of labelIds only (value {one}) and one of labelTrainIds "
                f"only (value {other}); make the file again"
            )
        one_kind, other_kind = found
        raise LabelError(
            f"{what} mixes two kinds of label files: {printable(first)} is {one_kind} (value {one}), but "
            f"{printable(second)} is {other_kind} (value {other}); make them all of one kind"
        )
    if found:
        ((kind, (file, value)),) = found.items()
        say_once(f"{what}: labels are {kind} (value {value} in {printable(file)})", level=logging.WARNING)
        return kind
    named = {kind for file in labels for kind in PROOFS if file.name.endswith(f"_{kind}.png")}
    if len(named) != 1 or not all(file.name.endswith(f"_{kind}.png") for kind in named for file in labels):
        raise LabelError(
            f"{what}: none of the {len(labels)} label files has a value that tells labelIds (19-33) from "
            f"labelTrainIds (255), and neither do their names, such as {printable(labels[0])}; set "
            "data.args.labels=labelIds or data.args.labels=labelTrainIds"
        )
    (kind,) = named
    proof = f"by the names of the files: none of {len(labels)} has a value of 19-33 or 255"
    say_once(f"{what}: labels are {kind} ({proof})", level=logging.WARNING)
    return kind


def proofs(raw: np.ndarray) -> dict[str, int]:
    """The kinds that the numbers uint8 (H,W) prove, each with the smallest value that does."""
    present = np.flatnonzero(np.bincount(raw.ravel(), minlength=256)).tolist()
    return {kind: min(own) for kind, values in PROOFS.items() if (own := [v for v in present if v in values])}


def spread(count: int, few: int) -> Iterator[int]:
    """0..count-1: first `few` of them, evenly spaced from the first to the last, then the others in order."""
    chosen = list(dict.fromkeys(np.linspace(0, count - 1, few).round().astype(int).tolist())) if count else []
    yield from chosen
    yield from (place for place in range(count) if place not in chosen)
