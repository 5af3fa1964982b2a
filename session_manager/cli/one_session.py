"""The commands about one session that runs: its cell, its variables, a copy of it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

from ..errors import SandboxError
from ..execution import Execution, readable_size
from ..manager import SessionManager
from ..outputs import strip_escapes
from ..registry import SessionName, read_registry
from ..session import Session
from ..settings import Settings
from .cells import open_manager, without_pool
from .exits import CTRL_C
from .live import LiveOutput
from .pictures import PictureFiles
from .progress import Progress
from .run import EXIT_CODES, show_result
from .sessions import not_there
from .tables import plain, print_table


@asynccontextmanager
async def running_session(settings: Settings, key: str, owner: str) -> AsyncIterator[tuple[Session, Progress]]:
    """The session of this key, which has to run already, and lives on.

    :raises SandboxError: none runs; or as :meth:`SessionManager.session`.
    """
    async with open_manager(without_pool(settings)) as (manager, progress):
        session = await manager.find(key, owner=owner)
        if session is None:
            raise await missing(manager, key, owner)
        progress.stop()
        yield session, progress


async def missing(manager: SessionManager, key: str, owner: str) -> SandboxError:
    """What is raised where a session has to run, and does not."""
    registry = await read_registry(manager.engine, manager.settings.namespace)
    name = SessionName(manager.settings.namespace, key, owner)
    return SandboxError(not_there(registry, name, "It has ended; the next cell that is run in it starts it again."))


async def follow(settings: Settings, key: str, image_folder: Path, *, owner: str, as_json: bool) -> int:
    """Show the cell that runs, or the last that did, as ``run`` would; Ctrl-C leaves it running.

    :raises SandboxError: no such session runs, or no cell has run in it.
    """
    pictures = PictureFiles(image_folder)
    live = LiveOutput(sys.stdout, sys.stderr, pictures)
    execution: Execution | None = None
    async with running_session(settings, key, owner) as (session, _):
        try:
            if not as_json and await session.running() is None:
                live.say("No cell runs; this is the last one.")
            execution = await session.follow(None if as_json else live)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            live.say(f"No longer following {key!r}; its cell goes on.")
            return CTRL_C
    if execution is None:
        raise SandboxError(f"No cell has run in the session {key!r} since its Python started.")
    show_result(execution, key, live, pictures, as_json=as_json)
    return EXIT_CODES[execution.status]


async def interrupt(settings: Settings, key: str, *, owner: str) -> int:
    """Interrupt the cell that runs, whoever runs it.

    :raises SandboxError: no such session runs.
    """
    async with running_session(settings, key, owner) as (session, _):
        interrupted = await session.interrupt()
    if interrupted:
        print(strip_escapes(f"Interrupted the cell that runs in {key}"))
    else:
        print(strip_escapes(f"No cell runs in {key}"))
    return 0


async def save(settings: Settings, key: str, *, owner: str, as_json: bool) -> int:
    """Save the session's variables in its workspace, and show which.

    :raises SandboxError: no such session runs, or Python does not manage it in time.
    """
    async with running_session(settings, key, owner) as (session, progress):
        if await session.running() is not None:
            progress("Waiting for the cell that runs")
        saved = await session.save_variables()
        progress.stop()
    if as_json:
        failed = [{"name": name, "reason": reason} for name, reason in saved.failed]
        print(json.dumps({"session": key, "saved": saved.saved, "failed": failed, "size": saved.size}))
        return 0
    count = f"{len(saved.saved)} variable{'' if len(saved.saved) == 1 else 's'}"
    names = f": {', '.join(saved.saved)}" if saved.saved else ""
    print(strip_escapes(f"Saved {count} ({readable_size(saved.size)}){names}"))
    for name, reason in saved.failed:
        print(strip_escapes(f"Not saved: {name} ({reason})"))
    return 0


async def variables(settings: Settings, key: str, *, owner: str, as_json: bool) -> int:
    """Show the session's variables.

    :raises SandboxError: no such session runs, or it does not answer.
    """
    async with running_session(settings, key, owner) as (session, _):
        try:
            found = await session.variables()
        except TimeoutError:
            raise SandboxError(
                f"The session {key!r} does not answer: native code holds its interpreter.", "Try again later."
            ) from None
    if as_json:
        print(json.dumps([asdict(variable) for variable in found]))
    elif found:
        table = plain("name", "type", "size", "shape", "value")
        for variable in found:
            table.add_row(
                strip_escapes(variable.name),
                strip_escapes(variable.type),
                "-" if variable.size is None else readable_size(variable.size),
                "-" if variable.shape is None else "×".join(map(str, variable.shape)) or "scalar",
                strip_escapes(variable.repr),
            )
        print_table(table)
    else:
        print("No variables.")
    return 0


async def fork(settings: Settings, key: str, new_key: str, *, owner: str) -> int:
    """Copy a session, files and variables, under another key.

    :raises SandboxError: there is nothing to copy, or the new key is taken; or as :meth:`SessionManager.fork`.
    """
    async with open_manager(without_pool(settings)) as (manager, progress):
        registry = await read_registry(manager.engine, settings.namespace)
        if registry.find(SessionName(settings.namespace, key, owner)) is None:
            raise await missing(manager, key, owner)
        progress(f"Copying {key}")
        await manager.fork(key, new_key, owner=owner)
        progress.stop()
    print(strip_escapes(f"The session {new_key} is a copy of {key}, files and variables."))
    return 0
