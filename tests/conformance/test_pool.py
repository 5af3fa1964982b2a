"""Containers that wait for sessions, on every engine."""

from __future__ import annotations

import asyncio

import pytest

from session_manager import SessionManager
from session_manager.engine import make_engine
from session_manager.registry import LABEL_NAMESPACE, Registry, SessionName, read_registry
from tests.conformance.test_reaping import killed_after_a_line
from tests.conftest import MakeManager, MakeSettings

PATIENCE = 60.0


async def registry_of(manager: SessionManager) -> Registry:
    return await read_registry(manager.engine, manager.settings.namespace)


async def filled(manager: SessionManager, size: int) -> list[str]:
    """The ids of the containers that wait, once there are so many, all held."""
    async with asyncio.timeout(PATIENCE):
        while len(manager._pool._members) != size:
            await asyncio.sleep(0.05)
    waiting = (await registry_of(manager)).pool
    assert len(waiting) == size
    return [info.id for info in waiting]


async def test_a_new_session_takes_one_that_waits_and_another_is_started(make_manager: MakeManager) -> None:
    manager = await make_manager(pool={"size": 2})
    manager._pool.start()
    before = await filled(manager, 2)
    session = await manager.session("first")
    info = await manager.engine.inspect(session.container_name)
    assert info is not None and info.id in before
    run = await session.execute("open('kept.txt', 'w').write('here')\nx = 1")
    assert run.status == "ok" and run.notice is None
    after = await filled(manager, 2)
    assert info.id not in after and len(set(before) & set(after)) == 1


async def test_one_key_is_one_session_from_the_pool_too(make_manager: MakeManager) -> None:
    managers = [await make_manager(pool={"size": 2}) for _ in range(2)]
    managers[0]._pool.start()
    await filled(managers[0], 2)
    sessions = await asyncio.gather(*(manager.session("same") for manager in managers for _ in range(3)))
    runs = await asyncio.gather(*(session.execute("import os; os.getpid()") for session in sessions))
    assert len({run.text for run in runs}) == 1


async def test_two_managers_never_take_the_same_one(make_manager: MakeManager) -> None:
    managers = [await make_manager(pool={"size": 3}) for _ in range(2)]
    managers[0]._pool.start()
    await filled(managers[0], 3)
    sessions = await asyncio.gather(*(managers[i % 2].session(f"apart/{i}") for i in range(6)))
    await asyncio.gather(*(session.execute(f"mine = {i}") for i, session in enumerate(sessions)))
    runs = await asyncio.gather(*(session.execute("mine") for session in sessions))
    assert [run.text for run in runs] == [str(i) for i in range(6)]


async def test_a_claimed_session_is_found_listed_and_put_away_like_any_other(make_manager: MakeManager) -> None:
    first = await make_manager(pool={"size": 1}, limits={"idle_timeout": 2})
    first._pool.start()
    await filled(first, 1)
    session = await first.session("claimed", owner="me")
    await session.execute("open('kept.txt', 'w').write('here')\nx = 5")
    second = await make_manager()
    listed = [(one.key, one.owner, one.kept) for one in await second.list()]
    assert listed == [("claimed", "me", True)]
    found = await second.session("claimed", owner="me")
    assert (await found.execute("x")).text == "5"
    async with asyncio.timeout(PATIENCE):
        while await second.list():
            await asyncio.sleep(0.2)
    run = await found.execute("print(x, open('kept.txt').read())")
    assert run.text.endswith("5 here"), run.text  # its files came with it from the pool
    await second.stop("claimed", owner="me", purge=True)
    names = [volume.name for volume in await second.engine.list_volumes({LABEL_NAMESPACE: second.settings.namespace})]
    assert [name for name in names if "-pool-" not in name] == []


async def test_a_throw_away_session_from_the_pool_goes_with_its_files(make_manager: MakeManager) -> None:
    manager = await make_manager(pool={"size": 1})
    manager._pool.start()
    await filled(manager, 1)
    session = await manager.throw_away()
    await session.execute("open('x', 'w').write('y')")
    await session.stop()
    registry = await registry_of(manager)
    assert registry.sessions == {} and registry.pool_volumes == []


