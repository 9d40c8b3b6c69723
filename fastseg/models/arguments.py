"""Arguments of builders that are out of their range."""

from __future__ import annotations


def require_at_least(minimum: int, **values: int) -> None:
    """Raise ValueError for the first of the named `values` below `minimum`."""
    for name, value in values.items():
        if value < minimum:
            raise ValueError(f"{name} is {value}; give {minimum} or more")
