"""What protects runs, files and numbers, and the tests that fail where it is missing."""

from __future__ import annotations

from typing import NamedTuple


class Guard(NamedTuple):
    """`code`, which stands once in `file`, is replaced by `instead`; then one of `tests` has to fail."""

    name: str
    file: str
    code: str
    instead: str
    tests: tuple[str, ...]


CHECKPOINT = "tests/engine/test_checkpoint.py::"
BAD_STEPS = "tests/engine/test_train_bad_steps.py::"

GUARDS = [
    Guard(
        "files: written beside and renamed",
        "fastseg/atomic.py",
        "        os.replace(temporary, path)\n",
        "        path.write_bytes(data)\n        temporary.unlink()\n",
        (CHECKPOINT + "test_kill_9_while_saving_leaves_the_one_before",),
    ),
    Guard(
        "files: fsync before the rename",
        "fastseg/atomic.py",
        "            os.fsync(file.fileno())\n",
        "",
        (CHECKPOINT + "test_kill_9_while_saving_leaves_the_one_before",),
    ),
    Guard(
        "checkpoints: SHA-256",
        "fastseg/engine/checkpoint.py",
        "    if file_sha256(path) in expected:\n",
        "    if path.stat().st_size == size:\n",
        (CHECKPOINT + "test_every_flipped_bit_is_seen",),
    ),
    Guard(
        "checkpoints: what a save replaces is whole",
        "fastseg/engine/checkpoint.py",
        "    if path.exists() and _damage(path) is None:",
        "    if path.exists():",
        (CHECKPOINT + "test_damage_is_not_taken_for_what_is_replaced",),
    ),
    Guard(
        "steps: finite weights",
        "fastseg/engine/train.py",
        "                if not all_finite(weights):\n",
        "                if False:\n",
        (BAD_STEPS + "test_weights_that_overflow_end_the_run_before_they_are_kept",),
    ),
    Guard(
        "steps: a bad loss is decided by all",
        "fastseg/engine/step.py",
        "all(torch.isfinite(total) for total in totals.values())",
        "all(torch.isfinite(term.total) for term in terms.values())",
        (BAD_STEPS + "test_a_bad_loss_on_one_process_skips_the_step_on_all",),
    ),
]
