"""Sessions by key: created, or found running, in whatever process asks."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from .container import KEPT, LABEL_LIFE, LABEL_NAMESPACE, SessionName, key_of
from .engine import ContainerInfo, Engine, make_engine
from .errors import ContainerGone, LinkError, SessionClosed
from .link import Link
from .link_thread import LinkThread
from .session import Session
from .settings import Settings

logger = logging.getLogger(__name__)

STATUS_TIMEOUT = 5.0
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """One session as the engine and its supervisor describe it. What is None could not be learnt."""

    key: str
    container: str
    state: str
    """``idle``, ``busy``, or what the engine says of a container that does not run."""
    kept: bool
    """False for throw-away sessions."""
    age: float
    """Seconds since its creation."""
    idle: float | None
    """Seconds since a cell last began or ended."""
    memory: int | None
    """Bytes in use by its processes, without the page cache."""
    image: str


class SessionManager:
    """Hands out sessions by key. Use it as an async context manager.

    ::

        async with SessionManager(Settings()) as manager:
            session = await manager.session("user-1/chat-7")
            run = await session.execute("x = 40 + 2\\nx")
            print(run.text)  # 42

    The engine is the registry: a session outlives this object, and the next manager, in whatever process, finds it by
    its key. On leaving the context sessions are let go of (:meth:`detach`); throw-away sessions are removed.

    ``progress`` gets a line for each step of building an image, when the default image has to be built first.
    """

    def __init__(self, settings: Settings | None = None, *, progress: Callable[[str], None] | None = None) -> None:
        self.settings = settings if settings is not None else Settings.load()
        self.engine: Engine = make_engine(self.settings)
        self._progress = progress or logger.info
        self._thread = LinkThread()
        self._sessions: dict[str, Session] = {}
        self._image: asyncio.Task[str] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.detach()

    async def session(self, key: str) -> Session:
        """The session of this key, with a kernel that is ready: found running, or created.

        :raises SettingsError: the key is empty, too long, or not printable.
        :raises SandboxError: it can't be started; see :meth:`Session.execute`.
        """
        return await self._session(SessionName(self.settings.namespace, key), kept=True)

    async def throw_away(self) -> Session:
        """A new session that nobody else finds by key, removed with its files by :meth:`Session.stop` or on leaving."""
        key = f"throw-away-{uuid.uuid4()}"
        return await self._session(SessionName(self.settings.namespace, key), kept=False)

    async def _session(self, name: SessionName, *, kept: bool) -> Session:
        if self._closed:
            raise SessionClosed("This session manager was closed.", "Make a new one.")
        session = self._sessions.get(name.key)
        if session is None:
            session = self._sessions[name.key] = Session(
                name,
                self.engine,
                self._thread,
                self.settings,
                self._resolved_image,
                kept=kept,
                on_close=lambda: self._sessions.pop(name.key, None),
            )
        await session.start()
        return session

    async def _resolved_image(self) -> str:
        """The image's reference; asked of the engine once, built once, however many sessions wait for it."""
        if self._image is None or (self._image.done() and (self._image.cancelled() or self._image.exception())):
            self._image = asyncio.create_task(self.engine.find_image(self.settings.image, self._progress))
        return await asyncio.shield(self._image)

    async def list(self) -> Sequence[SessionStatus]:
        """Every session of this namespace on the engine, whoever made it, by key."""
        found = await self.engine.list({LABEL_NAMESPACE: self.settings.namespace})
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(info: ContainerInfo) -> SessionStatus:
            async with gate:
                return await self._status(info)

        return sorted(await asyncio.gather(*map(ask, found)), key=lambda status: status.key)

    async def _status(self, info: ContainerInfo) -> SessionStatus:
        fields: dict[str, object] = {}
        link = Link(self._thread, self._thread.new_directory(), lambda: None)
        if info.state == "running":
            try:
                await link.attach(await self.engine.exec(info.name), STATUS_TIMEOUT)
                fields = dict(await link.request("status", STATUS_TIMEOUT))
            except (ContainerGone, LinkError) as error:
                logger.debug("no status of %s: %s", info.name, error)
        await link.close()
        idle, memory = fields.get("idle"), fields.get("memory")
        state = "busy" if fields.get("busy") is True else "idle" if fields else info.state
        return SessionStatus(
            key=key_of(info.labels),
            container=info.name,
            state=state,
            kept=info.labels.get(LABEL_LIFE) == KEPT,
            age=time.time() - info.created,
            idle=float(idle) if isinstance(idle, int | float) else None,
            memory=memory if isinstance(memory, int) else None,
            image=info.image,
        )

    async def stop(self, key: str, *, purge: bool = False) -> bool:
        """End a session, whoever made it; whether there was one. ``purge`` removes its workspace too, for good."""
        name = SessionName(self.settings.namespace, key)
        session = self._sessions.pop(key, None)
        existed = await self.engine.inspect(name.container) is not None
        if session is not None:
            await session.stop(purge=purge)
            return existed
        await self.engine.remove(name.container)
        if purge:
            await self.engine.remove_volume(name.volume)
        return existed

    async def detach(self) -> None:
        """Let go of every session and of the engine. Sessions live on; throw-away ones are removed."""
        await self._end(lambda session: session.detach() if session.kept else session.stop(purge=True))

    async def close(self) -> None:
        """End every session that this manager has handed out, keeping workspaces, and let go of the engine."""
        await self._end(lambda session: session.stop(purge=not session.kept))

    async def _end(self, how: Callable[[Session], Coroutine[object, object, None]]) -> None:
        if self._closed:
            return
        self._closed = True
        sessions, self._sessions = list(self._sessions.values()), {}
        try:
            results = await asyncio.gather(*map(how, sessions), return_exceptions=True)
            errors = [result for result in results if isinstance(result, BaseException)]
            for error in errors[1:]:
                logger.warning("while letting go of a session: %s", error)
            if errors:
                raise errors[0]
        finally:
            if self._image is not None:
                self._image.cancel()
            await self.engine.close()
            await asyncio.to_thread(self._thread.close)
