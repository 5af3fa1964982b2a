"""Which files are kept and which go: by age, by size, and whatever else happens meanwhile."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from session_manager import EngineError, EngineUnavailable, Settings
from session_manager.engine.base import LABEL_SESSION
from session_manager.registry import (
    COPY,
    LABEL_LIFE,
    LABEL_NAMESPACE,
    POOL,
    UNUSED,
    SessionName,
    labels_beside,
    mark_used,
    read_registry,
    record_session,
)
from session_manager.settings import Workspaces as KeepWorkspaces
from session_manager.workspaces import Tidied, Workspaces

from .fake_engine import FakeEngine

NAMESPACE = "ns"
DAY = 86_400.0
MEMBER = "ns-pool-0123456789abcdef0123456789abcdef"
POOL_LABELS = {LABEL_NAMESPACE: NAMESPACE, LABEL_LIFE: POOL}


@pytest.fixture
def engine() -> FakeEngine:
    """An engine with nothing on it."""
    return FakeEngine()


def settings(**workspaces: Any) -> Settings:
    return Settings(namespace=NAMESPACE, workspaces=KeepWorkspaces(**{"keep_unused": 30 * DAY, **workspaces}))


def named(key: str) -> SessionName:
    return SessionName(NAMESPACE, key)


def add(engine: FakeEngine, key: str, size: int = 0, *, running: bool = False, kept: bool = True) -> SessionName:
    """A session with files."""
    name = named(key)
    labels = name.labels(settings(), kept=kept)
    engine.add_volume(name.volume, labels, size)
    if running:
        engine.add_container(name.container, labels, [name.volume])
    return name


async def look(engine: FakeEngine, **workspaces: Any) -> Tidied:
    return await Workspaces(engine, settings(**workspaces), engine.clock).tidy()


def keys(sessions: list[Any]) -> list[str]:
    return sorted(session.key for session in sessions)


async def test_what_has_no_container_is_marked_once(engine: FakeEngine) -> None:
    add(engine, "running", running=True)
    name = add(engine, "ended")
    done = await look(engine)
    assert keys(done.marked) == ["ended"] and done.marked[0].unused_since == engine.now
    first = engine.volumes[name.marker]
    engine.now += 5
    assert await look(engine) == Tidied()
    assert engine.volumes[name.marker] is first
    assert named("running").marker not in engine.volumes


async def test_a_look_at_what_is_in_order_takes_two_requests(engine: FakeEngine) -> None:
    for number in range(50):
        add(engine, str(number), running=number % 2 == 0)
    await look(engine)
    engine.calls.clear()
    await look(engine)
    assert len(engine.calls) == 2


async def test_a_marker_goes_when_there_is_a_container_again(engine: FakeEngine) -> None:
    name = add(engine, "chat")
    await look(engine)
    add(engine, "chat", running=True)
    assert keys((await look(engine)).unmarked) == ["chat"]
    assert name.marker not in engine.volumes


async def test_unused_files_go_after_their_time_and_not_before(engine: FakeEngine) -> None:
    name, running = add(engine, "chat"), add(engine, "running", running=True)
    await look(engine)
    engine.now += 30 * DAY - 1
    assert (await look(engine)).removed == []
    engine.now += 1
    assert keys((await look(engine)).removed) == ["chat"]
    assert set(engine.volumes) == {running.volume}
    assert name.volume not in engine.volumes


async def test_files_can_be_kept_for_ever(engine: FakeEngine) -> None:
    add(engine, "chat")
    await look(engine, keep_unused=None)
    engine.now += 10_000 * DAY
    assert (await look(engine, keep_unused=None)).removed == []


async def test_files_that_were_used_between_two_looks_are_not_old(engine: FakeEngine) -> None:
    name = add(engine, "chat")
    await look(engine)
    engine.now += 29 * DAY
    add(engine, "chat", running=True)
    await mark_used(engine, name)
    engine.remove_now(name.container)
    engine.now += 2 * DAY
    assert keys((await look(engine)).marked) == ["chat"]
    engine.now += 29 * DAY
    assert (await look(engine)).removed == []


async def test_a_claimed_workspace_goes_with_its_record(engine: FakeEngine) -> None:
    engine.add_volume(MEMBER, POOL_LABELS, 10)
    await record_session(engine, named("chat"), kept=True, workspace=MEMBER)
    await look(engine)
    engine.now += 29 * DAY
    assert await look(engine) == Tidied(), "it is the session's, not the pool's"
    engine.now += DAY
    assert keys((await look(engine)).removed) == ["chat"]
    assert engine.volumes == {}


async def test_above_the_total_the_longest_unused_go_first(engine: FakeEngine) -> None:
    for key in ("a", "c", "b"):
        add(engine, key, 40)
        await look(engine)
        engine.now += 10
    add(engine, "running", 50, running=True)
    add(engine, "empty", 0)
    assert (await look(engine, total_bytes=1 << 20)).removed == []
    limited = Workspaces(engine, settings(), engine.clock)
    limited._total_bytes = 100  # settings take no less than a MiB
    assert keys((await limited.tidy()).removed) == ["a", "c"]
    limited._total_bytes = 0
    assert keys((await limited.tidy()).removed) == ["b"]
    assert {named("running").volume, named("empty").volume} <= set(engine.volumes)


async def test_sizes_are_not_asked_for_without_a_limit(engine: FakeEngine) -> None:
    add(engine, "chat", 5)
    await look(engine)
    assert "volume_sizes" not in [method for method, _ in engine.calls]


async def test_claimed_workspaces_count_with_their_files(engine: FakeEngine) -> None:
    engine.add_volume(MEMBER, POOL_LABELS, 70)
    await record_session(engine, named("claimed"), kept=True, workspace=MEMBER)
    await look(engine)
    engine.now += 1
    add(engine, "plain", 40)
    limited = Workspaces(engine, settings(), engine.clock)
    limited._total_bytes = 100
    assert keys((await limited.tidy()).removed) == ["claimed"]
    assert MEMBER not in engine.volumes


async def test_throw_away_files_go_soon(engine: FakeEngine) -> None:
    add(engine, "throw-away-1", kept=False)
    running = add(engine, "throw-away-2", kept=False, running=True)
    add(engine, "kept")
    await look(engine, keep_unused=None)
    engine.now += 119
    assert (await look(engine, keep_unused=None)).removed == []
    engine.now += 1
    assert keys((await look(engine, keep_unused=None)).removed) == ["throw-away-1"]
    assert running.volume in engine.volumes


async def test_pool_volumes_that_nobody_got_go_soon(engine: FakeEngine) -> None:
    waiting = engine.add_container("ns-pool-1", POOL_LABELS, ["ns-pool-1"])
    for name in (waiting.name, MEMBER, "ns-pool-2"):
        engine.add_volume(name, POOL_LABELS)
    await record_session(engine, named("chat"), kept=True, workspace=MEMBER)
    assert (await look(engine)).volumes == []
    engine.now += 120
    assert (await look(engine)).volumes == ["ns-pool-2"]
    assert {"ns-pool-1", MEMBER} <= set(engine.volumes)


async def test_a_volume_that_is_claimed_during_the_look_stays(engine: FakeEngine) -> None:
    engine.add_volume(MEMBER, POOL_LABELS)
    engine.now += 500
    registry = await read_registry(engine, NAMESPACE)
    await record_session(engine, named("chat"), kept=True, workspace=MEMBER)
    done = await Workspaces(engine, settings(), engine.clock).tidy(registry)
    assert done.volumes == [] and MEMBER in engine.volumes


async def test_copies_that_nobody_waits_for_go(engine: FakeEngine) -> None:
    labels = {LABEL_NAMESPACE: NAMESPACE, LABEL_LIFE: COPY}
    engine.add_container("going-on", labels)
    engine.add_container("over", labels, state="ended")
    workspaces = Workspaces(engine, settings(), engine.clock)
    engine.now += 1000
    assert (await workspaces.tidy()).containers == [], "it may have ended just now"
    engine.now += 120
    assert (await workspaces.tidy()).containers == ["over"]
    assert set(engine.containers) == {"going-on"}


async def test_what_was_beside_a_container_that_is_gone_goes_at_once(engine: FakeEngine) -> None:
    session = engine.add_container(named("a").container, {LABEL_NAMESPACE: NAMESPACE})
    for name, one in (("kept", session.id), ("left", "gone")):
        labels = {**labels_beside(NAMESPACE), LABEL_SESSION: one}
        engine.add_volume(name, labels)
        engine.add_container(name, labels, [name])
    done = await Workspaces(engine, settings(), engine.clock).tidy()
    assert (done.containers, done.volumes) == (["left"], ["left"])
    assert set(engine.containers) == {session.name, "kept"} and "kept" in engine.volumes


async def test_markers_of_nothing_go(engine: FakeEngine) -> None:
    engine.add_volume(named("gone").marker, {LABEL_NAMESPACE: NAMESPACE, LABEL_LIFE: UNUSED})
    await look(engine)
    assert engine.volumes == {}


@pytest.mark.parametrize("moment", range(8))
@pytest.mark.parametrize("claimed", [False, True])
async def test_a_session_that_starts_while_its_files_are_to_go(engine: FakeEngine, moment: int, claimed: bool) -> None:
    """Whenever it starts, it has a record, and its own files or a new volume."""
    name = named("chat")
    workspace = MEMBER if claimed else name.volume
    engine.add_volume(workspace, name.labels(settings(), kept=True), 5)
    await record_session(engine, name, kept=True, workspace=workspace)
    await look(engine)
    engine.now += 31 * DAY
    engine.calls.clear()
    labels = name.labels(settings(), kept=True)

    def start() -> None:
        engine.add_volume(workspace, labels)
        engine.add_container(name.container, labels, [workspace])

    engine.before = lambda method, key: start() if len(engine.calls) == moment + 1 else None
    await look(engine)
    if len(engine.calls) <= moment:
        start()
    engine.before = lambda method, key: None
    registry = await read_registry(engine, NAMESPACE)
    session = registry.find(name)
    assert session is not None and session.container is not None and workspace in engine.volumes
    assert session.key == "chat" and not registry.pool_volumes
    if moment <= 2:  # before the first removal
        assert session.record is not None and engine.sizes[workspace] == 5


async def test_one_that_runs_after_all_is_not_removed_for_its_size(engine: FakeEngine) -> None:
    for key in ("a", "b"):
        add(engine, key, 60)
        await look(engine)
        engine.now += 1

    def start(method: str, name: str) -> None:
        if method == "volume_sizes":
            add(engine, "a", running=True)

    engine.before = start
    limited = Workspaces(engine, settings(), engine.clock)
    limited._total_bytes = 100
    assert keys((await limited.tidy()).removed) == ["b"]
    assert named("a").volume in engine.volumes


async def test_what_the_engine_refuses_does_not_stop_the_rest(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = add(engine, "a"), add(engine, "b")
    await look(engine)
    engine.now += 31 * DAY

    def refuse(method: str, name: str) -> None:
        if method == "remove_volume" and name == first.volume:
            raise EngineError("No.")

    engine.before = refuse
    assert keys((await look(engine)).removed) == ["b"]
    assert second.volume not in engine.volumes and first.volume in engine.volumes
    assert "No." in caplog.text

    def away(method: str, name: str) -> None:
        raise EngineUnavailable("Nobody.")

    engine.before = away
    with pytest.raises(EngineUnavailable):
        await look(engine)


@pytest.mark.parametrize("seed", range(50))
async def test_ten_at_once_do_what_one_does(seed: int) -> None:
    """Whatever the order of their requests; and sessions that start and end meanwhile keep their files."""
    engine, chance = FakeEngine(), random.Random(seed)  # noqa: S311 - an order, no secret
    for number in range(6):
        add(engine, f"old/{number}", 30, kept=number % 3 > 0)
        await look(engine)
        engine.now += 1
    engine.add_volume(MEMBER, POOL_LABELS, 30)
    await record_session(engine, named("old/claimed"), kept=True, workspace=MEMBER)
    engine.add_volume("ns-pool-lone", POOL_LABELS)
    await look(engine)
    engine.now += 200
    for key in ("new/1", "new/2"):
        add(engine, key, 30)
    add(engine, "running", 30, running=True)
    original = engine._turn

    async def turn(method: str, name: str = "") -> None:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        await original(method, name)

    engine._turn = turn  # type: ignore[method-assign]
    managers = [Workspaces(engine, settings(), engine.clock) for _ in range(10)]
    for manager in managers:
        manager._total_bytes = 150

    async def use(name: SessionName) -> None:
        engine.add_volume(name.volume, name.labels(settings(), kept=True), 30)
        engine.add_container(name.container, name.labels(settings(), kept=True), [name.volume])
        await mark_used(engine, name)

    await asyncio.gather(*(manager.tidy() for manager in managers), use(named("new/1")))
    registry = await read_registry(engine, NAMESPACE)
    # of 10 times 30 bytes two throw-aways went by age, and of the others the three longest unused
    assert keys(list(registry.sessions.values())) == ["new/1", "new/2", "old/5", "old/claimed", "running"]
    assert not registry.pool_volumes and not registry.lone_markers
    assert MEMBER in engine.volumes and named("new/1").volume in engine.volumes
