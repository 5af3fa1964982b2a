"""Names that no one can collide with, and what a listing of the engine tells of sessions."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from session_manager import Settings, SettingsError, VolumeInUse
from session_manager.engine import Engine
from session_manager.engine.base import LABEL_BESIDE, LABEL_SESSION
from session_manager.registry import (
    COPY,
    KEPT,
    LABEL_LIFE,
    LABEL_NAMESPACE,
    POOL,
    THROW_AWAY,
    UNUSED,
    SessionName,
    labels_beside,
    mark_unused,
    mark_used,
    read_registry,
    record_session,
    remove_workspace,
    workspace_of,
)

from .fake_engine import FakeEngine

NAMESPACE = "ns"
SETTINGS = Settings(namespace=NAMESPACE)
NAME = SessionName(NAMESPACE, "chat")
POOL_LABELS = {LABEL_NAMESPACE: NAMESPACE, LABEL_LIFE: POOL}
MEMBER = "ns-pool-0123456789abcdef0123456789abcdef"

text = st.text(st.characters(exclude_categories=("C", "Z")) | st.sampled_from("0123456789:- "), max_size=12)
keys = text.filter(bool)


@pytest.fixture
def engine() -> FakeEngine:
    """An engine with nothing on it."""
    return FakeEngine()


def test_the_fake_is_an_engine(engine: FakeEngine) -> None:
    checked: Engine = engine
    assert checked.name == "fake"


def test_without_an_owner_a_name_is_what_it_was() -> None:
    assert NAME.container == f"ns-{hashlib.sha256(b'chat').hexdigest()[:32]}" == NAME.volume
    assert NAME.marker == f"ns-unused-{NAME.container.removeprefix('ns-')}"


@given(st.lists(st.tuples(text, keys), min_size=2, max_size=6, unique=True))
@example([("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", "a")])
@example([("", "1:ab"), ("a", "b"), ("1:a", "b"), ("", "3:1:ab")])
@example([("1", ":1"), ("1:", "1"), ("11", ":"), ("", "1:1:1")])
def test_no_owner_and_key_read_like_others(pairs: list[tuple[str, str]]) -> None:
    names = {SessionName(NAMESPACE, key, owner).container for owner, key in pairs}
    assert len(names) == len(pairs)


@pytest.mark.parametrize("owner", ["a\x00", "\x001:ab", "a\nb", "x" * 513, "\ud800", "\u202e"])
def test_an_owner_is_printable(owner: str) -> None:
    with pytest.raises(SettingsError, match="owner"):
        SessionName(NAMESPACE, "key", owner)


@pytest.mark.parametrize("key", ["", "a\x00", "x" * 513, "\ud800"])
def test_a_key_is_printable_and_there(key: str) -> None:
    with pytest.raises(SettingsError, match="key"):
        SessionName(NAMESPACE, key, "owner")


async def test_a_session_is_listed_by_its_container_and_its_record(engine: FakeEngine) -> None:
    mine, other = SessionName(NAMESPACE, "chat", "me"), SessionName(NAMESPACE, "chat", "you")
    for name, kept in ((mine, True), (other, False)):
        labels = name.labels(SETTINGS, kept=kept)
        engine.add_volume(name.volume, labels)
        engine.add_container(name.container, labels, [name.volume])
    engine.remove_now(other.container)
    registry = await read_registry(engine, NAMESPACE)
    assert engine.calls == [("list_volumes", ""), ("list", "")]
    first, second = registry.find(mine), registry.find(other)
    assert first is not None and second is not None and len(registry.sessions) == 2
    assert (first.key, first.owner, first.kept, first.container) == (
        "chat",
        "me",
        True,
        engine.containers[mine.container],
    )
    assert (second.key, second.owner, second.kept, second.container) == ("chat", "you", False, None)
    assert (first.workspace, second.workspace) == (mine.volume, other.volume)
    assert registry.find(NAME) is None
    assert not (registry.pool or registry.pool_volumes or registry.lone_markers or registry.copies)


async def claim(engine: FakeEngine, *, record: bool = True) -> None:
    """A container from the pool becomes the session's, as far as asked for."""
    engine.add_volume(MEMBER, POOL_LABELS, 5)
    engine.add_container(MEMBER, POOL_LABELS, [MEMBER])
    engine.now += 1000
    await engine.rename(MEMBER, NAME.container)
    if record:
        assert await record_session(engine, NAME, kept=True, workspace=MEMBER) == MEMBER
    engine.calls.clear()


async def test_what_waits_in_the_pool_is_no_session(engine: FakeEngine) -> None:
    engine.add_volume(MEMBER, POOL_LABELS)
    engine.add_container(MEMBER, POOL_LABELS, [MEMBER])
    engine.add_volume("ns-pool-lone", POOL_LABELS)
    registry = await read_registry(engine, NAMESPACE)
    assert registry.sessions == {}
    assert [one.name for one in registry.pool] == [MEMBER]
    assert [one.name for one in registry.pool_volumes] == ["ns-pool-lone"]


