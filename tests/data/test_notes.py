"""Notes are said once: not again by other ranks, nor by every process that loads."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from fastseg.data import notes
from fastseg.data.notes import say_once


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(notes, "_said", set())
    monkeypatch.delenv("RANK", raising=False)
    caplog.set_level(logging.INFO, logger=notes.__name__)


class Talking(Dataset[int]):
    """Says one line whenever a sample is loaded, and another of its own; what is logged ends in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> int:
        handler = logging.FileHandler(self.file)
        notes.logger.addHandler(handler)
        say_once("alike everywhere")
        say_once(f"only sample {index}")
        notes.logger.removeHandler(handler)
        handler.close()
        return index


def said(tmp_path: Path, workers: int) -> list[str]:
    file = tmp_path / "said"
    list(DataLoader(Talking(file), batch_size=1, num_workers=workers))
    return file.read_text().splitlines()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_note_is_said_once_whatever_the_workers(tmp_path: Path, workers: int) -> None:
    assert said(tmp_path, workers).count("alike everywhere") == 1


def test_of_several_workers_the_first_speaks(tmp_path: Path) -> None:
    assert sorted(said(tmp_path, 2)[1:]) == sorted(f"only sample {index}" for index in range(0, 12, 2))


def test_what_was_said_before_the_workers_began_is_not_said_by_them(tmp_path: Path) -> None:
    say_once("alike everywhere")
    assert "alike everywhere" not in said(tmp_path, 1)


def test_a_line_and_a_topic_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    for line, topic in (("a", None), ("a", None), ("b", "size"), ("c", "size"), ("d", None)):
        say_once(line, topic=topic)
    assert [record.message for record in caplog.records] == ["a", "b", "d"]


def test_other_ranks_are_silent_and_the_first_still_speaks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        say_once("a")
    assert [record.message for record in caplog.records] == ["a"]
