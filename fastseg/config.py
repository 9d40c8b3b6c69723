"""The configuration of a training run: defaults are these dataclasses, a YAML file says what differs.

`load_config` reads a file and `key=value` overrides through OmegaConf's structured configs and adds the file's name to
every complaint. Arguments of models, data sets and losses, and the names of auxiliary outputs, are checked against
their builders by `engine.build`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fastseg.errors import ConfigError, MissingFileError, suggest
from fastseg.types import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

# what a value's conversion to its key's type raises, besides OmegaConf's own errors
_CONVERSION_ERRORS = (TypeError, ValueError, ArithmeticError, RecursionError)

# where many look for the length of a run first
_LENGTHS = {"train.epochs": "schedule.epochs", "train.iterations": "schedule.iterations"}


@dataclass
class ModelConfig:
    """`num_classes` comes from the data set; `args` are the builder's other arguments."""

    name: str = "fast_scnn"
    args: dict[str, Any] = field(default_factory=dict)


@dataclass
class DataPart:
    """Another data set to train on, whose classes are those of the first; each epoch shows it `repeat` times."""

    name: str = ""
    root: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    split: str = "train"
    repeat: int = 1


@dataclass
class DataConfig:
    """`root` is the data set's folder; splits may be joined by '+'.

    An epoch shows the training split `repeat` times, and every part of `extra` as often as it says. `class_uniform` is
    the share of crops that are drawn to show a class chosen uniformly. `cache` keeps decoded images: 'memory' in each
    process (also true, the older spelling; false is 'none'), 'disk' in one file in `cache_dir` that all processes map
    (default: the user's cache folder).
    """

    name: str = "road_scenes"
    root: str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    train_split: str = "train"
    val_split: str = "val"
    repeat: int = 1
    extra: list[DataPart] = field(default_factory=list)
    class_uniform: float = 0.0
    workers: int = 2
    cache: Literal["none", "memory", "disk"] = "none"
    cache_dir: str | None = None


@dataclass
class InputConfig:
    """What the network sees. `scale` enlarges the image before the network, in training and ever after."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    channel_order: Literal["rgb", "bgr"] = "rgb"
    scale: float = 1.0


@dataclass
class AugmentConfig:
    """`crop` is (height, width) of the network input; `scale` is a range relative to `input.scale`, drawn
    log-uniformly; `aspect` 0.1 stretches width against height by up to 10 %. Colour strengths are fractions. A crop in
    which one class has more than `cat_max_ratio` of the labelled pixels is drawn again, up to ten times in all."""

    crop: tuple[int, int] = (512, 1024)
    cat_max_ratio: float = 1.0
    scale: tuple[float, float] = (0.5, 2.0)
    aspect: float = 0.0
    rotate: float = 0.0
    flip: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.02
    blur: float = 0.0


@dataclass
class OptimConfig:
    """The head multipliers apply to every parameter outside the model's `backbone`: 10 has the rest learn ten times as
    fast as a backbone that starts from ImageNet's weights. `adam` adds the decay to gradients, `adamw` to weights."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 4e-5
    head_lr_multiplier: float = 1.0
    head_decay_multiplier: float = 1.0


@dataclass
class ScheduleConfig:
    """Length in `epochs`, or in `iterations` when that is set. `warmup` counts iterations. 'step' cuts the run into
    `steps` equal parts and multiplies the rate by `step_factor` from each to the next."""

    name: Literal["poly", "cosine", "step"] = "poly"
    epochs: float = 100.0
    iterations: int | None = None
    power: float = 0.9
    steps: int = 3
    step_factor: float = 0.5
    warmup: int = 0
    warmup_factor: float = 0.1
    final_factor: float = 0.0


@dataclass
class LossConfig:
    """`class_weights` from the training labels: 'enet' is 1/ln(1.02+p), 'espnet' 1/ln(1.1+p), 'median' is median(p)/p
    over images. `aux` has the weights of auxiliary outputs, by name; they share the main loss, or have the one that
    the network or `aux_losses` names, with the arguments in `aux_args`. Auxiliary losses compare with every
    `aux_stride`-th label. `terms` has the weights of further losses of the whole output, `term_args` their
    arguments."""

    name: str = "cross_entropy"
    args: dict[str, Any] = field(default_factory=dict)
    class_weights: Literal["none", "enet", "espnet", "median"] = "none"
    aux: dict[str, float] = field(default_factory=dict)
    aux_losses: dict[str, str] = field(default_factory=dict)
    aux_args: dict[str, dict[str, Any]] = field(default_factory=dict)
    aux_stride: int = 1
    terms: dict[str, float] = field(default_factory=dict)
    term_args: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class TrainConfig:
    """`total_batch` counts images per optimiser step over all processes and accumulation steps."""

    total_batch: int = 8
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    ema_decay: float = 0.0
    clip_grad_norm: float = 0.0
    norm: Literal["bn", "sync", "gloo", "apex", "auto"] = "auto"
    device: str = "auto"
    seed: int = 0
    deterministic: bool = False
    eval_every: float = 10.0
    checkpoint_every: int = 500
    log_every: int = 20