async def test_a_claimed_container_is_its_session_by_its_record(engine: FakeEngine) -> None:
    await claim(engine)
    registry = await read_registry(engine, NAMESPACE)
    assert not registry.pool and not registry.pool_volumes
    [session] = registry.sessions.values()
    assert (session.key, session.owner, session.kept, session.workspace) == ("chat", "", True, MEMBER)
    assert session.created == engine.now, "not the time at which it began to wait"
    assert await workspace_of(engine, NAME) == MEMBER
    engine.remove_now(NAME.container)
    registry = await read_registry(engine, NAMESPACE)
    assert registry.sessions[NAME.container].workspace == MEMBER and not registry.pool_volumes


async def test_a_claimed_container_without_a_record_has_no_key_yet(engine: FakeEngine) -> None:
    await claim(engine, record=False)
    registry = await read_registry(engine, NAMESPACE)
    [session] = registry.sessions.values()
    assert (session.key, session.container_name, session.kept) == ("?", NAME.container, True)
    assert session.workspace is None and session.created == engine.now - 1000
    assert not registry.pool and not registry.pool_volumes
    assert await workspace_of(engine, NAME) is None


async def test_a_session_is_as_old_as_its_container_whatever_its_files_say(engine: FakeEngine) -> None:
    labels = NAME.labels(SETTINGS, kept=True)
    info = engine.add_container(NAME.container, labels, [NAME.volume])
    engine.now += 500  # a file was written: the volume is younger now, as Docker sees it
    engine.add_volume(NAME.volume, labels)
    [session] = (await read_registry(engine, NAMESPACE)).sessions.values()
    assert session.created == info.created
    engine.remove_now(NAME.container)
    [session] = (await read_registry(engine, NAMESPACE)).sessions.values()
    assert session.created == info.created + 500


async def test_markers_belong_to_sessions_or_to_nobody(engine: FakeEngine) -> None:
    await record_session(engine, NAME, kept=True)
    await mark_unused(engine, NAMESPACE, NAME.container)
    other = SessionName(NAMESPACE, "other")
    engine.add_volume(other.marker, {LABEL_NAMESPACE: NAMESPACE, LABEL_LIFE: UNUSED})
    registry = await read_registry(engine, NAMESPACE)
    [session] = registry.sessions.values()
    assert session.unused_since == engine.now and session.key == "chat"
    assert [one.name for one in registry.lone_markers] == [other.marker]
    engine.add_container(NAME.container, NAME.labels(SETTINGS, kept=True), [NAME.volume])
    [session] = (await read_registry(engine, NAMESPACE)).sessions.values()
    assert session.unused_since is None and session.marker is not None
    await mark_used(engine, NAME)
    [session] = (await read_registry(engine, NAMESPACE)).sessions.values()
    assert session.marker is None


async def test_other_namespaces_and_other_things_are_not_looked_at(engine: FakeEngine) -> None:
    engine.add_container(NAME.container, {})
    engine.add_volume(NAME.volume, {LABEL_NAMESPACE: "ns-2"})
    engine.add_volume("ns-notes", {LABEL_NAMESPACE: NAMESPACE})
    engine.add_container("ns-web", {LABEL_NAMESPACE: NAMESPACE})
    engine.add_container(f"{MEMBER}-copy-1", {LABEL_NAMESPACE: NAMESPACE, LABEL_LIFE: COPY})
    registry = await read_registry(engine, NAMESPACE)
    assert registry.sessions == {} and not registry.pool and not registry.pool_volumes
    assert [one.name for one in registry.copies] == [f"{MEMBER}-copy-1"]


async def test_whoever_records_first_decides(engine: FakeEngine) -> None:
    assert await record_session(engine, NAME, kept=True) == NAME.volume
    assert await record_session(engine, NAME, kept=False, workspace=MEMBER) == NAME.volume
    assert engine.volumes[NAME.volume].labels[LABEL_LIFE] == KEPT != THROW_AWAY


async def test_removal_leaves_nothing(engine: FakeEngine) -> None:
    await claim(engine)
    engine.remove_now(NAME.container)
    await mark_unused(engine, NAMESPACE, NAME.container)
    assert await remove_workspace(engine, NAMESPACE, NAME.container) is True
    assert engine.volumes == {}
    assert await remove_workspace(engine, NAMESPACE, NAME.container) is False


