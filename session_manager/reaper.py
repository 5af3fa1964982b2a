"""Puts away what nobody needs any more: idle sessions, old ones, what killed managers left, unused workspaces.

Every manager has one. Many may work at once, and each thing they do can be done twice, or half, and is then finished by
the next: the engine's names are the only locks, and a session's turn the only one inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .engine.base import ContainerInfo, Engine
from .errors import ContainerGone, EngineError, LinkError, SandboxError
from .link import Link
from .link_thread import LinkThread
from .registry import Registry, SessionRecord, read_registry
from .settings import Settings
from .workspaces import Workspaces

logger = logging.getLogger(__name__)

Links = Callable[[SessionRecord], Link | None]
"""The link that this program has into a session's container, where it has one that works."""
LONGEST_PAUSE = 60.0
SHORTEST_PAUSE = 0.2
STATUS_TIMEOUT = 5.0
TURN_TIMEOUT = 5.0
"""Seconds to wait for the turn of a session that looked idle: who has it gives it up at once, unless a cell runs."""
SAVE_GRACE = 10.0
END_TIMEOUT = 10.0
NEVER_STARTED = 60.0
"""Seconds after which a container that was created and never started belongs to nobody."""
AT_ONCE = 4


def no_link(_record: SessionRecord) -> None:
    """Of a program that has no sessions of its own."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one session's life, in seconds, as the settings of whoever made its container have them."""

    idle_timeout: float
    longest_life: float | None
    save: bool
    """Whether its variables are saved before it goes."""

    def reason(self, status: Mapping[str, object]) -> str | None:
        """Why a session of this status has to go; None where it may stay. Idle is that no cell ran."""
        idle, age = number(status.get("idle")), number(status.get("age"))
        if is_busy(status):
            return None
        if idle is not None and idle >= self.idle_timeout:
            return "idle"
        if age is not None and self.longest_life is not None and age >= self.longest_life:
            return "age"
        return None

    def seconds_left(self, status: Mapping[str, object]) -> float:
        """Seconds until it may have to go; 0 where a limit has passed already, and a cell that runs is waited for."""
        idle, age = number(status.get("idle")) or 0.0, number(status.get("age")) or 0.0
        left = self.idle_timeout - (0.0 if is_busy(status) else idle)
        if self.longest_life is not None:
            left = min(left, self.longest_life - age)
        return max(0.0, left)


