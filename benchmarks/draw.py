"""``draw.py RESULT.json PICTURE.png``: the contenders' medians as points, with whiskers to their p90.

Run by a Python that has matplotlib, and needs nothing else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

PANELS = {
    "start": "From nothing to the first result",
    "cell": "A trivial cell",
    "text": "{megabytes} MB of text",
    "first plot": "The first plot",
    "plot": "The next plot",
}


CURVES = ("listing", "reaping", "starting")


def draw_curves(alone: list[dict[str, Any]], axes: Any) -> None:
    """What one more costs beside so many sessions, by what is done."""
    for verb in CURVES:
        found = [one for one in alone if one["what"].startswith(verb) and one["value"] is not None]
        counts = [int(one["what"].split()[-2]) for one in found]
        axes.plot(counts, [one["value"] for one in found], "o-", label=verb)
    axes.set_title("This package, with so many sessions open", loc="left")
    axes.set_xlabel("sessions")
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()


def draw(report: dict[str, Any], picture: Path) -> None:
    """One panel for each measurement, seconds on a logarithmic axis, ours in another colour; and the curves below."""
    contenders = report["contenders"]
    height = 2.6 * (len(PANELS) + 1)
    figure, panels = pyplot.subplots(len(PANELS) + 1, 1, figsize=(10, height), layout="constrained")
    draw_curves(report["alone"], panels[-1])
    for axes, (measurement, title) in zip(panels[:-1], PANELS.items(), strict=True):
        found = {name: one["summary"][measurement] for name, one in contenders.items() if measurement in one["summary"]}
        titles = [contenders[name]["title"] for name in found]
        medians = [one["median"] for one in found.values()]
        over = [max(0.0, one["p90"] - one["median"]) for one in found.values()]
        for name, one, median, more in zip(found, titles, medians, over, strict=True):
            colour = "tab:blue" if name.startswith("ours") else "dimgray"
            axes.errorbar([median], [one], xerr=[[0.0], [more]], fmt="o", color=colour, capsize=3)
            axes.annotate(f"{median:.3g} s", (median, one), (0, 6), textcoords="offset points", fontsize=8, ha="center")
        axes.grid(axis="x", which="both", alpha=0.3)
        axes.margins(x=0.1, y=0.15)
        axes.invert_yaxis()
        axes.set_xlabel("seconds, logarithmic")
        if medians:
            axes.set_xscale("log")
        axes.set_title(title.format(megabytes=report["megabytes"]), loc="left")
    loads = " / ".join(f"{one:.2f}" for one in report["load_before"])
    figure.suptitle(f"{report['machine']}; {report['rounds']} rounds; load before {loads}", fontsize=9)
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
