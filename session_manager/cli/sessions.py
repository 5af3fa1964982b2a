"""The commands ``sessions list`` and ``sessions stop``: what there is, and ending it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict

from rich.table import Table

from ..engine.base import ContainerInfo
from ..errors import SandboxError, VolumeInUse
from ..execution import readable_size
from ..manager import SessionManager, SessionStatus
from ..outputs import strip_escapes
from ..registry import Registry, SessionName, SessionRecord, pool_prefix, read_registry, remove_workspace
from ..settings import Settings
from .exits import FAILED, complain
from .tables import plain, print_table

AT_ONCE = 16


@contextlib.asynccontextmanager
async def onlooker(settings: Settings) -> AsyncIterator[SessionManager]:
    """A manager that is not entered: it puts nothing away meanwhile, as it would for a program that stays."""
    manager = SessionManager(settings)
    try:
        yield manager
    finally:
        await manager.detach()


async def list_sessions(settings: Settings, *, owner: str | None, stopped: bool, as_json: bool) -> int:
    """Show the sessions of the namespace, or of one owner; ``stopped``: also those that have only files.

    :raises SandboxError: the engine can't be asked.
    """
    async with onlooker(settings) as manager:
        sessions = [one for one in await manager.list(stopped=stopped) if owner in (None, one.owner)]
    if as_json:
        print(json.dumps([asdict(session) for session in sessions]))
    elif sessions:
        print_table(table_of(sessions))
    else:
        print("No sessions.")
    return 0


def table_of(sessions: Sequence[SessionStatus]) -> Table:
    """The sessions, one a row; with their owners where there are any."""
    owned = any(session.owner for session in sessions)
    table = plain("key", *(["owner"] if owned else []), "status", "age", "idle", "memory", "image")
    for session in sessions:
        table.add_row(
            strip_escapes(session.key),
            *([strip_escapes(session.owner) or "-"] if owned else []),
            readable_state(session),
            "-" if session.age is None else readable_time(session.age),
            "-" if session.idle is None or session.running is not None else readable_time(session.idle),
            "-" if session.memory is None else readable_size(session.memory),
            strip_escapes(session.image) or "-",
        )
    return table


def readable_state(session: SessionStatus) -> str:
    """What it does, and for how long it has."""
    if session.running is not None:
        return f"{session.state} {readable_time(session.running)}"
    if session.unused_since is not None:
        return f"{session.state}, unused for {readable_time(time.time() - session.unused_since)}"
    return session.state


def readable_time(seconds: float) -> str:
    """A length of time in its two largest units."""
    left = max(0, round(seconds))
    parts = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


async def stop_all(settings: Settings, *, owner: str | None, purge: bool) -> int:
    """End every session of the namespace, and the containers of its pool; or every session of one ``owner``.

    With ``purge`` all files are removed, also of sessions that ended before. The command's exit code.

    :raises SandboxError: the engine can't be asked.
    """
    async with onlooker(settings) as manager:
        registry = await read_registry(manager.engine, settings.namespace)
        chosen = [
            one
            for one in registry.sessions.values()
            if owner in (None, one.owner) and (purge or one.container is not None)
        ]
        code = await stop_each(manager, sorted(chosen, key=lambda one: (one.owner, one.key)), purge=purge)
        waiting = registry.pool if owner is None else ()
        await asyncio.gather(*(remove_waiting(manager, found) for found in waiting))
    if waiting:
        print(f"Removed {len(waiting)} waiting container{'s' if len(waiting) > 1 else ''}")
    elif not chosen:
        print("No sessions.")
    return code


async def stop_sessions(settings: Settings, keys: Sequence[str], *, owner: str, purge: bool) -> int:
    """End these sessions of one owner; with ``purge`` remove their files too. The command's exit code.

    :raises SandboxError: the engine can't be asked, or what was given is no key.
    """
    names = [SessionName(settings.namespace, key, owner) for key in dict.fromkeys(keys)]
    async with onlooker(settings) as manager:
        registry = await read_registry(manager.engine, settings.namespace)
        found = [(name, registry.find(name)) for name in names]
        known = [one for _, one in found if one is not None and (purge or one.container is not None)]
        code = await stop_each(manager, known, purge=purge)
    for name, one in found:
        if one not in known:
            complain(f"error: {not_there(registry, name, 'It has ended, and left files, which --purge removes.')}")
            code = FAILED
    return code


def not_there(registry: Registry, name: SessionName, ended: str) -> str:
    """What to say of a session that does not run: ``ended``, where it has, or where to look."""
    others = sorted({one.owner for one in registry.sessions.values() if one.key == name.key and one.container})
    hint = "`docker-interpreter sessions` lists those that do."
    if registry.find(name) is not None:
        hint = ended
    elif others:
        whose = ", ".join(repr(owner) if owner else "nobody (leave --owner out)" for owner in others)
        hint = f"One of this key runs, of another owner: {whose}."
    whose = f" of {name.owner!r}" if name.owner else ""
    return f"No session {name.key!r}{whose} runs. {hint}"


async def stop_each(manager: SessionManager, sessions: Sequence[SessionRecord], *, purge: bool) -> int:
    """End sessions at once, and say so in their order; the command's exit code."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def end(session: SessionRecord) -> None:
        async with gate:
            await end_one(manager, session, purge=purge or not session.kept)

    tasks = [asyncio.create_task(end(session)) for session in sessions]
    code = 0
    try:
        for session, task in zip(sessions, tasks, strict=True):
            whose = f" (owner {session.owner})" if session.owner else ""
            try:
                await task
            except SandboxError as error:
                complain(f"error: {session.key}{whose} could not be ended: {error}")
                code = FAILED
            else:
                did = "Removed the files of" if session.container is None else "Stopped"
                print(strip_escapes(f"{did} {session.key}{whose}"), flush=True)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return code


async def end_one(manager: SessionManager, session: SessionRecord, *, purge: bool) -> None:
    """End a session through the manager; one that is claimed just now, and has no key yet, by its container."""
    if session.record is not None or session.key != "?":
        await manager.stop(session.key, owner=session.owner, purge=purge)
        return
    await manager.engine.remove(session.container_name)
    if purge:
        await remove_workspace(manager.engine, manager.settings.namespace, session.container_name)


async def remove_waiting(manager: SessionManager, found: ContainerInfo) -> None:
    """Remove a container of the pool with its volume. One that a session gets meanwhile has another name by then."""
    await manager.engine.remove(found.name)
    for volume in found.volumes:
        if volume.startswith(pool_prefix(manager.settings.namespace)):
            with contextlib.suppress(VolumeInUse):
                await manager.engine.remove_volume(volume)
