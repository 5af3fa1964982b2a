"""``make bench``: every contender, run by run in turn, and what this package does alone; a table, JSON and a plot.

``python -m benchmarks.run [--quick] [--only NAME,...] [--out FOLDER]``. Needs a Docker engine, and the package index
when it is run first. Whatever fails is said in the report, and the rest goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from rich.console import Console

from benchmarks import tables
from benchmarks.driver import Driver, Failed
from benchmarks.environments import BUILD, ENTRANTS, ROOT, Entrant, ensure_environment, succeed
from benchmarks.figures import CELL, FIRST_PLOT, PLOT, START, TEXT, Compared, Report, load, machine
from benchmarks.images import Images
from benchmarks.ours_alone import measure_alone

PLOTTER = ("matplotlib==3.11.2",)


async def open_driver(entrant: Entrant, images: Images) -> Driver:
    """A contender that runs, in its environment, with its image.

    :raises Exception: whatever is in the way.
    """
    python = await ensure_environment(entrant.environment, entrant.requirements)
    image = await asyncio.to_thread(images.reference, entrant.image)
    driver = Driver(entrant, python, image, BUILD / f"{entrant.name}.log")
    try:
        await driver.open()
        await driver.close()  # once, to see that it runs, and so that Python's caches are there
    except BaseException:
        await driver.close(hurry=True)
        raise
    return driver


async def one_round(entrant: Entrant, driver: Driver, compared: Compared, cells: int, megabytes: int) -> None:
    """Each measurement once; one that fails is not tried again in later rounds."""
    steps: list[tuple[str | None, str, dict[str, int]]] = [
        (START, "start", {}),
        (None, "prepare", {}),  # the pool is full again: what fills it takes a processor for a second
        (CELL, "cells", {"count": min(cells, entrant.most_cells)}),
        (FIRST_PLOT, "plot", {}),
        (PLOT, "plot", {}),
        (TEXT, "text", {"megabytes": megabytes}),  # last: some do not survive it
    ]
    if START in compared.errors or "" in compared.errors:
        return
    try:
        await driver.open()
        await driver.ask("prepare")
        for measurement, do, more in steps:
            if measurement is None:
                await driver.ask(do)
                continue
            if measurement in compared.errors:
                continue
            try:
                compared.add(measurement, await driver.ask(do, **more))
            except Failed as error:
                compared.errors[measurement] = str(error)
                if measurement == START:
                    break
        await driver.ask("stop")
    except Failed as error:
        compared.errors.setdefault("", str(error))
    finally:
        await driver.close()


async def compare(report: Report, entrants: list[Entrant], cells: int, console: Console) -> None:
    """Bring all contenders up, then run them in turn, round by round."""
    images = Images(lambda line: console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True))
    drivers: dict[str, Driver] = {}
    for entrant in entrants:
        compared = report.contenders[entrant.name] = Compared(entrant.title)
        console.print(f"Bringing up: {entrant.title}")
        try:
            drivers[entrant.name] = await open_driver(entrant, images)
        except Exception as error:
            compared.errors[""] = f"{type(error).__name__}: {error}"[:1000]
    report.load_before = load()
    for number in range(report.rounds):
        for entrant in entrants:
            if entrant.name in drivers:
                console.print(f"Round {number + 1} of {report.rounds}: {entrant.title}")
                compared = report.contenders[entrant.name]
                await one_round(entrant, drivers[entrant.name], compared, cells, report.megabytes)


async def draw(result: Path, picture: Path) -> None:
    """The plot, by a Python that has matplotlib.

    :raises RuntimeError: it can't be drawn.
    """
    python = await ensure_environment("plot", PLOTTER)
    await succeed(str(python), str(ROOT / "benchmarks" / "draw.py"), str(result), str(picture))


async def main(arguments: argparse.Namespace) -> None:
    """Measure, and report; also what was measured until somebody interrupts."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    wanted = set(arguments.only.split(",")) if arguments.only else {one.name for one in ENTRANTS} | {"alone"}
    if unknown := wanted - {one.name for one in ENTRANTS} - {"alone"}:
        sys.exit(f"Unknown: {', '.join(sorted(unknown))}. There are: {', '.join(one.name for one in ENTRANTS)}, alone")
    quick, out = arguments.quick, arguments.out
    out.mkdir(parents=True, exist_ok=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    report = Report(
        quick, machine(), rounds=1 if quick else arguments.rounds, megabytes=20 if quick else 100, load_before=load()
    )
    begin = time.monotonic()
    try:
        entrants = [one for one in ENTRANTS if one.name in wanted]
        await compare(report, entrants, 30 if quick else 100, console)
        if "alone" in wanted:
            await measure_alone(report.alone, quick=quick, say=console.print)
    finally:
        report.load_after, report.seconds = load(), time.monotonic() - begin
        report.write(out / "result.json")
        tables.show(report, console)
    try:
        await draw(out / "result.json", out / "result.png")
    except RuntimeError as error:
        console.print(f"No plot: {error}", markup=False)
    console.print(f"Written: {out / 'result.json'}, {out / 'result.png'}", soft_wrap=True)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="What a session costs.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, cells and bytes: about three minutes")
    parser.add_argument("--only", metavar="NAME,...", help="these contenders, and `alone` for what is ours only")
    parser.add_argument("--rounds", type=int, default=5, help="of all contenders, by default 5")
    parser.add_argument("--out", type=Path, default=BUILD, help="the folder for result.json and result.png")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(parsed()))
