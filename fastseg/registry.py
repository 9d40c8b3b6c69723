"""Names for builders: the builder function's name is its key, and its signature is kept."""

from __future__ import annotations

import fnmatch
import inspect
import numbers
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Generic, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from fastseg.errors import ArgumentTypeError, UnknownNameError, suggest

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class Registry(Generic[T]):
    """A table name -> builder, for one kind of thing (`kind` is the word used in messages).

    With `typed`, `build` compares named arguments with the builder's annotations where these are plain.
    """

    def __init__(self, kind: str, *, typed: bool = False) -> None:
        self.kind = kind
        self.typed = typed
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

        Raises UnknownNameError for a name or an argument that does not exist, or a required one that is missing, and
        ArgumentTypeError for a named argument of the wrong type in a `typed` registry.
        """
        builder = self.get(name)
        parameters = self.arguments(name)
        for key in kwargs:
            if key not in parameters:
                allowed = suggest(key, parameters) if parameters else "it takes no arguments"
                raise UnknownNameError(f"{self.kind} {name!r} has no argument {key!r}; {allowed}")
        if self.typed:
            for key, hint in _hints(builder).items():
                if key in kwargs and not _fits(kwargs[key], hint):
                    kinds = parameters[key].annotation
                    raise ArgumentTypeError(f"{self.kind} {name!r}: {key} is {kwargs[key]!r}; it takes {kinds}")
        try:
            inspect.signature(builder).bind(*args, **kwargs)
        except TypeError as error:
            takes = ", ".join(_described(each) for each in parameters.values())
            raise UnknownNameError(f"{self.kind} {name!r}: {error}; it takes {takes or 'no arguments'}") from None
        return builder(*args, **kwargs)


def _described(parameter: inspect.Parameter) -> str:
    """'root' for what has to be given, 'val_share (0.0)' for what has a default."""
    has_default = parameter.default is not inspect.Parameter.empty
    return f"{parameter.name} ({parameter.default!r})" if has_default else parameter.name


def _hints(builder: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(builder)
    except NameError:  # annotations that only a type checker can resolve
        return {}


def _fits(value: object, hint: Any) -> bool:
    """Whether `value` may stand where `hint` is; True for hints that are not plain. A whole number is a float, too."""
    if isinstance(hint, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    kind = get_origin(hint) or hint
    if isinstance(value, bool):
        return kind not in (int, float, str, NoneType, Mapping, Sequence)
    if kind is Sequence:
        return isinstance(value, Sequence) and not isinstance(value, str)
    plain = {int: numbers.Integral, float: numbers.Real, bool: bool, str: str, NoneType: NoneType, Mapping: Mapping}
    return kind not in plain or isinstance(value, plain[kind])