class Reaper:
    """Sweeps the namespace now and then, once :meth:`start` was called and until :meth:`stop`."""

    def __init__(self, engine: Engine, thread: LinkThread, settings: Settings, links: Links = no_link) -> None:
        self._engine = engine
        self._thread = thread
        self._links = links
        self._settings = settings
        self._limits = Limits(settings.limits.idle_timeout, settings.limits.longest_life, settings.saving.enabled)
        self._workspaces = Workspaces(engine, settings)
        self._next_look: dict[str, float] = {}
        """When to ask a container again, by its id: a session can't be due sooner than it said."""
        self._silent_since: dict[str, float] = {}
        """Containers that run and do not answer, by id: code inside may have stopped the supervisor."""
        self._incomplete_for = NEVER_STARTED
        """Seconds that others have to make what belongs beside a container."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Sweep in the background: now, and then for as long as this program has the manager."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the sweeping; what it is at is left for another to finish."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            try:
                await self.sweep()
            except SandboxError as error:
                logger.info("sweeping: %s", error)  # the next sweep may have an engine again
            # managers that were started together drift apart
            await asyncio.sleep(self._pause() * random.uniform(0.8, 1.2))  # noqa: S311 - no secret

    def _pause(self) -> float:
        limits = [self._limits.idle_timeout / 4, LONGEST_PAUSE]
        if self._limits.longest_life is not None:
            limits.append(self._limits.longest_life / 4)
        return max(SHORTEST_PAUSE, min(limits))

    async def sweep(self) -> None:
        """Look at everything of this namespace once, and settle what belongs to nobody living.

        :raises EngineError: the engine can't be asked.
        """
        registry = await read_registry(self._engine, self._settings.namespace)
        await self._remove_remains(registry)
        now = time.monotonic()
        running = {
            record.container.id: record
            for record in registry.sessions.values()
            if record.container is not None and record.container.state == "running" and record.kept
        }
        self._next_look = {one: due for one, due in self._next_look.items() if one in running}
        self._silent_since = {one: since for one, since in self._silent_since.items() if one in running}
        gate = asyncio.Semaphore(AT_ONCE)

        incomplete = {
            one
            for one in registry.incomplete
            if one in running and time.time() - running[one].created > self._incomplete_for
        }

        async def look(record: SessionRecord, container: ContainerInfo) -> None:
            async with gate:
                await self._look(record, container, "network" if container.id in incomplete else None)

        due = [record for one, record in running.items() if self._next_look.get(one, 0.0) <= now or one in incomplete]
        async with asyncio.TaskGroup() as group:
            for record in due:
                if record.container is not None:
                    group.create_task(look(record, record.container))
        await self._workspaces.tidy(registry)

    async def _remove_remains(self, registry: Registry) -> None:
        """Containers that were created and never started, or have ended and are still there."""
        now = time.time()
        for container in [*(one.container for one in registry.sessions.values()), *registry.pool]:
            if container is None:
                continue
            never_started = container.state == "starting" and now - container.created > NEVER_STARTED
            if never_started or container.state == "ended":
                logger.info("removing %s, which does not run", container.name)
                await self._engine.remove(container.id)

    async def _look(self, record: SessionRecord, container: ContainerInfo, fault: str | None) -> None:
        """Ask one session how it is, and put it away where it has to go: for its age, or for a fault that it has."""
        if fault is None and (known := await ask_own(self._links(record))) is not None:
            limits = self._limits_of(known)
            if limits.reason(known) is None:
                self._next_look[container.id] = time.monotonic() + limits.seconds_left(known)
                self._silent_since.pop(container.id, None)
                return
        link = Link(self._thread, self._thread.new_directory(), lambda: None)
        try:
            status = await observe(link, self._engine, container.id)
            limits = self._limits_of(status)
            reason = fault or limits.reason(status)
            if reason is None or not await self.put_away(link, container.id, reason, None if fault else limits):
                self._next_look[container.id] = time.monotonic() + limits.seconds_left(status)
            self._silent_since.pop(container.id, None)
        except ContainerGone as error:
            logger.debug("%s ends just now: %s", record.container_name, error)
        except EngineError as error:
            logger.debug("%s can't be asked: %s", record.container_name, error)
        except LinkError as error:
            await self._remove_if_silent(record, container, error)
        finally:
            await link.close()

    async def _remove_if_silent(self, record: SessionRecord, container: ContainerInfo, error: LinkError) -> None:
        """A container that has not answered for as long as a session may be idle goes as well; its files stay."""
        logger.debug("no status of %s: %s", record.container_name, error)
        since = self._silent_since.setdefault(container.id, time.monotonic())
        if time.monotonic() - since > self._limits.idle_timeout:
            logger.warning(
                "%s has not answered for %.0f s; removing it", record.container_name, time.monotonic() - since
            )
            await self._engine.remove(container.id)

    def _limits_of(self, status: Mapping[str, object]) -> Limits:
        """The limits that a session was made with: another program's settings are not for us to overrule."""
        reap = status.get("reap")
        if not isinstance(reap, dict):
            return self._limits
        idle = number(reap.get("idle_timeout"))
        return Limits(
            self._limits.idle_timeout if idle is None else idle,
            number(reap.get("longest_life")),
            reap.get("save") is True,
        )

    async def put_away(self, link: Link, container: str, reason: str, limits: Limits | None = None) -> bool:
        """Save a session's variables and remove its container, if no cell runs in it; whether that was done.

        The turn is taken first, so that no cell begins; then it is asked once more whether the session has to go
        (``limits``), as a cell may have run in between. ``container`` is the id: a name may be another's by then. The
        caller closes the link.

        :raises LinkError, EngineError: the container or the engine went away meanwhile.
        """
        try:
            async with asyncio.timeout(TURN_TIMEOUT):
                await link.acquire_turn()
        except TimeoutError:
            return False
        status = await link.request("status", STATUS_TIMEOUT)
        if is_busy(status) or (limits is not None and limits.reason(status) is None):
            link.end_turn()
            return False
        wanted = self._limits_of(status).save and link.kernel.state == "ready"
        saved = wanted and await self._save(link, reason)
        await link.request("shutdown", STATUS_TIMEOUT, turn=True, reason=reason, saved=saved)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(link.wait_until_broken(), END_TIMEOUT)  # it leaves word in the workspace, and ends
        await self._engine.remove(container)
        logger.info("put %s away (%s)", container[:80], reason)
        return True

    async def _save(self, link: Link, reason: str) -> bool:
        # in our own time: a container that lies must not hold us up
        saving = self._settings.saving
        try:
            reply = await link.request(
                "save", saving.timeout + SAVE_GRACE, seconds=saving.timeout, max_bytes=saving.max_bytes, reason=reason
            )
        except LinkError as error:
            if link.broken is not None:
                raise
            logger.warning("variables were not saved: %s", error)
            return False
        return isinstance(report := reply.get("report"), dict) and "error" not in report


async def ask_own(link: Link | None) -> Mapping[str, object] | None:
    """The status of a session that this program has a link into, which takes no further program in its container;
    None where it has none, or that gives no answer."""
    if link is None:
        return None
    try:
        return await link.request("status", STATUS_TIMEOUT)
    except LinkError as error:
        logger.debug("no status over its own link: %s", error)
        return None


async def observe(link: Link, engine: Engine, container: str) -> Mapping[str, object]:
    """Attach as one who only looks, and ask for the status.

    :raises ContainerGone: it does not run.
    :raises LinkError: it does not answer.
    """
    await link.attach(await engine.exec(container, observe=True), STATUS_TIMEOUT)
    return await link.request("status", STATUS_TIMEOUT)


def is_busy(status: Mapping[str, object]) -> bool:
    """Whether a cell runs, or Python is about to start for the first that will."""
    kernel = status.get("kernel")
    return status.get("busy") is not False or (isinstance(kernel, dict) and kernel.get("state") == "starting")


def number(value: object) -> float | None:
    """A number, if it is one that can be reckoned with: JSON also says NaN, infinity, and whole numbers of any size."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None
