"""Before step one a training looks at its data; what it did not look at is still an error that names the file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastseg.config import Config
from fastseg.data.doctor import GLANCES, glance
from fastseg.engine import train as engine
from fastseg.engine.build import build_split
from fastseg.engine.train import train
from fastseg.errors import DataError, LabelError
from trees.pairs import SIZE, config_for, read, truncate, write, write_pairs
from workers import TwoProcesses, short_config

pytestmark = pytest.mark.usefixtures("light_runs")

MANY = 2 * GLANCES  # every second image is looked at


def short_run(root: Path) -> Config:
    """A few steps on the tree below `root`."""
    config = short_config(root / "run")
    config.data = config_for(root).data
    config.augment.crop = (32, 32)
    return config


def spoil(root: Path, index: int) -> None:
    label = read(root / f"trainannot/{index}.png")
    label[3, :4] = 42
    write(root / f"trainannot/{index}.png", label)


def refusal(config: Config) -> str:
    with pytest.raises(DataError) as caught:
        train(config)
    assert type(caught.value) is DataError
    return str(caught.value)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pairs(tmp_path, {"train": 4, "val": 3})


def test_a_bad_label_stops_the_run_before_it_begins(root: Path) -> None:
    for index in (1, 3):
        spoil(root, index)
    message = refusal(short_run(root))
    assert "2 of 4 in data.train_split cannot be used" in message
    assert f"{root / 'trainannot/1.png'} has values {{42: 4 px}}" in message
    assert "`fastseg data check tiny.yaml`" in message
    assert not (root / "run").exists()


def test_faults_of_both_splits_are_counted(root: Path) -> None:
    spoil(root, 0)
    for index in range(3):
        truncate(root / f"val/{index}.png")
    message = refusal(short_run(root))
    assert "1 of 4 in data.train_split and 3 of 3 in data.val_split" in message


def test_a_configuration_from_memory_has_no_file_to_name(root: Path) -> None:
    spoil(root, 0)
    config = short_run(root)
    config.source = "command line"
    assert "`fastseg data check CONFIG`" in refusal(config)


def test_what_is_suspicious_is_one_line_and_no_obstacle(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(2):
        write(root / f"valannot/{index}.png", np.full(SIZE, 11, np.uint8))
    with caplog.at_level(logging.WARNING):
        assert train(short_run(root)).scores is not None
    (line,) = [record.getMessage() for record in caplog.records if record.name == "fastseg.engine.data_check"]
    assert "2 of 3 in data.val_split are suspicious" in line
    assert "valannot/0.png" in line


def test_sound_data_are_no_news(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(short_run(root))
    assert not [record for record in caplog.records if record.name == "fastseg.engine.data_check"]


def refused_on_this_process(config: Config) -> str:
    return refusal(config)


def test_all_processes_stop_with_the_same_words(root: Path, two_processes: TwoProcesses) -> None:
    spoil(root, 2)
    first, second = two_processes(refused_on_this_process, short_run(root))
    assert first == second
    assert "trainannot/2.png" in first


def test_only_the_main_process_reads(root: Path, two_processes: TwoProcesses) -> None:
    assert two_processes(reads_of_this_process, short_run(root)) == [7, 0]


def reads_of_this_process(config: Config) -> int:
    from fastseg.engine import data_check

    seen: list[Any] = []
    with pytest.MonkeyPatch.context() as patched:

        def counting(splits: Any) -> Any:
            looks = glance(splits)
            seen.extend(look for of_split in looks.values() for look in of_split)
            return looks

        patched.setattr(data_check, "glance", counting)
        patched.setattr(engine.Record, "say", lambda *_: None)
        train(config)
    return len(seen)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_label_that_was_not_looked_at_is_a_label_error_of_the_loader(tmp_path: Path, workers: int) -> None:
    write_pairs(tmp_path, {"train": MANY, "val": 1})
    config = short_run(tmp_path)
    config.data.workers, config.data.cache = workers, "none"
    config.schedule.iterations = MANY  # twice through the images at two a step
    looked = {int(index) for index in np.linspace(0, MANY - 1, GLANCES).astype(int)}
    unseen = min(set(range(MANY)) - looked)
    spoil(tmp_path, unseen)
    looks = glance({"train": build_split(config, "train")})["train"]
    assert not any(look.findings for look in looks)  # the training passes this, so the error is not from here
    with pytest.raises(LabelError, match=rf"trainannot/{unseen}\.png has values \{{42: 4 px\}}"):
        train(config)
