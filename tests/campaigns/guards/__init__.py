"""What protects runs, files and numbers, and the tests that fail where it is missing."""

from guards.data import LOADING, READERS
from guards.files import CHECKPOINTS, FILES, SAVING
from guards.folders import FOLDERS, JOURNALS
from guards.guard import Guard
from guards.processes import PROCESSES, RESUMING
from guards.steps import EVALUATION, STEPS

__all__ = ["GUARDS", "Guard"]

GUARDS = [
    *(*FILES, *CHECKPOINTS, *SAVING, *PROCESSES, *STEPS, *RESUMING),
    *(*LOADING, *READERS, *EVALUATION, *JOURNALS, *FOLDERS),
]
