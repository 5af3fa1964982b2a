"""The Python that a kernel runs in: started at once, or ahead of need. Standard library only."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from processes import memory_left

KERNEL = str(Path(__file__).with_name("launch_kernel.py"))
STANDBY_MEMORY = 160 << 20  # bytes that must be free for a second Python: the first is to be ended by nothing but us


class KernelPython:
    """A process, our end of its channel (ready, commands and answers), and what it writes itself."""

    def __init__(self, workspace: Path, connection_file: Path, activity: Path, options: dict[str, Any]) -> None:
        """Start it. Raises OSError where there is no room for another process."""
        self.channel, theirs = socket.socketpair()
        self.output, output_write = os.pipe()
        self.channel.setblocking(False)
        os.set_blocking(self.output, False)
        theirs.set_inheritable(True)
        environment = dict(os.environ)
        if os.getpid() != 1:
            environment["JPY_PARENT_PID"] = str(os.getpid())
        arguments = [str(connection_file), str(theirs.fileno()), str(activity), json.dumps(options)]
        try:
            os.chdir(workspace)
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, KERNEL, *arguments],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, output_write, 1),
                    (os.POSIX_SPAWN_DUP2, output_write, 2),
                ],
                setpgroup=0,
                setsigdef=[signal.SIGINT, signal.SIGCHLD, signal.SIGTERM],
            )
        except OSError:
            self.close()
            raise
        finally:
            os.chdir("/")
            theirs.close()
            os.close(output_write)
        # the kernel, not this process, is what the kernel of the host should end when memory runs out
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/oom_score_adj").write_text("1000")

    def close(self) -> None:
        """Close our ends."""
        self.channel.close()
        os.close(self.output)


class Standby:
    """At most one Python that has imported what a kernel needs, and waits to become the next one.

    It is for a kernel that is about to be killed: half of the time to the next kernel is imports.
    """

    def __init__(self) -> None:
        self.python: KernelPython | None = None
        self.until = 0.0

    @property
    def pid(self) -> int:
        """Its process, which is not to be killed along with the kernel's; 0 where there is none."""
        return self.python.pid if self.python else 0

    def prepare(self, seconds: float, *where: Path, options: dict[str, Any]) -> None:
        """Start one, to be kept for ``seconds``; none where it could take memory that the kernel needs."""
        left = memory_left()
        if self.python is None and (left is None or left >= STANDBY_MEMORY):
            with contextlib.suppress(OSError):  # no room for a process: the next kernel takes its time
                self.python = KernelPython(*where, {**options, "standby": True})
                self.until = time.monotonic() + seconds

    def take(self) -> KernelPython | None:
        """The one that waited, told to go on; None where there is none, or something has ended it."""
        python, self.python = self.python, None
        if python is None:
            return None
        try:
            if os.waitpid(python.pid, os.WNOHANG) == (0, 0):
                os.kill(python.pid, signal.SIGCONT)  # in case the code that ran had stopped it
                python.channel.sendall(b"1")
                return python
        except OSError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(python.pid, signal.SIGKILL)
        python.close()
        return None

    def ended(self, pid: int) -> None:
        """Take note of a child's end."""
        if self.python and pid == self.python.pid:
            self.python.close()
            self.python = None

    def discard(self) -> None:
        """End the one that waits: it is not needed."""
        if self.python:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.python.pid, signal.SIGKILL)
            self.python.close()
            self.python = None
