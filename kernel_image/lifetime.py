"""How long a container lives, and what it leaves to the next of its session. Standard library only."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

from kernel_process import KernelProcess

STATE_DIRECTORY = ".docker-interpreter"  # in the workspace: what a session keeps for itself
DEAD_SECONDS = 120.0  # how long a container without a kernel, and with nobody attached, is kept for whoever comes next
INTERRUPT_AFTER = 5.0  # beyond the longest cell: where a manager lives, it is the one that stops the cell
RESTART_AFTER = 20.0
MAX_RECORD = 65536


class Lifetime:
    """The limits of one container's life, and how much of them has passed. Times are Unix times, in seconds."""

    def __init__(self, options: dict[str, Any], kernel: KernelProcess) -> None:
        self.kernel = kernel
        self.idle_timeout: float = options["idle_timeout"]
        self.alone_timeout: float | None = options.get("alone_timeout")
        self.longest_cell: float | None = options.get("longest_cell")
        self.started = time.time()
        self.last_company = self.started
        self.interrupted: object = None  # which cell was interrupted for its length

    def claim(self, alone_timeout: float | None) -> None:
        """A container that waited in a pool becomes a session's: its life begins now."""
        self.alone_timeout = alone_timeout
        self.started = self.last_company = time.time()

    def keep(self, idle_timeout: float) -> None:
        """From now on it may be idle for so many seconds, with nobody attached.

        :raises ValueError: that is no time.
        """
        if not 0 < idle_timeout < float("inf"):
            raise ValueError("no time to keep it for")
        self.idle_timeout = idle_timeout

    def idle(self) -> float:
        """Seconds since a cell last began or ended, or the life began."""
        return max(0.0, time.time() - max(self.kernel.last_activity(self.started), self.started))

    def verdict(self, company: bool, *, working: bool) -> str:
        """What has to happen now: ``""`` (nothing), ``interrupt`` or ``restart`` the kernel for a cell that runs too
        long, or end the container, because it is ``alone`` or ``idle``. ``company``: somebody is attached."""
        now = time.time()
        if company:
            self.last_company = now
        running = self.kernel.running() if self.longest_cell else None
        if running is not None and self.longest_cell:
            over = running["seconds"] - self.longest_cell
            if over > RESTART_AFTER:
                return "restart"
            if over > INTERRUPT_AFTER and self.interrupted != (running["msg_id"], self.kernel.pid):
                self.interrupted = (running["msg_id"], self.kernel.pid)
                return "interrupt"
        if company:
            return ""
        if self.alone_timeout is not None and now - self.last_company > self.alone_timeout:
            return "alone"
        if working:
            return ""
        if not self.kernel.pid and now - self.last_company > min(self.idle_timeout, DEAD_SECONDS):
            return "idle"
        return "idle" if self.idle() > self.idle_timeout else ""

    def pause(self) -> float:
        """Seconds until a verdict may change by time alone."""
        pauses = [self.idle_timeout]
        if self.alone_timeout is not None:
            pauses.append(self.alone_timeout)
        if self.longest_cell:
            pauses.append(max(1.0, self.longest_cell))
        return min(pauses)

    def has_saved_variables(self, workspace: Path) -> bool:
        """Whether an earlier container of this session saved its variables."""
        with contextlib.suppress(OSError):  # the code that ran may have locked the way to it
            return (workspace / STATE_DIRECTORY / "variables").is_dir()
        return False


def read_record(workspace: Path) -> dict[str, Any]:
    """What the container before this one wrote as it ended, and then take it away; {} where there is nothing.

    The file lies where code that nobody trusts can write.
    """
    path = workspace / STATE_DIRECTORY / "ended.json"
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        content = os.read(descriptor, MAX_RECORD) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)
    with contextlib.suppress(OSError):
        path.unlink()
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(record, dict) or not isinstance(record.get("at"), int | float):
        return {}
    reason = record.get("reason")
    known = reason[:200] if isinstance(reason, str) else ""
    return {"at": record["at"], "reason": known, "saved": record.get("saved") is True}


def write_record(workspace: Path, reason: str, *, saved: bool) -> None:
    """Leave word of this container's end to the next one of its session."""
    path = workspace / STATE_DIRECTORY / "ended.json"
    with contextlib.suppress(OSError):  # a full disk keeps nobody from ending
        path.parent.mkdir(mode=0o700, exist_ok=True)
        partial = path.with_name("ended.new")
        partial.unlink(missing_ok=True)
        # a new file: opening what the code that ran may have left there, such as a pipe, could take for ever
        with partial.open("x") as file:
            json.dump({"at": time.time(), "reason": reason, "saved": saved}, file)
        partial.replace(path)
