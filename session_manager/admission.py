"""How many sessions may run: room for a new one is made, or it is refused."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from .engine.base import ContainerInfo, Engine
from .errors import ContainerGone, LinkError, TooManySessions
from .link import Link
from .link_thread import LinkThread
from .reaper import Reaper, is_busy, number, observe
from .registry import SessionName, SessionRecord, read_registry
from .settings import Settings

logger = logging.getLogger(__name__)

ATTEMPTS = 5
AT_ONCE = 8


class Admission:
    """Keeps ``limits.sessions`` and ``limits.sessions_per_owner``; without them it asks the engine nothing.

    :meth:`admit` is called before a session's container is made, :meth:`confirm` after: of two programs that found the
    last place free at once, the one whose container is the younger gives it up.
    """

    def __init__(self, engine: Engine, thread: LinkThread, settings: Settings, reaper: Reaper) -> None:
        self._engine = engine
        self._thread = thread
        self._settings = settings
        self._reaper = reaper

    async def admit(self, name: SessionName) -> None:
        """Make room for a session.

        :raises TooManySessions: there is none, and none can or may be made.
        :raises EngineError: the engine can't be asked.
        """
        for _ in range(ATTEMPTS):
            limit, running = await self._crowd(name)
            others = [one for one in running if one.container_name != name.container]
            if limit is None or len(others) < limit:
                return
            if self._settings.limits.when_full == "refuse":
                raise self._full(name, limit, "End one, or wait until one has been idle for long enough.")
            if not await self._make_room(others, len(others) - limit + 1):
                raise self._full(name, limit, "A cell runs in each of them: wait for one to end, or end one.")
        raise self._full(name, limit or 0, "Others start as fast as room is made: try again.")

    async def confirm(self, name: SessionName) -> bool:
        """Whether the session may keep the container that was just made for it.

        :raises EngineError: the engine can't be asked.
        """
        limit, running = await self._crowd(name)
        if limit is None or len(running) <= limit:
            return True
        first = sorted(running, key=lambda one: (one.created, one.container_name))[:limit]
        return any(one.container_name == name.container for one in first)

    async def _crowd(self, name: SessionName) -> tuple[int | None, Sequence[SessionRecord]]:
        """The limit that is nearest to being passed, and the sessions that count for it."""
        limits = self._settings.limits
        if limits.sessions is None and limits.sessions_per_owner is None:
            return None, ()
        registry = await read_registry(self._engine, self._settings.namespace)
        running = [one for one in registry.sessions.values() if one.container is not None]
        own = [one for one in running if one.owner == name.owner]
        if limits.sessions_per_owner is not None and (
            limits.sessions is None or limits.sessions_per_owner - len(own) <= limits.sessions - len(running)
        ):
            return limits.sessions_per_owner, own
        return limits.sessions, running

    async def _make_room(self, running: Sequence[SessionRecord], wanted: int) -> bool:
        """Put the sessions away that have been idle for longest, as many as are ``wanted``: more than one where the
        limit was lowered. False where a cell runs in each."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(record: SessionRecord) -> tuple[float, ContainerInfo] | None:
            async with gate:
                since = await self._idle_since(record)
            return None if since is None or record.container is None else (since, record.container)

        idle = [one for one in await asyncio.gather(*map(ask, running)) if one is not None]
        made = 0
        for _, container in sorted(idle, key=lambda one: one[0]):
            if made < wanted and await self._put_away(container):
                made += 1
        return made > 0

    async def _idle_since(self, record: SessionRecord) -> float | None:
        """When a cell last ran, by this program's monotonic clock; None where one runs, or nobody knows."""
        if record.container is None or record.container.state != "running" or not record.kept:
            return None
        link = Link(self._thread, self._thread.new_directory(), lambda: None)
        try:
            status = await observe(link, self._engine, record.container.id)
        except (ContainerGone, LinkError) as error:
            logger.debug("no status of %s: %s", record.container_name, error)
            return None
        finally:
            await link.close()
        idle = number(status.get("idle"))
        # the answers come at different times
        return None if idle is None or is_busy(status) else time.monotonic() - idle

    async def _put_away(self, container: ContainerInfo) -> bool:
        link = Link(self._thread, self._thread.new_directory(), lambda: None)
        try:
            await observe(link, self._engine, container.id)
            return await self._reaper.put_away(link, container.id, "full")
        except ContainerGone:
            return True  # it went by itself
        except LinkError as error:
            logger.debug("%s can't be put away: %s", container.name, error)
            return False
        finally:
            await link.close()

    def _full(self, name: SessionName, limit: int, remedy: str) -> TooManySessions:
        whose = f" of {name.owner!r}" if name.owner and limit == self._settings.limits.sessions_per_owner else ""
        return TooManySessions(f"As many sessions{whose} run as may ({limit}).", remedy)