async def test_a_key_that_has_files_gets_them_and_not_the_pools(make_manager: MakeManager) -> None:
    plain = await make_manager()
    await (await plain.session("files")).execute("open('kept.txt', 'w').write('here')")
    await plain.stop("files")
    manager = await make_manager(pool={"size": 1})
    manager._pool.start()
    await filled(manager, 1)
    run = await (await manager.session("files")).execute("open('kept.txt').read()")
    assert run.text.endswith("'here'")


async def test_what_waits_with_other_settings_is_left_to_its_owner_and_replaced_when_nobody_has_it(
    make_manager: MakeManager,
) -> None:
    first = await make_manager(pool={"size": 1})
    first._pool.start()
    [stale] = await filled(first, 1)
    second = await make_manager(pool={"size": 1}, container={"hostname": "another"})
    second._pool.start()
    async with asyncio.timeout(PATIENCE):
        while not second._pool._members:
            await asyncio.sleep(0.05)
    assert stale in {info.id for info in (await registry_of(second)).pool}, "its manager lives"
    session = await second.session("new")
    assert (await session.execute("import socket; 1")).status == "ok"
    info = await second.engine.inspect(session.container_name)
    assert info is not None and info.id != stale
    await first.detach()
    second._pool._wanted.set()
    async with asyncio.timeout(PATIENCE):
        while stale in {info.id for info in (await registry_of(second)).pool}:
            second._pool._wanted.set()
            await asyncio.sleep(0.1)


CLAIM_HALF = """
import asyncio
from session_manager.registry import SessionName
async def main():
    manager = SessionManager(settings)
    manager._pool.start()
    while not manager._pool._members:
        await asyncio.sleep(0.05)
    name = SessionName(settings.namespace, "half")
    await manager.engine.rename(manager._pool._members[0].name, name.container)
    print("begun", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_a_claim_that_was_cut_short_is_finished_by_the_next(
    make_settings: MakeSettings, make_manager: MakeManager
) -> None:
    await killed_after_a_line(CLAIM_HALF, make_settings(pool={"size": 1}))
    manager = await make_manager()
    assert [one.key for one in await manager.list()] == ["?"]
    session = await manager.session("half")
    run = await session.execute("open('kept.txt', 'w').write('here')")
    assert run.status == "ok"
    assert [one.key for one in await manager.list()] == ["half"]
    await manager.stop("half")
    again = await (await manager.session("half")).execute("open('kept.txt').read()")
    assert again.text.endswith("'here'")


WAIT = """
import asyncio
async def main():
    manager = SessionManager(settings)
    manager._pool.start()
    while len(manager._pool._members) < 2:
        await asyncio.sleep(0.05)
    print("begun", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_what_waits_is_adopted_by_the_next_manager_or_ends_by_itself(
    make_settings: MakeSettings, make_manager: MakeManager
) -> None:
    limits = {"idle_timeout": 3.0, "idle_margin": 1.0, "orphan_grace": 1.0}
    await killed_after_a_line(WAIT, make_settings(pool={"size": 2}, limits=limits))
    manager = await make_manager(pool={"size": 2}, limits=limits)
    before = {info.id for info in (await registry_of(manager)).pool}
    manager._pool.start()
    assert set(await filled(manager, 2)) == before, "none was started beside those that waited"
    await manager._pool.stop()
    engine = make_engine(manager.settings)
    async with asyncio.timeout(PATIENCE):
        while (await read_registry(engine, manager.settings.namespace)).pool:
            await asyncio.sleep(0.2)
        while (await read_registry(engine, manager.settings.namespace)).pool_volumes:
            await manager._reaper.sweep()
            await asyncio.sleep(0.2)
    await engine.close()


async def test_a_pool_of_size_0_asks_and_starts_nothing(manager: SessionManager) -> None:
    await manager.session("plain")
    assert manager._pool._task is None
    assert await manager._pool.claim(SessionName(manager.settings.namespace, "x"), kept=True) is None
    assert (await registry_of(manager)).pool == []


@pytest.mark.parametrize("engine_name", ["docker"])
async def test_the_usual_imports_are_done(make_manager: MakeManager, engine_name: str) -> None:
    manager = await make_manager(pool={"size": 1, "preload": ["decimal", "no_such_module", "ctypes.wintypes"]})
    manager._pool.start()
    await filled(manager, 1)
    session = await manager.session("loaded")
    run = await session.execute("import sys\nprint('decimal' in sys.modules, 'decimal' in globals())")
    assert run.text == "True False", "imported, and not in the way"
    await session.restart()
    assert (await session.execute("print('decimal' in globals())")).text == "False"
