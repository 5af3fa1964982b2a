"""The command ``sessions``: what runs, and ending it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.table import Table

from ..container import LABEL_LIFE, LABEL_NAMESPACE, THROW_AWAY, key_of
from ..execution import readable_size
from ..manager import SessionManager, SessionStatus
from ..outputs import strip_escapes
from ..settings import Settings
from .exits import FAILED, complain
from .tables import plain, print_table


async def list_sessions(settings: Settings, *, as_json: bool) -> int:
    """Show every session of the namespace.

    :raises SandboxError: the engine can't be asked.
    """
    async with SessionManager(settings) as manager:
        sessions = await manager.list()
    if as_json:
        print(json.dumps([asdict(session) for session in sessions]))
    elif sessions:
        print_table(table_of(sessions))
    else:
        print("No sessions.")
    return 0


def table_of(sessions: Sequence[SessionStatus]) -> Table:
    """The sessions, one a row."""
    table = plain("key", "status", "age", "idle", "memory", "image")
    for session in sessions:
        table.add_row(
            strip_escapes(session.key),
            session.state,
            readable_time(session.age),
            "-" if session.idle is None else readable_time(session.idle),
            "-" if session.memory is None else readable_size(session.memory),
            strip_escapes(session.image),
        )
    return table


def readable_time(seconds: float) -> str:
    """A length of time in its two largest units."""
    left = max(0, round(seconds))
    parts = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


async def stop_all(settings: Settings, *, purge: bool) -> int:
    """End every session of the namespace; with ``purge`` remove all files, also of those that ended before.

    :raises SandboxError: the engine can't be asked.
    """
    async with SessionManager(settings) as manager:
        lives, files = await find(manager)
        keys = sorted({*lives, *(files if purge else ())})
        await stop_each(manager, keys, lives, purge=purge)
    if not keys:
        print("No sessions.")
    return 0


async def stop_sessions(settings: Settings, keys: Sequence[str], *, purge: bool) -> int:
    """End these sessions; with ``purge`` remove their files too. The command's exit code.

    :raises SandboxError: the engine can't be asked.
    """
    async with SessionManager(settings) as manager:
        lives, files = await find(manager)
        known = [key for key in dict.fromkeys(keys) if key in lives or (purge and key in files)]
        await stop_each(manager, known, lives, purge=purge)
    for key in keys:
        if key not in known:
            hint = "`docker-interpreter sessions` lists those that do."
            if key in files:
                hint = "It has ended, and left files, which --purge removes."
            complain(f"error: No session {key!r} runs. {hint}")
    return 0 if all(key in known for key in keys) else FAILED


async def find(manager: SessionManager) -> tuple[dict[str, str], set[str]]:
    """The sessions that run, with their kinds, and the keys that have files."""
    labels = {LABEL_NAMESPACE: manager.settings.namespace}
    containers = await manager.engine.list(labels)
    volumes = await manager.engine.list_volumes(labels)
    lives = {key_of(info.labels): info.labels.get(LABEL_LIFE, "") for info in containers}
    return lives, {key_of(volume.labels) for volume in volumes}


async def stop_each(manager: SessionManager, keys: Sequence[str], lives: Mapping[str, str], *, purge: bool) -> None:
    """End sessions one after another, and say so."""
    for key in keys:
        await manager.stop(key, purge=purge or lives.get(key) == THROW_AWAY)
        print(f"{'Stopped' if key in lives else 'Removed the files of'} {strip_escapes(key)}", flush=True)
