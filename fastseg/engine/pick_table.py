"""What `pick` found, as a table and as a picture."""

from __future__ import annotations

import io
import itertools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastseg.engine.bench_table import aligned
from fastseg.engine.pick import Budget, Candidate, best_of, frontier_names
from fastseg.errors import MissingPackageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.transforms import Bbox

COLUMNS = ("network", "mIoU", "of", "ms", "p95 ms", "floor ms", "peak MB", "parameters", "frontier", "budget", "")
DPI = 120  # of the picture


def budget_text(budget: Budget) -> str:
    """'33.3 ms, 2000 MB', or 'no limit'."""
    parts = [_ms(budget.seconds)] if budget.seconds is not None else []
    parts += [_mb(budget.memory)] if budget.memory is not None else []
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
        shortfall = _shortfall(candidates, budget)
        answer = f"none of these with a known accuracy meets the budget of {budget_text(budget)}{shortfall}"
    else:
        answer = (
            f"take {best.model}: {best.miou} mIoU ({best.score}), {_ms(best.seconds or 0)} an image; the "
            f"most accurate within {budget_text(budget)}"
        )
    return "\n".join([*aligned(columns, rows), "", answer])


def _shortfall(candidates: Sequence[Candidate], budget: Budget) -> str:
    """Of every limit that all break, which network comes nearest to it, and with how much."""
    known = [each for each in candidates if each.miou is not None]
    times = [(each.seconds, each.model) for each in known if each.seconds is not None]
    peaks = [(each.peak, each.model) for each in known if each.peak is not None]
    sizes = [(each.parameters, each.model) for each in known]
    parts = []
    if times and budget.seconds is not None and min(times)[0] > budget.seconds:
        parts.append(f"the fastest, {min(times)[1]}, takes {_ms(min(times)[0])}")
    if times and budget.memory is not None and not peaks:
        parts.append("memory cannot be measured here; leave --mem out")
    if peaks and budget.memory is not None and min(peaks)[0] > budget.memory:
        parts.append(f"the one with the least memory, {min(peaks)[1]}, needs {_mb(min(peaks)[0])}")
    if sizes and budget.parameters is not None and min(sizes)[0] > budget.parameters:
        parts.append(f"the smallest, {min(sizes)[1]}, has {min(sizes)[0]:,} parameters")
    if not parts and times:
        parts.append("no limit is out of reach by itself: loosen one of them")
    return "".join(f"; {part}" for part in parts)


def _ms(seconds: float) -> str:
    """'33.3 ms'; below 1 ms with the digits that matter."""
    return f"{1000 * seconds:.1f} ms" if seconds >= 1e-3 else f"{1000 * seconds:.2g} ms"


def _mb(size: float) -> str:
    """'500 MB'; below 10 MB with the digits that matter."""
    return f"{size / 1e6:.0f} MB" if size >= 1e7 else f"{size / 1e6:.2g} MB"


