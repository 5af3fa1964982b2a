"""Containers that wait with a booted kernel, so that a new session has one at once.

They belong to the namespace: any manager with the same settings and image may claim one, by renaming it to the
session's name, which the engine lets only one do. The manager that started one holds a link to it until then. One
whose managers are all gone ends by itself after the idle time, as any container does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .engine.base import ContainerInfo, ContainerSpec, Engine
from .errors import ContainerGone, LinkError, NameTaken, SandboxError
from .link import Link
from .link_thread import LinkThread
from .registry import (
    LABEL_LIFE,
    LABEL_NAMESPACE,
    LABEL_SCHEMA,
    LABEL_SETTINGS,
    POOL,
    SCHEMA,
    SessionName,
    labels_beside,
    pool_prefix,
    record_session,
)
from .settings import Settings, settings_hash
from .supervision import supervision

logger = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
FIRST_CELL_SECONDS = 0.2
"""Seconds in which who has just got a container has its first cell answered, before the next one takes a processor."""
STATUS_TIMEOUT = 5.0


@dataclass(slots=True)
class _Member:
    """A container that waits, and this program's link to it."""

    name: str
    link: Link


class Pool:
    """Keeps ``settings.pool.size`` containers waiting, from :meth:`start` to :meth:`stop`; of size 0 it is idle."""

    def __init__(
        self, engine: Engine, thread: LinkThread, settings: Settings, image: Callable[[], Awaitable[str]]
    ) -> None:
        self._engine = engine
        self._thread = thread
        self._settings = settings
        self._image = image
        self._hash = settings_hash(settings)
        self._members: list[_Member] = []
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Fill the pool in the background, and keep it filled."""
        if self._settings.pool.size and self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Let go of the containers that wait. They wait on, for the next manager, as long as an idle session would."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        members, self._members = self._members, []
        await asyncio.gather(*(member.link.close() for member in members))

    async def claim(self, name: SessionName, *, kept: bool) -> Link | None:
        """Make a waiting container the session's; the link into it. None where none waits.

        :raises NameTaken: the session has got a container from somebody else meanwhile.
        :raises EngineError: the engine can't be asked.
        """
        if not self._settings.pool.size:
            return None
        try:
            while self._members:
                member = self._members.pop(0)
                link = await self._claim(member.name, name, member.link, kept=kept)
                if link is not None:
                    return link
            for info in await self._waiting():
                if self._is_current(info, await self._image_id()):
                    link = Link(self._thread, self._thread.new_directory(), lambda: None)
                    if await self._claim(info.name, name, link, kept=kept) is not None:
                        return link
            return None
        finally:
            self._wanted.set()

    async def _claim(self, member: str, name: SessionName, link: Link, *, kept: bool) -> Link | None:
        """Claim one container: rename it, record the session, tell the supervisor. None: somebody else has it.

        A program that is killed after the first step leaves a session whose next program does the others.
        """
        try:
            await self._engine.rename(member, name.container)
            if not await settle_claim(self._engine, name, member, kept=kept):
                # the key had files all along: it is not for a container that has others
                await self._engine.remove(name.container)
                raise NameTaken(f"The session {name.key!r} has files already.")
            if link.broken is not None:
                await link.attach(await self._engine.exec(name.container), self._settings.limits.start_timeout)
            await tell_claimed(link, self._settings, kept=kept)
        except (ContainerGone, LinkError) as error:
            logger.debug("%s can't be claimed: %s", member, error)
            await link.close()
            return None
        except BaseException:
            await link.close()
            raise
        return link

    async def _run(self) -> None:
        while True:
            self._wanted.clear()
            try:
                await self._fill()
            except SandboxError as error:
                logger.warning("the pool can't be filled: %s", error)
            try:
                await asyncio.wait_for(self._wanted.wait(), LOOK_SECONDS)
            except TimeoutError:
                continue
            await asyncio.sleep(FIRST_CELL_SECONDS)

    async def _fill(self) -> None:
        """Let go of members that are gone, remove stale ones that nobody holds, start what is missing."""
        for member in [one for one in self._members if one.link.broken is not None]:
            self._members.remove(member)
            await member.link.close()
        image_id = await self._image_id()
        waiting = await self._waiting()
        current = [info for info in waiting if self._is_current(info, image_id)]
        names = {info.name for info in current}
        for member in [one for one in self._members if one.name not in names]:  # claimed by another, or stale
            self._members.remove(member)
            await member.link.close()
        for info in waiting:
            if info.name not in names:
                await self._remove_unless_held(info)
        for info in current[self._settings.pool.size :]:  # two managers filled it at once
            if (surplus := next((one for one in self._members if one.name == info.name), None)) is not None:
                self._members.remove(surplus)
                await surplus.link.close()
                await self._remove_unless_held(info)
        held = {member.name for member in self._members}
        for info in current[: self._settings.pool.size]:
            if info.name not in held and info.state == "running":
                await self._hold(info.name)  # its manager is gone, or may go
        for _ in range(self._settings.pool.size - len(current)):
            await self._add()

    async def _add(self) -> None:
        """Start one more, and wait until its kernel is ready, so that no more than one boots at a time."""
        name = f"{pool_prefix(self._settings.namespace)}{uuid.uuid4().hex}"
        labels = {
            LABEL_NAMESPACE: self._settings.namespace,
            LABEL_LIFE: POOL,
            LABEL_SCHEMA: SCHEMA,
            LABEL_SETTINGS: self._hash,
        }
        image = await self._image()
        told = {**supervision(self._settings, image, kept=True), "pool": True, "preload": self._settings.pool.preload}
        beside = labels_beside(self._settings.namespace)
        spec = ContainerSpec(name, image, labels, name, told, self._settings.container, beside)
        await self._engine.create(spec)
        await self._hold(name)

    async def _hold(self, name: str) -> None:
        ready = asyncio.Event()
        loop = asyncio.get_running_loop()

        def changed() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever would care
                loop.call_soon_threadsafe(ready.set)

        link = Link(self._thread, self._thread.new_directory(), changed)
        try:
            async with asyncio.timeout(self._settings.limits.start_timeout):
                await link.attach(await self._engine.exec(name), self._settings.limits.start_timeout)
                while link.kernel.state == "starting" and link.broken is None:
                    await ready.wait()
                    ready.clear()
        except (ContainerGone, LinkError, TimeoutError) as error:
            logger.warning("%s does not get ready: %s", name, error or "it takes too long")
            await link.close()
            return
        except BaseException:
            await link.close()
            raise
        self._members.append(_Member(name, link))

    async def _remove_unless_held(self, info: ContainerInfo) -> None:
        """Remove a container that waits for sessions of other settings, or of an image that was built anew, unless a
        manager that has those lives."""
        link = Link(self._thread, self._thread.new_directory(), lambda: None)
        try:
            if info.state == "running":
                await link.attach(await self._engine.exec(info.id, observe=True), STATUS_TIMEOUT)
                if (await link.request("status", STATUS_TIMEOUT)).get("attached") != 0:
                    return
        except (ContainerGone, LinkError) as error:
            logger.debug("%s: %s", info.name, error)
        finally:
            await link.close()
        # by its name: where a session has got it meanwhile, that is another. The volume is swept later.
        await self._engine.remove(info.name)

    async def _waiting(self) -> list[ContainerInfo]:
        """Every container that waits in this namespace, the oldest first."""
        labels = {LABEL_NAMESPACE: self._settings.namespace, LABEL_LIFE: POOL}
        prefix = pool_prefix(self._settings.namespace)
        found = [info for info in await self._engine.list(labels) if info.name.startswith(prefix)]
        return sorted(found, key=lambda info: (info.created, info.name))

    def _is_current(self, info: ContainerInfo, image_id: str | None) -> bool:
        return (
            info.labels.get(LABEL_SETTINGS) == self._hash
            and info.labels.get(LABEL_SCHEMA) == SCHEMA
            and info.image_id == image_id
            and info.state in ("running", "starting")
        )

    async def _image_id(self) -> str | None:
        return await self._engine.image_id(await self._image())


async def settle_claim(engine: Engine, name: SessionName, workspace: str, *, kept: bool) -> bool:
    """Record that a claimed container's session has its files in ``workspace``; False where the key has others."""
    return await record_session(engine, name, kept=kept, workspace=workspace) == workspace


async def tell_claimed(link: Link, settings: Settings, *, kept: bool) -> None:
    """Tell a claimed container's supervisor that its life as a session's begins.

    :raises LinkError: it does not answer.
    """
    await link.request("claim", alone_timeout=None if kept else settings.limits.orphan_grace)
    link.unclaimed = False
