#!/usr/bin/env python3
"""Draw a run's curves: tools/plot_run.py RUN OUT.png (needs the extra `plot`)."""

from __future__ import annotations

import csv
import sys
from pathlib import Path


def main(run: Path, out: Path) -> None:
    """Training loss and validation mIoU over iterations, from the run's CSV files, as one PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with open(run / "train.csv", newline="") as train, open(run / "eval.csv", newline="") as evaluation:
        losses, scores = list(csv.DictReader(train)), list(csv.DictReader(evaluation))
    figure, axis = pyplot.subplots(figsize=(8, 3.2), constrained_layout=True)
    axis.plot([int(r["iteration"]) for r in losses], [float(r["main"]) for r in losses], color="0.6", linewidth=0.7)
    axis.set(xlabel="iteration", ylabel="training loss (main)", yscale="log")
    right = axis.twinx()
    right.plot([int(r["iteration"]) for r in scores], [100 * float(r["miou"]) for r in scores], "o-", color="tab:blue")
    right.set_ylabel("mIoU %", color="tab:blue")
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
