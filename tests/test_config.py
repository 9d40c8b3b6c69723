"""Configurations: files and overrides become one typed table, and every mistake is named with its key."""

from __future__ import annotations

import contextlib
import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fastseg.config import Config, DataPart, config_differences, dump_config, load_config
from fastseg.errors import ConfigError, MissingFileError
from fastseg.types import IMAGENET_MEAN

SHIPPED = sorted((Path(__file__).parents[1] / "configs").glob("*/*.yaml"))
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def load(folder: Path, text: str, *overrides: str) -> Config:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


def test_without_a_file_the_defaults_hold() -> None:
    assert load_config(None) == Config()


def test_a_file_says_only_what_differs_and_overrides_come_last(tmp_path: Path) -> None:
    config = load(
        tmp_path, "optim: {lr: 0.2, momentum: 0.5}\nmodel: {args: {aux: true}}", "optim.lr=0.3", "model.args.dropout=0"
    )
    assert (config.optim.lr, config.optim.momentum, config.optim.weight_decay) == (0.3, 0.5, 4e-5)
    assert config.model.args == {"aux": True, "dropout": 0}
    assert config.source == str(tmp_path / "recipe.yaml")
    assert config.preprocessing.mean == IMAGENET_MEAN


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, "")
    config.source = Config().source
    assert config == Config()


@pytest.mark.parametrize(
    ("text", "value"), [("1e-2", 0.01), ("5e3", 5000.0), ("1E-2", 0.01), ("+1e+2", 100.0), ("2", 2.0), (".5", 0.5)]
)
def test_numbers_are_read_as_people_write_them(tmp_path: Path, text: str, value: float) -> None:
    for config in (load(tmp_path, f"optim: {{lr: {text}}}"), load_config(None, [f"optim.lr={text}"])):
        assert config.optim.lr == value
        assert isinstance(config.optim.lr, float)


