"""Many sessions of one manager: what idle ones cost, and how it does with them."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator, Sequence

from benchmarks.figures import Alone
from benchmarks.processes import available, cpu, of_containers, of_engine, resident
from benchmarks.sessions import collected, remove_all
from session_manager import Session, SessionManager, Settings

STARTED_AT_ONCE = 4
BYTES_EACH = 75_000_000
"""Of memory that an idle session may take, generously: with less on the machine, fewer are started."""
BUSY = 20
CELLS_EACH = 10


async def many(quick: bool) -> AsyncIterator[Alone]:
    """Grow to so many sessions, and look at each stage."""
    stages = (4, 10) if quick else (10, 100, 200, 300)
    idle_seconds = 5.0 if quick else 30.0
    settings = Settings(image="example", namespace=f"bench-many-{os.getpid()}")
    try:
        async with SessionManager(settings) as manager:
            sessions = [await manager.session("0")]
            await collected(sessions[0], "x = 1")
            begin_bytes = resident()
            for stage in stages:
                if (stage - len(sessions)) * BYTES_EACH > available() * 0.8:
                    yield Alone(f"{stage} sessions", error="this machine has too little memory for so many")
                    break
                await grow(manager, sessions, stage)
                for figure in await at_stage(manager, stage):
                    yield figure
            each = (resident() - begin_bytes) / (len(sessions) - 1) if len(sessions) > 1 else 0.0
            yield Alone(f"manager's memory for each further session, of {len(sessions)}", each / 1e6, "MB")
            for figure in await idle(manager, len(sessions), idle_seconds):
                yield figure
            yield await busy(sessions)
    finally:
        await remove_all(settings)


async def grow(manager: SessionManager, sessions: list[Session], count: int) -> None:
    """Start what is missing, a few at once."""
    gate = asyncio.Semaphore(STARTED_AT_ONCE)

    async def one(number: int) -> Session:
        async with gate:
            session = await manager.session(str(number))
            await collected(session, "x = 1")
            return session

    sessions += await asyncio.gather(*map(one, range(len(sessions), count)))


async def at_stage(manager: SessionManager, count: int) -> list[Alone]:
    """Listing them, looking at each whether it is to be put away, and starting one more."""
    lists, looks, starts = [], [], []
    for _ in range(3):
        begin = time.perf_counter()
        listed = await manager.list()
        lists.append(time.perf_counter() - begin)
        if len(listed) != count:
            raise RuntimeError(f"{len(listed)} sessions are listed instead of {count}")
        begin = time.perf_counter()
        await manager._reaper.sweep()
        looks.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        session = await manager.throw_away()
        await collected(session, "x = 1")
        starts.append(time.perf_counter() - begin)
        await session.stop(purge=True)
    return [
        Alone(f"listing {count} sessions", statistics.median(lists), "s"),
        Alone(f"reaping, of which none is due, among {count} sessions", statistics.median(looks), "s"),
        Alone(f"starting one beside {count} sessions", statistics.median(starts), "s"),
    ]


async def idle(manager: SessionManager, count: int, seconds: float) -> list[Alone]:
    """Processor time while nothing runs, by who uses it."""
    containers = [status.container for status in await manager.list()]
    infos = await asyncio.gather(*map(manager.engine.inspect, containers))
    ids = {info.id for info in infos if info is not None}
    await asyncio.sleep(2)
    groups = {
        "manager": [os.getpid()],
        "dockerd, containerd and shims": of_engine(ids),
        "containers": of_containers(ids),
    }
    before = {name: cpu(processes) for name, processes in groups.items()}
    begin = time.perf_counter()
    await asyncio.sleep(seconds)
    passed = time.perf_counter() - begin
    used = {name: (cpu(processes) - before[name]) / passed * 100 for name, processes in groups.items()}
    rows = [Alone(f"processor while {count} sessions are idle: {name}", share, "%") for name, share in used.items()]
    return [*rows, Alone(f"processor while {count} sessions are idle: all", sum(used.values()), "%")]


async def busy(sessions: Sequence[Session]) -> Alone:
    """Trivial cells in some of them at once, against the same number one after another in one."""
    some = sessions[:BUSY]

    async def cells(session: Session) -> None:
        for _ in range(CELLS_EACH):
            await collected(session, "x = 1")

    begin = time.perf_counter()
    await asyncio.gather(*map(cells, some))
    together = (time.perf_counter() - begin) / (len(some) * CELLS_EACH)
    begin = time.perf_counter()
    await cells(sessions[0])
    single = (time.perf_counter() - begin) / CELLS_EACH
    what = f"time for each cell, with {len(some)} of {len(sessions)} sessions at it at once"
    return Alone(what, together, "s", "one session alone", single)
