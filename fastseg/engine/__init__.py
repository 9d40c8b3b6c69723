"""Training, evaluation and what they stand on: processes, schedules, checkpoints, logs."""
