"""The IPython kernel of a session: what it answers beyond an ordinary one, and what it does between cells."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from pathlib import Path
from typing import Any

from ipykernel.ipkernel import IPythonKernel
from traitlets import Type

from kernel_image import variables
from kernel_image.interrupts import Interrupts, SandboxShell
from kernel_image.journal import Journal
from kernel_image.kept_output import KeptOutput
from kernel_image.workspace_look import STATE_DIRECTORY, WorkspaceLook

MOST_NAMES = 300  # in a report
MOST_REPORTED = 100_000  # bytes of a report: it has to fit into an answer to the supervisor, and a frame of the link


class SandboxKernel(IPythonKernel):
    """Answers three requests more: ``replay_request`` (control), ``variables_request`` (shell, best in a subshell)."""

    shell_class = Type(SandboxShell)
    kept_output: KeptOutput
    workspace: WorkspaceLook
    journal: Journal | None = None
    _execute_sleep = 0.0
    """Seconds before each reply, in which ipykernel hopes that output gets out; here a flush is enough for that."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.control_handlers["replay_request"] = self.replay_request
        self.shell_handlers["variables_request"] = self.variables_request

    def replay_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """A page of what was published: after a message (``after_message``, an id), or from a number (``start``) on;
        of one cell (``cell``), or of all. In the control thread, so that it works while a cell runs."""
        content = parent["content"]
        start = content.get("start", 0)
        if content.get("after_message") is not None:
            start = self.kept_output.after(content["after_message"])
        messages, following, whole = self.kept_output.page(start or 0, content.get("cell"))
        # asked afterwards: what goes out of the ring between the two must not go unnoticed
        gap = start is None or start < self.kept_output.first()
        answer = {"status": "ok", "messages": messages, "next": following, "whole": whole, "gap": gap}
        self.session.send(stream, "replay_reply", answer, parent, ident)

    def variables_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Which variables there are: see :func:`variables.describe`."""
        seconds = float(parent["content"].get("seconds", 1.0))
        found = variables.describe(self.shell.user_ns, skip=self.shell.user_ns_hidden, seconds=seconds)
        self.session.send(stream, "variables_reply", {"status": "ok", "variables": found}, parent, ident)

    def pre_handler_hook(self) -> None:
        """Called by ipykernel before each request on the shell channel, which puts back afterwards what was before."""
        if self.get_parent("shell").get("header", {}).get("msg_type") == "execute_request":
            self.saved_sigint_handler = self.shell.interrupts.install()
        else:
            super().pre_handler_hook()

    async def execute_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Run a cell, and reply."""
        with self.shell.interrupts.of_cell():
            await super().execute_request(stream, ident, parent)

    def _cancel_on_sigint(self, future: asyncio.Future[Any]) -> contextlib.AbstractContextManager[None]:
        """Called by ipykernel with a cell that the event loop runs."""
        interrupts: Interrupts = self.shell.interrupts
        return interrupts.of_task(future)

    def _publish_execute_input(self, code: str, parent: dict[str, Any], execution_count: int) -> None:
        """Called by ipykernel as a cell begins."""
        self.workspace.begin()
        if self.journal is not None:
            self.journal.begin(parent, code, execution_count)
        super()._publish_execute_input(code, parent, execution_count)

    def finish_metadata(self, parent: Any, metadata: dict[str, Any], reply_content: Any) -> dict[str, Any]:
        """Called by ipykernel with each reply to a cell: what there is to say of the workspace rides along."""
        if self.journal is not None and parent["header"].get("msg_type") == "execute_request":
            self.journal.end(parent, reply_content)
        found = self.workspace.look()
        metadata["workspace_bytes"] = found.size
        # as text in ASCII: a name may be no UTF-8, which no message could carry
        metadata["files"] = json.dumps(found.files)
        metadata["files_complete"] = found.complete
        finished: dict[str, Any] = super().finish_metadata(parent, metadata, reply_content)
        return finished


class Commands:
    """What the supervisor has the kernel do between cells: save variables, or restore them."""

    def __init__(self, channel: socket.socket, kernel: SandboxKernel, workspace: Path) -> None:
        self.channel = channel
        self.kernel = kernel
        self.directory = workspace / STATE_DIRECTORY / "variables"
        self.received = b""

    def listen(self) -> None:
        """Take commands in the main thread's event loop, which is free between cells."""
        self.channel.setblocking(False)
        asyncio.get_event_loop().add_reader(self.channel.fileno(), self.on_command)

    def on_command(self) -> None:
        with contextlib.suppress(BlockingIOError):
            received = self.channel.recv(65536)
            if not received:
                asyncio.get_event_loop().remove_reader(self.channel.fileno())
            *lines, self.received = (self.received + received).split(b"\n")
            for line in lines:
                command = json.loads(line)
                answer = {"id": command["id"], **self.obey(command)}
                self.channel.setblocking(True)
                self.channel.sendall(json.dumps(answer).encode() + b"\n")
                self.channel.setblocking(False)

    def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        """Do it; the report, in which names are listed up to a number."""
        shell = self.kernel.shell
        try:
            if command["op"] == "save":
                self.directory.parent.mkdir(mode=0o700, exist_ok=True)
                report = variables.save(
                    shell.user_ns,
                    self.directory,
                    skip=shell.user_ns_hidden,
                    seconds=command["timeout"],
                    max_bytes=command["max_bytes"],
                    reason=command.get("reason", ""),
                )
            else:
                report = variables.restore(shell.user_ns, self.directory, seconds=command["timeout"]) or {}
            return shortened(report)
        except BaseException as error:  # an object of the user's can raise anything, here too
            return {"error": f"{type(error).__name__}: {describe(error)}"[:500]}


def shortened(report: dict[str, Any]) -> dict[str, Any]:
    """A report that fits into a frame: the fewer names, the longer they are in JSON."""
    for most in (MOST_NAMES, MOST_NAMES // 10, MOST_NAMES // 100):
        short = dict(report)
        for name in ("saved", "restored"):
            if name in short:
                short[f"{name}_count"] = len(short[name])
                short[name] = [str(one)[:100] for one in short[name][:most]]
        if "failed" in short:
            short["failed_count"] = len(short["failed"])
            short["failed"] = [
                {"name": str(one["name"])[:100], "reason": str(one["reason"])[:120]} for one in short["failed"][:most]
            ]
        if len(json.dumps(short)) <= MOST_REPORTED:
            break
    return short


def describe(error: BaseException) -> str:
    """An exception's text, whatever its ``__str__`` does."""
    try:
        return str(error)[:1000]
    except Exception:
        return "(its text could not be had)"
