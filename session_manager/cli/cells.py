"""Sessions under a command line's Ctrl-C: it stops what runs, and what that did until then is not lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ..execution import Execution
from ..manager import SessionManager
from ..outputs import Output
from ..session import Session
from ..settings import Pool, Settings
from .progress import Progress


@asynccontextmanager
async def open_manager(settings: Settings) -> AsyncIterator[tuple[SessionManager, Progress]]:
    """A session manager, and the progress that shows what it does before a session is there."""
    async with SessionManager(settings, progress=(progress := Progress())) as manager:
        # inside: the manager's end waits for a thread that builds an image, and progress tells it to give up
        with progress:
            yield manager, progress


def without_pool(settings: Settings) -> Settings:
    """The settings, for a program that ends sooner than a pool is filled."""
    return settings.model_copy(update={"pool": Pool(size=0, preload=settings.pool.preload)})


async def run_cell(
    session: Session,
    code: str,
    seconds: float | None,
    on_output: Callable[[Output], None] | None = None,
    asked_by: str | None = None,
) -> tuple[Execution, bool]:
    """Run a cell; whether Ctrl-C stopped it comes with the execution.

    Ctrl-C cancels the main task (see :class:`asyncio.Runner`). A cell that runs is stopped then, as a time
    limit would do it, and its execution returned; one that still waits for its turn is not run, and the
    cancellation goes on. ``seconds`` is as the session's ``timeout``, and
    ``asked_by`` as its own.

    :raises SandboxError: as :meth:`Session.execute`.
    """
    cell = asyncio.ensure_future(session.execute(code, timeout=seconds, on_output=on_output, asked_by=asked_by))
    try:
        return await asyncio.shield(cell), False
    except asyncio.CancelledError:
        if not await session.interrupt() and not cell.done():
            cell.cancel()
            await asyncio.wait([cell])
            raise
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
        return await cell, True
