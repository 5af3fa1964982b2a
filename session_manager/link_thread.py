"""The one thread that carries the bytes of every link of a program."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import selectors
import shutil
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

logger = logging.getLogger(__name__)

LONGEST_SOCKET_PATH = 90
"""Unix socket paths end at 103 to 107 bytes; this leaves room for the file's name."""


class HasFileno(Protocol):
    """What a selector can wait on."""

    def fileno(self) -> int:
        """The descriptor."""


class LinkThread:
    """A selector loop in a daemon thread. Started with the first :meth:`call`, ended by :meth:`close`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._calls: deque[Callable[[], None]] = deque()
        self._flushes: dict[Callable[[], None], None] = {}
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, lambda _events: self._drain())
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._directory: Path | None = None
        self._directory_lock = -1

    def call(self, function: Callable[[], None]) -> None:
        """Run a function in the thread, soon. Safe from any thread.

        :raises RuntimeError: the thread was closed.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the link thread is closed")
            self._calls.append(function)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="session-links", daemon=True)
                self._thread.start()
        with contextlib.suppress(BlockingIOError):
            self._wake_write.send(b"\0")

    def new_directory(self) -> Path:
        """A private directory for one link's endpoints, below one that goes when this object is closed."""
        with self._lock:
            if self._directory is None:
                self._directory, self._directory_lock = make_runtime_directory()
            return Path(tempfile.mkdtemp(prefix="", dir=self._directory))

    def close(self) -> None:
        """End the thread and remove its directory. Links still open are simply left."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread = self._thread
        if thread is not None:
            self._wake_write.send(b"\0")
            thread.join()
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            os.close(self._directory_lock)

    # -- in the thread ----------------------------------------------------------------------------------------

    def watch(self, channel: HasFileno, events: int, callback: Callable[[int], None] | None = None) -> None:
        """Call ``callback(events)`` when these events happen; 0 stops watching."""
        registered = self._selector.get_map().get(channel)
        if not events:
            if registered is not None:
                self._selector.unregister(channel)
        elif registered is None:
            self._selector.register(channel, events, callback)
        else:
            self._selector.modify(channel, events, callback)

    def flush_later(self, flush: Callable[[], None]) -> None:
        """Call once at the end of this wake-up, however often it is asked for."""
        self._flushes[flush] = None

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_read.recv(4096):
                pass

    def _run(self) -> None:
        while not self._closed:
            for key, events in self._selector.select():
                registered = self._selector.get_map().get(key.fd)
                # what an earlier event of this wake-up closed, or put in its place, has no event here
                if registered is not None and registered.fileobj is key.fileobj:
                    self._guarded(registered.data, events & registered.events)
            while self._calls:
                self._guarded(self._calls.popleft())
            while self._flushes:
                self._guarded(self._flushes.popitem()[0])

    @staticmethod
    def _guarded(function: Callable[..., None], *arguments: object) -> None:
        """One link's fault must not end the thread that carries the others."""
        try:
            function(*arguments)
        except Exception:
            logger.exception("a link failed")


def make_runtime_directory() -> tuple[Path, int]:
    """A new 0700 directory for sockets, in XDG_RUNTIME_DIR or where paths are short, and the lock that marks it used.

    Directories whose lock nobody holds were left by programs that were killed: they are removed.
    """
    parent = Path(os.environ.get("XDG_RUNTIME_DIR", tempfile.gettempdir()))
    if len(str(parent)) > LONGEST_SOCKET_PATH - 40 or not os.access(parent, os.W_OK):
        parent = Path("/tmp")  # noqa: S108 - mkdtemp below makes a private directory of an unguessable name
    for stale in parent.glob("dockint-*"):
        with contextlib.suppress(OSError):
            lock = os.open(stale / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if stale.stat().st_uid == os.getuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(stale, ignore_errors=True)
            finally:
                os.close(lock)
    # it gets the name that is swept once its lock is held
    fresh = Path(tempfile.mkdtemp(prefix="new-dockint-", dir=parent))
    lock = os.open(fresh / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return fresh.rename(parent / fresh.name.removeprefix("new-")), lock
