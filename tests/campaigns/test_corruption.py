"""`make test-kill`: of 560 damaged checkpoints of a real run, every one is seen, and the one before is found.

500 single bits anywhere in the file, 40 truncations, 20 tails of zeros, as disks, networks and power cuts leave them.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fastseg.engine.checkpoint import find_checkpoint, load_checkpoint
from fastseg.engine.train import train
from fastseg.errors import CheckpointError
from workers import short_config

pytestmark = [pytest.mark.slow, pytest.mark.kill, pytest.mark.usefixtures("light_runs")]

FLIPS, TRUNCATIONS, TAILS = 500, 40, 20


def flipped(data: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << generator.randrange(8)]) + data[place + 1 :]


def test_every_damage_is_seen(tmp_path: Path) -> None:
    config = short_config(tmp_path / "run", steps=2)
    config.train.checkpoint_every = 1
    train(config)
    folder = tmp_path / "run/checkpoints"
    older, newest = sorted(folder.glob("*.pt"))
    data, generator = newest.read_bytes(), random.Random(0)
    assert len(data) > 1_000_000
    damages = {
        "flipped": (flipped(data, generator) for _ in range(FLIPS)),
        "truncated": (data[: len(data) * part // TRUNCATIONS] for part in range(TRUNCATIONS)),
        "zeroed": (data[:-size] + bytes(size) for size in (2**part for part in range(3, TAILS + 3))),
    }
    seen = dict.fromkeys(damages, 0)
    for kind, files in damages.items():
        for content in files:
            newest.write_bytes(content)
            fallen_back = find_checkpoint(folder) == older
            with pytest.raises(CheckpointError):
                load_checkpoint(newest)
            seen[kind] += fallen_back
    print(f"\ndetected: {seen}")
    assert seen == {"flipped": FLIPS, "truncated": TRUNCATIONS, "zeroed": TAILS}
    newest.write_bytes(data)
    assert find_checkpoint(folder) == newest
