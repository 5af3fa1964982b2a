"""What this package does alone: its pool, files, stops, memory, imports. Each that fails is a row that says why."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import docker

from benchmarks.environments import ENTRANTS, ensure_environment, succeed
from benchmarks.figures import Alone
from benchmarks.ours_many import many
from benchmarks.processes import of_containers, pss, resident
from benchmarks.sessions import collected, remove_all, wait_for_pool
from session_manager import Limits, Session, SessionManager, Settings

IMPORTS = "import pandas, matplotlib.pyplot, numpy"
STUBBORN = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
NAMESPACE = f"bench-alone-{os.getpid()}"
MEGABYTE = 1_000_000
SETTLE = 2.0


@asynccontextmanager
async def a_manager(pool: int = 0) -> AsyncIterator[SessionManager]:
    """A manager in a namespace of its own, of which nothing is left."""
    settings = Settings(image="example", namespace=NAMESPACE, pool={"size": pool})  # type: ignore[arg-type]
    try:
        async with SessionManager(settings) as manager:
            yield manager
    finally:
        await remove_all(settings)


@asynccontextmanager
async def a_session() -> AsyncIterator[Session]:
    """One session that has run a cell."""
    async with a_manager() as manager:
        session = await manager.throw_away()
        await collected(session, "x = 1")
        yield session


async def pool(_quick: bool) -> AsyncIterator[Alone]:
    """How long a container takes until it waits, and what the first cells of one from the pool, and of none, take."""
    async with a_manager(pool=1) as manager:
        begin = time.perf_counter()
        await wait_for_pool(manager)
        yield Alone("pool: from nothing to one container that waits", time.perf_counter() - begin, "s")
        begin = time.perf_counter()
        session = await manager.throw_away()
        await collected(session, "x = 1")
        yield Alone("pool: from the call to the first result", time.perf_counter() - begin, "s")
        pooled = await timed(collected(session, IMPORTS))
    bare = await ensure_environment(*bare_environment())
    local = await timed(succeed(str(bare), "-c", IMPORTS)) - await timed(succeed(str(bare), "-c", "pass"))
    yield Alone(f"first `{IMPORTS}`, pooled", pooled, "s", "local Python", local)
    async with a_session() as session:
        cold = await timed(collected(session, IMPORTS))
    yield Alone(f"first `{IMPORTS}`, cold", cold, "s", "local Python", local)


async def files(quick: bool) -> AsyncIterator[Alone]:
    """A large file in and out, against the docker command with a container that has no volume."""
    size = 50 if quick else 500
    piece = os.urandom(MEGABYTE)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        here, back = Path(folder) / "in.bin", Path(folder) / "out.bin"
        with here.open("wb") as file:
            for _ in range(size):
                file.write(piece)
        async with a_session() as session:
            image = (await session._engine.inspect(session.container_name)).image  # type: ignore[union-attr]
            put = await timed(session.files.put(here, "in.bin"))
            got = await timed(session.files.download("in.bin", back))
        if back.stat().st_size != here.stat().st_size:
            raise RuntimeError(f"{back.stat().st_size} bytes came back of {here.stat().st_size}")
        back.unlink()
        client = docker.from_env()
        plain = client.containers.run(image, ["300"], entrypoint="sleep", detach=True, network_mode="none")
        inside = f"{plain.id}:/tmp/in.bin"  # noqa: S108 - in the container
        try:
            copied = await timed(succeed("docker", "cp", str(here), inside))
            fetched = await timed(succeed("docker", "cp", inside, str(back)))
        finally:
            plain.remove(force=True, v=True)
            client.close()
    yield Alone(f"a file of {size} MB in", put, "s", "docker cp", copied)
    yield Alone(f"a file of {size} MB out", got, "s", "docker cp", fetched)


async def stops(_quick: bool) -> AsyncIterator[Alone]:
    """How far over its time limit a cell gets, and how long a kill keeps the next cell waiting."""
    limit, grace = 1.0, Limits().interrupt_grace
    async with a_session() as session:
        for name, code in (("that computes", "while True: pass"), ("that sleeps", "import time; time.sleep(60)")):
            begin = time.perf_counter()
            run = await session.execute(code, timeout=limit)
            over = time.perf_counter() - begin - limit
            expect(run.status, "interrupted")
            yield Alone(f"time limit overshot by a cell {name}", over, "s")
        begin = time.perf_counter()
        run = await session.execute(STUBBORN, timeout=limit)
        expect(run.status, "killed")
        ended = time.perf_counter() - begin - limit
        await collected(session, "x = 1")
        again = time.perf_counter() - begin - limit
        waits = "interrupt_grace, of each of two steps to a kill"
        yield Alone("time limit to the end of a cell that has to be killed", ended, "s", waits, grace)
    async with a_manager() as manager:
        begin = time.perf_counter()
        await collected(await manager.throw_away(), "x = 1")
        start = time.perf_counter() - begin
    yield Alone("kill to the next cell's answer", again - 2 * grace, "s", "a cold start", start)


async def text(quick: bool) -> AsyncIterator[Alone]:
    """How much more memory the manager takes, at its most, while text comes that nobody keeps."""
    megabytes = 20 if quick else 100
    peak = 0

    async def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, resident())
            await asyncio.sleep(0.01)

    async with a_session() as session:
        code = f"for _ in range({megabytes}): print('y' * 999_999)"
        await session.execute(code)
        before = resident()
        watching = asyncio.create_task(watch())
        expect((await session.execute(code)).status, "ok")
        watching.cancel()
    yield Alone(f"manager's memory while {megabytes} MB of text come", (peak - before) / 1e6, "MB")


async def memory(_quick: bool) -> AsyncIterator[Alone]:
    """What an idle session's processes hold, against a kernel on this machine."""
    bare = await ensure_environment(*bare_environment())
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        connection = Path(folder) / "kernel.json"
        kernel = await asyncio.create_subprocess_exec(
            *(str(bare), "-m", "ipykernel_launcher", "-f", str(connection)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(30):
                while not connection.exists():  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.05)
            await asyncio.sleep(SETTLE)
            alone = pss([kernel.pid])
        finally:
            kernel.kill()
            await kernel.wait()
    async with a_session() as session:
        info = await session._engine.inspect(session.container_name)
        if info is None:
            raise RuntimeError("the session has no container")
        await asyncio.sleep(SETTLE)
        held = pss(of_containers([info.id]))
    yield Alone("memory of an idle session's processes (PSS)", held / 1e6, "MB", "bare ipykernel", alone / 1e6)


async def programs(_quick: bool) -> AsyncIterator[Alone]:
    """What it takes to import the package, and to ask its command for help."""

    async def median(*arguments: str) -> float:
        return statistics.median([await timed(succeed(sys.executable, *arguments)) for _ in range(5)])

    nothing = await median("-c", "pass")
    for what, arguments in (
        ("`import session_manager`", ("-c", "import session_manager")),
        ("`docker-interpreter --help`", ("-m", "session_manager.cli", "--help")),
    ):
        yield Alone(what, await median(*arguments), "s", "Python that does nothing", nothing)


def bare_environment() -> tuple[str, tuple[str, ...]]:
    """That of the baseline."""
    entrant = next(one for one in ENTRANTS if one.name == "bare")
    return entrant.environment, entrant.requirements


def expect(status: str, wanted: str) -> None:
    if status != wanted:
        raise RuntimeError(f"the cell ended as {status} instead of {wanted}")


async def timed(work: Awaitable[object]) -> float:
    """Seconds that something takes."""
    begin = time.perf_counter()
    await work
    return time.perf_counter() - begin


async def measure_alone(found: list[Alone], *, quick: bool, say: Callable[[str], None]) -> None:
    """All of it; what is found, and what fails, is appended as it comes."""
    for measure in (programs, pool, stops, text, memory, files, many):
        say(f"Ours alone: {measure.__name__}")
        try:
            async for figure in measure(quick):
                found.append(figure)
        except Exception as error:
            found.append(Alone(measure.__name__, error=f"{type(error).__name__}: {error}"))
