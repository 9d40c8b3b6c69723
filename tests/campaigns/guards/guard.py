"""A protection, and how it is taken away."""

from __future__ import annotations

from typing import NamedTuple


class Guard(NamedTuple):
    """`code`, which stands once in `file`, is replaced by `instead`; then one of `tests` has to fail."""

    name: str
    file: str
    code: str
    instead: str
    tests: tuple[str, ...]
