"""One session's container, created or found by its key, and this program's link into it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from .admission import Admission
from .engine.base import ContainerInfo, ContainerSpec, Engine
from .errors import (
    ContainerGone,
    EngineError,
    KernelStartFailed,
    LinkBroken,
    LinkError,
    NameTaken,
    SandboxError,
    SupervisorGone,
    TooManySessions,
)
from .link import Link
from .link_thread import LinkThread
from .pool import Pool, settle_claim, tell_claimed
from .registry import SessionName, labels_beside, mark_used, record_session, remove_workspace, workspace_of
from .settings import Settings
from .supervision import supervision

logger = logging.getLogger(__name__)

STARTING_SECONDS = 10.0
"""How long another program may take between creating a container and starting it; then it was killed in between."""
ENDING_SECONDS = 5.0
"""How long a container that is told to end may look as if it ran."""
USELESS_SECONDS = 15.0
"""How long each stream into a container that runs may end as it begins. It is the code's doing, for it can end relays,
or leaves no room for them."""
USELESS_STREAMS = 5
"""At least so many of them: one that is silent is no such stream."""
PAUSE = 0.05
"""Seconds between attempts to get a container that another program starts or ends."""
ADMISSIONS = 5


class Starter:
    """What a session needs to get its container: an engine, an image, and what the manager has to say to it."""

    def __init__(
        self,
        engine: Engine,
        thread: LinkThread,
        settings: Settings,
        image: Callable[[], Awaitable[str]],
        pool: Pool,
        admission: Admission,
    ) -> None:
        self.engine = engine
        self.thread = thread
        self.settings = settings
        self.pool = pool
        self.admission = admission
        self._image = image

    async def open(
        self, name: SessionName, *, kept: bool, on_change: Callable[[], None], restore: bool = True
    ) -> Container:
        """The session's container, found, claimed from the pool, or made; with a link into it.

        One that is made puts saved variables back, unless ``restore`` is False.

        :raises TooManySessions: there is no room for one more.
        :raises SandboxError: as :meth:`Container.open`.
        """
        for _ in range(ADMISSIONS):
            image = await self._image()
            container = Container(
                self.engine, self.thread, name, self.settings, image, kept=kept, on_change=on_change, restore=restore
            )
            try:
                await container.open(self)
                if not container.created or await self.admission.confirm(name):
                    return container
                await container.remove()
            except BaseException:
                await container.link.close()
                raise
            await container.link.close()
        raise TooManySessions("Others start as fast as room is made.", "Try again.")


class Container:
    """A session's container as this program sees it.

    ``on_change`` is called in the link's thread, see :class:`~session_manager.link.Link`.
    """

    def __init__(
        self,
        engine: Engine,
        thread: LinkThread,
        name: SessionName,
        settings: Settings,
        image: str,
        *,
        kept: bool,
        on_change: Callable[[], None],
        restore: bool = True,
    ) -> None:
        self._engine = engine
        self._name = name
        self._settings = settings
        self._kept = kept
        self._on_change = on_change
        self._start_timeout = settings.limits.start_timeout
        self.spec = ContainerSpec(
            name=name.container,
            image=image,
            labels=name.labels(settings, kept=kept),
            volume=name.volume,
            supervision=supervision(settings, image, kept=kept, restore=restore),
            options=settings.container,
            beside=labels_beside(name.namespace),
        )
        self.link = Link(thread, thread.new_directory(), on_change)
        self.created = False
        """Whether the last :meth:`open` got a new container, rather than finding the session's."""
        self.found_workspace = False
        """Whether the new container found the files of an earlier one."""
        self._replaced = False
        """Whether another container has its name by now."""

    async def open(self, starter: Starter | None = None) -> None:
        """Attach to the session's container, or get one: from the pool, or a new one.

        Two programs that do this at once get the same container: one creates it, the other is told that the name is
        taken, and attaches. Without a ``starter`` there is no pool, and no limit of how many there may be.

        :raises ImageMissing, EngineUnavailable, EngineError: as the engine says.
        :raises TooManySessions: there is no room for one more.
        :raises KernelStartFailed: the container ends as soon as it starts.
        """
        begin = time.monotonic()
        limit = max(self._start_timeout, 2 * STARTING_SECONDS)
        created = False
        seen = ""
        while time.monotonic() - begin < limit:
            try:
                await self.attach()
                if self.link.unclaimed:  # from the pool, and whoever claimed it for this session did not get further
                    await self._settle_claim()
                self.created = created
                self.found_workspace &= created  # else another program made the container, while this one tried to
                return
            except (ContainerGone, LinkBroken) as error:
                found = await self._engine.inspect(self.spec.name)
                seen = f"{found.state if found else 'gone'}: {error}"
                if created and (found is None or found.state == "ended"):
                    raise self._ended_at_once(str(error)) from error
                if await self._wait_for(found, time.monotonic() - begin, error):
                    continue
            try:
                if await self._create(starter):
                    return
                created = True
            except (NameTaken, ContainerGone) as error:
                seen = str(error)
                await asyncio.sleep(PAUSE)  # another program is starting it, or took ours for one that nobody starts
        raise KernelStartFailed(
            f"The container {self.spec.name} can't be had in {limit:g} s ({seen}).",
            "Another program may be stopping it again and again; `docker-interpreter doctor` looks for other reasons.",
        )

    async def _wait_for(self, found: ContainerInfo | None, seconds: float, error: SandboxError) -> bool:
        """What to do about a container that can't be attached to, after so many seconds: True, try again soon; False,
        make one, as there is none any more.

        :raises EngineError: it is paused.
        :raises KernelStartFailed: it runs, and no session answers in it.
        """
        if found is None:
            return False
        if found.state == "paused":
            raise EngineError(
                f"The container {self.spec.name} is paused.", f"`docker unpause {self.spec.name}` wakes it."
            ) from error
        # looked at for a while here too: the engine's clock may be another
        if found.state == "starting" and seconds > 1 and time.time() - found.created > STARTING_SECONDS:
            logger.warning("removing %s: it was created and never started", self.spec.name)
        elif found.state != "ended":
            # it starts just now, or another program has told it to end
            broken = isinstance(error, LinkBroken) and found.state == "running" and seconds > ENDING_SECONDS
            if broken and not isinstance(error, SupervisorGone):
                raise KernelStartFailed(
                    f"No session answers in the container {self.spec.name}: {error}",
                    "Stop the session, which keeps its files, and the next cell gets a new container.",
                ) from error
            if not broken:
                await asyncio.sleep(PAUSE)
                return True
            logger.warning("removing %s, which its code has made useless: %s", self.spec.name, error)
        await self._engine.remove(found.id)
        return False

    async def _create(self, starter: Starter | None) -> bool:
        """Get a container that is new for the session; whether there is a link into it already."""
        if starter is not None:
            await starter.admission.admit(self._name)
        workspace = await workspace_of(self._engine, self._name)
        self.found_workspace = workspace is not None
        if workspace is None and starter is not None:
            link = await starter.pool.claim(self._name, kept=self._kept)
            if link is not None:
                await self.link.close()
                self.link = link
                link.hand_over(self._on_change)
                self.created = True
                return True
        self.spec = replace(self.spec, volume=workspace or self._name.volume)
        await self._engine.create(self.spec)
        if workspace is not None:
            # its removal, for having been unused for long, may have begun before the container had it
            await record_session(self._engine, self._name, kept=self._kept, workspace=workspace)
            await mark_used(self._engine, self._name)
        return False

    async def _settle_claim(self) -> None:
        found = await self._engine.inspect(self.spec.name)
        if found is not None and found.volumes:
            await settle_claim(self._engine, self._name, found.volumes[0], kept=self._kept)
        await tell_claimed(self.link, self._settings, kept=self._kept)

    def _ended_at_once(self, words: str = "") -> KernelStartFailed:
        return KernelStartFailed(
            f"The container ended as soon as it started. {words}".strip(),
            f"Is {self.spec.image!r} a session image? `docker-interpreter doctor` checks it.",
        )

    async def attach(self) -> None:
        """Open a stream into the running container and hand it to the link.

        :raises ContainerGone: it does not run.
        :raises LinkError: it runs, but what answers is not our relay, or nothing does.
        """
        stream = await self._engine.exec(self.spec.name)
        await self.link.attach(stream, self._start_timeout)

    async def heal(self) -> None:
        """Attach again after the link broke, for as long as the engine needs to come back (``start_timeout``).

        :raises ContainerGone: the container is gone, and what was in memory with it; there may be another of its name.
        :raises SupervisorGone: it runs, but never again for us.
        :raises EngineError, LinkError: it could not be reached in that time.
        """
        if self._replaced:
            raise ContainerGone(f"The container {self.spec.name} is another by now.")
        key = self.link.key
        begin = time.monotonic()
        ended = 0
        pause = 0.02
        while True:
            try:
                await self.attach()
                if self.link.key == key:
                    return
                self._replaced = True
                await self.link.close()
                raise ContainerGone(f"The container {self.spec.name} is another by now.")
            except ContainerGone:
                raise
            except (EngineError, LinkError) as error:
                seconds = time.monotonic() - begin
                ended = ended + 1 if isinstance(error, LinkBroken) else 0
                if seconds > self._start_timeout or (isinstance(error, SupervisorGone) and seconds > ENDING_SECONDS):
                    raise
                if ended >= USELESS_STREAMS and seconds > USELESS_SECONDS:
                    raise SupervisorGone(f"Streams into the container end as they begin: {error}") from error
                await asyncio.sleep(pause)
                pause = min(1.0, pause * 2)

    async def remove(self) -> None:
        """Kill and remove the container. The volume stays."""
        await self._engine.remove(self.spec.name)

    async def purge(self) -> None:
        """Remove the container and the session's files."""
        await self._engine.remove(self.spec.name)
        await remove_workspace(self._engine, self._name.namespace, self._name.container)
