"""What a user should know and nothing has to stop for: said once, not once per file, split, rank or worker."""

from __future__ import annotations

import logging
import os

from torch.utils.data import get_worker_info

logger = logging.getLogger(__name__)
_said: set[str] = set()


def say_once(line: str, *, topic: str | None = None, level: int = logging.INFO) -> None:
    """Log `line` unless this process said it, or anything on `topic`, before.

    Of many ranks only the first speaks, and of a DataLoader's workers only the first: what it never meets is not said.
    The command line shows notes of level INFO, too; a program that uses the library sees warnings unless it sets up
    logging.
    """
    key = topic or line
    if key not in _said and _speaks():
        _said.add(key)
        logger.log(level, "%s", line)


def _speaks() -> bool:
    worker = get_worker_info()  # None outside of workers
    return os.environ.get("RANK", "0") == "0" and (worker is None or worker.id == 0)
