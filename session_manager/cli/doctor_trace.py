"""The command ``doctor --trace``: where the time of one cell goes, hop by hop, here, with this engine."""

from __future__ import annotations

import json
import statistics
import time

from ..engine import ExecStream, docker_engine
from ..errors import SandboxError
from ..manager import SessionManager
from ..settings import Settings
from .cell_trace import HOPS, IN, OUT, Recording, hops, messages
from .cells import without_pool
from .progress import Progress
from .tables import plain, print_table

CELLS = 200
BEFORE = 20
"""Cells that run first, and are not counted."""
TRIVIAL = "x = 1"
SECONDS = 30.0


async def trace(settings: Settings) -> tuple[dict[str, list[float]], list[float]]:
    """Run trivial cells in a session of its own: seconds in each hop, and of each cell as a whole.

    :raises SandboxError: it can't be started; a cell fails; or the engine is one without hops.
    """
    if settings.engine != "docker":
        raise SandboxError("The process engine has no hops: its kernels are programs of yours.", "Use --engine docker.")
    recordings: list[Recording] = []

    def record(stream: ExecStream) -> Recording:
        recordings.append(Recording(stream))
        return recordings[-1]

    engine = docker_engine(settings, tap=record)
    spans = []
    with Progress() as progress:
        async with SessionManager(without_pool(settings), progress=progress, engine=engine) as manager:
            session = await manager.throw_away()
            for number in range(BEFORE + CELLS):
                begin = time.time()
                run = await session.execute(TRIVIAL, timeout=SECONDS)
                end = time.time()
                if run.status != "ok":
                    raise SandboxError(f"A cell that does nothing ended as {run.status!r}: {run.text.strip()[-300:]}")
                if number >= BEFORE:
                    spans.append((begin, end))
    chunks = max((one.chunks for one in recordings), key=len)
    try:
        recorded = list(messages(chunks))
        cells = [hops(begin, end, recorded) for begin, end in spans]
    except (ValueError, KeyError) as error:
        raise SandboxError(f"What went over the stream can't be followed: {error}.") from error
    return {hop: [cell[hop] for cell in cells] for hop in HOPS}, [end - begin for begin, end in spans]


async def trace_cells(settings: Settings, *, as_json: bool) -> int:
    """Show the hops of a trivial cell; the command's exit code.

    :raises SandboxError: as :func:`trace`.
    """
    taken, whole = await trace(settings)
    if as_json:
        print(json.dumps({"cells": CELLS, "hops": [{"hop": hop, "seconds": taken[hop]} for hop in HOPS]}))
        return 0
    total = statistics.median(whole)
    table = plain("hop of a cell that does nothing", "median", "p90", "share")
    for hop in HOPS:
        median = statistics.median(taken[hop])
        table.add_row(hop, milliseconds(median), milliseconds(nine_tenths(taken[hop])), f"{median / total:.0%}")
    table.add_row("the call", milliseconds(total), milliseconds(nine_tenths(whole)), "")
    print_table(table)
    if min(statistics.median(taken[IN]), statistics.median(taken[OUT])) < 0:
        both = statistics.median(there + back for there, back in zip(taken[IN], taken[OUT], strict=True))
        print(
            "The kernel's clock is not this machine's, so that the ways into the container and out of it are known"
            f" together alone: {milliseconds(both)}."
        )
    return 0


def milliseconds(seconds: float) -> str:
    """For people."""
    return f"{seconds * 1000:.2f} ms"


def nine_tenths(seconds: list[float]) -> float:
    """The 90th percentile."""
    return statistics.quantiles(seconds, n=10)[-1]
