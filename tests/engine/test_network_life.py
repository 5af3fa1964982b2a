"""How what stands between a session and the network comes and goes."""

from __future__ import annotations

import asyncio

import docker
import pytest

from session_manager import EngineError, SessionManager
from session_manager.engine import docker_proxy
from session_manager.engine.base import LABEL_SESSION
from session_manager.images import ImageKind, ensure_image
from session_manager.reaper import Reaper
from session_manager.registry import LABEL_NAMESPACE, labels_beside
from tests.conftest import MakeManager, MakeSettings, run_python

from .outside import FETCH, World, ask, beside, until

pytestmark = pytest.mark.timeout(600)


async def test_a_container_from_the_pool_has_the_network_of_its_settings(
    make_manager: MakeManager, world: World, client: docker.APIClient
) -> None:
    manager = await make_manager(container=world.options(), pool={"size": 1, "preload": []})
    await (await manager.throw_away()).stop(purge=True)  # a first session starts the pool
    await until(lambda: len(manager._pool._members) == 1)
    waiting = client.inspect_container(manager._pool._members[0].name)["Id"]
    session = await manager.session("from the pool")
    assert client.inspect_container(session.container_name)["Id"] == waiting
    assert await ask(session, "answer = fetch('http://listed.test/')") == "hello from outside"
    await session.stop(purge=True)
    assert client.containers(all=True, filters={"label": [f"{LABEL_SESSION}={waiting}"]}) == []


async def test_all_goes_with_the_session(make_manager: MakeManager, world: World, client: docker.APIClient) -> None:
    manager = await make_manager(container=world.options())
    namespace = manager.settings.namespace
    one, two = await asyncio.gather(manager.session("a"), manager.throw_away())
    assert len(beside(client, namespace)) == 6
    await two.stop(purge=True)
    assert len(beside(client, namespace)) == 3
    await one.stop()
    assert beside(client, namespace) == []


KILLED = """
import asyncio

async def main():
    session = await SessionManager(settings).throw_away()
    print(session.container_name, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_all_ends_where_the_manager_was_killed_and_the_next_sweeps(
    make_settings: MakeSettings, make_manager: MakeManager, world: World, client: docker.APIClient
) -> None:
    settings = make_settings(container=world.options(), limits={"orphan_grace": 1.0})
    namespace = settings.namespace
    process = await asyncio.create_subprocess_exec(*run_python(KILLED, settings), stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        name = (await process.stdout.readline()).decode().strip()
        found = client.inspect_container(name)["Id"]
        assert len(beside(client, namespace)) == 3
    finally:
        process.kill()
        await process.communicate()
    await until(lambda: client.containers(all=True, filters={"label": [f"{LABEL_SESSION}={found}"]}) == [])
    assert len(beside(client, namespace)) == 1, "the volume between them is left"
    # and what a program left that was killed between two requests
    image = ensure_image(client, ImageKind.PROXY, progress=print)
    labels = {**labels_beside(namespace), LABEL_SESSION: "0" * 64}
    client.create_container(image, name=f"{namespace}-never-started", labels=labels)
    other = labels | {LABEL_NAMESPACE: f"{namespace}-other"}
    stranger = client.create_container(image, labels=other)["Id"]
    try:
        sweeper = await make_manager()
        await Reaper(sweeper.engine, sweeper._thread, sweeper.settings).sweep()
        assert beside(client, namespace) == []
        assert client.inspect_container(stranger)["Id"] == stranger
    finally:
        client.remove_container(stranger, force=True)


async def test_a_session_whose_way_is_gone_gets_another(
    make_manager: MakeManager, world: World, client: docker.APIClient
) -> None:
    """As where its manager was killed before it had made it."""
    manager = await make_manager(container=world.options())
    session = await manager.session("cut off")
    await session.execute("kept = 7")
    found = client.inspect_container(session.container_name)["Id"]
    others = {"label": [f"{LABEL_SESSION}={found}"]}
    gate = client.containers(filters={**others, "name": "-gate-"})[0]["Id"]
    client.remove_container(gate, force=True)
    await until(lambda: client.containers(all=True, filters=others) == [])
    answer = await ask(
        session, "try: answer = fetch('http://listed.test/')\nexcept OSError as error: answer = str(error)"
    )
    assert "refused" in answer
    reaper = Reaper(manager.engine, manager._thread, manager.settings)
    await reaper.sweep()
    assert client.inspect_container(found)["State"]["Running"], "it may be about to be made"
    reaper._incomplete_for = 0.0
    await reaper.sweep()
    run = await session.execute(f"{FETCH}\nprint(kept, fetch('http://listed.test/'))")
    assert run.text.splitlines()[-1] == "7 hello from outside"
    assert run.notice is not None and "because its way to the network was gone" in run.notice
    await session.stop(purge=True)


async def test_a_proxy_that_does_not_start_is_an_error_and_leaves_nothing(
    make_manager: MakeManager, world: World, client: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_proxy, "configuration", lambda options: "http_port nonsense\n")
    manager: SessionManager = await make_manager(container=world.options())
    with pytest.raises(EngineError, match="The proxy for a session's network does not start"):
        await manager.throw_away()
    assert await manager.list() == [] and beside(client, manager.settings.namespace) == []
