"""Places in the code at which a test can have a process killed, as a power cut or the kernel would.

`FASTSEG_KILL_AT=NAME:COUNT` ends the process by SIGKILL when it comes to the place NAME for the COUNT-th time;
`FASTSEG_KILL_RANK` chooses among the processes of a job (0 unless set), and `FASTSEG_KILL_WHOM=launcher` kills the
parent instead. Without the first variable nothing happens. Tests name every place (`NAMES`).
"""

from __future__ import annotations

import os
import signal

NAMES = (
    "run prepared",
    "batch loaded",
    "gradients ready",
    "step done",
    "image evaluated",
    "scores written",
    "best weights written",
    "manifest written",
    "checkpoint written",
    "checkpoints pruned",
    "final evaluation done",
    "final checkpoint written",
    "last weights written",
)
_seen: dict[str, int] = {}


def failpoint(name: str) -> None:
    """Be killed here if that was asked for."""
    wanted = os.environ.get("FASTSEG_KILL_AT")
    if wanted is None or os.environ.get("RANK", "0") != os.environ.get("FASTSEG_KILL_RANK", "0"):
        return
    place, _, count = wanted.rpartition(":")
    if place != name:
        return
    _seen[name] = _seen.get(name, 0) + 1
    if _seen[name] == int(count):
        launcher = os.environ.get("FASTSEG_KILL_WHOM") == "launcher"
        os.kill(os.getppid() if launcher else os.getpid(), signal.SIGKILL)
