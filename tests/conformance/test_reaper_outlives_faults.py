"""A manager goes on sweeping: after an engine that was out of reach half-way, beside a container that lies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from session_manager import EngineUnavailable, admission, reaper
from session_manager import manager as manager_module
from session_manager.cli.sessions import table_of
from session_manager.engine import Engine, ExecStream
from session_manager.link import Link
from session_manager.reaper import ask_own, observe
from tests.conftest import MakeManager


async def test_an_engine_that_goes_away_in_mid_sweep(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = await make_manager(limits={"idle_timeout": 1.5})
    session = await manager.session("idle")
    asked = asyncio.Event()

    async def refuse(container: str, *, observe: bool = False) -> ExecStream:
        asked.set()
        raise EngineUnavailable("The engine is away.")

    with monkeypatch.context() as away:
        away.setattr(manager.engine, "exec", refuse)
        await asyncio.wait_for(asked.wait(), 20)
        await asyncio.sleep(0.1)
    for _ in range(200):
        if await manager.engine.inspect(session.container_name) is None:
            return
        await asyncio.sleep(0.1)
    pytest.fail("it was never put away")


LIES = {
    "no number at all": {"idle": [], "age": {}, "reap": "none"},
    "numbers without end": {
        "idle": 10**400,
        "age": -(10**400),
        "reap": {"idle_timeout": 10**400, "longest_life": 10**400},
    },
    "no finite ones": {"idle": float("inf"), "age": float("nan"), "reap": {"idle_timeout": float("inf")}},
    "time that goes backwards": {"idle": -1e308, "age": -5, "reap": {"idle_timeout": -1, "longest_life": -1.0}},
    "nothing": {},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_container_that_lies_keeps_no_other_from_being_listed_or_put_away(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch, lie: Mapping[str, object]
) -> None:
    manager = await make_manager()
    liar, other = await manager.session("liar"), await manager.session("other")
    found = await manager.engine.inspect(liar.container_name)
    assert found is not None
    seconds = {"msg_id": ["x"], "seconds": lie.get("idle")}
    status = {"busy": False, "memory": lie.get("idle"), "running": seconds, "kernel": {"state": "ready"}, **lie}

    async def lying(link: Link, engine: Engine, container: str) -> Mapping[str, object]:
        truth = await observe(link, engine, container)
        return status if container == found.id else truth

    async def lying_to_its_own(link: Link | None) -> Mapping[str, object] | None:
        truth = await ask_own(link)
        return status if link is not None and link is liar.link else truth

    for module in (reaper, manager_module, admission):
        monkeypatch.setattr(module, "observe", lying)
    for module in (reaper, manager_module):
        monkeypatch.setattr(module, "ask_own", lying_to_its_own)
    for whoever in (manager, await make_manager()):
        table_of(listed := await whoever.list())
        assert {one.key: one.memory is None for one in listed} == {"liar": True, "other": False}
    await other.keep_for(0.1)
    async with asyncio.timeout(60):
        while await manager.engine.inspect(other.container_name) is not None:
            manager._reaper._next_look.clear()
            await manager._reaper.sweep()
            await asyncio.sleep(0.1)
    assert (await (await manager.session("next")).execute("6 * 7")).text == "42"