def test_exponents_are_numbers_in_open_tables_too(tmp_path: Path) -> None:
    assert load(tmp_path, "loss: {args: {threshold: 7e-1}, aux: {detail: 4e-1}}").loss.args == {"threshold": 0.7}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimm: {lr: 1}", ["optimm", "'optim'"]),
        ("lr: 0.1", ["lr", "belongs under optim.lr"]),
        ("optim: {momentun: 0.1}", ["optim.momentun", "'momentum'"]),
        ("schedule: {epoch: 3}", ["schedule.epoch", "'epochs'"]),
        ("1: 2", ["unknown key 1", "allowed"]),
        ("optim: null", ["optim is a section", "lr"]),
        ("optim: 3", ["optim is a section", "momentum"]),
        ("optim: [lr, 3]", ["optim is a section"]),
        ("optim: {lr: fast}", ["optim.lr", "'fast'", "expected float"]),
        ("optim: {lr: [1]}", ["optim.lr", "expected float"]),
        ("optim: {lr: true}", ["optim.lr", "expected float"]),
        ("optim: {lr: null}", ["optim.lr", "expected float"]),
        ("train: {total_batch: 1.5}", ["train.total_batch", "expected int"]),
        ("train: {total_batch: '8 images'}", ["train.total_batch", "expected int"]),
        ("optim: {nesterov: perhaps}", ["optim.nesterov", "expected bool"]),
        ("optim: {name: rmsprop}", ["optim.name", "sgd, adam, adamw"]),
        ("train: {precision: fp8}", ["train.precision", "fp32, bf16, fp16"]),
        ("input: {channel_order: gbr}", ["input.channel_order", "rgb, bgr"]),
        ("run_dir: null", ["run_dir", "expected str"]),
        ("run_dir: [a]", ["run_dir", "expected str"]),
        ("optim: {head_prefixes: classifier}", ["optim.head_prefixes", "unknown key"]),
        ("schedule: {name: steps}", ["schedule.name", "poly, cosine, step"]),
        ("loss: {class_weights: log}", ["loss.class_weights", "none, enet, espnet, median"]),
        ("model: {args: null}", ["model.args"]),
        ("loss: {aux: {detail: much}}", ["loss.aux.detail", "'much'"]),
        ("loss: {aux: {detail: null}}", ["loss.aux.detail"]),
        ("loss: {aux_losses: {detail: null}}", ["loss.aux_losses.detail"]),
        ("loss: {aux_loss: {detail: cross_entropy}}", ["loss.aux_loss", "'aux_losses'"]),
        ("optim:\n  lr: 1\n  lr: 2", ["duplicate key lr", "line 3"]),
        ("optim: {lr: 1}\noptim: {lr: 2}", ["duplicate key optim", "line 2"]),
        ("model: {args: {aux: true, aux: false}}", ["duplicate key aux"]),
        ("augment: {crop: [1, 2, 3]}", ["augment.crop", "[1, 2, 3]", "2 whole numbers"]),
        ("augment: {crop: 512}", ["augment.crop", "2 whole numbers"]),
        ("augment: {crop: null}", ["augment.crop"]),
        ("augment: {crop: [1.5, 2]}", ["augment.crop", "2 whole numbers"]),
        ("augment: {crop: [true, 2]}", ["augment.crop"]),
        ("augment: {crop: [a, b]}", ["augment.crop", "['a', 'b']"]),
        ("optim: {betas: [0.9]}", ["optim.betas", "2 numbers"]),
        ("optim: {betas: {first: 0.9}}", ["optim.betas", "2 numbers"]),
        ("input: {mean: [1, 2]}", ["input.mean", "3 numbers"]),
        ("run_dir: ${nowhere}", ["run_dir", "nowhere"]),
        ("run_dir: ${oc.env:FASTSEG_NO_SUCH_VARIABLE}", ["run_dir", "FASTSEG_NO_SUCH_VARIABLE"]),
        ("optim:\n  lr: ${optim.lr}", ["optim.lr", "ecursive"]),
        ("optim:\n  lr: ${optim.name}", ["optim.lr", "'sgd'"]),
        ("[1, 2]", ["table of sections", "model"]),
        ("a: b: c", ["line 1"]),
        ("\t", ["line 1"]),
        ("a: !!bool x", ["YAML"]),
        ("!!python/object/apply:os.getcwd []", ["constructor"]),
    ],
)
def test_a_mistake_in_a_file_names_file_key_and_remedy(tmp_path: Path, text: str, expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert str(tmp_path / "recipe.yaml") in message
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optim.lr", "0"),
        ("optim.lr", ".nan"),
        ("optim.lr", ".inf"),
        ("optim.lr", "1e400"),
        ("optim.momentum", "1"),
        ("optim.weight_decay", "-1e-4"),
        ("optim.betas", "[0.9, 1.0]"),
        ("optim.head_lr_multiplier", "-1"),
        ("optim.head_decay_multiplier", "-1"),
        ("augment.crop", "[0, 8]"),
        ("augment.scale", "[2, 0.5]"),
        ("augment.scale", "[0, 1]"),
        ("augment.scale", "[.nan, 1]"),
        ("augment.flip", "1.5"),
        ("augment.blur", "-0.5"),
        ("augment.aspect", "-1"),
        ("augment.rotate", "-3"),
        ("augment.hue", "-0.1"),
        ("input.scale", "0"),
        ("input.std", "[0, 1, 1]"),
        ("train.total_batch", "0"),
        ("train.accumulate", "0"),
        ("train.ema_decay", "1"),
        ("train.clip_grad_norm", "-1"),
        ("train.eval_every", "0"),
        ("train.checkpoint_every", "0"),
        ("train.timeout", "0"),
        ("train.log_every", "0"),
        ("train.seed", "-1"),
        ("train.seed", "99999999999999999999"),
        ("data.workers", "-1"),
        ("data.repeat", "0"),
        ("data.class_uniform", "1.5"),
        ("augment.cat_max_ratio", "0"),
        ("schedule.epochs", "0"),
        ("schedule.iterations", "0"),
        ("schedule.warmup", "-1"),
        ("schedule.power", "-1"),
        ("schedule.steps", "0"),
        ("schedule.step_factor", "1.5"),
        ("schedule.step_factor", "-0.5"),
        ("schedule.warmup_factor", "-0.1"),
        ("loss.aux.detail", "-0.4"),
    ],
)
def test_an_impossible_value_names_the_key_in_file_and_override(tmp_path: Path, key: str, value: str) -> None:
    *sections, last = key.split(".")
    text = f"{last}: {value}"
    for section in reversed(sections):
        text = f"{section}: {{{text}}}"
    with pytest.raises(ConfigError, match=rf"recipe\.yaml: {key} is .*; allowed: "):
        load(tmp_path, text)
    with pytest.raises(ConfigError, match=rf"{key}={value[:1] if value[0] != '[' else ''}.*: {key} is .*; allowed: "):
        load_config(None, [f"{key}={value}"])


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(ConfigError, match=r"optim\.nesterov .* optim\.momentum"):
        load_config(None, ["optim.nesterov=true", "optim.momentum=0"])
    assert load_config(None, ["optim.nesterov=true"]).optim.nesterov


