"""Whose cells may run, where several programs share a session."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Turn:
    """Whose cells may run. Given up in the link's thread: a program whose event loop is stuck holds nobody up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held = self._in_use = self._wanted = False

    def begin(self, *, newly: bool) -> bool:
        """Use the turn, if it is held or was ``newly`` granted."""
        with self._lock:
            self._held = self._in_use = self._held or newly
            return self._held

    def end(self) -> bool:
        """Whether it has to be released now."""
        with self._lock:
            self._in_use = False
            release = self._held and self._wanted
            self._held = self._held and not self._wanted
            self._wanted = False
            return release

    def on_event(self, wanted: bool, release: Callable[[], None]) -> None:
        """Another program wants it, or the supervisor gave it away."""
        with self._lock:
            if wanted and self._held and not self._in_use:
                self._held = False
                release()
            elif wanted:
                self._wanted = True
            else:
                self._held = self._wanted = False

    def reset(self) -> None:
        """The link broke, and the turn went with it."""
        with self._lock:
            self._held = self._wanted = False
