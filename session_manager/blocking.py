"""A small blocking front, for scripts and notebooks: the same code in an event loop of its own thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

from .execution import Execution
from .journal import Journal
from .manager import SessionManager
from .outputs import Output
from .session import DEFAULT_TIMEOUT, Session
from .settings import Settings
from .variables import SavedVariables, Variable
from .workspace import FileEntry, WorkspaceFiles

T = TypeVar("T")


class BlockingFiles:
    """The files of one session, without ``await``; each method is as :class:`WorkspaceFiles` has it.

    A progress callback is called in another thread.
    """

    def __init__(self, files: WorkspaceFiles, call: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._files = files
        self._call = call

    def put(
        self, source: bytes | Path | BinaryIO, path: str, *, on_progress: Callable[[int], None] | None = None
    ) -> FileEntry:
        """As :meth:`WorkspaceFiles.put`."""
        entry: FileEntry = self._call(self._files.put(source, path, on_progress=on_progress))
        return entry

    def get(self, path: str) -> bytes:
        """As :meth:`WorkspaceFiles.get`."""
        content: bytes = self._call(self._files.get(path))
        return content

    def download(
        self, path: str, target: Path | BinaryIO, *, on_progress: Callable[[int], None] | None = None
    ) -> FileEntry:
        """As :meth:`WorkspaceFiles.download`."""
        entry: FileEntry = self._call(self._files.download(path, target, on_progress=on_progress))
        return entry

    def list(self, path: str = "", *, recursive: bool = True, hidden: bool = False) -> Sequence[FileEntry]:
        """As :meth:`WorkspaceFiles.list`."""
        entries: Sequence[FileEntry] = self._call(self._files.list(path, recursive=recursive, hidden=hidden))
        return entries

    def stat(self, path: str) -> FileEntry | None:
        """As :meth:`WorkspaceFiles.stat`."""
        entry: FileEntry | None = self._call(self._files.stat(path))
        return entry

    def remove(self, path: str, *, recursive: bool = False) -> None:
        """As :meth:`WorkspaceFiles.remove`."""
        self._call(self._files.remove(path, recursive=recursive))


class BlockingSession:
    """One session, without ``await``. Made by :func:`open_session`; usable where an event loop already runs.

    Ctrl-C while :meth:`execute` waits stops the cell in the steps of a timeout, and is raised on.
    """

    def __init__(
        self, key: str | None, settings: Settings | None, progress: Callable[[str], None] | None, owner: str = ""
    ) -> None:
        self._manager = SessionManager(settings, progress=progress)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="blocking-session", daemon=True)
        self._thread.start()
        try:
            manager = self._manager
            opening = manager.throw_away(owner=owner) if key is None else manager.session(key, owner=owner)
            self._session: Session = self._call(opening)
        except BaseException:
            self.close()
            raise

    @property
    def key(self) -> str:
        """The session's key."""
        return self._session.key

    @property
    def owner(self) -> str:
        """Whose session it is; "" where nobody said."""
        return self._session.owner

    @property
    def files(self) -> BlockingFiles:
        """The files in its workspace, in and out; from another thread also while a cell runs."""
        return BlockingFiles(self._session.files, self._call)

    def execute(
        self,
        code: str,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        on_output: Callable[[Output], None] | None = None,
        asked_by: str | None = None,
    ) -> Execution:
        """As :meth:`Session.execute`. ``on_output`` is called in another thread."""
        return self._call(self._session.execute(code, timeout=timeout, on_output=on_output, asked_by=asked_by))

    def journal(self) -> Journal:
        """As :meth:`Session.journal`."""
        return self._call(self._session.journal())

    def follow(self, on_output: Callable[[Output], None] | None = None) -> Execution | None:
        """As :meth:`Session.follow`. ``on_output`` is called in another thread; Ctrl-C leaves the cell running."""
        return self._call(self._session.follow(on_output))

    def memory(self) -> int | None:
        """As :meth:`Session.memory`."""
        return self._call(self._session.memory())

    def running(self) -> float | None:
        """As :meth:`Session.running`."""
        return self._call(self._session.running())

    def save_variables(self) -> SavedVariables:
        """As :meth:`Session.save_variables`."""
        return self._call(self._session.save_variables())

    def variables(self, timeout: float = 5.0) -> Sequence[Variable]:
        """As :meth:`Session.variables`; call it from another thread to see them while a cell runs."""
        return self._call(self._session.variables(timeout))

    def interrupt(self) -> bool:
        """As :meth:`Session.interrupt`; call it from another thread than the one that waits in :meth:`execute`."""
        return self._call(self._session.interrupt())

    def restart(self) -> None:
        """As :meth:`Session.restart`."""
        self._call(self._session.restart())

    def stop(self, *, purge: bool = False) -> None:
        """As :meth:`Session.stop`."""
        self._call(self._session.stop(purge=purge))

    def close(self) -> None:
        """Let go of the session. A named one lives on; a throw-away one is removed."""
        if self._loop.is_closed():
            return
        try:
            self._call(self._manager.detach())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


def open_session(
    key: str | None = None,
    settings: Settings | None = None,
    *,
    owner: str = "",
    progress: Callable[[str], None] | None = None,
) -> BlockingSession:
    """The session of a key, found or created, for use without ``await``; without a key, one to throw away.

    ``owner`` is as in :meth:`SessionManager.session`.

    ::

        with open_session("key") as session:
            print(session.execute("1 + 1").text)

    :raises SandboxError: it can't be started; see :meth:`Session.execute`.
    """
    return BlockingSession(key, settings, progress, owner)
