"""One session's container, created or found by its key, and this program's link into it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .engine.base import ContainerSpec, Engine
from .errors import (
    ContainerGone,
    EngineError,
    KernelStartFailed,
    LinkBroken,
    LinkError,
    NameTaken,
    SettingsError,
)
from .link import Link
from .link_thread import LinkThread
from .settings import Settings, settings_hash

logger = logging.getLogger(__name__)

SCHEMA = "1"
LABEL_NAMESPACE = "docker-interpreter.namespace"
LABEL_KEY = "docker-interpreter.key"
LABEL_SETTINGS = "docker-interpreter.settings"
LABEL_SCHEMA = "docker-interpreter.schema"
LABEL_LIFE = "docker-interpreter.life"
KEPT, THROW_AWAY = "kept", "throw-away"
LONGEST_KEY = 512
STARTING_SECONDS = 30.0
"""How long another program may take between creating a container and starting it."""
ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class SessionName:
    """What a session is called: by people its key, by the engine a name that is derived from it."""

    namespace: str
    key: str

    def __post_init__(self) -> None:
        if not self.key or len(self.key) > LONGEST_KEY or not self.key.isprintable():
            raise SettingsError(
                f"{self.key[:40]!r} is no session key.",
                f"A key has 1 to {LONGEST_KEY} printable characters.",
            )

    @property
    def container(self) -> str:
        """Unique to the key, and no more guessable from another key than a hash is."""
        return f"{self.namespace}-{hashlib.sha256(self.key.encode()).hexdigest()[:32]}"

    @property
    def volume(self) -> str:
        """The volume of the session's workspace."""
        return self.container

    def labels(self, settings: Settings, *, kept: bool) -> dict[str, str]:
        """What a later program finds the session by."""
        return {
            LABEL_NAMESPACE: self.namespace,
            LABEL_KEY: self.key,
            LABEL_SETTINGS: settings_hash(settings),
            LABEL_SCHEMA: SCHEMA,
            LABEL_LIFE: KEPT if kept else THROW_AWAY,
        }


def key_of(labels: Mapping[str, str]) -> str:
    """The session key that labels carry."""
    return labels.get(LABEL_KEY, "?")


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
    ) -> None:
        self._engine = engine
        self._start_timeout = settings.limits.start_timeout
        self.spec = ContainerSpec(
            name=name.container,
            image=image,
            labels=name.labels(settings, kept=kept),
            volume=name.volume,
            idle_timeout=settings.limits.idle_timeout + settings.limits.idle_margin,
            options=settings.container,
        )
        self.link = Link(thread, thread.new_directory(), on_change)
        self.created = False
        """Whether the last :meth:`open` made a new container, rather than finding one."""

    async def open(self) -> None:
        """Attach to the session's container, or create it.

        Two programs that do this at once get the same container: one creates it, the other is told that the name is
        taken, and attaches.

        :raises ImageMissing, EngineUnavailable, EngineError: as the engine says.
        :raises KernelStartFailed: the container ends as soon as it starts.
        """
        waiting_since = time.monotonic()
        created = False
        for _ in range(ATTEMPTS):
            try:
                await self.attach()
                self.created = created
                return
            except ContainerGone as error:
                found = await self._engine.inspect(self.spec.name)
                if found is not None and found.state == "paused":
                    raise EngineError(
                        f"The container {self.spec.name} is paused.",
                        f"`docker unpause {self.spec.name}` wakes it.",
                    ) from error
                if found is not None and found.state == "running":
                    continue
                if found is not None and found.state == "starting":
                    if time.monotonic() - waiting_since < STARTING_SECONDS:
                        await asyncio.sleep(0.05)
                        continue
                    logger.warning("removing %s: it was created and never started", self.spec.name)
                if created and found is None:
                    raise self._ended_at_once() from error
                if found is not None:
                    await self._engine.remove(self.spec.name)
            except LinkBroken as error:
                found = await self._engine.inspect(self.spec.name)
                if found is None or found.state == "ended":
                    if created:
                        raise self._ended_at_once(str(error)) from error
                    continue
                raise KernelStartFailed(f"No session answers in the container {self.spec.name}: {error}") from error
            try:
                await self._engine.create(self.spec)
                created = True
            except NameTaken:
                await asyncio.sleep(0.02)  # the other program is starting it
        raise KernelStartFailed(f"The container {self.spec.name} comes and goes; gave up after {ATTEMPTS} attempts.")

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

        :raises ContainerGone: the container is gone, and what was in memory with it.
        :raises EngineError, LinkError: it could not be reached in that time.
        """
        deadline = time.monotonic() + self._start_timeout
        pause = 0.02
        while True:
            try:
                await self.attach()
                return
            except ContainerGone:
                raise
            except (EngineError, LinkError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(pause)
                pause = min(1.0, pause * 2)

    async def remove(self) -> None:
        """Kill and remove the container. The volume stays."""
        await self._engine.remove(self.spec.name)

    async def purge(self) -> None:
        """Remove the container and the volume."""
        await self._engine.remove(self.spec.name)
        await self._engine.remove_volume(self.spec.volume)
