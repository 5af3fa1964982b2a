"""How long files are kept that no running session uses, and what is swept that nobody will come back for."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from .engine.base import Engine
from .errors import EngineError, EngineUnavailable, VolumeInUse
from .registry import Registry, SessionRecord, mark_unused, marker_of, read_registry, remove_workspace
from .settings import Settings

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Tidied:
    """What one look did. Where several programs look at once, each may claim what they did together."""

    marked: list[SessionRecord] = field(default_factory=list)
    """Sessions that were found without a container for the first time."""
    unmarked: list[SessionRecord] = field(default_factory=list)
    """Sessions that have a container again."""
    removed: list[SessionRecord] = field(default_factory=list)
    """Sessions whose files were removed, and with them all that was known of them."""
    volumes: list[str] = field(default_factory=list)
    """Volumes of the pool that no session got, and what was beside a session's container."""
    containers: list[str] = field(default_factory=list)
    """Containers that copied files for a program that has gone, or were beside a session's that has."""


class Workspaces:
    """Keeps and removes the workspaces of a namespace, as the settings say.

    Any number of programs may do this at once, at any time, and be killed in the middle of it. What a container has is
    never removed: it is looked at again just before, and at last the engine itself refuses.

    ``clock`` gives Unix time in seconds. What it is compared with was read off the engine's clock.
    """

    def __init__(self, engine: Engine, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._namespace = settings.namespace
        self._keep_unused = settings.workspaces.keep_unused
        self._total_bytes = settings.workspaces.total_bytes
        self._grace = settings.limits.orphan_grace
        self._clock = clock
        self._copies_seen: dict[str, float] = {}
        """When containers that copy files were first seen not to, by id."""

    async def tidy(self, registry: Registry | None = None) -> Tidied:
        """Look once: mark workspaces that have no container, and remove what was unused for too long or is too much.

        ``registry`` is what the engine was found to hold a moment ago; it is asked without it. What the engine refuses
        is logged, and left for another time.

        :raises EngineUnavailable: nothing answers.
        """
        done = Tidied()
        if registry is None:
            registry = await read_registry(self._engine, self._namespace)
        unused = await self._mark(registry, done)
        unused = await self._remove_expired(unused, done)
        if self._total_bytes is not None:
            await self._remove_excess(registry, unused, self._total_bytes, done)
        await self._remove_pool_volumes(registry, done)
        await self._remove_copies(registry, done)
        await self._remove_beside(registry, done)
        return done

    async def _mark(self, registry: Registry, done: Tidied) -> list[SessionRecord]:
        """The sessions without a container, all marked, the longest unused first."""
        unused = []
        for session in registry.sessions.values():
            async with self._going_on(session.container_name):
                if session.container is None:
                    if session.marker is None:
                        marker = await mark_unused(self._engine, self._namespace, session.container_name)
                        if marker is None:
                            continue
                        session = replace(session, marker=marker)
                        done.marked.append(session)
                    unused.append(session)
                elif session.marker is not None:
                    await self._engine.remove_volume(session.marker.name)
                    done.unmarked.append(session)
        for marker in registry.lone_markers:
            async with self._going_on(marker.name):
                await self._engine.remove_volume(marker.name)
        # all programs go by one order: two that look at once remove the same ones
        return sorted(unused, key=lambda session: (session.unused_since or 0, session.container_name))

    async def _remove_expired(self, unused: list[SessionRecord], done: Tidied) -> list[SessionRecord]:
        """Remove what was unused for too long; the rest."""
        rest = []
        for session in unused:
            limit = self._keep_unused if session.kept else self._grace
            since = session.unused_since
            if limit is None or since is None or self._clock() - since < limit or not await self._remove(session, done):
                rest.append(session)
            else:
                logger.info("removed the files of %s: unused for %.0f s", session.container_name, self._clock() - since)
        return rest

    async def _remove_excess(
        self, registry: Registry, unused: list[SessionRecord], total_bytes: int, done: Tidied
    ) -> None:
        """Remove what is unused until the rest is no more than ``total_bytes``, or all is in use."""
        # not what was just removed: another program may be at it still, and its files be counted
        counted = [*unused, *(session for session in registry.sessions.values() if session.container is not None)]
        workspaces = [session.workspace for session in counted if session.workspace is not None]
        sizes = await self._engine.volume_sizes(workspaces)
        total = sum(sizes.values())
        for session in unused:
            if total <= total_bytes:
                return
            size = sizes.get(session.workspace or "", 0)
            # removing what takes nothing, or nobody knows how much, need not help
            if size > 0 and await self._remove(session, done):
                logger.info("removed the files of %s: %d bytes in all is too much", session.container_name, total)
                total -= size

    async def _remove(self, session: SessionRecord, done: Tidied) -> bool:
        """Remove a session's files unless it is in use, or was since it was marked; whether they need no more room."""
        name = session.container_name
        async with self._going_on(name):
            if await self._engine.inspect(name) is not None:
                return False
            marker = await self._engine.inspect_volume(marker_of(self._namespace, name))
            if marker is None:
                # Another program is removing them; or they are in use again, which the next look will see. To take
                # them for gone is to remove too little rather than too much.
                return True
            if session.marker is None or marker.created > session.marker.created:
                return False
            if await remove_workspace(self._engine, self._namespace, name):
                done.removed.append(session)
            return True
        return False

    async def _remove_pool_volumes(self, registry: Registry, done: Tidied) -> None:
        """Remove volumes of the pool whose containers are gone, and which no session got."""

        def lone(registry: Registry) -> set[str]:
            now = self._clock()
            return {volume.name for volume in registry.pool_volumes if now - volume.created >= self._grace}

        if not lone(registry):
            return
        # a container may have been claimed and recorded between the two requests of that look, and have ended
        for name in sorted(lone(registry) & lone(await read_registry(self._engine, self._namespace))):
            async with self._going_on(name):
                await self._engine.remove_volume(name)
                done.volumes.append(name)

    async def _remove_copies(self, registry: Registry, done: Tidied) -> None:
        """Remove containers that have copied, or never begun to, and that nobody waits for."""
        now = self._clock()
        still = [container for container in registry.copies if container.state in ("ended", "starting")]
        # for how long is not known otherwise; who waits for a copy looks every second
        self._copies_seen = {container.id: self._copies_seen.get(container.id, now) for container in still}
        for container in still:
            if now - self._copies_seen[container.id] >= self._grace:
                async with self._going_on(container.name):
                    await self._engine.remove(container.name)
                    done.containers.append(container.name)

    async def _remove_beside(self, registry: Registry, done: Tidied) -> None:
        """Remove what was made beside a session's container that is gone."""
        for container in registry.lone_containers:
            async with self._going_on(container.name):
                await self._engine.remove(container.name)
                done.containers.append(container.name)
        for volume in registry.lone_volumes:
            async with self._going_on(volume.name):
                await self._engine.remove_volume(volume.name)
                done.volumes.append(volume.name)

    @asynccontextmanager
    async def _going_on(self, name: str) -> AsyncIterator[None]:
        """Whatever is wrong with one, the others get their turn."""
        try:
            yield
        except EngineUnavailable:
            raise
        except VolumeInUse:
            logger.debug("%s is in use again", name)
        except EngineError as error:
            logger.warning("while tidying %s: %s", name, error)
