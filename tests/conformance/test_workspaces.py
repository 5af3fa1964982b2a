"""Files without a session, and sessions from the pool, as the engines themselves keep and list them."""

from __future__ import annotations

import asyncio
import time
import uuid

import pytest

from session_manager import ContainerGone, SessionManager, Settings, VolumeInUse
from session_manager.engine import ContainerSpec
from session_manager.engine.docker import LABEL_TICKET
from session_manager.registry import (
    COPY,
    LABEL_LIFE,
    LABEL_NAMESPACE,
    POOL,
    SessionName,
    mark_used,
    pool_prefix,
    read_registry,
    record_session,
    remove_workspace,
    workspace_of,
)
from session_manager.workspaces import Tidied, Workspaces
from tests.conftest import NAMESPACE, MakeManager

DAY = 86_400.0
POOL_LABELS = {LABEL_NAMESPACE: NAMESPACE, LABEL_LIFE: POOL}


def later(manager: SessionManager, seconds: float, settings: Settings | None = None) -> Workspaces:
    """Tidies as if so much time had passed."""
    return Workspaces(manager.engine, settings or manager.settings, lambda: time.time() + seconds)


async def volumes(manager: SessionManager) -> set[str]:
    return {volume.name for volume in await manager.engine.list_volumes({LABEL_NAMESPACE: NAMESPACE})}


async def wait_in_the_pool(manager: SessionManager) -> str:
    """Put a container into the pool; its name."""
    name = f"{pool_prefix(NAMESPACE)}{uuid.uuid4().hex}"
    image = await manager.engine.find_image(None, lambda _: None)
    await manager.engine.create(ContainerSpec(name, image, POOL_LABELS, name, {"idle_timeout": 60}))
    return name


async def test_files_are_marked_listed_and_removed_when_their_time_is_over(manager: SessionManager) -> None:
    names = {key: SessionName(NAMESPACE, key) for key in ("runs", "ended")}
    for key in names:
        await (await manager.session(key)).execute("open('file', 'w').write('here')")
    await manager.stop("ended")
    done = await later(manager, 0).tidy()
    assert [session.key for session in done.marked] == ["ended"]
    assert await later(manager, 29 * DAY).tidy() == Tidied()
    assert [status.key for status in await manager.list()] == ["runs"]
    ended, runs = await manager.list(stopped=True)
    assert (ended.key, ended.state, ended.container, ended.kept) == (
        "ended",
        "files only",
        names["ended"].container,
        True,
    )
    assert (ended.owner, ended.age, ended.idle, ended.memory, ended.image) == ("", None, None, None, "")
    assert ended.unused_since is not None and abs(ended.unused_since - time.time()) < 60
    assert (runs.key, runs.state, runs.unused_since) == ("runs", "idle", None)
    assert runs.age is not None and runs.age < 60
    done = await later(manager, 31 * DAY).tidy()
    assert [session.key for session in done.removed] == ["ended"]
    assert await volumes(manager) == {names["runs"].volume}
    assert [status.key for status in await manager.list(stopped=True)] == ["runs"]


async def test_a_session_that_comes_back_has_its_files_and_no_marker(manager: SessionManager) -> None:
    name = SessionName(NAMESPACE, "back")
    await (await manager.session("back")).execute("open('file', 'w').write('here')")
    await manager.stop("back")
    await later(manager, 0).tidy()
    assert await volumes(manager) == {name.volume, name.marker}
    session = await manager.session("back")
    await later(manager, 0).tidy()
    assert await volumes(manager) == {name.volume}
    assert (await session.execute("open('file').read()")).text.endswith("'here'")
    await manager.stop("back")
    await later(manager, 0).tidy()
    await mark_used(manager.engine, name)
    assert await volumes(manager) == {name.volume}
    await later(manager, 0).tidy()
    assert await manager.stop("back", purge=True) is False
    assert await volumes(manager) == set(), "the marker went with the files"


async def test_too_many_bytes(make_manager: MakeManager) -> None:
    manager = await make_manager(workspaces={"total_bytes": "3m"})
    removed = []
    for key in ("first", "second", "runs"):
        await (await manager.session(key)).execute("open('file', 'wb').write(b'x' * 2_000_000)")
        if key != "runs":
            await manager.stop(key)
            await asyncio.sleep(1.1)  # so that their markers tell which was first
        removed.append([session.key for session in (await later(manager, 0).tidy()).removed])
    assert removed == [[], ["first"], ["second"]]
    assert [status.key for status in await manager.list(stopped=True)] == ["runs"]


