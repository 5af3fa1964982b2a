"""The way to the engine is cut and comes back, while engine and containers go on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from session_manager import EngineUnavailable
from session_manager.engine.docker_host import resolve_docker_host
from tests.conftest import MakeManager

# docker-py leaves the socket of a connection that failed to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Way:
    """A Unix socket in front of the engine's, which can be cut."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "docker.sock"
        self.url = f"unix://{self.path}"
        self.engine = resolve_docker_host().removeprefix("unix://")
        self.server: asyncio.Server | None = None
        self.writers: set[asyncio.StreamWriter] = set()
        self.pumps: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Let connections through."""
        self.server = await asyncio.start_unix_server(self.connect, str(self.path))

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(self.engine)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            self.writers.add(sink)
            self.pumps.add(asyncio.create_task(self.pump(source, sink)))

    async def pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(65536):
                sink.write(chunk)
                await sink.drain()
        sink.close()

    async def cut(self) -> None:
        """Drop every connection, and accept no new one."""
        assert self.server is not None
        self.server.close()
        self.path.unlink(missing_ok=True)
        for pump in self.pumps:
            pump.cancel()
        await asyncio.gather(*self.pumps, return_exceptions=True)
        for writer in self.writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        self.pumps.clear()
        self.writers.clear()


@pytest.fixture
async def way(tmp_path: Path) -> AsyncIterator[Way]:
    """An open way to the engine."""
    found = Way(tmp_path)
    await found.open()
    yield found
    await found.cut()
    gc.collect()  # so that no other test gets the warnings


async def test_the_engine_is_named_as_people_know_it(way: Way, make_manager: MakeManager) -> None:
    manager = await make_manager(docker_host=way.url)
    assert await manager.list() == []
    await way.cut()
    with pytest.raises(EngineUnavailable) as raised:
        await manager.list()
    assert raised.value.message == f"No container engine answers at {way.url}."
    await way.open()
    assert await manager.list() == []
    await manager.detach()


async def test_a_running_cell_outlives_a_cut(way: Way, make_manager: MakeManager) -> None:
    manager = await make_manager(docker_host=way.url)
    session = await manager.session("cut")
    begun = asyncio.Event()
    task = asyncio.create_task(
        session.execute(
            "print('begun', flush=True)\nimport time; time.sleep(4)\nx = 5\nprint('done')",
            on_output=lambda _: begun.set(),
        )
    )
    await begun.wait()
    await way.cut()
    await asyncio.sleep(1)
    await way.open()
    run = await asyncio.wait_for(task, 60)
    assert run.status == "ok" and run.variables_kept and not run.output_incomplete
    assert run.text.splitlines()[:2] == ["begun", "done"]
    assert (await session.execute("x")).text == "5"
    await manager.detach()


async def test_an_engine_that_stays_away_is_said_in_a_sentence(way: Way, make_manager: MakeManager) -> None:
    manager = await make_manager(docker_host=way.url, limits={"start_timeout": 2})
    session = await manager.session("away")
    await session.execute("x = 7")
    begun = asyncio.Event()
    task = asyncio.create_task(
        session.execute("print(1, flush=True)\nimport time; time.sleep(6)", on_output=lambda _: begun.set())
    )
    await begun.wait()
    await way.cut()
    run = await asyncio.wait_for(task, 60)
    assert run.status == "engine_unreachable" and run.variables_kept is None
    assert run.message is not None and "engine can't be reached" in run.message
    with pytest.raises(EngineUnavailable, match="No container engine answers"):
        await session.execute("1")
    await way.open()
    # the first answer may have to wait for the cell that was left alone
    again = await asyncio.wait_for(session.execute("x"), 60)
    assert again.text == "7", "the container went on, and so did its variables"
    await manager.detach()
