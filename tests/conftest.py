"""Fixtures for tests on real engines. Nothing here skips: a test that needs an engine fails where there is none."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Literal, cast

import pytest

from benchmarks.sessions import remove_all
from session_manager import Session, SessionManager, Settings
from session_manager.engine import make_engine
from session_manager.registry import LABEL_NAMESPACE

NAMESPACE = f"test-{os.getpid()}-{secrets.token_hex(3)}"

ENGINES_USED: set[Literal["docker", "process"]] = set()

MakeSettings = Callable[..., Settings]
MakeManager = Callable[..., Awaitable[SessionManager]]


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the process engine keeps this run's sessions."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(state_dir: Path) -> Iterator[None]:
    """Fails the run where a test left a container or a volume behind, or a relay or supervisor process."""
    yield
    left: list[str] = []

    async def look(name: Literal["docker", "process"]) -> None:
        engine = make_engine(Settings(engine=name, namespace=NAMESPACE, state_dir=state_dir))
        labels = {LABEL_NAMESPACE: NAMESPACE}
        left.extend(found.name for found in await engine.list(labels))
        left.extend(found.name for found in await engine.list_volumes(labels))
        await engine.close()

    for name in ENGINES_USED:
        asyncio.run(look(name))
    assert left == [], "tests left these behind"


@pytest.fixture
def engine_name() -> str:
    """The engine that a test runs on; conformance tests run on each."""
    return "docker"


@pytest.fixture
def make_settings(engine_name: str, state_dir: Path) -> MakeSettings:
    """Settings in a namespace of this test run's own, with short times; keyword arguments replace whole sections."""

    ENGINES_USED.add(cast(Literal["docker", "process"], engine_name))

    def make(**changes: object) -> Settings:
        # the grace outlasts what a shared machine stalls for: what can be interrupted must not be killed
        limits = {"timeout": 60, "interrupt_grace": 15.0, "idle_timeout": 900}
        limits |= changes.pop("limits", {})  # type: ignore[call-overload]
        return Settings(
            **{
                "engine": engine_name,
                "namespace": NAMESPACE,
                "state_dir": state_dir,
                "limits": limits,
                **changes,
            }  # type: ignore[arg-type]
        )

    return make


@pytest.fixture
async def make_manager(make_settings: MakeSettings) -> AsyncIterator[MakeManager]:
    """Managers that are let go of at the end, and all of whose sessions are removed then."""
    managers: list[SessionManager] = []

    async def make(**changes: object) -> SessionManager:
        manager = SessionManager(make_settings(**changes))
        managers.append(manager)
        return manager

    yield make
    for manager in managers:
        await manager.detach()
    await remove_all(make_settings())


@pytest.fixture
async def manager(make_manager: MakeManager) -> SessionManager:
    """One manager."""
    return await make_manager()


@pytest.fixture
async def hasty_manager(make_manager: MakeManager) -> SessionManager:
    """One that soon kills what an interrupt does not end."""
    return await make_manager(limits={"interrupt_grace": 0.5})


@pytest.fixture
async def session(manager: SessionManager) -> Session:
    """One session, running."""
    return await manager.throw_away()


def run_python(code: str, settings: Settings) -> list[str]:
    """A command that runs ``code`` in another process, with ``settings`` defined."""
    prelude = (
        f"from session_manager import *\nsettings = Settings.model_validate_json({settings.model_dump_json()!r})\n"
    )
    return [sys.executable, "-c", prelude + code]
