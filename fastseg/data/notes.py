"""What a user should know and nothing has to stop for: said once, not once per file, split or process."""

from __future__ import annotations

import logging
import os

logger = logging.getLogger(__name__)
_said: set[str] = set()


def say_once(line: str, *, topic: str | None = None, level: int = logging.INFO) -> None:
    """Log `line` unless this process said it, or anything on `topic`, before; of many processes, the first speaks.

    The command line shows notes of level INFO, too; a program that uses the library sees warnings unless it sets up
    logging.
    """
    key = topic or line
    if key not in _said and os.environ.get("RANK", "0") == "0":
        _said.add(key)
        logger.log(level, "%s", line)
