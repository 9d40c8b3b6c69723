"""Names for builders: kept signatures, refused doubles and swallowed arguments, spelling help."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastseg.errors import ArgumentTypeError, ConfigError, FastsegError, MissingFileError, UnknownNameError, suggest
from fastseg.registry import Registry


@pytest.fixture
def things() -> Registry[str]:
    registry: Registry[str] = Registry("thing")

    @registry.register
    def small_lamp(colour: str, height: int = 3) -> str:
        return f"{colour} {height}"

    @registry.register
    def large_lamp() -> str:
        return "large"

    return registry


def test_the_key_is_the_name_of_the_function_which_comes_back_unchanged(things: Registry[str]) -> None:
    def chair(legs: int) -> str:
        return "chair" * legs

    assert things.register(chair) is chair
    assert things.get("chair") is chair
    assert list(inspect.signature(things.get("chair")).parameters) == list(things.arguments("chair")) == ["legs"]
    assert "chair" in things
    assert len(things) == 3


def test_names_are_sorted_and_match_a_shell_pattern(things: Registry[str]) -> None:
    assert things.names() == ["large_lamp", "small_lamp"]
    assert things.names("small*") == ["small_lamp"]
    assert things.names("[") == []


def test_a_second_builder_of_one_name_is_refused_and_the_first_stays(things: Registry[str]) -> None:
    first = things.get("large_lamp")

    def large_lamp() -> str:
        return "another"

    with pytest.raises(ValueError, match="'large_lamp' is registered already, by"):
        things.register(large_lamp)
    assert things.get("large_lamp") is first


def test_a_builder_that_swallows_arguments_is_refused(things: Registry[str]) -> None:
    def chair(**kwargs: Any) -> str:
        return str(kwargs)

    with pytest.raises(ValueError, match=r"'chair' takes \*\*kwargs"):
        things.register(chair)
    assert "chair" not in things


def test_an_unknown_name_offers_the_nearest(things: Registry[str]) -> None:
    with pytest.raises(UnknownNameError, match="unknown thing 'smal_lamp'; did you mean 'small_lamp'") as caught:
        things.build("smal_lamp")
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, FastsegError)


def test_a_misspelt_argument_offers_the_nearest(things: Registry[str]) -> None:
    with pytest.raises(UnknownNameError, match="'small_lamp' has no argument 'color'; did you mean 'colour'"):
        things.build("small_lamp", color="red")


def test_names_in_another_case_are_near() -> None:
    assert suggest("SMALL_LAMP", ["small_lamp", "large_lamp"]).startswith("did you mean 'small_lamp'")
    assert suggest("psp", ["PSP"]).startswith("did you mean 'PSP'")


def test_an_argument_for_a_builder_without_any_is_told_so(things: Registry[str]) -> None:
    with pytest.raises(UnknownNameError, match=r"'large_lamp' has no argument 'height'; it takes no arguments$"):
        things.build("large_lamp", height=3)


def test_a_missing_argument_is_named(things: Registry[str]) -> None:
    with pytest.raises(UnknownNameError, match=r"small_lamp.*missing a required argument: 'colour'"):
        things.build("small_lamp")


@pytest.mark.parametrize("key", ["name", "self", "args", "kwargs"])
def test_arguments_called_like_those_of_build_are_the_builders(things: Registry[str], key: str) -> None:
    with pytest.raises(UnknownNameError, match=f"has no argument '{key}'"):
        things.build("large_lamp", **{key: 1})


def test_build_calls_the_builder_and_leaves_its_own_errors_alone(things: Registry[str]) -> None:
    assert things.build("small_lamp", "red", height=4) == "red 4"

    @things.register
    def broken() -> str:
        raise TypeError("inside")

    with pytest.raises(TypeError, match=r"^inside$"):
        things.build("broken")


@given(st.text(max_size=12), st.lists(st.text(max_size=12), max_size=20))
def test_suggest_always_ends_a_sentence(name: str, allowed: list[str]) -> None:
    assert suggest(name, allowed)


def test_suggest_lists_everything_only_when_that_is_short() -> None:
    assert suggest("x", []) == "nothing is registered"
    assert suggest("zzz", ["aa", "bb"]) == "allowed: aa, bb"
    many = [f"name{i}" for i in range(30)]
    assert "allowed" not in suggest("name3", many)
    assert "allowed" in suggest("zzz", many)


def test_errors_are_one_family_and_print_as_sentences() -> None:
    assert issubclass(ConfigError, FastsegError)
    error = MissingFileError("labels.png does not exist")
    assert str(error) == "labels.png does not exist"
    assert isinstance(error, FileNotFoundError)
    assert str(MissingFileError()) == ""


def sized(
    count: int,
    ratio: float = 1.0,
    name: str | None = None,
    flag: bool = False,
    sizes: Sequence[int] = (),
    more: Any = None,
) -> object:
    return (count, ratio, name, flag, sizes, more)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": "two"}, "thing 'sized': count is 'two'; it takes int"),
        ({"count": True}, "count is True; it takes int"),
        ({"count": 1.5}, "count is 1.5; it takes int"),
        ({"count": 1, "ratio": "x"}, "ratio is 'x'; it takes float"),
        ({"count": 1, "name": True}, r"name is True; it takes str \| None"),
        ({"count": 1, "name": 3}, r"name is 3; it takes str \| None"),
        ({"count": 1, "flag": 1}, "flag is 1; it takes bool"),
        ({"count": 1, "sizes": 3}, r"sizes is 3; it takes Sequence\[int\]"),
        ({"count": 1, "sizes": "34"}, "sizes is '34'"),
        ({"count": None}, "count is None; it takes int"),
    ],
)
def test_a_typed_registry_refuses_arguments_of_the_wrong_type(arguments: dict[str, Any], message: str) -> None:
    registry: Registry[object] = Registry("thing", typed=True)
    registry.register(sized)
    with pytest.raises(ArgumentTypeError, match=message):
        registry.build("sized", **arguments)


def test_a_typed_registry_takes_what_fits() -> None:
    registry: Registry[object] = Registry("thing", typed=True)
    registry.register(sized)
    arguments = {"count": np.int64(2), "ratio": 1, "name": None, "flag": True, "sizes": [1, 2], "more": object()}
    assert registry.build("sized", **arguments) == tuple(arguments.values())
