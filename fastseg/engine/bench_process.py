"""A job in a process of its own: other processes keep their allocator, and a crash or a limit becomes its result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from fastseg.engine.bench_job import Job, JobTimes, VariantTimes, measure, one_line

MEMORY = Path("/proc/meminfo")


def measure_apart(job: Job, limit: float) -> JobTimes:
    """`measure` in a new process that ends after `limit` seconds and may use the memory that is free now.

    Whatever goes wrong there is the `error` of the result, with the seconds or the signal.
    """
    package = str(Path(__file__).resolve().parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": str(job.threads),  # also for OpenMP code that torch.set_num_threads does not reach
    }
    command = [sys.executable, "-m", "fastseg.engine.bench_process", str(os.getpid())]
    given = json.dumps(asdict(job))
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, env=environment, timeout=limit)
    except subprocess.TimeoutExpired:
        return JobTimes(error=f"stopped after the limit of {limit:.0f} s")
    if done.returncode < 0:
        return JobTimes(error=f"ended by signal {-done.returncode}{', perhaps for memory' * (done.returncode == -9)}")
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        return JobTimes(error=f"ended with code {done.returncode}: {last[:200]}")
    return JobTimes.from_dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Read a job from standard input, measure it, and print what was found as the last line of standard output.

    The argument is the process that asked: without it nobody reads the result.
    """
    threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    given = json.load(sys.stdin)
    job = Job(**{**given, "variants": tuple(given["variants"])})
    if job.device == "cpu":
        _refuse_more_memory_than_there_is()
    try:
        found = measure(job)
    except Exception as error:
        found = JobTimes(error=one_line(error))
    results: list[JobTimes | VariantTimes] = [found, *found.variants.values()]
    for times in results:
        if "can't allocate memory" in times.error or "MemoryError" in times.error:
            times.error = f"out of memory: {times.error}"
    print("\n" + json.dumps(asdict(found)))


def _end_with(parent: int, *, every: float = 0.5) -> None:
    """End this process once `parent` has gone: a signal that ends it at once leaves it no time to end others."""
    while os.getppid() == parent:
        time.sleep(every)
    os._exit(1)


def _refuse_more_memory_than_there_is() -> None:
    """So that an allocation fails, instead of the machine swapping or ending processes."""
    with suppress(ImportError, OSError, ValueError, StopIteration):  # Linux only
        import resource

        line = next(line for line in MEMORY.read_text().splitlines() if line.startswith("MemAvailable:"))
        resource.setrlimit(resource.RLIMIT_DATA, (int(line.split()[1]) * 1024,) * 2)


if __name__ == "__main__":
    main()
