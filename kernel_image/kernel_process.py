"""The kernel's process, one after another: started, told what to do, asked why it ended. Standard library only."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kernel_python import KernelPython, Standby
from processes import oom_kill_count
from runtime_files import read_ordinary, write_anew

LAST_WORDS = 4096  # bytes kept of what the kernel's process wrote to its own stdout and stderr
MAX_RECORD = 16384  # bytes read of what the kernel notes of a cell
MAX_ANSWER = 131072  # bytes of one answer to a command


class KernelProcess:
    """The kernel that runs now, if one does.

    ``on_ready`` is called when its sockets are bound, ``on_answer`` with what it answers to a :meth:`command`.
    """

    def __init__(
        self,
        runtime: Path,
        workspace: Path,
        options: dict[str, Any],
        selector: selectors.BaseSelector,
        on_ready: Callable[[], None],
        on_answer: Callable[[dict[str, Any]], None],
    ) -> None:
        self.options = options
        self.selector = selector
        self.on_ready = on_ready
        self.on_answer = on_answer
        self.connection_file = runtime / "kernel.json"
        self.activity = runtime / "activity"
        self.where = (workspace, self.connection_file, self.activity)
        self.standby = Standby()
        self.pid = 0
        self.channel: socket.socket | None = None  # ready, commands and answers
        self.is_ready = False
        self.answers = b""
        self.output_fd = -1
        self.last_words = b""
        self.oom_kills = 0

    def start(self, *, first: bool) -> None:
        """Start a kernel. Only a container's ``first`` one imports modules ahead of need: others are waited for."""
        self.last_words = self.answers = b""
        self.is_ready = False
        self.oom_kills = oom_kill_count()
        python = self.standby.take()
        if python is None:
            preload = self.options.get("preload", []) if first else []
            python = KernelPython(*self.where, {**self.options, "preload": preload})
        self.pid, self.channel, self.output_fd = python.pid, python.channel, python.output
        self.selector.register(self.channel, selectors.EVENT_READ, self.on_channel)
        self.selector.register(self.output_fd, selectors.EVENT_READ, self.on_output)

    def stand_by(self, seconds: float) -> None:
        """Have the next kernel's Python ready, for so long: this kernel may have to be killed."""
        self.standby.prepare(seconds, *self.where, options={**self.options, "preload": []})

    def command(self, **fields: Any) -> bool:
        """Tell the kernel to do something between its cells; whether it could be told."""
        if self.channel is None or not self.is_ready:
            return False
        try:
            self.channel.sendall(json.dumps(fields).encode() + b"\n")
        except OSError:
            return False
        return True

    def on_channel(self, channel: Any) -> None:
        """The kernel wrote that its sockets are bound, or an answer; or it ended."""
        try:
            received = channel.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if received and not self.is_ready:
            if received[:1] != b"1":
                received = b""
            else:
                self.is_ready = True
                received = received[1:]
                self.on_ready()
                if not received:
                    return
        self.answers += received
        if not received or len(self.answers) > MAX_ANSWER:
            self.close_channel()
            return
        *lines, self.answers = self.answers.split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, RecursionError):  # the code that runs can write here too
                answer = json.loads(line)
                if isinstance(answer, dict):
                    self.on_answer(answer)

    def close_channel(self) -> None:
        if self.channel is not None:
            self.selector.unregister(self.channel)
            self.channel.close()
            self.channel = None

    def on_output(self, descriptor: Any) -> None:
        """Keep the end of what the kernel's process itself writes: it says why a start failed."""
        with contextlib.suppress(BlockingIOError):
            words = os.read(descriptor, 65536)
            self.last_words = (self.last_words + words)[-LAST_WORDS:]
            if not words:
                self.forget_output()

    def forget_output(self) -> None:
        if self.output_fd >= 0:
            self.selector.unregister(self.output_fd)
            os.close(self.output_fd)
            self.output_fd = -1

    def ended(self, status: int) -> dict[str, Any]:
        """Take note of its end, as waitpid describes it; the fields of the event that says so."""
        self.pid = 0
        if self.output_fd >= 0:
            self.on_output(self.output_fd)
        self.forget_output()
        self.close_channel()
        cell_began = self.last_activity(0.0) if self.busy() else None
        with contextlib.suppress(OSError):
            write_anew(self.activity, b"I{}\n")
        killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        return {
            "state": "dead",
            "exit_code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            "signal": killed_by,
            "out_of_memory": killed_by == signal.SIGKILL and oom_kill_count() > self.oom_kills,
            "last_words": self.last_words.decode(errors="replace"),
            "cell_began": cell_began,
        }

    def interrupt(self) -> None:
        """SIGINT to its process group."""
        if self.pid:
            try:
                os.killpg(self.pid, signal.SIGINT)
            except ProcessLookupError:  # the code has moved the kernel to another group
                os.kill(self.pid, signal.SIGINT)

    # -- what it recorded (see launch_kernel.record_activity) ---------------------------------------------------

    def busy(self) -> bool:
        try:
            return read_ordinary(self.activity, 1) == b"B"
        except OSError:
            return False

    def cell(self) -> dict[str, Any]:
        """The record of the cell that runs, or else of the last that ended."""
        try:
            record = json.loads(read_ordinary(self.activity, MAX_RECORD)[1:].partition(b"\n")[0])
        except (OSError, ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) else {}

    def running(self) -> dict[str, Any] | None:
        """Which cell runs (``msg_id``) and for how long (``seconds``); None where none does."""
        if not self.busy():
            return None
        return {"msg_id": self.cell().get("msg_id"), "seconds": max(0.0, time.time() - self.last_activity(0.0))}

    def last_activity(self, otherwise: float) -> float:
        """Unix time at which a cell last began or ended."""
        try:
            return self.activity.stat().st_mtime
        except OSError:
            return otherwise
