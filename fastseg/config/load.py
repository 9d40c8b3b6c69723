"""Reading a configuration: a file and `key=value` overrides through OmegaConf's structured configs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fastseg.config.schema import Config, DataPart
from fastseg.config.values import check_values
from fastseg.errors import ConfigError, MissingFileError, suggest

# what a value's conversion to its key's type raises, besides OmegaConf's own errors
_CONVERSION_ERRORS = (TypeError, ValueError, ArithmeticError, RecursionError)

# where many look for the length of a run first
_LENGTHS = {"train.epochs": "schedule.epochs", "train.iterations": "schedule.iterations"}


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """The configuration in the YAML file `path` (defaults without one), changed by `section.key=value` overrides.

    An override of schedule.epochs, also as train.epochs, replaces the file's schedule.iterations. An override by an
    empty table or null, such as loss.terms={}, empties a free table; other tables are laid over the file's.
    data.extra.0.root, also data.extra[0].root, changes one key of a part that is there. Raises
    MissingFileError for the file, and ConfigError naming file, key and the nearest right spelling for unknown or
    repeated keys, wrong types and impossible values.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    merged = OmegaConf.structured(Config)
    if path is not None:
        path = Path(path)
        if not path.is_file():
            nearby = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
            hint = f"; that folder has: {', '.join(nearby[:8])}" if nearby else ""
            raise MissingFileError(f"configuration {path} does not exist{hint}")
        try:
            loaded = OmegaConf.load(path)
        except Exception as error:  # YAML's tags (!!int, !!bool, ...) let through whatever their conversion raises
            raise ConfigError(f"{path} cannot be read as YAML: {_first_line(error)}") from None
        if not OmegaConf.is_dict(loaded):
            raise ConfigError(f"{path}: a configuration is a table of sections; allowed: {_names(Config)}")
        merged = _merge(merged, loaded, str(path))
    for override in overrides:
        key, equals, value = override.partition("=")
        if key in _LENGTHS:
            key = _LENGTHS[key]
            override = f"{key}={value}"
        if re.match(r"data\.extra\[\d+\]", key):
            key = re.sub(r"\[(\d+)\]", r".\1", key, count=1)
            override = f"{key}={value}"
        if key == "schedule.epochs":  # the length that is said last counts
            merged.schedule.iterations = None
        if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
            raise ConfigError(f"override {override!r} is not of the form section.key=value, such as optim.lr=0.01")
        try:
            parsed = OmegaConf.from_dotlist([override])
        except Exception as error:  # as above
            raise ConfigError(f"override {override!r} cannot be read as YAML: {_first_line(error)}") from None
        merged = _merge(merged, parsed, f"override {override!r}", is_override=True)
    where = " with ".join(part for part in (str(path or ""), " ".join(overrides)) if part) or "configuration"
    try:
        config = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, *_CONVERSION_ERRORS) as error:
        raise ConfigError(f"{where}: {_describe(error)}") from None
    assert isinstance(config, Config)
    if path is not None:
        config.source = str(path)
    check_values(config, where)
    return config


def dump_config(config: Config) -> str:
    """The whole configuration as YAML that `load_config` reads back."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(config))


def config_differences(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys whose values differ between two configurations given as nested tables."""
    keys: list[str] = []
    for key in sorted(one.keys() | other.keys(), key=str):  # values of labels may be keys, as numbers or quoted
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            keys += config_differences(a, b, f"{prefix}{key}.")
        elif a != b and _plain(a) != _plain(b):
            keys.append(f"{prefix}{key}")
    return keys


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _names(schema: type) -> str:
    return ", ".join(f.name for f in fields(schema))


def _merge(base: Any, new: Any, where: str, *, is_override: bool = False) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        table: Any = OmegaConf.to_container(new)
        data = table.get("data")
        if isinstance(data, dict) and isinstance(data.get("cache"), bool):  # as older configurations have it
            new["data"]["cache"] = data["cache"] = "memory" if data["cache"] else "none"
        _check_keys(table, Config, "", where)
        if isinstance(data, dict) and isinstance(data.get("extra"), dict):
            data["extra"] = _changed_parts(base["data"]["extra"], data["extra"], where)
        if is_override:
            _empty_tables(base, table, Config)
            new = OmegaConf.create(table)
        return OmegaConf.merge(base, new)
    except ConfigError:
        raise
    except (OmegaConfBaseException, *_CONVERSION_ERRORS) as error:
        raise ConfigError(f"{where}: {_describe(error)}") from None


def _check_keys(table: Any, schema: type, prefix: str, where: str) -> None:
    """Raise for the first key of `table` that the dataclass `schema` does not have."""
    hints = get_type_hints(schema)
    for key, value in table.items():
        if key not in hints:
            elsewhere = _sections_with(str(key))
            moved = f"; it belongs under {' or '.join(elsewhere)}" if elsewhere else ""
            raise ConfigError(f"{where}: unknown key {prefix}{key}; {suggest(str(key), hints)}{moved}")
        if is_dataclass(hints[key]):
            if not isinstance(value, dict):
                names = _names(hints[key])
                raise ConfigError(f"{where}: {prefix}{key} is a section, not the value {value!r}; it has: {names}")
            _check_keys(value, hints[key], f"{prefix}{key}.", where)
        elif get_origin(hints[key]) is tuple:
            _check_tuple(value, hints[key], f"{prefix}{key}", where)
        elif get_origin(hints[key]) is list:
            _check_parts(value, get_args(hints[key])[0], f"{prefix}{key}", where)


