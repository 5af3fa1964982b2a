"""How long a trivial cell takes, and how fast text comes out, against a bare local kernel.

``python benchmarks/cell_latency.py [ROUNDS]`` runs the contenders in turn, round by round, in one process, so that a
noisy machine is noisy for all of them. Ratios mean something; milliseconds only on the machine they were taken on.

The baseline is ipykernel on this machine, driven by jupyter_client over local sockets: no container, no sandbox.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable

from jupyter_client.manager import AsyncKernelManager
from rich.console import Console
from rich.table import Table

from session_manager import SessionManager, Settings

CELLS = 100
MEGABYTES = 50
FLOOD = f"for _ in range({MEGABYTES}): print('y' * 1_000_000)"

Run = Callable[[str], Awaitable[None]]


def runner_of_bare_kernel(client: object) -> Run:
    """One cell on a plain kernel: done when its reply and its idle status are in, as everywhere else."""

    async def run(code: str) -> None:
        await client.execute_interactive(code, output_hook=lambda _message: None, allow_stdin=False)  # type: ignore[attr-defined]

    return run


async def measure(run: Run) -> tuple[list[float], float]:
    """Seconds of each trivial cell, and of the flood."""
    seconds = []
    for _ in range(CELLS):
        begin = time.perf_counter()
        await run("x = 1")
        seconds.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    await run(FLOOD)
    return seconds, time.perf_counter() - begin


async def main(rounds: int) -> None:
    """Measure, and print a table."""
    bare = AsyncKernelManager(kernel_name="python3")
    await bare.start_kernel()
    client = bare.client()
    client.start_channels()
    await client.wait_for_ready(timeout=60)
    docker, process = SessionManager(Settings()), SessionManager(Settings(engine="process"))
    in_docker, in_process = await docker.throw_away(), await process.throw_away()
    contenders: dict[str, Run] = {
        "bare local kernel (baseline)": runner_of_bare_kernel(client),
        "session, process engine": in_process.execute,  # type: ignore[dict-item]
        "session, Docker engine": in_docker.execute,  # type: ignore[dict-item]
    }
    cells: dict[str, list[float]] = {name: [] for name in contenders}
    floods: dict[str, list[float]] = {name: [] for name in contenders}
    try:
        for _ in range(rounds):
            for name, run in contenders.items():
                seconds, flood = await measure(run)
                cells[name] += seconds
                floods[name].append(flood)
    finally:
        await docker.detach()
        await process.detach()
        client.stop_channels()
        await bare.shutdown_kernel(now=True)

    table = Table("", "trivial cell, median", "p90", "ratio", "text out", "ratio")
    baseline = next(iter(contenders))
    for name in contenders:
        median, flood = statistics.median(cells[name]), statistics.median(floods[name])
        table.add_row(
            name,
            f"{median * 1000:.1f} ms",
            f"{statistics.quantiles(cells[name], n=10)[8] * 1000:.1f} ms",
            f"{median / statistics.median(cells[baseline]):.2f}",
            f"{MEGABYTES / flood:.0f} MB/s",
            f"{statistics.median(floods[baseline]) / flood:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
