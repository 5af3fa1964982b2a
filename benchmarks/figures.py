"""What was measured, as it goes into the JSON file, the table and the plot."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

START, CELL, TEXT, FIRST_PLOT, PLOT = "start", "cell", "text", "first plot", "plot"
COMPARED = (START, CELL, TEXT, FIRST_PLOT, PLOT)


@dataclass(slots=True)
class Compared:
    """All that was taken of one contender: seconds by measurement, and what failed of it."""

    title: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    """By measurement; ``""``: it could not be run at all."""

    def add(self, measurement: str, seconds: object) -> None:
        """One answer, a number or a list of some."""
        self.seconds.setdefault(measurement, []).extend(seconds if isinstance(seconds, list) else [seconds])  # type: ignore[list-item]


@dataclass(frozen=True, slots=True)
class Alone:
    """One figure of this package alone, beside what it can be held against; or why there is none."""

    what: str
    value: float | None = None
    unit: str = ""
    against: str = ""
    """What ``other`` is."""
    other: float | None = None
    error: str = ""


@dataclass(slots=True)
class Report:
    """One run of the program."""

    quick: bool
    machine: str
    rounds: int
    megabytes: int
    load_before: tuple[float, float, float]
    load_after: tuple[float, float, float] | None = None
    seconds: float = 0.0
    contenders: dict[str, Compared] = field(default_factory=dict)
    alone: list[Alone] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """As JSON, with the summaries beside the raw numbers."""
        fields = asdict(self)
        for name, compared in self.contenders.items():
            fields["contenders"][name]["summary"] = {
                measurement: summary(seconds) for measurement, seconds in compared.seconds.items()
            }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(fields, indent=1) + "\n")


def quantile(values: list[float], percent: int) -> float:
    """A percentile; of few values the nearest that there is."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


def summary(seconds: list[float]) -> dict[str, float]:
    """Count, median and percentiles, in seconds."""
    return {
        "count": len(seconds),
        "median": statistics.median(seconds),
        **{f"p{percent}": quantile(seconds, percent) for percent in (90, 99)},
    }


def load() -> tuple[float, float, float]:
    """The machine's load over one, five and fifteen minutes."""
    return os.getloadavg()


def machine() -> str:
    """What numbers were taken on, without any name of it."""
    return f"{os.cpu_count()} processors, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