async def test_throw_away_files_do_not_stay(manager: SessionManager) -> None:
    name = SessionName(NAMESPACE, "throw-away-1")
    await manager.engine.create_volume(name.volume, name.labels(manager.settings, kept=False))
    await later(manager, 0).tidy()
    assert (await later(manager, 60).tidy()).removed == []
    assert [one.key for one in (await later(manager, 130).tidy()).removed] == ["throw-away-1"]
    assert await volumes(manager) == set()


async def test_ten_at_once(manager: SessionManager) -> None:
    keys = [f"chat/{number}" for number in range(5)]
    for key in keys:
        name = SessionName(NAMESPACE, key)
        await manager.engine.create_volume(name.volume, name.labels(manager.settings, kept=True))
    marks = await asyncio.gather(*(later(manager, 0).tidy() for _ in range(10)))
    assert {session.key for done in marks for session in done.marked} == set(keys)
    assert len(await volumes(manager)) == 10
    done = await asyncio.gather(*(later(manager, 31 * DAY).tidy() for _ in range(10)))
    assert {session.key for one in done for session in one.removed} == set(keys)
    assert await volumes(manager) == set()


async def test_a_container_from_the_pool_becomes_a_session(manager: SessionManager) -> None:
    member, name, engine = await wait_in_the_pool(manager), SessionName(NAMESPACE, "claimed"), manager.engine
    registry = await read_registry(engine, NAMESPACE)
    assert [one.name for one in registry.pool] == [member] and registry.sessions == {}
    await engine.rename(member, name.container)
    [status] = await manager.list()
    assert (status.key, status.container, status.kept) == ("?", name.container, True)
    assert (await later(manager, DAY).tidy()) == Tidied()
    assert await record_session(engine, name, kept=True, workspace=member) == member
    registry = await read_registry(engine, NAMESPACE)
    assert not registry.pool and not registry.pool_volumes
    session = registry.find(name)
    assert session is not None and (session.key, session.workspace) == ("claimed", member)
    with pytest.raises(VolumeInUse):
        await remove_workspace(engine, NAMESPACE, name.container)
    assert await workspace_of(engine, name) == member
    # it is found by its key, whatever it was called
    assert (await (await manager.session("claimed")).execute("6 * 7")).text == "42"
    assert await manager.stop("claimed") is True
    await later(manager, 0).tidy()
    assert await volumes(manager) == {member, name.volume, name.marker}
    await later(manager, 31 * DAY).tidy()
    assert await volumes(manager) == set()


async def test_what_the_pool_left_is_swept(manager: SessionManager) -> None:
    member = await wait_in_the_pool(manager)
    assert (await later(manager, DAY).tidy()) == Tidied()
    await manager.engine.remove(member)
    assert (await later(manager, 0).tidy()) == Tidied()
    assert (await later(manager, DAY).tidy()).volumes == [member]
    assert await volumes(manager) == set()


async def test_a_claim_that_was_given_up_half_way_is_swept(manager: SessionManager, engine_name: str) -> None:
    if engine_name != "docker":
        return  # which leaves a volume where its program is killed while it renames
    member, name = await wait_in_the_pool(manager), SessionName(NAMESPACE, "claimed")
    ticket = f"{member}-renaming"
    await manager.engine.create_volume(ticket, {**POOL_LABELS, LABEL_TICKET: "another's"})
    with pytest.raises(ContainerGone):
        await manager.engine.rename(member, name.container)
    assert (await later(manager, DAY).tidy()).volumes == [ticket]
    await manager.engine.rename(member, name.container)
    assert await volumes(manager) == {member}


async def test_a_copy_that_was_left_is_swept(manager: SessionManager, engine_name: str) -> None:
    if engine_name != "docker":
        return  # which leaves a container where its program is killed
    from session_manager.engine import docker_engine
    from session_manager.engine.docker_volumes import start_copy

    engine, image = docker_engine(manager.settings), await manager.engine.find_image(None, lambda _: None)
    labels = {LABEL_NAMESPACE: NAMESPACE, LABEL_LIFE: COPY}
    for volume in ("source", "target"):
        name = SessionName(NAMESPACE, volume)
        await engine.create_volume(name.volume, name.labels(manager.settings, kept=True))
    source, target = (SessionName(NAMESPACE, volume).volume for volume in ("source", "target"))
    await engine.call(lambda api: start_copy(api, f"{target}-copy", source, target, image, labels))
    assert len((await read_registry(engine, NAMESPACE)).copies) == 1
    async with asyncio.timeout(20):
        while (await engine.list(labels))[0].state != "ended":
            await asyncio.sleep(0.05)
    passed = 0.0
    workspaces = Workspaces(engine, manager.settings, lambda: time.time() + passed)
    assert (await workspaces.tidy()).containers == []
    passed = DAY
    assert (await workspaces.tidy()).containers == [f"{target}-copy"]
    await engine.close()
