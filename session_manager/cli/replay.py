"""The command ``replay``: one notebook, or several at once, each in a session of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from ..errors import NotebookError, SandboxError
from ..execution import readable_size
from ..manager import SessionManager
from ..outputs import strip_escapes
from ..session import Session
from ..settings import Settings
from .cells import open_manager, without_pool
from .exits import CTRL_C, FAILED, SANDBOX_FAILED, complain
from .progress import Progress
from .replay_run import NOT_REPLAYED, STOPPED, STYLES, Replay, View, Wanted, open_replay
from .replay_views import Records, choose_view
from .tables import plain, print_table

WORST_FIRST = (CTRL_C, SANDBOX_FAILED, FAILED)
"""Exit codes of which the first that one of several notebooks has is the command's."""


@dataclass(slots=True)
class Turnout:
    """What became of one of several notebooks."""

    wanted: Wanted
    run: Replay | None = None
    """None where it could not be read."""
    stopped: bool = False
    """Ctrl-C came before its first cell."""
    error: str | None = None
    """Why it could not be replayed, or not to its end."""
    written: bool = False

    @property
    def code(self) -> int:
        """As if it had been replayed alone."""
        if self.stopped or (self.run is not None and self.run.stopped):
            return CTRL_C
        if self.error is not None:
            return SANDBOX_FAILED
        return 0 if self.run is None else exit_code(self.run)

    @property
    def outcome(self) -> str:
        """In a word."""
        if self.code == CTRL_C:
            return STOPPED
        return NOT_REPLAYED if self.error is not None or self.run is None else self.run.outcome


def exit_code(run: Replay) -> int:
    """What a replay's end means to the shell."""
    if run.stopped:
        return CTRL_C
    return FAILED if run.failed or run.different else 0


async def replay(settings: Settings, wanted: Sequence[Wanted], *, at_once: int = 1, as_json: bool = False) -> int:
    """Replay notebooks and scripts, and write what came of them; the command's exit code.

    ``at_once``: how many of them at most. Of one alone all that goes wrong is raised; of several each has its own end.

    :raises NotebookError: it can't be read, or asks for files that it can't have; reports can't be made here.
    :raises SandboxError: the session can't be started, or was lost; a file can't be put into it.
    :raises OSError: something can't be written.
    """
    if any(one.html for one in wanted):
        look_for_report_packages()
    view = choose_view([one.source for one in wanted], as_json=as_json)
    if len(wanted) == 1:
        return await replay_alone(settings, wanted[0], view)
    return await replay_several(settings, wanted, view, at_once)


def look_for_report_packages() -> None:
    """Find out before any cell runs whether a report can be made.

    :raises NotebookError: it can't.
    """
    try:
        from . import replay_report  # noqa: F401 - for what it imports
    except ModuleNotFoundError as error:
        raise NotebookError(
            f"A report needs {error.name}.", "Install it: `pip install 'docker-interpreter[notebook]'`."
        ) from None


async def replay_alone(settings: Settings, wanted: Wanted, view: View) -> int:
    """Replay one notebook; the command's exit code. Raises what :func:`replay` does."""
    run = open_replay(wanted)
    try:
        async with open_manager(settings) as (manager, progress):
            session = await (manager.throw_away() if wanted.key is None else manager.session(wanted.key))
            progress.stop()
            await run.put_files(session, bars=True)
            await run.run(session, view)
    finally:
        if run.begun:
            view.wrote(run, run.write(settings))
    return exit_code(run)


async def replay_several(settings: Settings, wanted: Sequence[Wanted], view: View, at_once: int) -> int:
    """Replay several notebooks, and print a table of them; the command's exit code, which is the worst of theirs.

    Ctrl-C interrupts all cells that run, and begins no other.

    :raises SandboxError: the engine went away, and sessions could not be ended.
    """
    limits = settings.limits
    # one that waits for its turn here is not refused for want of room
    places = min(one for one in (at_once, limits.sessions, limits.sessions_per_owner) if one is not None)
    gate = asyncio.Semaphore(max(1, places))
    turnouts = [Turnout(one) for one in wanted]
    try:
        async with open_manager(without_pool(settings)) as (manager, progress):
            tasks = [asyncio.create_task(replay_one(manager, turnout, view, gate, progress)) for turnout in turnouts]
            await wait_for(tasks)
    finally:
        if not isinstance(view, Records):
            print_turnouts(turnouts)
    for task in tasks:
        task.result()
    codes = {turnout.code for turnout in turnouts}
    return next((code for code in WORST_FIRST if code in codes), 0)


async def wait_for(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Until all have ended, by themselves or after a Ctrl-C, which each of them gets."""
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        for task in tasks:
            task.cancel()
        if (current := asyncio.current_task()) is not None:
            current.uncancel()
        await asyncio.wait(tasks)


async def replay_one(
    manager: SessionManager, turnout: Turnout, view: View, gate: asyncio.Semaphore, progress: Progress
) -> None:
    """Replay one of several notebooks, in a throw-away session that ends with it."""
    try:
        async with gate:
            await run_and_write(manager, turnout, view, progress)
    except asyncio.CancelledError:
        turnout.stopped = True
    except SandboxError as error:
        turnout.error = str(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        turnout.error = f"{where}{error.strerror or error}."
    if turnout.error is not None:
        view.failed(turnout.wanted, turnout.error)


async def run_and_write(manager: SessionManager, turnout: Turnout, view: View, progress: Progress) -> None:
    """Replay one of several notebooks. Raises what :func:`replay` does."""
    run = turnout.run = open_replay(turnout.wanted)
    run.created, run.started = time.time(), time.monotonic()
    try:
        session = await manager.throw_away()
        progress.stop()
        try:
            await run.put_files(session, bars=False)
            await run.run(session, view)
        finally:
            await end(session, turnout.wanted)
    finally:
        if run.begun:
            view.wrote(run, run.write(manager.settings))
            turnout.written = True


async def end(session: Session, wanted: Wanted) -> None:
    """End a throw-away session, also where Ctrl-C comes meanwhile, which goes on afterwards."""
    ending = asyncio.create_task(session.stop(purge=True))
    try:
        await asyncio.shield(ending)
    except asyncio.CancelledError:
        await asyncio.wait([ending])
        raise
    except SandboxError as error:
        complain(f"warning: the session of {wanted.source} could not be ended; it ends by itself. {error}")


def print_turnouts(turnouts: Sequence[Turnout]) -> None:
    """What became of several notebooks, one a row."""
    checked = any(turnout.wanted.check is not None for turnout in turnouts)
    table = plain(
        "notebook", "outcome", "cells", "failed", *(["different"] if checked else []), "time", "memory", "written"
    )
    for turnout in turnouts:
        run, style = turnout.run, STYLES.get(turnout.outcome, "bold red")
        counts = ["-"] * (3 if checked else 2)
        if run is not None and run.begun:
            counts = [
                f"{len(run.executed)}/{len(run.cells)}",
                str(run.failed),
                *([str(run.different)] if checked else []),
            ]
        written = [turnout.wanted.output, turnout.wanted.html] if turnout.written else []
        table.add_row(
            strip_escapes(str(turnout.wanted.source)),
            Text(turnout.outcome, style),
            *counts,
            f"{run.seconds:.1f} s" if run is not None and run.begun else "-",
            readable_size(run.peak) if run is not None and run.peak is not None else "-",
            strip_escapes(", ".join(str(path) for path in written if path is not None)) or "-",
        )
    print_table(table)
