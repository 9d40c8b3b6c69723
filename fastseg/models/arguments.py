"""Arguments of builders that are out of their range."""

from __future__ import annotations


def require_at_least(minimum: int, **values: int) -> None:
    """Raise ValueError for the first of the named `values` below `minimum`."""
    for name, value in values.items():
        if value < minimum:
            raise ValueError(f"{name} is {value}; give {minimum} or more")


def require_fraction(**values: float) -> None:
    """Raise ValueError for the first of the named `values` that is not in 0 to 1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; give 0 to 1")
