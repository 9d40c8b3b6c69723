"""What `pick` found, as a table and as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

from fastseg.engine.bench_table import aligned
from fastseg.engine.pick import Budget, Candidate, best_of, frontier_names
from fastseg.errors import MissingPackageError

COLUMNS = ("network", "mIoU", "of", "ms", "p95 ms", "floor ms", "peak MB", "parameters", "frontier", "budget", "")


def budget_text(budget: Budget) -> str:
    """'33.3 ms, 2000 MB', or 'no limit'."""
    parts = [f"{1000 * budget.seconds:.1f} ms"] if budget.seconds is not None else []
    parts += [f"{budget.memory / 1e6:.0f} MB"] if budget.memory is not None else []
    parts += [f"{budget.parameters:,.0f} parameters"] if budget.parameters is not None else []
    return ", ".join(parts) or "no limit"


def pick_text(candidates: Sequence[Candidate], budget: Budget) -> str:
    """The networks, fastest first, those without times last; then the one to take."""
    on_frontier = frontier_names(candidates)
    rows = [
        {
            "network": each.model,
            "mIoU": each.miou,
            "of": each.score,
            "ms": None if each.seconds is None else 1000 * each.seconds,
            "p95 ms": None if each.slow is None else 1000 * each.slow,
            "floor ms": None if each.least is None else 1000 * each.least,
            "peak MB": None if each.peak is None else each.peak / 1e6,
            "parameters": each.parameters,
            "frontier": "*" if each.model in on_frontier else "",
            "budget": "meets" if each.meets(budget) else "over" if each.seconds is not None else "",
            "": each.remark,
        }
        for each in sorted(candidates, key=lambda each: (each.seconds is None, each.seconds or each.least or 0))
    ]
    columns = [name for name in COLUMNS if any(row[name] not in (None, "") for row in rows)]
    best = best_of(candidates, budget)
    if best is None:
        measured = [each for each in candidates if each.seconds is not None]
        fastest = min(measured, key=lambda each: each.seconds or 0, default=None)
        hint = f"; the fastest, {fastest.model}, takes {1000 * (fastest.seconds or 0):.1f} ms" if fastest else ""
        answer = f"none of these with a known accuracy meets the budget of {budget_text(budget)}{hint}"
    else:
        answer = (
            f"take {best.model}: {best.miou} mIoU ({best.score}), {1000 * (best.seconds or 0):.1f} ms an image; the "
            f"most accurate within {budget_text(budget)}"
        )
    return "\n".join([*aligned(columns, rows), "", answer])


def pick_plot(candidates: Sequence[Candidate], budget: Budget, title: str) -> bytes:
    """A PNG of accuracy over latency: measured networks, their frontier, the budget, and floors of the others.

    Raises MissingPackageError without matplotlib.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    on_frontier = frontier_names(candidates)
    edge: list[tuple[float, float]] = []
    for each in sorted(candidates, key=lambda each: each.seconds or each.least or 0):
        place = each.seconds if each.seconds is not None else each.least
        if place is None or each.miou is None:
            continue
        known, best = each.seconds is not None, each.model in on_frontier
        colour = "tab:blue" if best else "0.45" if known else "0.7"
        axis.plot(1000 * place, each.miou, "o" if known else ">", color=colour, fillstyle="full" if known else "none")
        name = each.model if known else f"{each.model} (or slower)"
        axis.annotate(name, (1000 * place, each.miou), (5, 4), textcoords="offset points", fontsize=8, color=colour)
        if best:
            edge.append((1000 * place, each.miou))
    axis.step([ms for ms, _ in edge], [miou for _, miou in edge], where="post", color="tab:blue", linewidth=1)
    if budget.seconds is not None:
        axis.axvline(1000 * budget.seconds, color="tab:red", linestyle="--", linewidth=1)
        axis.annotate(
            f"budget {1000 * budget.seconds:.1f} ms",
            (1000 * budget.seconds, 1),
            (-4, -4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="top",
            fontsize=8,
            color="tab:red",
        )
    axis.set(xscale="log", xlabel="ms an image, median here", ylabel="mIoU %, as published or measured", title=title)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(ScalarFormatter())  # 50, not 5 x 10^1
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.margins(x=0.15)
    axis.grid(alpha=0.25, which="both")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def require_matplotlib() -> None:
    """Raises MissingPackageError without matplotlib."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise MissingPackageError("--plot needs matplotlib; install with: pip install 'fastseg-zoo[plot]'")