@pytest.mark.parametrize("override", ["optim.lr", "=3", "", "optim..lr=3", ".=3", "augment.crop[0]=3", "[=3", "a b=3"])
def test_an_override_of_another_form_shows_the_right_one(override: str) -> None:
    with pytest.raises(ConfigError, match=r"not of the form section\.key=value"):
        load_config(None, [override])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optim.rl=3", "unknown key optim.rl; did you mean 'lr'"),
        ("lr=3", "it belongs under optim.lr"),
        ("optim=3", "optim is a section"),
        ("optim.lr=", "optim.lr: it has no value; expected float"),
        ("run_dir=", "run_dir: it has no value; expected str"),
        ("optim.lr.deep=3", "expected float"),
        ("augment.crop=[1,2,3]", "augment.crop is [1, 2, 3]"),
        ("optim.lr=[", "YAML"),
        ("optim.lr={a: 1, a: 2}", "duplicate key a"),
        ("run_dir=${nowhere}", "run_dir: Interpolation key 'nowhere'"),
    ],
)
def test_a_mistake_in_an_override_quotes_it(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    assert expected in str(caught.value)
    assert override in str(caught.value)


def test_an_override_may_contain_the_equals_sign() -> None:
    assert load_config(None, ["data.root=/data/a=b"]).data.root == "/data/a=b"


def test_a_missing_file_lists_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "fast_scnn.yaml").write_text("")
    with pytest.raises(MissingFileError, match=r"fast_scn\.yaml does not exist; that folder has: .*fast_scnn\.yaml"):
        load_config(tmp_path / "fast_scn.yaml")
    with pytest.raises(MissingFileError):
        load_config(tmp_path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image.yaml").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ConfigError, match=r"image\.yaml"):
        load_config(tmp_path / "image.yaml")


def test_a_deeply_nested_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        load(tmp_path, "model: {args: {a: " + "[" * 3000 + "]" * 3000 + "}}")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: "/".join(path.parts[-2:]))
def test_shipped_recipes_load_and_survive_being_written(tmp_path: Path, path: Path) -> None:
    config = load_config(path)
    (tmp_path / "again.yaml").write_text(dump_config(config))
    again = load_config(tmp_path / "again.yaml")
    again.source = config.source
    assert again == config


words = st.text(st.characters(exclude_characters="$\\", exclude_categories=("Cs", "Cc")), max_size=12)
finite = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


@same_folder
@given(
    run_dir=words, args=st.dictionaries(words, plain, max_size=3), lr=st.floats(1e-300, 1e300), root=words | st.none()
)
@example(run_dir="1e-2", args={"a": "null", "b": "1e5", "c": "true", "": "~"}, lr=1e-7, root="0x10")
def test_whatever_is_dumped_loads_equal(
    tmp_path: Path, run_dir: str, args: dict[str, Any], lr: float, root: str | None
) -> None:
    config = Config(run_dir=run_dir)
    config.model.args, config.optim.lr, config.data.root = args, lr, root
    again = load(tmp_path, dump_config(config))
    again.source = config.source
    assert asdict(again) == asdict(config)


@same_folder
@given(text=st.text(max_size=60) | st.text("{}[]:,-&*!#?|>'\"$.% \nabn1e", max_size=30))
@example("model: &x {args: *x}")
@example("? {a: 1}\n: 2")
@example("null: 2")
@example("a: !!timestamp 1")
@example("optim: {lr: " + "9" * 400 + "}")
@example("optim: {lr: " + "9" * 5000 + "}")
@example("optim: {lr: '???'}")
@example("augment: {crop: '${augment.scale}'}")
def test_any_text_is_a_configuration_or_a_config_error(tmp_path: Path, text: str) -> None:
    result: Config | str
    try:
        result = load(tmp_path, text)
    except ConfigError as error:
        result = str(error)
    assert isinstance(result, Config) or "recipe.yaml" in result


