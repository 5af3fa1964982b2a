"""What this user's processes keep between runs (locks, logs, who started what), in one directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path


def state_directory() -> Path:
    """``$XDG_STATE_HOME/docker-interpreter``, by default below ``~/.local/state``.

    It is made on first use, for this user alone.

    :raises OSError: it can't be made.
    """
    root = os.environ.get("XDG_STATE_HOME")
    path = (Path(root) if root else Path.home() / ".local" / "state") / "docker-interpreter"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def exclusive(name: str, on_wait: Callable[[], object]) -> Iterator[None]:
    """One holder at a time among all threads and processes of this user; a holder that dies lets go.

    ``on_wait`` is called once where somebody else holds it, before waiting for as long as that takes.
    """
    descriptor = os.open(state_directory() / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
