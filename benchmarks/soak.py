"""Many short sessions, one after another and a few at once: what of them stays in the program that had them?

``python benchmarks/soak.py [SESSIONS]`` prints memory, threads and descriptors of this process, and what the engine
holds, as the number of sessions that came and went grows.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from session_manager import SessionManager, Settings
from session_manager.engine.docker import DockerEngine
from session_manager.registry import LABEL_NAMESPACE

AT_ONCE = 4
EVERY = 50


@dataclass(frozen=True, slots=True)
class Sample:
    """What there was after so many sessions, with none of them running."""

    sessions: int
    memory: int
    """Bytes resident in this process."""
    threads: int
    """Those of the engine's client aside, of which there are up to 16, made as they are needed."""
    descriptors: int
    """Connections to the engine that wait for its next call are closed before."""
    containers: int
    volumes: int
    seconds: float


async def soak(
    manager: SessionManager, sessions: int, every: int = EVERY, report: Callable[[Sample], None] = lambda _: None
) -> list[Sample]:
    """Run that many sessions, throw-away and named ones, with cells that work, fail, print and end Python.

    :raises SandboxError: a session did not start.
    :raises RuntimeError: a cell did not end as it should.
    """
    begin = time.monotonic()
    samples = []
    for start in range(0, sessions, every):
        gate = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(one(manager, gate, number) for number in range(start, min(start + every, sessions))))
        samples.append(await sample(manager, min(start + every, sessions), time.monotonic() - begin))
        report(samples[-1])
    return samples


async def one(manager: SessionManager, gate: asyncio.Semaphore, number: int) -> None:
    """A short session."""
    async with gate:
        session = await (manager.session(f"soak/{number}") if number % 2 else manager.throw_away())
        code, status = [
            ("x = 40\nprint('y' * 100_000)\nx + 2", "ok"),
            ("1 / 0", "error"),
            ("from IPython.display import display\nfor i in range(100): display(i)", "ok"),
            ("import os; os._exit(3)", "died"),
        ][number % 4]
        run = await session.execute(code)
        if run.status != status:
            raise RuntimeError(f"session {number}: {run.status} instead of {status}: {run.text[-500:]}")
        await session.stop(purge=True)


async def sample(manager: SessionManager, sessions: int, seconds: float) -> Sample:
    """What there is now."""
    labels = {LABEL_NAMESPACE: manager.settings.namespace}
    containers, volumes = await manager.engine.list(labels), await manager.engine.list_volumes(labels)
    gc.collect()
    if isinstance(manager.engine, DockerEngine) and manager.engine._connected is not None:
        # it keeps connections for the next call, one more or less as calls happened to coincide
        manager.engine._connected.close()
    memory, descriptors = own_use()
    return Sample(sessions, memory, own_threads(), descriptors, len(containers), len(volumes), seconds)


def own_threads() -> int:
    """Threads of this process, but for those that wait to speak to the engine."""
    return sum(not thread.name.startswith(("docker", "asyncio")) for thread in threading.enumerate())


def own_use() -> tuple[int, int]:
    """Bytes resident in this process, and the files and sockets that it has open."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resident, len(list(Path("/proc/self/fd").iterdir()))


def show(found: Sample) -> None:
    """One line of the curve."""
    print(
        f"{found.sessions:>8} {found.memory / 1e6:>10.1f} {found.threads:>8} {found.descriptors:>12}"
        f" {found.containers:>11} {found.volumes:>8} {found.seconds:>8.0f}",
        flush=True,
    )


async def main(sessions: int) -> None:
    """Soak, and print the curve."""
    print("sessions  memory MB  threads  descriptors  containers  volumes  seconds")
    async with SessionManager(Settings(namespace=f"soak-{os.getpid()}")) as manager:
        await soak(manager, sessions, report=show)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 500))
