"""A kernel that is played here, over real ZMQ sockets, and what the client of it is connected to."""

from __future__ import annotations

import asyncio
import queue
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import zmq
from jupyter_client.session import Session as Wire

from session_manager.cell_run import CellRun
from session_manager.container_options import ContainerOptions
from session_manager.errors import LinkError
from session_manager.execution import Execution
from session_manager.frames import KernelState
from session_manager.kernel import Kernel, OnOutput
from session_manager.outputs import Output
from session_manager.settings import Limits, Settings

PATIENCE = 30.0
GRACE = 0.2
READY = KernelState("ready", 1)
LIMITS = Limits(interrupt_grace=GRACE, message_bytes=1 << 20, output_bytes=8 << 20)
SETTINGS = Settings(limits=LIMITS, container=ContainerOptions(mem_limit=2 << 30))
PATIENT = Settings(limits=LIMITS.model_copy(update={"interrupt_grace": 3.0}))
"""Where a kernel that reacts to an interrupt must not be killed, however long this machine stands still."""

Message = dict[str, Any]


class FakeKernel:
    """A thread with a kernel's sockets. ``cell`` is what it does with an execute request."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = secrets.token_hex(32)
        self.wire = Wire(key=self.key.encode(), signature_scheme="hmac-sha256")
        self.cell: Callable[[FakeKernel, Message], None] = answered
        self.on_interrupt: Callable[[], None] = lambda: None
        self.steps: list[str] = []
        """What was done to stop a cell, in order."""
        self.requests: list[Message] = []
        self.silent_welcomes = 0
        """So many kernel_info requests are answered without a word on iopub: the subscription came late."""
        self.answers: dict[str, Message | None] = {}
        """What is said to requests of a type; None for nothing."""
        self.asked: list[Message] = []
        """All requests but those for cells and for kernel_info."""
        self.heard = True
        """Whether what is published goes out; it is kept in any case."""
        self.kept: list[Message] = []
        self.forgotten = 0
        """So many messages, the oldest, are not kept any more."""
        self.page = 3
        """So many messages are given out at once."""
        self._context = zmq.Context()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake_read, self._wake_write = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="fake-kernel", daemon=True)
        self._running = True
        self._bound = threading.Event()
        self._thread.start()
        assert self._bound.wait(PATIENCE)

    def connection_info(self) -> dict[str, object]:
        channels = ("shell", "iopub", "stdin", "control", "hb")
        ports = {f"{channel}_port": number for number, channel in enumerate(channels, 1)}
        ip = str(self.directory / "kernel")
        return {"transport": "ipc", "ip": ip, "key": self.key, "signature_scheme": "hmac-sha256", **ports}

    def call(self, function: Callable[[], None]) -> None:
        """Do it in the kernel's thread."""
        self._calls.put(function)
        self._wake_write.send(b"\0")

    def stop(self) -> None:
        self.call(lambda: setattr(self, "_running", False))
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self._wake_read.close()
        self._wake_write.close()

    def _run(self) -> None:
        self.shell = self._socket(zmq.ROUTER, 1)
        self.iopub = self._socket(zmq.PUB, 2)
        self.control = self._socket(zmq.ROUTER, 4)
        self._bound.set()
        poller = zmq.Poller()
        for readable in (self.shell, self.control, self._wake_read):
            poller.register(readable, zmq.POLLIN)
        while self._running:
            for readable, _ in poller.poll():
                if readable in (self.shell, self.control):
                    self._take(cast("zmq.Socket[bytes]", readable))
                else:
                    self._wake_read.recv(1)
                    self._calls.get()()
        self._context.destroy(linger=0)

    def _socket(self, kind: int, number: int) -> zmq.Socket[bytes]:
        made = self._context.socket(kind)
        made.sndhwm = 0
        if kind == zmq.ROUTER:
            made.router_handover = 1  # as ipykernel's
        made.bind(f"ipc://{self.directory}/kernel-{number}")
        return made

    def _take(self, channel: zmq.Socket[bytes]) -> None:
        try:
            message = channel.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return  # its sender went between the poll and this, and took it along
        idents, parts = self.wire.feed_identities(message)
        request = {**self.wire.deserialize(parts), "idents": idents, "channel": channel}
        match request["msg_type"]:
            case "execute_request":
                self.requests.append(request)
                self.cell(self, request)
            case "interrupt_request":
                self.steps.append("interrupt_request")
                self.reply(request, "interrupt_reply")
                self.on_interrupt()
            case "kernel_info_request" if self.silent_welcomes:
                self.silent_welcomes -= 1
                self.reply(request, "kernel_info_reply")
            case "create_subshell_request" if "create_subshell_request" not in self.answers:
                self.asked.append(request)
                made = sum(one["msg_type"] == "create_subshell_request" for one in self.asked)
                self.reply(request, "create_subshell_reply", subshell_id=f"subshell {made}")
            case "replay_request" if "replay_request" not in self.answers:
                self.asked.append(request)
                self.reply(request, "replay_reply", **self.replay(**request["content"]))
            case msg_type:
                if msg_type != "kernel_info_request":
                    self.asked.append(request)
                answer = self.answers.get(msg_type, {"status": "ok"})
                if answer is not None:
                    self.status(request, "busy")
                    self.reply(request, msg_type.replace("_request", "_reply"), **answer)
                    self.status(request, "idle")

    # what the parts that tests play are made of

    def reply(self, request: Message, msg_type: str = "execute_reply", **content: object) -> None:
        content = {"status": "ok", **content}
        self.wire.send(request["channel"], msg_type, content, parent=request, ident=request["idents"])

    def publish(self, request: Message, msg_type: str, **content: object) -> None:
        message = self.wire.msg(msg_type, content, parent=request)
        self.kept.append({part: message[part] for part in ("header", "parent_header", "metadata", "content")})
        if self.heard:
            self.wire.send(self.iopub, message, ident=msg_type.encode())

    def replay(self, start: int = 0, after_message: str | None = None, cell: str | None = None) -> Message:
        """A page of what is kept, as a kernel gives it out."""
        ids = [one["header"]["msg_id"] for one in self.kept]
        if after_message is not None:
            start = ids.index(after_message) + 1 if after_message in ids else 0
        gap = start < self.forgotten
        start = max(start, self.forgotten)
        end = start + self.page
        page = [one for one in self.kept[start:end] if cell in (None, one["parent_header"].get("msg_id"))]
        return {"messages": page, "next": end, "whole": end >= len(self.kept), "gap": gap}

    def status(self, request: Message, state: str) -> None:
        self.publish(request, "status", execution_state=state)

    def print(self, request: Message, text: str) -> None:
        self.publish(request, "stream", name="stdout", text=text)

    def end(self, request: Message | None = None) -> None:
        """Reply and idle, for the latest request."""
        request = request or self.requests[-1]
        self.reply(request)
        self.status(request, "idle")


