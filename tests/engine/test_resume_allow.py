"""A run that goes on under other circumstances says which, and only by permission."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fastseg.config import Config
from fastseg.engine.checkpoint import load_checkpoint
from fastseg.engine.resume import JOB, is_restarted
from fastseg.engine.train import TrainResult, train
from fastseg.errors import ConfigError
from workers import TwoProcesses, column, lighten, short_config

pytestmark = pytest.mark.usefixtures("light_runs")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run after 2 of 4 steps."""
    with pytest.MonkeyPatch.context() as patched:
        lighten(patched)
        run_dir = tmp_path_factory.mktemp("begun") / "run"
        train(config_of(run_dir))
    (run_dir / "checkpoints/step_00000004.pt").unlink()
    return run_dir


def config_of(run_dir: Path) -> Config:
    config = short_config(run_dir)
    config.train.checkpoint_every = 2
    return config


def changed(run_dir: Path, key: str, value: Any) -> Config:
    config: Any = config_of(run_dir)
    *sections, name = key.split(".")
    part = config
    for section in sections:
        part = getattr(part, section)
    setattr(part, name, value)
    return config


CHANGES = [
    ("optim.lr", 0.5, "optim.lr (then 0.02, now 0.5)"),
    ("optim.weight_decay", 0.25, "optim.weight_decay (then "),
    ("optim.name", "adamw", "optim.name (then 'sgd', now 'adamw')"),
    ("train.total_batch", 4, "train.total_batch (then 2, now 4)"),
    ("train.ema_decay", 0.0, "train.ema_decay (then 0.9, now 0.0)"),
    ("schedule.iterations", 6, "schedule.iterations (then 4, now 6)"),
    ("loss.aux", {"detail": 0.1, "context": 0.4}, "loss.aux.detail (then 0.4, now 0.1)"),
    ("data.args", {"count": 6, "height": 32, "width": 64}, "data.args.count (then 4, now 6)"),
]


@pytest.mark.parametrize(("key", "value", "said"), CHANGES)
def test_each_change_is_refused_with_both_values_and_allowed_by_its_name(
    tmp_path: Path, begun: Path, capsys: pytest.CaptureFixture[str], key: str, value: Any, said: str
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(begun, run_dir)
    config = changed(run_dir, key, value)
    before = sorted(path.read_bytes() for path in run_dir.rglob("*.pt"))
    with pytest.raises(ConfigError) as error:
        train(config, resume="auto")
    name = said.split()[0]
    assert said in str(error.value)
    assert f"--resume-allow {name}" in str(error.value)
    assert sorted(path.read_bytes() for path in run_dir.rglob("*.pt")) == before
    capsys.readouterr()
    result = train(config, resume="auto", resume_allow=[name])
    assert result.iterations == config.schedule.iterations
    assert f"not the run that it was: {name} is " in capsys.readouterr().out
    assert column(run_dir, "iteration")[:3] == [1, 2, 3]


def test_several_changes_are_named_at_once_and_a_section_allows_them(tmp_path: Path, begun: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(begun, run_dir)
    config = changed(run_dir, "optim.lr", 0.5)
    config.optim.weight_decay = 0.25
    with pytest.raises(ConfigError, match=r"optim\.lr .*optim\.weight_decay .*--resume-allow optim\.lr,optim\.weight"):
        train(config, resume="auto")
    with pytest.raises(ConfigError, match=r"values: optim\.weight_decay \(then"):
        train(config, resume="auto", resume_allow=["optim.lr"])
    assert train(config, resume="auto", resume_allow=["optim"]).iterations == 4
    table = load_checkpoint(run_dir / "checkpoints/step_00000004.pt")
    decays = {group["weight_decay"] for group in table["optimizer"]["param_groups"]}
    assert 0.25 in decays  # the new one, not the stored one


def test_a_permission_for_nothing_is_a_mistake(tmp_path: Path, begun: Path) -> None:
    shutil.copytree(begun, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"--resume-allow optim\.lrr: .* did you mean 'optim\.lr'"):
        train(config_of(tmp_path / "run"), resume="auto", resume_allow=["optim.lrr"])


def go_on(run_dir: Path, *allow: str) -> TrainResult | str:
    try:
        return train(config_of(run_dir), resume="auto", resume_allow=allow)
    except ConfigError as error:
        return str(error)


def test_another_number_of_processes_goes_on_by_permission(
    tmp_path: Path, begun: Path, two_processes: TwoProcesses
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(begun, run_dir)
    for said in two_processes(go_on, run_dir):
        assert "world_size (then 1, now 2)" in said
    for result in two_processes(go_on, run_dir, "world_size"):
        assert result.iterations == 4
    assert len(load_checkpoint(run_dir / "checkpoints/step_00000004.pt")["random"]) == 2


# processes that torchrun starts again


def restarted(monkeypatch: pytest.MonkeyPatch, job: str, count: int) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", job)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(count))


def test_a_job_that_is_started_again_goes_on_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(tmp_path / "run")
    restarted(monkeypatch, "job", 0)
    train(config)
    (tmp_path / "run/checkpoints/step_00000004.pt").unlink()
    with pytest.raises(ConfigError, match="earlier run"):
        train(config)
    restarted(monkeypatch, "job", 1)
    assert train(config).iterations == 4
    assert column(tmp_path / "run", "iteration") == [1, 2, 3, 4]


def test_another_job_does_not_go_on_with_a_run_because_it_was_refused_before(
    tmp_path: Path, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(begun, run_dir)
    for count in (0, 1, 2):
        restarted(monkeypatch, "another job", count)
        assert not is_restarted(run_dir)
        with pytest.raises(ConfigError, match="earlier run"):
            train(config_of(run_dir))
    assert not (run_dir / JOB).exists()


def test_streams_of_other_processes_begin_anew_and_differ_by_step(begun: Path, tmp_path: Path) -> None:
    from fastseg.engine.distributed import Processes
    from fastseg.engine.resume import restore_random_state

    table = load_checkpoint(begun / "checkpoints/step_00000002.pt")
    draws = []
    for iteration in (2, 3):
        table["progress"]["iteration"] = iteration
        restore_random_state(table, Processes(0, 2, torch.device("cpu")), seed=1)
        draws.append(torch.rand(4))
    assert not torch.equal(*draws)
