"""The tasks of one session: whoever calls may be cancelled, and what was begun comes to its own end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .errors import SessionClosed

logger = logging.getLogger(__name__)

T = TypeVar("T")


class OwnedTasks:
    """Runs work in tasks of its own, which end with :meth:`close`. ``key``: the session's, for what there is to say."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[asyncio.Task[Any], Callable[[], bool]] = {}
        self.closed = False
        """Nothing more is taken."""

    async def run(self, work: Coroutine[object, object, T], is_stopping: Callable[[], bool] = lambda: False) -> T:
        """Run work and wait for it. A cancelled caller goes at once. ``is_stopping``: it is coming to its end already.

        :raises SessionClosed: this was closed, before it or meanwhile.
        """
        if self.closed:
            work.close()
            raise SessionClosed(f"The session {self._key!r} was closed.", "Ask the manager for it again.")
        task = self._begin(work, is_stopping)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise SessionClosed(f"The session {self._key!r} was closed while this call waited.") from None
            raise

    def spawn(self, work: Coroutine[object, object, object]) -> None:
        """Run work that nobody waits for."""
        self._begin(work, lambda: False)

    async def close(self, *, hurry: bool) -> None:
        """Take no more, and end what runs. What is coming to its end gets the time that takes, unless ``hurry``."""
        self.closed = True
        for task, is_stopping in list(self._tasks.items()):
            if hurry or not is_stopping():
                task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    def _begin(self, work: Coroutine[object, object, T], is_stopping: Callable[[], bool]) -> asyncio.Task[T]:
        task = self._loop.create_task(work)
        self._tasks[task] = is_stopping
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("session %s: %r", self._key, error)  # its caller has it, where there still is one