def a_table_near_the_schema() -> st.SearchStrategy[dict[Any, Any]]:
    scalar = st.none() | st.booleans() | st.integers() | st.floats() | words | st.sampled_from(["${optim.lr}", "${x}"])
    anything = st.recursive(
        scalar, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalar, inner, max_size=3), max_leaves=5
    )
    sections = {}
    for section in fields(Config):
        keys = list(asdict(Config())[section.name]) if section.name not in ("init_from", "run_dir", "source") else []
        table = st.dictionaries(st.sampled_from(keys), anything, max_size=3) if keys else anything
        sections[section.name] = table | anything
    return st.fixed_dictionaries({}, optional=sections)


@same_folder
@given(table=a_table_near_the_schema())
def test_any_table_is_a_configuration_or_a_config_error(tmp_path: Path, table: dict[Any, Any]) -> None:
    result: Config | str
    try:
        result = load(tmp_path, yaml.safe_dump(table))
    except ConfigError as error:
        result = str(error)
    assert math.isfinite(result.optim.lr) if isinstance(result, Config) else "recipe.yaml" in result


@given(st.text(max_size=20) | st.builds("{}={}".format, st.text("optim.lrgc[]0", max_size=12), st.text(max_size=8)))
@settings(max_examples=60, deadline=None)
def test_any_override_is_a_configuration_or_a_config_error(override: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(load_config(None, [override]), Config)


def test_differences_are_dotted_keys_and_tuples_equal_lists() -> None:
    one, other = asdict(Config()), asdict(Config())
    other["augment"]["crop"] = list(other["augment"]["crop"])
    assert config_differences(one, other) == []
    other["optim"]["lr"], other["run_dir"] = 1.0, "elsewhere"
    del other["train"]["seed"]
    assert config_differences(one, other) == ["optim.lr", "run_dir", "train.seed"]


@pytest.mark.parametrize("key", ["schedule.epochs", "train.epochs"])
def test_epochs_on_the_command_line_replace_the_iterations_of_the_file(tmp_path: Path, key: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("schedule: {iterations: 450}\n")
    schedule = load_config(path, [f"{key}=3"]).schedule
    assert (schedule.epochs, schedule.iterations) == (3.0, None)
    assert load_config(path, [f"{key}=3", "train.iterations=7"]).schedule.iterations == 7


def test_a_key_in_the_wrong_section_is_shown_the_right_one() -> None:
    with pytest.raises(ConfigError, match=r"unknown key train\.lr; .*it belongs under optim\.lr"):
        load_config(None, ["train.lr=0.1"])


def test_losses_of_auxiliary_outputs_are_names(tmp_path: Path) -> None:
    assert load(tmp_path, "").loss.aux_losses == {}
    text = "loss: {aux: {boundary: 0.5}, aux_losses: {boundary: class_boundary}}"
    assert load(tmp_path, text).loss.aux_losses == {"boundary": "class_boundary"}
    override = "loss.aux_losses.boundary=ohem_cross_entropy"
    assert load(tmp_path, text, override).loss.aux_losses == {"boundary": "ohem_cross_entropy"}


@pytest.mark.parametrize("empty", ["{}", "null"])
@pytest.mark.parametrize(
    "key",
    ["model.args", "data.args", *(f"loss.{name}" for name in ("args", "aux", "aux_losses", "terms", "term_args"))],
)
def test_an_empty_table_on_the_command_line_empties_the_file_s(tmp_path: Path, key: str, empty: str) -> None:
    section, name = key.split(".")
    value = {"aux_losses": "cross_entropy", "term_args": {"gumbel": False}}.get(name, 1.0)
    text = yaml.safe_dump({section: {name: {"a": value, "b": value}}})
    for override in (f"{key}={empty}", f"{section}={{{name}: {empty}}}"):
        assert getattr(getattr(load(tmp_path, text, override), section), name) == {}


def test_an_emptied_table_can_be_filled_again(tmp_path: Path) -> None:
    text = "loss: {terms: {edge_attention: 1, dual_task: 1}}"
    assert load(tmp_path, text, "loss.terms={}", "loss.terms.dual_task=2").loss.terms == {"dual_task": 2}


def test_an_empty_table_within_one_empties_that_alone(tmp_path: Path) -> None:
    text = "loss: {aux_args: {edge: {radius: 2}, se: {a: 1}}}"
    assert load(tmp_path, text, "loss.aux_args.edge={}").loss.aux_args == {"edge": {}, "se": {"a": 1}}
    assert load(tmp_path, text, "loss.aux_args.other={}").loss.aux_args["other"] == {}


def test_other_tables_on_the_command_line_are_laid_over_the_file_s(tmp_path: Path) -> None:
    assert load(tmp_path, "loss: {aux: {a: 1, b: 2}}", "loss.aux={b: 3, c: 4}").loss.aux == {"a": 1, "b": 3, "c": 4}


def test_null_on_the_command_line_is_a_value_of_an_argument(tmp_path: Path) -> None:
    assert load(tmp_path, "model: {args: {jpu: jpu}}", "model.args.jpu=null").model.args == {"jpu": None}


PARTS = "data: {extra: [{name: camvid, args: {stage: 1}}, {name: ade20k}]}"


@pytest.mark.parametrize("place", ["data.extra.0", "data.extra[0]"])
def test_one_key_of_one_further_data_set_can_be_changed(tmp_path: Path, place: str) -> None:
    changes = (f"{place}.root=/x[3]", f"{place}.args.half=true", f"{place}.repeat=2", "data.extra[1].split=val")
    first, second = load(tmp_path, PARTS, *changes).data.extra
    assert first == DataPart(name="camvid", root="/x[3]", args={"stage": 1, "half": True}, repeat=2)
    assert second == DataPart(name="ade20k", split="val")
    assert load(tmp_path, PARTS, f"{place}.args={{}}").data.extra[0].args == {}


@pytest.mark.parametrize(
    ("text", "override", "message"),
    [
        (PARTS, "data.extra[2].root=x", r"there is no data\.extra\[2\]; data\.extra has 2 parts, of which the last is "
                                        r"data\.extra\[1\]; .*'data\.extra=\[\{name: \.\.\., root: \.\.\.\}\]'"),
        ("", "data.extra.0.root=x", r"there is no data\.extra\[0\]; data\.extra has 0 parts; "),
        ("data: {extra: {0: {name: a}}}", "", r"recipe\.yaml: there is no data\.extra\[0\]; data\.extra has 0 parts; "),
        (PARTS, "data.extra.0.nmae=x", r"unknown key data\.extra\[0\]\.nmae; did you mean 'name'"),
        (PARTS, "data.extra.0=x", r"data\.extra\[0\] is a section, not the value 'x'; it has: name, root"),
        (PARTS, "data.extra.one.root=x", r"data\.extra is \{'one': .*; it takes a list of sections with: name, root"),
        (PARTS, "data.extra.1.repeat=x", r"data\.extra\[1\]\.repeat: "),
        ("data: {extra: [{name: a}, {nmae: a}]}", "", r"recipe\.yaml: unknown key data\.extra\[1\]\.nmae; did you"),
        ("data: {extra: [{name: a}, {repeat: x}]}", "", r"recipe\.yaml: data\.extra\[1\]\.repeat: "),
        ("data: {extra: {}}", "", r"recipe\.yaml: data\.extra is \{\}; it takes a list of sections with: name, root"),
    ],
)  # fmt: skip
def test_mistakes_in_further_data_sets_are_named_with_their_number(
    tmp_path: Path, text: str, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text, *([override] if override else []))


def test_a_further_data_set_may_refer_to_what_stands_elsewhere(tmp_path: Path) -> None:
    text = "data: {root: /x, repeat: 3, extra: [{name: camvid, root: '${data.root}', repeat: '${data.repeat}'}]}"
    for overrides in ([], ["data.extra[0].split=val"]):
        (part,) = load(tmp_path, text, *overrides).data.extra
        assert (part.root, part.repeat) == ("/x", 3)


@pytest.mark.parametrize(("value", "cache"), [("true", "memory"), ("false", "none"), ("disk", "disk")])
def test_the_cache_of_older_configurations_is_understood(tmp_path: Path, value: str, cache: str) -> None:
    assert load(tmp_path, f"data: {{cache: {value}}}").data.cache == cache
    assert load(tmp_path, "data: {workers: 1}", f"data.cache={value}").data.cache == cache


def test_the_choices_of_a_key_are_said_once() -> None:
    with pytest.raises(ConfigError, match=r"data\.cache: Invalid value '3'; allowed: none, memory, disk$"):
        load_config(None, ["data.cache=3"])