def answered(kernel: FakeKernel, request: Message) -> None:
    """A cell that prints its code, and is done."""
    kernel.status(request, "busy")
    kernel.print(request, request["content"]["code"])
    kernel.end(request)


def begun(kernel: FakeKernel, request: Message) -> None:
    """A cell that runs until something is done about it."""
    kernel.status(request, "busy")
    kernel.print(request, "begun")


class FakeLink:
    """What a cell's run sees of a link. ``answers`` has the supervisor's, or what goes wrong."""

    def __init__(self, fake: FakeKernel) -> None:
        self.fake = fake
        self.kernel = READY
        self.last_death: KernelState | None = None
        self.broken: LinkError | None = None
        self.answers: dict[str, Callable[[], Mapping[str, object]]] = {}

    def connection_info(self) -> dict[str, object]:
        return self.fake.connection_info()

    async def request(self, op: str, timeout: float | None = 10.0, **fields: object) -> Mapping[str, object]:
        if op != "status":
            self.fake.steps.append(op)
        answer = self.answers.get(op)
        if answer is None:
            return {"busy": True, "last_cell": {}} if op == "status" else {}
        return answer()


def silent() -> Mapping[str, object]:
    raise LinkError("The container's supervisor did not answer.")


class FakeContainer:
    """What a cell's run sees of a container."""

    def __init__(self, link: FakeLink) -> None:
        self.link = link
        self.spec = SimpleNamespace(name="session")
        self.cannot_heal: Exception | None = None
        self.heals = 0

    async def heal(self) -> None:
        self.heals += 1
        if self.cannot_heal is not None:
            raise self.cannot_heal
        self.link.broken = None

    async def remove(self) -> None:
        self.link.fake.steps.append("remove")


class Bench:
    """A connected client, and all that it is connected to."""

    def __init__(self, fake: FakeKernel) -> None:
        self.fake = fake
        self.link = FakeLink(fake)
        self.container = FakeContainer(self.link)
        self.wake = asyncio.Event()
        self.kernel = Kernel(cast("Any", self.link), LIMITS, self.wake.set)
        self.stop = False
        self.settings = SETTINGS
        self.shown: list[Output] = []
        self.runs: list[CellRun] = []

    async def run(
        self,
        code: str = "code",
        timeout: float | None = PATIENCE,
        on_output: OnOutput | None = None,
    ) -> Execution:
        run = CellRun(cast("Any", self.container), self.kernel, self.settings, self.wake, lambda: self.stop)
        self.runs.append(run)
        async with asyncio.timeout(PATIENCE + 10):
            return await run.run(code, timeout, on_output or self.shown.append, None)

    def change(self, **changes: object) -> None:
        """Something about the link is different now."""
        for name, value in changes.items():
            setattr(self.link, name, value)
        self.wake.set()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.005)

    async def running(self, timeout: float | None = PATIENCE) -> asyncio.Task[Execution]:
        """A cell whose first output has come."""
        seen = len(self.shown)
        task = asyncio.create_task(self.run(timeout=timeout))
        await self.until(lambda: len(self.shown) > seen)
        return task


async def assert_works(bench: Bench) -> None:
    bench.fake.cell = answered
    result = await bench.run("a cell that works")
    assert (result.status, result.text, result.output_incomplete) == ("ok", "a cell that works", False)
