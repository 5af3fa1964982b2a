"""An engine that stops and comes back under running sessions. The test starts one of its own: no other is touched."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from session_manager import Execution, Session, SessionManager
from tests.conftest import MakeManager

from .private_engine import PrivateEngine, private_engine

# docker-py leaves the socket of a connection that failed to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def engine_of_its_own() -> Iterator[PrivateEngine]:
    """One that can be stopped."""
    with private_engine({}) as engine:
        yield engine


@pytest.mark.timeout(400)
async def test_twenty_sessions_survive_a_restart_of_the_engine_with_their_files(
    engine_of_its_own: PrivateEngine, make_manager: MakeManager
) -> None:
    manager: SessionManager = await make_manager(docker_host=engine_of_its_own.url, container={"mem_limit": "256m"})
    gate = asyncio.Semaphore(6)

    async def start(key: str) -> Session:
        async with gate:
            session = await manager.session(key)
            await session.execute(f"open('kept.txt', 'w').write({key!r}); x = 1")
            return session

    idle = await asyncio.gather(*(start(f"idle/{i}") for i in range(15)))
    busy = await asyncio.gather(*(start(f"busy/{i}") for i in range(5)))
    begun = [asyncio.Event() for _ in busy]
    tasks = [
        asyncio.create_task(
            session.execute("print(1, flush=True)\nimport time; time.sleep(200)", on_output=lambda _, e=event: e.set())
        )
        for session, event in zip(busy, begun, strict=True)
    ]
    await asyncio.gather(*(event.wait() for event in begun))
    await asyncio.to_thread(engine_of_its_own.stop)
    (await asyncio.to_thread(engine_of_its_own.start)).close()
    for run in await asyncio.wait_for(asyncio.gather(*tasks), 200):
        assert run.status == "container_removed" and run.message is not None
        assert "files in the workspace are kept" in run.message

    async def look(session: Session) -> Execution:
        async with gate:
            return await session.execute("print(open('kept.txt').read(), 'x' in globals())")

    for session, after in zip(busy, await asyncio.gather(*map(look, busy)), strict=True):
        assert after.status == "ok" and after.text.endswith(f"{session.key} False")
    for session, told in zip(idle, await asyncio.gather(*map(look, idle)), strict=True):
        assert told.notice is not None and told.text.endswith(f"{session.key} False")
    await asyncio.gather(*(manager.stop(session.key, purge=True) for session in [*idle, *busy]))
    gc.collect()  # so that no other test gets the warnings
