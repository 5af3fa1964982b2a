"""A report as tables."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from benchmarks import goals
from benchmarks.environments import BASELINE
from benchmarks.figures import CELL, FIRST_PLOT, PLOT, START, TEXT, Alone, Compared, Report, quantile, summary

NONE = "–"
ERROR_CHARS = 300


def show(report: Report, console: Console) -> None:
    """All of it."""
    console.print(
        f"{report.machine}; {report.rounds} rounds; {report.seconds:.0f} s{'; quick' if report.quick else ''}"
    )
    console.print(f"Load (1, 5, 15 min) before: {loads(report.load_before)}; after: {loads(report.load_after)}")
    if report.contenders:
        console.print(compared(report))
    for one in report.contenders.values():
        for measurement, error in one.errors.items():
            console.print(
                f"{one.title}: {measurement or 'did not run'}: {' '.join(error.split())[:ERROR_CHARS]}",
                markup=False,
                highlight=False,
            )
    if report.alone:
        console.print(alone(report.alone))
    console.print(goals.table(report))


def loads(load: tuple[float, float, float] | None) -> str:
    return NONE if load is None else " ".join(f"{one:.2f}" for one in load)


def compared(report: Report) -> Table:
    """The contenders; ratios are to the bare kernel's medians, and below 1 is faster."""
    baseline = report.contenders.get(BASELINE)
    table = Table("", title="Medians, and in brackets the ratio to the bare local kernel")
    for heading in ("start", "start p90", "cell", "p90", "p99", f"{report.megabytes} MB of text", "first plot", "plot"):
        table.add_column(heading, justify="right")
    for one in report.contenders.values():
        cells = one.seconds.get(CELL)
        table.add_row(
            one.title,
            with_ratio(one, baseline, START),
            NONE if not one.seconds.get(START) else readable(quantile(one.seconds[START], 90)),
            with_ratio(one, baseline, CELL),
            *(NONE if not cells else readable(quantile(cells, percent)) for percent in (90, 99)),
            *(with_ratio(one, baseline, measurement) for measurement in (TEXT, FIRST_PLOT, PLOT)),
        )
    return table


def with_ratio(one: Compared, baseline: Compared | None, measurement: str) -> str:
    """A median, and how it compares."""
    if not one.seconds.get(measurement):
        return "failed" if one.errors.get(measurement) or one.errors.get("") else NONE
    median = summary(one.seconds[measurement])["median"]
    if baseline is None or not baseline.seconds.get(measurement):
        return readable(median)
    return f"{readable(median)} ({median / summary(baseline.seconds[measurement])['median']:.2f})"


def readable(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.{0 if seconds >= 0.1 else 1}f} ms"


def alone(figures: list[Alone]) -> Table:
    """What was measured of this package alone."""
    table = Table("ours alone", title="This package alone")
    table.add_column("", justify="right")
    table.add_column("beside")
    table.add_column("", justify="right")
    for one in figures:
        if one.error:
            table.add_row(one.what, "failed", " ".join(one.error.split())[:ERROR_CHARS].replace("[", "\\["), "")
        else:
            table.add_row(one.what, amount(one.value, one.unit), one.against, amount(one.other, one.unit))
    return table


def amount(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return readable(value) if unit == "s" else f"{value:.4g} {unit}"
