"""A manager goes on sweeping after a sweep in which the engine was out of reach half-way."""

from __future__ import annotations

import asyncio

import pytest

from session_manager import EngineUnavailable
from session_manager.engine import ExecStream
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