def _check_parts(parts: Any, schema: type, key: str, where: str) -> None:
    """`_check_keys` for a list of sections, or a table of some of them by their numbers, and their values' types."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    numbered = isinstance(parts, dict) and parts and all(str(number).isdecimal() for number in parts)
    if not numbered and not isinstance(parts, list):
        raise ConfigError(f"{where}: {key} is {parts!r}; it takes a list of sections with: {_names(schema)}")
    for number, part in parts.items() if isinstance(parts, dict) else enumerate(parts):
        if not isinstance(part, dict):
            raise ConfigError(
                f"{where}: {key}[{number}] is a section, not the value {part!r}; it has: {_names(schema)}"
            )
        _check_keys(part, schema, f"{key}[{number}].", where)
        try:
            OmegaConf.merge(OmegaConf.structured(schema), part)
        except (OmegaConfBaseException, *_CONVERSION_ERRORS) as error:  # within the list it would not name the part
            raise ConfigError(f"{where}: {key}[{number}].{_describe(error)}") from None


def _changed_parts(parts: Any, changes: dict[Any, dict[str, Any]], where: str) -> list[Any]:
    """All of data.extra as plain tables, with `changes` laid over the parts that they number."""
    from omegaconf import OmegaConf

    there = len(parts)
    for number, change in changes.items():
        if int(number) >= there:
            raise ConfigError(
                f"{where}: there is no data.extra[{number}]; data.extra has {there} part{'' if there == 1 else 's'}"
                f"{f', of which the last is data.extra[{there - 1}]' if there > 1 else ''}; new ones are added in the "
                f"file, or all are given at once: 'data.extra=[{{name: ..., root: ...}}]'"
            )
        _empty_tables(parts[int(number)], change, DataPart)
        parts[int(number)] = OmegaConf.merge(parts[int(number)], change)
    return [OmegaConf.to_container(part) for part in parts]


def _empty_tables(base: Any, table: dict[Any, Any], schema: Any) -> None:
    """Empty the free tables of `base` for which `table` has {} or null, which a merge ignores or refuses."""
    hints = get_type_hints(schema) if is_dataclass(schema) else dict.fromkeys(table, get_args(schema)[1])
    for key, value in table.items():
        if is_dataclass(hints[key]):
            _empty_tables(base[key], value, hints[key])
        elif get_origin(hints[key]) is dict:
            if value is None or value == {}:
                base[key] = table[key] = {}
            elif isinstance(value, dict) and key in base:
                _empty_tables(base[key], value, hints[key])


def _check_tuple(value: Any, hint: Any, key: str, where: str) -> None:
    """Raise unless `value` holds as many numbers as the type, which OmegaConf would say without naming the key."""
    kinds = get_args(hint)
    accepted = (int, float) if float in kinds else (int,)

    def fits(item: Any) -> bool:
        interpolated = isinstance(item, str) and "${" in item  # its value is known when everything is merged
        return interpolated or (isinstance(item, accepted) and not isinstance(item, bool))

    if isinstance(value, str) and fits(value):
        return
    if not isinstance(value, list) or len(value) != len(kinds) or not all(map(fits, value)):
        whole = "whole " if float not in kinds else ""
        raise ConfigError(f"{where}: {key} is {value!r}; it takes {len(kinds)} {whole}numbers")


def _sections_with(key: str) -> list[str]:
    hints = get_type_hints(Config)
    return [f"{name}.{key}" for name, kind in hints.items() if is_dataclass(kind) and key in get_type_hints(kind)]


def _type_hint(key: str) -> str:
    schema: Any = Config
    for part in key.split("."):
        hints = get_type_hints(schema) if is_dataclass(schema) else {}
        schema = hints.get(re.sub(r"\[.*", "", part))
        if schema is None:
            return ""
    allowed = get_args(schema) if getattr(schema, "__origin__", None) is Literal else None
    if allowed:
        return f"; allowed: {', '.join(map(str, allowed))}"
    return f"; expected {getattr(schema, '__name__', schema) if isinstance(schema, type) else schema}"


def _describe(error: BaseException) -> str:
    """What OmegaConf found wrong, after the key where it knows it, and what the key takes."""
    key = getattr(error, "full_key", None) or ""
    found, allowed = _first_line(error), _type_hint(key)
    if found.startswith("Incompatible value 'None'"):
        found = "it has no value"
    if allowed.startswith("; allowed"):
        found = found.partition(", expected one of")[0]  # which says the same
    return f"{key + ': ' if key else ''}{found}{allowed}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = lines or [type(error).__name__]
    return " ".join(lines[:1]) if not hasattr(error, "problem_mark") else " ".join(lines)