def pick_plot(candidates: Sequence[Candidate], budget: Budget, title: str, machine: str) -> bytes:
    """A PNG of accuracy over latency: measured networks, their frontier, the budget, and floors of the others.

    Networks on the frontier have their names beside them, the others numbers, which a list to the right explains.
    `machine` stands under the title. Raises MissingPackageError without matplotlib.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    on_frontier = frontier_names(candidates)
    edge: list[tuple[float, float]] = []
    labels: list[tuple[str, tuple[float, float], str]] = []
    others: list[str] = []
    for each in sorted(candidates, key=lambda each: each.seconds or each.least or 0):
        cost = each.seconds if each.seconds is not None else each.least
        if cost is None or each.miou is None:
            continue
        known, best = each.seconds is not None, each.model in on_frontier
        colour = "tab:blue" if best else "0.35" if known else "0.6"
        place = 1000 * cost, each.miou
        axis.plot(*place, "o" if known else ">", color=colour, fillstyle="full" if known else "none", markersize=5)
        if best:
            edge.append(place)
        else:
            others.append(f"{len(others) + 1:>2}  {each.model}{'' if known else ' (or slower)'}")
        labels.append((each.model if best else str(len(others)), place, colour))
    axis.step([ms for ms, _ in edge], [miou for _, miou in edge], where="post", color="tab:blue", linewidth=1)
    if budget.seconds is not None:
        axis.axvline(1000 * budget.seconds, color="tab:red", linestyle="--", linewidth=1)
        axis.annotate(
            f"budget {_ms(budget.seconds)}",
            (1000 * budget.seconds, 0),
            (-4, 4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="bottom",
            fontsize=8,
            color="tab:red",
        )
    axis.set(xscale="log", xlabel="ms an image, median here", ylabel="mIoU %, as published or measured")
    figure.suptitle(title, fontsize=12)
    axis.set_title(textwrap.fill(machine, 150), fontsize=8, color="0.35")
    axis.margins(x=0.1, y=0.08)
    _label_ticks(axis)
    axis.grid(alpha=0.25, which="both")
    if others:
        axis.annotate(
            "\n".join(others),
            (1, 1),
            (8, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            va="top",
            fontsize=7,
        )
    _place_labels(axis, sorted(labels, key=lambda label: label[0].isdecimal()))
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


def _label_ticks(axis: Axes) -> None:
    """Round numbers of milliseconds, about six of them however narrow the range is."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator, ScalarFormatter

    low, high = axis.get_xlim()
    if high / low < 8:
        axis.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]))
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))  # 50, not 5 x 10^1


def _place_labels(axis: Axes, labels: Sequence[tuple[str, tuple[float, float], str]]) -> None:
    """Write every label beside its place, where it covers no other one, no point, no line, and stays within the axes.

    The first ones choose first; where nothing is free the label is left at the spot that covers least.
    """
    figure = axis.get_figure(root=True)
    assert figure is not None
    figure.dpi = DPI
    figure.draw_without_rendering()  # the layout is then final, and with it where points lie
    point = DPI / 72
    frame = axis.get_window_extent()
    taken = [box for line in axis.lines for box in _boxes(line, 3 * point)]
    for name, place, colour in labels:
        size = 7 if name.isdecimal() else 9
        text = axis.annotate(name, place, (0, 0), textcoords="offset points", fontsize=size, color=colour)
        bounds = text.get_window_extent()
        spots: list[tuple[float, int, tuple[float, float], Bbox]] = []
        for x, y in _offsets(bounds.width / point, bounds.height / point):
            box = bounds.translated(x * point, y * point)
            outside = bounds.width * bounds.height - _common(box, frame)
            spots.append((sum(_common(box, other) for other in taken) + 10 * outside, len(spots), (x, y), box))
        _, _, offset, box = min(spots, key=lambda spot: (round(spot[0]), spot[1]))
        text.set_position(offset)
        taken.append(box)


def _boxes(line: Line2D, margin: float) -> list[Bbox]:
    """What a marker, a straight line or a step line covers, in pixels."""
    from matplotlib.transforms import Bbox

    corners = [(float(x), float(y)) for x, y in line.get_transform().transform(line.get_xydata())]
    if len(corners) == 1:
        return [Bbox.from_extents(x - margin, y - margin, x + margin, y + margin) for x, y in corners]
    boxes = []
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):  # to the right at the first height, then up
        boxes += [Bbox.from_extents(x0, y0 - 1, x1, y0 + 1), Bbox.from_extents(x1 - 1, y0, x1 + 1, y1)]
    return boxes


def _offsets(width: float, height: float) -> list[tuple[float, float]]:
    """Where a label may start, in points from its place, the best first: above the frontier's step, then
    around it, then farther away."""
    return [
        (x, y)
        for far in (4.0, 10.0, 18.0, 28.0)
        for x, y in (
            (-far - width, far),
            (far, far),
            (far, -far - height),
            (-far - width, -far - height),
            (-width / 2, far),
            (-width / 2, -far - height),
            (far, -height / 2),
            (-far - width, -height / 2),
        )
    ]


def _common(one: Bbox, other: Bbox) -> float:
    """The area that two boxes share."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(0.0, width) * max(0.0, height))


def require_matplotlib() -> None:
    """Raises MissingPackageError without matplotlib."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise MissingPackageError("--plot needs matplotlib; install with: pip install 'fastseg-zoo[plot]'")
