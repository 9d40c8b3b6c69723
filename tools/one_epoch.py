#!/usr/bin/env python3
"""Train every CamVid recipe for one epoch through its exp script, and write a table of time and loss.

    tools/one_epoch.py --root /data/CamVid --out docs/results/one_epoch.md [NAME ...] [-- KEY=VALUE ...]

It shows that every network trains, not how well: one epoch from scratch is nothing. A row is added as a run ends; names
that stand in the file already are skipped, so an interrupted campaign goes on. Overrides after `--` reach every run.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from fastseg.environment import processor_name

ROOT = Path(__file__).resolve().parent.parent
HEADER = """# One epoch of CamVid with every network

{description}

| network | crop | batch | processor s per image | first loss | last loss | mIoU on val |
|---|---|---|---|---|---|---|
"""


def measure(name: str, overrides: list[str], log: Path) -> tuple[list[float], float]:
    """Run `exp/camvid_<name>.sh`: processor seconds spent at each step's report, and seconds in all.

    Processor time, summed over processes and cores, hardly depends on what else the machine does. Raises SystemExit
    with the log's name when the run fails.
    """
    command = ["bash", str(ROOT / f"exp/camvid_{name}.sh"), *overrides]
    moments: list[float] = []
    began = time.monotonic()
    with open(log, "w") as out:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, start_new_session=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            out.write(line)
            if re.match(r"\[\d+/\d+\] .*loss ", line):
                moments.append(processor_seconds(process.pid))
        if process.wait():
            sys.exit(f"{' '.join(command)} ended with exit code {process.returncode}; its output: {log}")
    return moments, time.monotonic() - began


def processor_seconds(session: int) -> float:
    """Time that the living processes of a session have spent on all cores (Linux)."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()  # the name before may hold spaces
        except OSError:
            continue  # ended meanwhile
        if int(fields[3]) == session:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def row(name: str, run: Path, moments: list[float], crop: str, batch: int) -> str:
    """One line of the table: losses are means over the first and the last tenth of the epoch."""
    with open(run / "train.csv", newline="") as train, open(run / "eval.csv", newline="") as evaluation:
        losses = [float(line["loss"]) for line in csv.DictReader(train)]
        miou = [float(line["miou"]) for line in csv.DictReader(evaluation)][-1]
    tenth = max(1, len(losses) // 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    per_image = (moments[-1] - moments[0]) / (len(moments) - 1) / batch
    return f"| {name} | {crop} | {batch} | {per_image:.2f} | {first:.3f} | {last:.3f} | {100 * miou:.1f} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="networks (default: every recipe in configs/camvid)")
    parser.add_argument("--root", required=True, help="CamVid's folder")
    parser.add_argument("--out", type=Path, required=True, help="the table, in Markdown")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/one_epoch", help="run folders and logs")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crop", default="240x320", help="height x width")
    given = sys.argv[1:]
    cut = given.index("--") if "--" in given else len(given)
    args, extra = parser.parse_args(given[:cut]), given[cut + 1 :]

    names = args.names or sorted(path.stem for path in (ROOT / "configs/camvid").glob("*.yaml"))
    args.runs.mkdir(parents=True, exist_ok=True)
    if not args.out.exists():
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        args.out.write_text(
            HEADER.format(
                description="`tools/one_epoch.py`: each recipe of `configs/camvid` through its exp script. "
                f"{os.cpu_count()} cores ({processor_name()}), {datetime.date.today()}, commit "
                f"`{commit.stdout.strip()}`. Processor seconds are those of training steps on all cores, data "
                "included. Losses are optimised sums (auxiliary terms included), averaged over the first and the last "
                "tenth of the epoch."
            )
        )
    for name in names:
        if f"| {name} |" in args.out.read_text():
            print(f"{name}: in {args.out} already", flush=True)
            continue
        run = args.runs / name
        overrides = [
            f"data.root={args.root}", "schedule.epochs=1", f"train.total_batch={args.batch}",
            f"augment.crop=[{args.crop.replace('x', ',')}]", "train.log_every=1", f"run_dir={run}", *extra,
            "--resume", "auto",
        ]  # fmt: skip
        moments, seconds = measure(name, overrides, args.runs / f"{name}.log")
        line = row(name, run, moments, args.crop, args.batch)
        with open(args.out, "a") as table:
            table.write(line)
        print(f"{line.strip()} {seconds:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
