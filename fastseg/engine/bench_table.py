"""What `bench` found as text, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from fastseg.engine.bench import ModelBench
from fastseg.engine.bench_job import Job
from fastseg.engine.bench_stages import PLAIN, RUNTIMES, STAGES
from fastseg.engine.timing import quantile

Rows = Sequence[Mapping[str, Any]]
STAGE_COLUMNS = [f"{stage} ms" for stage in STAGES]
TIME_COLUMNS = ["variant", *STAGE_COLUMNS, "total ms", "total p95 ms", "images/s", "x floor", "peak MB"]
RATIO_COLUMNS = [f"vs {other}" for other in (*PLAIN, *RUNTIMES)]
OWN_COLUMNS = ["own process ms", *(f"own {name}" for name in RATIO_COLUMNS)]
LEAVES_OUT = "image in memory to labels in memory; decoding is not in the totals"
EXPLANATION = (
    f"total: {LEAVES_OUT}. Stages are medians of a second pass where the whole has fused them. "
    "x floor: total over the multiply-adds at the best convolution rate measured in the same run. "
    "peak MB: memory of one image above the loaded network, in a process of its own. "
    "vs: how many times faster, the median of the ratios round by round with all variants in one process whose "
    "allocator is tuned for all; own vs: each in its own process, the plain path untuned. "
    "labels equal %: pixels labelled as by the plain path."
)
RANDOM = "Weights are random: their labels change with the slightest rounding, and shares of equal labels are no guide."


def text_table(results: Sequence[ModelBench], facts: Mapping[str, str]) -> str:
    """What a person reads in a terminal."""
    parts = [f"{facts['hardware']}; {facts['versions']}; {facts['date']}, commit {facts['commit']}"]
    for result in results:
        parts += ["", *_model_text(result)]
    if any(result.job.weights is None for result in results):
        parts += ["", RANDOM]
    return "\n".join(parts)


def markdown(results: Sequence[ModelBench], facts: Mapping[str, str], command: str) -> str:
    """A document: how it was measured, then one table with a row for every variant of every network."""
    job = results[0].job
    columns = ["model", "gmacs", *TIME_COLUMNS, *RATIO_COLUMNS, *OWN_COLUMNS]
    rows = [row for result in results for row in result.rows()]
    used = [
        name for name in [*columns, "labels equal %", "error"] if any(row.get(name) not in (None, "") for row in rows)
    ]
    lines = [f"| {' | '.join(used)} |", f"|{' --- |' * len(used)}"]
    for row in rows:
        lines.append(f"| {' | '.join(_cell(row, name).replace('|', '/') for name in used)} |")
    rates = {kind: rate for result in results for kind, rate in result.together.rates.items()}
    intro = [
        f"# Speed at {job.height}x{job.width}, {where(job)}",
        f"`{command}`:\n{facts['hardware']}; {facts['versions']}; {facts['date']}, commit `{facts['commit']}`; "
        f"allocator {'tuned' if job.tune else 'as the system has it'}. "
        f"Convolution rate: {_rates(rates)}.",
        EXPLANATION,
        *([RANDOM] if any(result.job.weights is None for result in results) else []),
    ]
    return "\n\n".join([*intro, "\n".join(lines)]) + "\n"


def csv_text(results: Sequence[ModelBench], facts: Mapping[str, str]) -> str:
    """Every column of every row; the machine's facts stand in comments above."""
    rows = [row for result in results for row in result.rows()]
    columns = list(dict.fromkeys(key for row in sorted(rows, key=len, reverse=True) for key in row))
    columns.append(columns.pop(columns.index("error")))
    out = io.StringIO()
    out.writelines(f"# {key}: {value}\n" for key, value in facts.items())
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return out.getvalue()


def aligned(columns: Sequence[str], rows: Rows) -> list[str]:
    """Lines of a table: text to the left, numbers to the right."""
    lines = [list(columns), *([_cell(row, name) for name in columns] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    text = [any(isinstance(row.get(name), str) for row in rows) for name in columns]
    return [
        "  ".join(c.ljust(w) if left else c.rjust(w) for c, w, left in zip(line, widths, text, strict=True)).rstrip()
        for line in lines
    ]


def _model_text(result: ModelBench) -> list[str]:
    job, found = result.job, result.together
    lines = [
        f"{job.model}, {f'weights {job.weights}' if job.weights else 'random weights'}, {job.height}x{job.width}"
        f"{f' at {job.input_scale:g} of its size' if job.input_scale not in (None, 1) else ''}, "
        f"{where(job)}"
    ]
    if found.error:
        return [*lines, f"not measured: {found.error}"]
    floors = ", ".join(f"{kind} {1000 * found.floor(kind):.1f} ms" for kind in found.rates)
    decode = ", ".join(f"{kind} {1000 * quantile(times, 0.5):.1f} ms" for kind, times in found.decode.items())
    lines += [
        f"{found.num_classes} classes, {found.parameters:,} parameters, {found.macs / 1e9:.2f} GMACs",
        f"convolutions here: {_rates(found.rates)}; floor of the network: {floors}",
        f"decode: {decode} ({LEAVES_OUT})",
        "",
    ]
    rows = result.rows()
    good = [row for row in rows if not row["error"]]
    lines += aligned([name for name in TIME_COLUMNS if _used(name, good)], good)
    ratios = [name for name in [*RATIO_COLUMNS, "labels equal %"] if _used(name, good)]
    if ratios:
        lines += ["", "times as fast, taking turns in one process:", *aligned(["variant", *ratios], good)]
    own = [name for name in OWN_COLUMNS if _used(name, good)]
    if own:
        lines += ["", "each in its own process, the plain path untuned:", *aligned(["variant", *own], good)]
    lines += [f"{row['variant']}: {row['error']}" for row in rows if row["error"]]
    lines += [times.note for times in found.variants.values() if times.note and not times.error]
    lines += [f"{name} in its own process: {alone.error}" for name, alone in result.apart.items() if alone.error]
    return lines


def where(job: Job) -> str:
    """'2 threads', or the device that is not the CPU."""
    return f"{job.threads} thread{'s' * (job.threads != 1)}" if job.device == "cpu" else job.device


def _rates(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{kind} {rate / 1e9:,.0f} GFLOP/s" for kind, rate in rates.items())


def _used(column: str, rows: Rows) -> bool:
    return any(row.get(column) is not None for row in rows)


def _cell(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if column == "labels equal %":
        return f"{value:.4f}"
    if not isinstance(value, float):
        return str(value)
    if "vs " in column or column in ("x floor", "gmacs"):
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"