@dataclass
class Config:
    """A whole run. `run_dir` receives checkpoints, logs and the resolved configuration; `source` is set on loading.

    `init_from` names weights to begin with (published weights of the network, or a weights file, checkpoint or run
    folder); where their classes are others, the layers that depend on the classes begin anew.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    input: InputConfig = field(default_factory=InputConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    init_from: str | None = None
    run_dir: str = "runs/unnamed"
    source: str = "command line"

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(self.input.mean, self.input.std, self.input.channel_order, self.input.scale)


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
    _check_values(config, where)
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
    if allowed.startswith("; allowed"):
        found = found.partition(", expected one of")[0]  # which says the same
    return f"{key + ': ' if key else ''}{found}{allowed}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = lines or [type(error).__name__]
    return " ".join(lines[:1]) if not hasattr(error, "problem_mark") else " ".join(lines)


def _check_values(config: Config, where: str) -> None:
    """Values that have the right type and cannot work."""
    for key, number in _numbers(asdict(config)):
        if not math.isfinite(number):
            raise ConfigError(f"{where}: {key} is {number}; allowed: a finite number")
    low, high = config.augment.scale
    problems = [
        (min(config.augment.crop) < 1, "augment.crop", config.augment.crop, "two positive sizes, height then width"),
        (not 0 < low <= high, "augment.scale", config.augment.scale, "0 < smallest <= largest"),
        (not 0 <= config.augment.flip <= 1, "augment.flip", config.augment.flip, "a probability in 0..1"),
        (config.input.scale <= 0, "input.scale", config.input.scale, "a positive factor"),
        (min(config.input.std) <= 0, "input.std", config.input.std, "positive numbers"),
        (config.optim.lr <= 0, "optim.lr", config.optim.lr, "a positive number"),
        (config.loss.aux_stride < 1, "loss.aux_stride", config.loss.aux_stride, "1 (every label) or more"),
        (config.train.total_batch < 1, "train.total_batch", config.train.total_batch, "at least 1"),
        (config.train.accumulate < 1, "train.accumulate", config.train.accumulate, "at least 1"),
        (not 0 <= config.train.ema_decay < 1, "train.ema_decay", config.train.ema_decay, "0 (off) up to below 1"),
        (config.train.clip_grad_norm < 0, "train.clip_grad_norm", config.train.clip_grad_norm, "0 (off) or more"),
        (config.train.checkpoint_every < 1, "train.checkpoint_every", config.train.checkpoint_every, "at least 1"),
        (config.train.log_every < 1, "train.log_every", config.train.log_every, "at least 1"),
        (config.train.eval_every <= 0, "train.eval_every", config.train.eval_every, "a positive number of epochs"),
        (config.data.workers < 0, "data.workers", config.data.workers, "0 or more"),
        (config.data.repeat < 1, "data.repeat", config.data.repeat, "at least 1"),
        (not 0 <= config.data.class_uniform <= 1, "data.class_uniform", config.data.class_uniform, "a share in 0..1"),
        (not 0 < config.augment.cat_max_ratio <= 1, "augment.cat_max_ratio", config.augment.cat_max_ratio, "0..1"),
        (config.schedule.epochs <= 0, "schedule.epochs", config.schedule.epochs, "a positive number"),
        (
            config.schedule.iterations is not None and config.schedule.iterations < 1,
            "schedule.iterations",
            config.schedule.iterations,
            "at least 1, or leave it out and set schedule.epochs",
        ),
        (config.schedule.warmup < 0, "schedule.warmup", config.schedule.warmup, "0 or more iterations"),
        (config.schedule.power < 0, "schedule.power", config.schedule.power, "0 or more"),
        (config.schedule.steps < 1, "schedule.steps", config.schedule.steps, "at least 1"),
        (
            not 0 <= config.schedule.step_factor <= 1,
            "schedule.step_factor",
            config.schedule.step_factor,
            "a factor in 0..1",
        ),
        (not 0 <= config.augment.blur <= 1, "augment.blur", config.augment.blur, "a probability in 0..1"),
        (not 0 <= config.optim.momentum < 1, "optim.momentum", config.optim.momentum, "0 up to below 1"),
        (
            config.optim.nesterov and not config.optim.momentum,
            "optim.nesterov",
            config.optim.nesterov,
            "false, or true with optim.momentum above 0",
        ),
        (
            not all(0 <= beta < 1 for beta in config.optim.betas),
            "optim.betas",
            config.optim.betas,
            "two numbers from 0 up to below 1",
        ),
        (not 0 <= config.train.seed < 2**63, "train.seed", config.train.seed, "0 up to 2**63 - 1"),
    ]
    not_negative: list[tuple[str, Any, tuple[str, ...]]] = [
        ("augment", config.augment, ("aspect", "rotate", "brightness", "contrast", "saturation", "hue")),
        ("optim", config.optim, ("weight_decay", "head_lr_multiplier", "head_decay_multiplier")),
        ("schedule", config.schedule, ("warmup_factor", "final_factor")),
    ]
    for section, table, names in not_negative:
        problems += [(getattr(table, n) < 0, f"{section}.{n}", getattr(table, n), "0 or more") for n in names]
    for key, weights in (("loss.aux", config.loss.aux), ("loss.terms", config.loss.terms)):
        problems += [(weight < 0, f"{key}.{name}", weight, "0 or more") for name, weight in weights.items()]
    for wrong, key, value, allowed in problems:
        if wrong:
            raise ConfigError(f"{where}: {key} is {value}; allowed: {allowed}")


def _numbers(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Dotted key and value of every floating number, those in tuples included."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{key}.")
        else:
            items = value if isinstance(value, (list, tuple)) else (value,)
            yield from ((f"{prefix}{key}", item) for item in items if isinstance(item, float))
