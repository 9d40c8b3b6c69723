"""Fixtures of several test files."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
import torch

from workers import TwoProcesses, lighten

torch.set_num_threads(1)  # networks here are too small to share, and their results must not depend on the machine
hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no defect
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _the_same_numbers_every_time() -> None:
    """A test that fails can be repeated."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoProcesses]:
    """Calls a function of a test module on two processes: `two_processes(function, *args)` gives both results."""
    group = TwoProcesses(tmp_path_factory.mktemp("group"))
    yield group
    group.close()


@pytest.fixture(scope="session")
def three_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoProcesses]:
    """The same with three."""
    group = TwoProcesses(tmp_path_factory.mktemp("group"), 3)
    yield group
    group.close()


@pytest.fixture
def light_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of `tiny_config` without what only takes time."""
    lighten(monkeypatch)
