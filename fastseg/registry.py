"""Names for builders: the builder function's name is its key, and its signature is kept."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

from fastseg.errors import UnknownNameError, suggest

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class Registry(Generic[T]):
    """A table name -> builder, for one kind of thing (`kind` is the word used in messages)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._builders: dict[str, Callable[..., T]] = {}

    def register(self, builder: Callable[P, R]) -> Callable[P, R]:
        """Add `builder` under its own name and return it unchanged.

        Raises ValueError when the name is taken or when the builder swallows `**kwargs`, since a misspelt
        argument would then build the wrong thing in silence.
        """
        name = builder.__name__
        if name in self._builders:
            raise ValueError(f"{self.kind} {name!r} is registered already, by {self._builders[name].__module__}")
        if any(p.kind is p.VAR_KEYWORD for p in inspect.signature(builder).parameters.values()):
            raise ValueError(f"{self.kind} {name!r} takes **kwargs; name its arguments instead")
        self._builders[name] = builder  # type: ignore[assignment]
        return builder

    def __contains__(self, name: object) -> bool:
        return name in self._builders

    def __len__(self) -> int:
        return len(self._builders)

    def names(self, pattern: str = "*") -> list[str]:
        """Registered names that match a shell pattern, sorted."""
        return sorted(name for name in self._builders if fnmatch.fnmatchcase(name, pattern))

    def get(self, name: str) -> Callable[..., T]:
        """The builder called `name`. Raises UnknownNameError (a ValueError) with the nearest spellings."""
        if name not in self._builders:
            raise UnknownNameError(f"unknown {self.kind} {name!r}; {suggest(name, self._builders)}")
        return self._builders[name]

    def arguments(self, name: str) -> dict[str, inspect.Parameter]:
        """Parameters of the builder called `name`, by name."""
        return dict(inspect.signature(self.get(name)).parameters)

    def build(self, name: str, /, *args: object, **kwargs: object) -> T:
        """Call the builder called `name`.

        Raises UnknownNameError for a name or an argument that does not exist, or a required one that is missing.
        """
        builder = self.get(name)
        parameters = self.arguments(name)
        for key in kwargs:
            if key not in parameters:
                raise UnknownNameError(f"{self.kind} {name!r} has no argument {key!r}; {suggest(key, parameters)}")
        try:
            inspect.signature(builder).bind(*args, **kwargs)
        except TypeError as error:
            raise UnknownNameError(f"{self.kind} {name!r}: {error}; it takes {inspect.signature(builder)}") from None
        return builder(*args, **kwargs)
