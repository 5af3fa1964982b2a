"""What the package should reach, held against one report: ratios of one run, each met, missed or not measured."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.table import Table

from benchmarks.figures import CELL, PLOT, START, TEXT, Alone, Report, quantile, summary

PEERS = ("smolagents", "autogen", "ipybox", "llm-sandbox")
COLD, POOLED, RAW, BARE = "ours-cold", "ours-pooled", "raw", "bare"


@dataclass(frozen=True, slots=True)
class Goal:
    """One line: what was measured, and what it should be."""

    what: str
    bound: str
    measured: float | None
    met: bool | None
    """None: not measured."""


def at_most(what: str, measured: float | None, most: float, unit: str = "x") -> Goal:
    return Goal(what, f"at most {most:g} {unit}", measured, None if measured is None else measured <= most)


def at_least(what: str, measured: float | None, least: float, unit: str = "x") -> Goal:
    return Goal(what, f"at least {least:g} {unit}", measured, None if measured is None else measured >= least)


class Figures:
    """Finds numbers in a report; None for each that is not there."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def of(self, contender: str, measurement: str, percent: int = 50) -> float | None:
        """Seconds: the median, or a percentile."""
        found = self._report.contenders.get(contender)
        seconds = found.seconds.get(measurement) if found else None
        if not seconds:
            return None
        return summary(seconds)["median"] if percent == 50 else quantile(seconds, percent)

    def best_peer(self, measurement: str) -> float | None:
        """Seconds of the fastest other package."""
        found = [one for peer in PEERS if (one := self.of(peer, measurement)) is not None]
        return min(found, default=None)

    def alone(self, *beginning: str) -> list[Alone]:
        """What this package does alone, by how its names begin."""
        return [one for one in self._report.alone if one.value is not None and one.what.startswith(beginning)]

    def last(self, beginning: str) -> Alone | None:
        """The last of those: of several stages the largest."""
        return next(reversed(self.alone(beginning)), None)

    def growth(self, verb: str, *, per_session: bool) -> float | None:
        """How the cost, of all or of each, grows from the smallest number of sessions to the largest; 1: not at all."""
        stages = [(int(one.what.split()[-2]), one.value or 0.0) for one in self.alone(verb)]
        if len(stages) < 2:
            return None
        (few, first), (many, last) = stages[0], stages[-1]
        return last / first * (few / many if per_session else 1)


def ratio(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


def beside(figure: Alone | None, *, divided: Callable[[float, float], float] = lambda a, b: a / b) -> float | None:
    """A figure and what it is held against, as one number."""
    if figure is None or figure.value is None or figure.other is None:
        return None
    return divided(figure.value, figure.other)


def goals(report: Report) -> Iterator[Goal]:
    """All of them."""
    of = Figures(report)
    for ours in (COLD, POOLED):
        for percent, name in ((50, "median"), (99, "p99")):
            found = ratio(of.of(ours, CELL, percent), of.of(RAW, CELL, percent))
            yield at_most(f"cell, {name}, {ours} to the raw limit", found, 1.15)
        yield at_least(f"cell, the best peer to {ours}", ratio(of.best_peer(CELL), of.of(ours, CELL)), 6)
    yield at_most("start, ours-cold to the raw limit", ratio(of.of(COLD, START), of.of(RAW, START)), 1.2)
    yield at_least("start, the best peer to ours-cold", ratio(of.best_peer(START), of.of(COLD, START)), 4)
    start, cell = of.of(POOLED, START), of.of(POOLED, CELL)
    beyond = (start - cell) * 1000 if start is not None and cell is not None else None
    yield at_most("start, ours-pooled, beyond one cell", beyond, 60, "ms")
    yield at_least("start, the best peer to ours-pooled", ratio(of.best_peer(START), start), 50)
    imports = [one.value for one in of.alone("first `")]
    yield at_most("first imports, pooled to cold", ratio(*imports) if len(imports) == 2 else None, 0.05)
    yield at_most("from a kill to the next cell's answer, to a cold start", beside(of.last("kill to")), 0.5)
    over = [(one.value or 0.0) * 1000 for one in of.alone("time limit overshot")]
    yield at_most("time limit overshot", max(over, default=None), 150, "ms")
    for ours in (COLD, POOLED):
        yield at_least(f"text, the raw limit's time to that of {ours}", ratio(of.of(RAW, TEXT), of.of(ours, TEXT)), 0.8)
    text = of.last("manager's memory while")
    yield at_most("manager's memory while text comes", text.value if text else None, 10, "MB")
    for way in ("in", "out"):
        file = next((one for one in of.alone("a file of") if one.what.endswith(f" {way}")), None)
        yield at_least(f"a file {way}, docker cp's time to ours", beside(file, divided=lambda a, b: b / a), 0.7)
    yield at_most("plot, ours-cold to a local kernel", ratio(of.of(COLD, PLOT), of.of(BARE, PLOT)), 1.1)
    yield at_most("memory of an idle session to a bare kernel's", beside(of.last("memory of an idle")), 1.25)
    resting = next((one for one in of.alone("processor while") if one.what.endswith(": all")), None)
    count = resting.what.split()[2] if resting else "100"
    yield at_most(f"processor of {count} idle sessions, of one core", resting.value if resting else None, 2, "%")
    each = of.last("manager's memory for each")
    yield at_most("manager's memory for each further session", each.value if each else None, 1, "MB")
    share = beside(
        of.last("time for each cell"), divided=lambda together, one: together / (one / (os.cpu_count() or 1))
    )
    yield at_most("cells in many sessions at once, to one alone per core", share, 1.5)
    for verb in ("listing", "reaping"):
        yield at_most(f"{verb} many sessions, for each, to few", of.growth(verb, per_session=True), 1.2)
    yield at_most("starting one beside many sessions, to beside few", of.growth("starting", per_session=False), 1.2)
    for label, most in (("`import session_manager`", 150), ("`docker-interpreter --help`", 300)):
        more = beside(of.last(label), divided=lambda ours, nothing: (ours - nothing) * 1000)
        yield at_most(f"{label}, beyond bare Python", more, most, "ms")


def table(report: Report) -> Table:
    """The goals beside what was measured."""
    shown = Table("goal", "wanted", title="Goals")
    shown.add_column("measured", justify="right")
    shown.add_column("")
    for goal in goals(report):
        measured = "–" if goal.measured is None else f"{goal.measured:.3g}"
        shown.add_row(goal.what, goal.bound, measured, {True: "met", False: "missed", None: "not measured"}[goal.met])
    return shown