@pytest.mark.parametrize("claimed", [False, True])
async def test_removal_that_dies_half_way_can_be_finished(engine: FakeEngine, claimed: bool) -> None:
    left = 0

    def die(method: str, name: str) -> None:
        nonlocal left
        if method == "remove_volume":
            if not left:
                raise KeyboardInterrupt
            left -= 1

    for steps in range(3 if claimed else 2):
        engine.before = lambda method, name: None
        if claimed:
            await claim(engine)
            engine.remove_now(NAME.container)
        else:
            await record_session(engine, NAME, kept=True)
        await mark_unused(engine, NAMESPACE, NAME.container)
        left = steps
        engine.before = die
        with pytest.raises(KeyboardInterrupt):
            await remove_workspace(engine, NAMESPACE, NAME.container)
        engine.before = lambda method, name: None
        registry = await read_registry(engine, NAMESPACE)
        session = registry.find(NAME)
        found = (session is not None and session.key == "chat") or [one.name for one in registry.lone_markers]
        assert found and not registry.pool_volumes, "all is found by the record, or is the marker alone"
        await remove_workspace(engine, NAMESPACE, NAME.container)
        assert engine.volumes == {}


@pytest.mark.parametrize("ahead", range(-6, 7))
async def test_a_session_that_is_removed_while_it_is_marked_leaves_no_marker(engine: FakeEngine, ahead: int) -> None:
    async def later(turns: int, work: Coroutine[object, object, object]) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await work

    await record_session(engine, NAME, kept=True)
    await asyncio.gather(
        later(max(0, ahead), mark_unused(engine, NAMESPACE, NAME.container)),
        later(max(0, -ahead), remove_workspace(engine, NAMESPACE, NAME.container)),
    )
    assert engine.volumes == {}


@pytest.mark.parametrize("claimed", [False, True])
async def test_files_in_use_are_not_removed(engine: FakeEngine, claimed: bool) -> None:
    if claimed:
        await claim(engine)
    else:
        engine.add_container(NAME.container, NAME.labels(SETTINGS, kept=True), [NAME.volume])
        await record_session(engine, NAME, kept=True)
    with pytest.raises(VolumeInUse):
        await remove_workspace(engine, NAMESPACE, NAME.container)
    assert await workspace_of(engine, NAME) == (MEMBER if claimed else NAME.volume)


@pytest.mark.parametrize("step", range(5))
async def test_a_session_that_starts_during_its_removal_keeps_its_record(engine: FakeEngine, step: int) -> None:
    await claim(engine)
    engine.remove_now(NAME.container)
    labels = NAME.labels(SETTINGS, kept=True)

    def start(method: str, name: str) -> None:
        if len(engine.calls) - begun == step + 1:
            engine.add_volume(MEMBER, labels)
            engine.add_container(NAME.container, labels, [MEMBER])

    begun = len(engine.calls)
    engine.before = start
    try:
        await remove_workspace(engine, NAMESPACE, NAME.container)
    except VolumeInUse:
        assert step < 2
    engine.before = lambda method, name: None
    assert await workspace_of(engine, NAME) == MEMBER


async def test_what_is_beside_a_container_goes_with_it_alone(engine: FakeEngine) -> None:
    session = engine.add_container(NAME.container, NAME.labels(SETTINGS, kept=True), [NAME.volume])
    member = engine.add_container(MEMBER, POOL_LABELS, [MEMBER])
    for number, one in enumerate((session.id, member.id, "gone")):
        labels = {**labels_beside(NAMESPACE), LABEL_SESSION: one}
        name = f"{MEMBER}-proxy-{number}"
        engine.add_volume(name, labels)
        if number != 1:
            engine.add_container(name, labels, [name])
    registry = await read_registry(engine, NAMESPACE)
    assert list(registry.sessions) == [NAME.container] and [one.name for one in registry.pool] == [MEMBER]
    assert [one.name for one in registry.lone_containers] == [f"{MEMBER}-proxy-2"]
    assert [one.name for one in registry.lone_volumes] == [f"{MEMBER}-proxy-2"]
    assert registry.pool_volumes == [] and registry.copies == []
    engine.remove_now(MEMBER)
    registry = await read_registry(engine, NAMESPACE)
    assert {one.name for one in registry.lone_volumes} == {f"{MEMBER}-proxy-1", f"{MEMBER}-proxy-2"}
    assert registry.pool_volumes == []


async def test_a_container_that_lacks_what_belongs_beside_it_is_known(engine: FakeEngine) -> None:
    names = [SessionName(NAMESPACE, key) for key in ("whole", "half", "ended", "alone")]
    ids = {}
    for name in names:
        labels = {**name.labels(SETTINGS, kept=True), **({} if name.key == "alone" else {LABEL_BESIDE: "2"})}
        ids[name.key] = engine.add_container(name.container, labels).id
    for key, states in (("whole", ("running", "running")), ("half", ("running",)), ("ended", ("running", "ended"))):
        for number, state in enumerate(states):
            labels = {**labels_beside(NAMESPACE), LABEL_SESSION: ids[key]}
            engine.add_container(f"{key}-{number}", labels, state=state)
    registry = await read_registry(engine, NAMESPACE)
    assert set(registry.incomplete) == {ids["half"], ids["ended"]}
    assert registry.lone_containers == []
