"""Sessions by key: created, or found running, in whatever process asks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from .admission import Admission
from .container import Starter
from .engine import Engine, make_engine
from .engine.base import ContainerInfo, ExecStream
from .errors import ContainerGone, FileMissing, LinkError, SandboxError, SessionClosed, SettingsError
from .journal import Journal, read_session_journal
from .kernel import load_client
from .link import Link
from .link_thread import LinkThread
from .pool import Pool
from .reaper import Reaper, ask_own, number, observe
from .registry import (
    COPY,
    LABEL_LIFE,
    LABEL_NAMESPACE,
    SessionName,
    SessionRecord,
    mark_used,
    read_registry,
    record_session,
    remove_workspace,
    workspace_of,
)
from .session import Session
from .settings import Settings
from .variables import as_size
from .workspace import WorkspaceFiles

logger = logging.getLogger(__name__)

AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """One session as the engine and its supervisor describe it. What is None could not be learnt."""

    key: str
    """"?" for a moment after the session was given a container from the pool."""
    owner: str
    """Whose session it is; "" where nobody said."""
    container: str
    """The name of its container, which one that has files only would have."""
    state: str
    """``idle``, ``busy``, what the engine says of a container that does not run, or ``files only`` without one."""
    kept: bool
    """False for throw-away sessions."""
    age: float | None
    """Seconds since it was given its container; None without one."""
    idle: float | None
    """Seconds since a cell last began or ended."""
    running: float | None
    """Seconds for which the cell that runs has run; None where none runs."""
    memory: int | None
    """Bytes in use by its processes, without the page cache."""
    image: str
    """"" without a container."""
    unused_since: float | None = None
    """Unix time, seconds, at which it was first seen without a container."""


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
    ``engine`` is another than the one that the settings name; it is closed with this object.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        progress: Callable[[str], None] | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.settings = settings if settings is not None else Settings.load()
        self.engine: Engine = engine if engine is not None else make_engine(self.settings)
        self._progress = progress or logger.info
        self._thread = LinkThread()
        self._reaper = Reaper(self.engine, self._thread, self.settings, self._own_link)
        self._pool = Pool(self.engine, self._thread, self.settings, self._resolved_image)
        self._starter = Starter(
            self.engine,
            self._thread,
            self.settings,
            self._resolved_image,
            self._pool,
            Admission(self.engine, self._thread, self.settings, self._reaper),
        )
        self._sessions: dict[SessionName, Session] = {}
        self._image: asyncio.Task[str] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        self._reaper.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.detach()

    async def session(self, key: str, *, owner: str = "") -> Session:
        """The session of this key, with a kernel that is ready: found running, or created.

        Sessions of one ``owner`` are apart from another's of the same key, and counted together
        (``limits.sessions_per_owner``).

        :raises SettingsError: the key or the owner is empty, too long, or not printable.
        :raises TooManySessions: as many run as may.
        :raises SandboxError: it can't be started; see :meth:`Session.execute`.
        """
        return await self._session(self._name(key, owner), kept=True)

    async def throw_away(self, *, owner: str = "") -> Session:
        """A new session that nobody else finds by key, removed with its files by :meth:`Session.stop` or on leaving."""
        return await self._session(self._name(f"throw-away-{uuid.uuid4()}", owner), kept=False)

    async def find(self, key: str, *, owner: str = "") -> Session | None:
        """The session of this key if it runs, in whatever program made it; None where it does not.

        :raises SandboxError: as :meth:`session`.
        """
        name = self._name(key, owner)
        if name not in self._sessions and await self.engine.inspect(name.container) is None:
            return None
        return await self._session(name, kept=True)

    @asynccontextmanager
    async def files(self, key: str, *, owner: str = "") -> AsyncIterator[WorkspaceFiles]:
        """The files of the session of this key, whether or not it runs; no kernel is started for them.

        :raises SandboxError: there is no such session, and no files of one.
        """
        name = self._name(key, owner)
        if await self.engine.inspect(name.container) is None and await workspace_of(self.engine, name) is None:
            raise SandboxError(f"There is no session {key!r}, and no files of one.")

        async def open_door(*, write: bool) -> ExecStream:
            with contextlib.suppress(ContainerGone):
                return await self.engine.open_files(name.container)
            workspace = await workspace_of(self.engine, name)
            if workspace is None:
                raise FileMissing(f"The files of the session {key!r} were removed.")
            labels = {LABEL_NAMESPACE: self.settings.namespace, LABEL_LIFE: COPY}
            if write:  # which is use
                await mark_used(self.engine, name)
            return await self.engine.open_volume_files(
                workspace, await self._resolved_image(), labels, read_only=not write
            )

        yield WorkspaceFiles(open_door, self.settings.limits, self.settings.container)

    async def journal(self, key: str, *, owner: str = "") -> Journal:
        """The cells that ran in the session of this key, whether or not it runs; no kernel is started for it.

        :raises FileError: it can't be read.
        :raises SandboxError: there is no such session, and no files of one.
        """
        async with self.files(key, owner=owner) as files:
            return await read_session_journal(files, self.settings.limits)

    def _name(self, key: str, owner: str) -> SessionName:
        return SessionName(self.settings.namespace, key, owner)

    async def _session(self, name: SessionName, *, kept: bool) -> Session:
        if self._closed:
            raise SessionClosed("This session manager was closed.", "Make a new one.")
        self._reaper.start()
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = Session(
                name, self._starter, kept=kept, on_close=lambda: self._sessions.pop(name, None)
            )
        await session.start()
        self._pool.start()
        return session

    async def fork(self, key: str, new_key: str, *, owner: str = "") -> Session:
        """A copy of a session, files and variables, so that a second path can be tried without losing the first.

        Cells of the session that is copied wait meanwhile. Variables that can't be saved are named in the notice of the
        copy's first execution.

        :raises SettingsError: a session of the new key exists already, or has files.
        :raises SandboxError: as :meth:`session`; or the files could not be copied, and nothing of the copy is left.
        """
        name, copy = self._name(key, owner), self._name(new_key, owner)
        taken = await self.engine.inspect(copy.container) is not None
        if taken or await workspace_of(self.engine, copy) is not None:
            raise SettingsError(
                f"There is a session {new_key!r}, or its files.",
                "Choose another key, or remove it: `docker-interpreter sessions stop KEY --purge`.",
            )
        if await self.engine.inspect(name.container) is None and await workspace_of(self.engine, name) is None:
            raise SandboxError(f"There is no session {key!r}, and no files of one.")
        session = await self.session(key, owner=owner)

        async def copy_files() -> None:
            source = await workspace_of(self.engine, name)
            labels = {LABEL_NAMESPACE: self.settings.namespace, LABEL_LIFE: COPY}
            try:
                target = await record_session(self.engine, copy, kept=True)
                if source is not None:
                    await self.engine.copy_volume(source, target, await self._resolved_image(), labels)
            except BaseException:
                await asyncio.shield(remove_workspace(self.engine, copy.namespace, copy.container))
                raise

        await session.save_and_hold("fork", copy_files)
        return await self.session(new_key, owner=owner)

    async def _resolved_image(self) -> str:
        """The image's reference; asked of the engine once, built once, however many sessions wait for it."""
        if self._image is None or (self._image.done() and (self._image.cancelled() or self._image.exception())):
            self._image = asyncio.create_task(self._find_image())
        return await asyncio.shield(self._image)

    async def _find_image(self) -> str:
        # what every session needs, and nobody before the first one; the engine takes longer than this does
        asyncio.get_running_loop().run_in_executor(None, load_client)
        await self.engine.prepare(self.settings.container, self._progress)
        return await self.engine.find_image(self.settings.image, self._progress)

    async def list(self, *, stopped: bool = False) -> Sequence[SessionStatus]:
        """Every session of this namespace on the engine, whoever made it, by owner and key.

        ``stopped``: those too that have no container any more, and only files.
        """
        registry = await read_registry(self.engine, self.settings.namespace)
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(session: SessionRecord) -> SessionStatus:
            async with gate:
                return await self._status(session)

        found = [one for one in registry.sessions.values() if stopped or one.container is not None]
        return sorted(await asyncio.gather(*map(ask, found)), key=lambda status: (status.owner, status.key))

    def _own_link(self, record: SessionRecord) -> Link | None:
        who = (record.key, record.owner)
        return next((one.link for name, one in self._sessions.items() if (name.key, name.owner) == who), None)

    async def _status(self, session: SessionRecord) -> SessionStatus:
        info = session.container
        fields: Mapping[str, object] = {}
        if info is not None and info.state == "running":
            own = await ask_own(self._own_link(session))
            fields = own if own is not None else await self._look_into(info)
        running = fields.get("running")
        state = "files only" if info is None else info.state
        return SessionStatus(
            key=session.key,
            owner=session.owner,
            container=session.container_name,
            state="busy" if fields.get("busy") is True else "idle" if fields else state,
            kept=session.kept,
            age=None if info is None else time.time() - session.created,
            idle=number(fields.get("idle")),
            running=number(running.get("seconds")) if isinstance(running, dict) else None,
            memory=as_size(fields.get("memory")),
            image="" if info is None else info.image,
            unused_since=session.unused_since,
        )

    async def _look_into(self, container: ContainerInfo) -> Mapping[str, object]:
        """The status of a session that this program has no link into; empty where it does not say."""
        link = Link(self._thread, self._thread.new_directory(), lambda: None)
        try:
            return await observe(link, self.engine, container.id)
        except (ContainerGone, LinkError) as error:
            logger.debug("no status of %s: %s", container.name, error)
            return {}
        finally:
            await link.close()

    async def stop(self, key: str, *, owner: str = "", purge: bool = False) -> bool:
        """End a session, whoever made it; whether there was one. ``purge`` removes its workspace too, for good."""
        name = self._name(key, owner)
        session = self._sessions.pop(name, None)
        existed = await self.engine.inspect(name.container) is not None
        if session is not None:
            await session.stop(purge=purge)
            return existed
        await self.engine.remove(name.container)
        if purge:
            await remove_workspace(self.engine, name.namespace, name.container)
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
        await self._reaper.stop()
        try:
            results = await asyncio.gather(*map(how, sessions), return_exceptions=True)
            errors = [result for result in results if isinstance(result, BaseException)]
            for error in errors[1:]:
                logger.warning("while letting go of a session: %s", error)
            if errors:
                raise errors[0]
        finally:
            await self._pool.stop()
            if self._image is not None:
                self._image.cancel()
            await self.engine.close()
            await asyncio.to_thread(self._thread.close)
