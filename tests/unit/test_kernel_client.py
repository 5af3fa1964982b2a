"""A kernel that is played here, over real ZMQ sockets, against the client that runs cells in it."""

from __future__ import annotations

import asyncio
import queue
import secrets
import signal
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import zmq
from jupyter_client.session import Session as Wire

from session_manager import cell_run
from session_manager.cell_run import CellRun
from session_manager.errors import ContainerGone, EngineUnavailable, KernelStartFailed, LinkBroken, LinkError
from session_manager.execution import Execution
from session_manager.frames import KernelState
from session_manager.kernel import Kernel, OnOutput
from session_manager.outputs import Display, Error, Output, Stream
from session_manager.settings import ContainerOptions, Limits, Settings

PATIENCE = 30.0
GRACE = 0.2
READY = KernelState("ready", 1)
LIMITS = Limits(interrupt_grace=GRACE, message_bytes=1 << 20, output_bytes=8 << 20)
SETTINGS = Settings(limits=LIMITS, container=ContainerOptions(mem_limit=2 << 30))

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
        idents, parts = self.wire.feed_identities(channel.recv_multipart())
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
            case msg_type:
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
        self.wire.send(self.iopub, msg_type, content, parent=request, ident=msg_type.encode())

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

    async def request(self, op: str, timeout: float | None = 10.0) -> Mapping[str, object]:  # noqa: ASYNC109
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
        self.shown: list[Output] = []
        self.runs: list[CellRun] = []

    async def run(
        self,
        code: str = "code",
        timeout: float | None = PATIENCE,  # noqa: ASYNC109
        on_output: OnOutput | None = None,
    ) -> Execution:
        run = CellRun(cast("Any", self.container), self.kernel, SETTINGS, self.wake, lambda: self.stop)
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
            while not condition():  # noqa: ASYNC110 - it changes in the kernel's thread
                await asyncio.sleep(0.005)

    async def running(self, timeout: float | None = PATIENCE) -> asyncio.Task[Execution]:  # noqa: ASYNC109
        """A cell whose first output has come."""
        seen = len(self.shown)
        task = asyncio.create_task(self.run(timeout=timeout))
        await self.until(lambda: len(self.shown) > seen)
        return task


@pytest.fixture
def fake() -> Iterator[FakeKernel]:
    with tempfile.TemporaryDirectory(prefix="fk-") as directory:
        made = FakeKernel(Path(directory))
        yield made
        made.stop()


@pytest.fixture
async def bench(fake: FakeKernel) -> AsyncIterator[Bench]:
    made = Bench(fake)
    await made.kernel.connect(PATIENCE)
    yield made
    await made.kernel.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that are seconds otherwise."""
    monkeypatch.setattr(cell_run, "IDLE_AFTER_REPLY", 0.3)
    monkeypatch.setattr(cell_run, "LOOK_FOR_REPLY", 0.05)
    monkeypatch.setattr(cell_run, "LOOK_ANYWAY", 0.2)


async def assert_works(bench: Bench) -> None:
    bench.fake.cell = answered
    result = await bench.run("a cell that works")
    assert (result.status, result.text, result.output_incomplete) == ("ok", "a cell that works", False)


# -- the end of a cell ---


async def test_reply_before_idle(bench: Bench) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.reply(request, execution_count=4)
        time.sleep(0.2)
        kernel.print(request, "the tail")
        kernel.status(request, "idle")

    bench.fake.cell = cell
    result = await bench.run()
    assert (result.status, result.text, result.execution_count) == ("ok", "the tail", 4)
    assert (result.output_incomplete, result.variables_kept, result.message) == (False, True, None)
    assert bench.shown == [Stream("stdout", "the tail")]


async def test_idle_before_reply(bench: Bench) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.print(request, "all of it")
        kernel.status(request, "idle")
        time.sleep(0.2)
        kernel.reply(request, status="error", ename="ValueError", evalue="no", traceback=[])

    bench.fake.cell = cell
    result = await bench.run()
    assert (result.status, result.error) == ("error", Error("ValueError", "no"))
    assert not result.output_incomplete
    assert result.duration >= 0.2


@pytest.mark.parametrize("busy_after", [False, True])
async def test_an_idle_that_never_comes_is_waited_for_a_bounded_time(
    bench: Bench, hasty: None, busy_after: bool
) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.print(request, "shown")
        time.sleep(0.1)
        kernel.reply(request)
        if busy_after:
            kernel.status(request, "busy")

    bench.fake.cell = cell
    result = await bench.run(timeout=None)
    assert (result.status, result.output_incomplete) == ("ok", True)
    assert result.text == "shown\nSome output may be missing."
    assert 0.3 <= result.duration < 10
    await assert_works(bench)


def printing_after_the_reply(times: int) -> Callable[[FakeKernel, Message], None]:
    """A cell that has ended in time, and whose output takes longer to come."""

    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.reply(request)
        for _ in range(times):
            time.sleep(0.1)
            kernel.print(request, ".")
        kernel.status(request, "idle")

    return cell


async def test_no_time_limit_cuts_output_that_is_on_its_way(bench: Bench, hasty: None) -> None:
    bench.fake.cell = printing_after_the_reply(times=8)
    result = await bench.run(timeout=0.2)
    assert (result.status, result.text, result.output_incomplete) == ("ok", "." * 8, False)
    assert not bench.fake.steps


async def test_output_that_goes_on_for_ever_does_not_hold_a_cell_that_has_ended(
    bench: Bench, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell_run, "LONGEST_TAIL", 0.5)
    bench.fake.cell = printing_after_the_reply(times=20)
    result = await bench.run(timeout=None)
    assert (result.status, result.output_incomplete) == ("ok", True)
    assert 0.5 <= result.duration < 1.5


async def test_a_stop_after_the_reply_ends_the_wait_and_interrupts_nothing(bench: Bench) -> None:
    bench.fake.cell = printing_after_the_reply(times=10)
    running = await bench.running()
    bench.stop = True
    bench.wake.set()
    result = await running
    assert (result.status, result.variables_kept, result.output_incomplete) == ("ok", True, True)
    assert not bench.fake.steps


async def test_a_forged_idle_while_the_cell_runs_on(bench: Bench, hasty: None) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.status(request, "idle")
        kernel.status(request, "idle")
        time.sleep(0.5)
        kernel.print(request, "still here")
        kernel.end(request)

    bench.fake.cell = cell
    result = await bench.run()
    assert (result.status, result.text) == ("ok", "still here")
    assert result.duration >= 0.5
    assert not bench.fake.steps


async def test_an_aborted_cell_is_an_error(bench: Bench) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.reply(request, status="aborted")
        kernel.status(request, "idle")

    bench.fake.cell = cell
    result = await bench.run()
    assert result.status == "error"
    assert result.error is not None
    assert result.error.name == "Aborted"


async def test_output_of_an_earlier_cell_stays_with_it(bench: Bench) -> None:
    earlier = await bench.run("first ")
    first = bench.fake.requests[0]

    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.print(first, "and a thread of it")
        kernel.print(request, "second")
        kernel.end(request)

    bench.fake.cell = cell
    later = await bench.run()
    assert (earlier.text, later.text) == ("first and a thread of it", "second")
    assert bench.shown == [Stream("stdout", "first "), Stream("stdout", "second")]


# -- what is no message, or too much of one ---


def hostile_iopub(kernel: FakeKernel, request: Message) -> int:
    """Send what is no message; how many there were."""
    stranger = Wire(key=b"another key", signature_scheme="hmac-sha256")
    content = {"name": "stdout", "text": "forged"}
    stranger.send(kernel.iopub, "stream", content, parent=request, ident=b"stream")
    good = kernel.wire.serialize(kernel.wire.msg("stream", content, parent=request))
    deep = b"[" * 100_000 + b"]" * 100_000
    header, parent, metadata = good[2], good[3], good[4]
    signed = [
        [header, parent, metadata, deep],
        [header, deep, metadata, good[5]],
        [b"[]", parent, metadata, good[5]],
        [b"3", b"null", b"null", b"null"],
        [b"{}", b"{}", b"{}", b"\xff"],
        [b"\0" * 10, b"", b"", b""],
    ]
    garbage = [
        [b"stream"],
        [b"stream", b"no delimiter", b"x"],
        [b"stream", b"<IDS|MSG>"],
        [b"stream", b"<IDS|MSG>", b"", b"{}", b"{}", b"{}", b"{}"],
        [b"stream", *good[:4]],
        [b"stream", good[0], b"0" * 64, *good[2:]],
        *([b"stream", b"<IDS|MSG>", kernel.wire.sign(parts), *parts] for parts in signed),
    ]
    kernel.iopub.send_multipart([b"stream", *good])
    kernel.iopub.send_multipart([b"stream", *good])  # a replay
    for frames in garbage:
        kernel.iopub.send_multipart(frames)
    return 2 + len(garbage)


async def test_what_is_no_message_is_counted_and_dropped(bench: Bench) -> None:
    sent = 0

    def cell(kernel: FakeKernel, request: Message) -> None:
        nonlocal sent
        kernel.status(request, "busy")
        sent = hostile_iopub(kernel, request)
        kernel.shell.send_multipart([*request["idents"], b"no", b"message"])
        kernel.end(request)

    bench.fake.cell = cell
    result = await bench.run()
    assert (result.status, result.text, result.output_incomplete) == ("ok", "forged", False)
    assert bench.kernel.malformed == sent + 1
    await assert_works(bench)


STRANGE_CONTENTS: list[Any] = [
    *(b"[]", b"3", b"null", b'"text"', {}),
    *({"name": 3, "text": []}, {"name": "stdout"}, {"data": 7}, {"execution_state": ["idle"]}, {"wait": "no"}),
]
"""What is no object goes as bytes, since the wire would not send it otherwise."""


async def test_malformed_contents_are_survived(bench: Bench) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        for content in STRANGE_CONTENTS:
            for msg_type in ("stream", "display_data", "error", "status", "clear_output", "execute_input"):
                kernel.wire.send(kernel.iopub, msg_type, content, parent=request, ident=b"x")
            if isinstance(content, bytes):
                idents = request["idents"]
                kernel.wire.send(kernel.shell, "execute_reply", cast("Any", content), request, ident=idents)
        kernel.end(request)

    bench.fake.cell = cell
    result = await bench.run()
    assert (result.status, result.text) == ("ok", "")
    await assert_works(bench)


async def test_a_message_over_the_limit_is_dropped_and_the_next_cell_works(bench: Bench, hasty: None) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.print(request, "before")
        time.sleep(0.1)
        kernel.print(request, "x" * LIMITS.message_bytes)
        kernel.end(request)

    bench.fake.cell = cell
    result = await bench.run()
    assert (result.status, result.output_incomplete) == ("ok", True)
    assert result.outputs == (Stream("stdout", "before"),)
    await assert_works(bench)


async def test_a_reply_over_the_limit_is_recovered_and_the_next_cell_works(bench: Bench, hasty: None) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.publish(request, "error", ename="ValueError", evalue="x" * LIMITS.message_bytes, traceback=[])
        kernel.reply(request, status="error", ename="ValueError", evalue="x" * LIMITS.message_bytes)
        kernel.status(request, "idle")

    def record() -> Mapping[str, object]:
        last = {"msg_id": bench.fake.requests[-1]["header"]["msg_id"], "ok": False, "ename": "ValueError"}
        return {"busy": False, "last_cell": {**last, "evalue": "xxx"}}

    bench.fake.cell = cell
    bench.link.answers["status"] = record
    result = await bench.run(timeout=None)
    assert (result.status, result.error) == ("error", Error("ValueError", "xxx"))
    assert result.output_incomplete
    await assert_works(bench)


async def test_connections_that_are_lost_never_block_the_event_loop(bench: Bench) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        for channel in (kernel.shell, kernel.control, kernel.iopub):
            channel.send_multipart([*request["idents"], b"x" * LIMITS.message_bytes * 2])

    bench.fake.cell = cell
    result = await bench.run(timeout=0.3)
    assert result.status == "killed"
    assert bench.fake.steps == ["interrupt_request", "interrupt", "restart"]
    await bench.kernel.resubscribe(PATIENCE)
    await assert_works(bench)


async def test_making_sure_of_a_connection_that_is_there_makes_no_second_one(bench: Bench) -> None:
    for _ in range(5):
        await bench.kernel.resubscribe(PATIENCE)
    await assert_works(bench)
    assert len(bench.fake.requests) == 1


async def test_requests_that_a_kernel_does_not_read_never_block_the_event_loop(bench: Bench) -> None:
    may_go = threading.Event()
    bench.fake.call(lambda: None if may_go.wait(PATIENCE) else None)
    for _ in range(5000):
        bench.kernel.execute("1", None)
    may_go.set()
    await bench.kernel.resubscribe(PATIENCE)
    await assert_works(bench)


async def test_a_message_below_the_limit_comes_whole(bench: Bench) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.publish(request, "display_data", data={"text/plain": "x" * 900_000}, metadata={})
        kernel.end(request)

    bench.fake.cell = cell
    result = await bench.run()
    assert result.outputs == (Display({"text/plain": "x" * 900_000}, {}),)


async def test_a_flood_loses_nothing_and_leaves_the_event_loop_its_turns(bench: Bench) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        messages = [
            kernel.wire.msg("stream", {"name": "stdout", "text": f"{number}\n"}, parent=request)
            for number in range(5000)
        ]
        for message in [kernel.wire.serialize(message, ident=b"stream") for message in messages]:
            kernel.iopub.send_multipart(message)
        kernel.end(request)

    gaps: list[float] = []

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.001)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    def show_slowly(output: Output) -> None:
        bench.shown.append(output)
        time.sleep(0.0003)  # so that the next message is always there already

    bench.fake.cell = cell
    ticking = asyncio.create_task(tick())
    result = await bench.run(on_output=show_slowly)
    ticking.cancel()
    (output,) = result.outputs
    assert isinstance(output, Stream)
    assert output.text == "".join(f"{number}\n" for number in range(5000))
    assert len(bench.shown) == 5000
    assert len(gaps) > 20
    assert max(gaps) < 0.5


# -- replies that are lost ---


@pytest.mark.parametrize(
    ("last", "status", "error"),
    [
        ({"ok": True}, "ok", None),
        ({"ok": False, "ename": "ValueError", "evalue": "no"}, "error", Error("ValueError", "no")),
        ({"ok": False}, "error", Error("Error", "")),
        ({"ok": "yes", "ename": [], "evalue": {}}, "error", Error("Error", "")),
    ],
)
async def test_a_lost_reply_is_recovered_from_the_supervisors_record(
    bench: Bench, hasty: None, last: Mapping[str, object], status: str, error: Error | None
) -> None:
    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.print(request, "shown")
        kernel.status(request, "idle")

    def record() -> Mapping[str, object]:
        return {"busy": False, "last_cell": {"msg_id": bench.fake.requests[-1]["header"]["msg_id"], **last}}

    bench.fake.cell = cell
    bench.link.answers["status"] = record
    result = await bench.run(timeout=None)
    assert (result.status, result.error, result.output_incomplete) == (status, error, True)
    assert result.outputs == (Stream("stdout", "shown"),)


@pytest.mark.parametrize(
    "answer",
    [
        {"busy": True},
        {"busy": None, "last_cell": {}},
        {"busy": False, "last_cell": {"msg_id": "another", "ok": True}},
        {"busy": False, "last_cell": ["ok"]},
        {},
    ],
)
async def test_a_record_that_does_not_name_the_cell_ends_nothing(
    bench: Bench, hasty: None, answer: Mapping[str, object]
) -> None:
    asked = 0

    def status() -> Mapping[str, object]:
        nonlocal asked
        asked += 1
        return answer

    def cell(kernel: FakeKernel, request: Message) -> None:
        kernel.status(request, "busy")
        kernel.status(request, "idle")

    bench.fake.cell = cell
    bench.link.answers["status"] = status
    running = asyncio.create_task(bench.run())
    await bench.until(lambda: asked > 3)
    assert not running.done()
    bench.fake.call(bench.fake.end)
    assert (await running).status == "ok"
    assert len(bench.fake.requests) == 1


async def test_a_request_that_went_with_a_broken_link_is_sent_again(bench: Bench, hasty: None) -> None:
    def lost_at_first(kernel: FakeKernel, request: Message) -> None:
        if len(kernel.requests) > 1:
            answered(kernel, request)

    bench.fake.cell = lost_at_first
    bench.link.answers["status"] = lambda: {"busy": False, "last_cell": {}}
    running = asyncio.create_task(bench.run("once"))
    await bench.until(lambda: bench.fake.requests)
    bench.change(broken=LinkBroken("The stream broke."))
    result = await running
    assert (result.status, result.outputs) == ("ok", (Stream("stdout", "once"),))
    assert result.output_incomplete
    assert len(bench.fake.requests) == 2
    assert bench.container.heals == 1


# -- kernels, containers and engines that go ---


@pytest.mark.parametrize(
    ("death", "status", "words"),
    [
        (
            KernelState("dead", 1, signal=signal.SIGKILL),
            "died",
            "Python ended while the cell ran (by signal SIGKILL)",
        ),
        (KernelState("dead", 1, exit_code=3), "died", "Python ended while the cell ran (with exit code 3)"),
        (KernelState("dead", 1, signal=4242), "died", "Python ended while the cell ran (by signal 4242)"),
        (
            KernelState("dead", 1, signal=signal.SIGKILL, out_of_memory=True),
            "out_of_memory",
            "The session needed more memory than its limit of 2 GiB, and Python was ended",
        ),
    ],
)
async def test_a_kernel_that_dies_in_a_cell(bench: Bench, death: KernelState, status: str, words: str) -> None:
    bench.fake.cell = begun
    running = await bench.running()
    bench.change(kernel=death, last_death=death)
    result = await running
    assert (result.status, result.variables_kept) == (status, False)
    assert result.message is not None
    assert result.message.startswith(f"{words}. Variables are lost; files in the workspace are kept.")
    assert result.text == f"begun\n{result.message}"
    assert not bench.fake.steps


async def test_a_kernel_that_another_program_restarted(bench: Bench) -> None:
    bench.fake.cell = begun
    running = await bench.running()
    bench.change(kernel=KernelState("ready", 2), last_death=KernelState("dead", 7))
    result = await running
    assert (result.status, result.variables_kept) == ("died", False)
    assert result.message is not None
    assert "restarted by another program" in result.message


async def test_what_a_dead_kernel_had_still_sent_is_kept(bench: Bench) -> None:
    bench.fake.cell = begun
    running = await bench.running()

    def last_words() -> None:
        for _ in range(5):
            bench.fake.print(bench.fake.requests[-1], ".")
            time.sleep(0.01)

    bench.fake.call(last_words)
    death = KernelState("dead", 1, exit_code=0)
    bench.change(kernel=death, last_death=death)
    assert (await running).outputs == (Stream("stdout", "begun....."),)


@pytest.mark.parametrize(
    ("failure", "kept", "words"),
    [
        (ContainerGone("No such container."), False, "container was stopped or removed"),
        (EngineUnavailable("Nothing answers at tcp://far."), None, "Nothing answers at tcp://far."),
        (LinkBroken("It broke again."), None, "engine can't be reached"),
    ],
)
async def test_a_container_or_an_engine_that_is_gone(
    bench: Bench, failure: Exception, kept: bool | None, words: str
) -> None:
    bench.fake.cell = begun
    bench.container.cannot_heal = failure
    running = await bench.running()
    bench.change(broken=LinkBroken("The stream broke."))
    result = await running
    assert (result.status, result.variables_kept, result.output_incomplete) == ("died", kept, True)
    assert result.message is not None
    assert words in result.message
    assert bench.runs[-1].container_lost


async def test_a_link_that_breaks_and_heals_is_only_noted(bench: Bench) -> None:
    bench.fake.cell = begun
    running = await bench.running()
    bench.change(broken=LinkBroken("The stream broke."))
    await bench.until(lambda: bench.link.broken is None)
    bench.fake.call(bench.fake.end)
    result = await running
    assert (result.status, result.output_incomplete) == ("ok", True)
    assert not bench.runs[-1].container_lost


async def test_a_link_that_is_broken_again_and_again_is_given_up(bench: Bench) -> None:
    bench.fake.cell = begun
    running = await bench.running()
    while not running.done():
        bench.change(broken=LinkBroken("The stream broke."))
        await asyncio.sleep(0.001)
    result = await running
    assert (result.status, result.variables_kept) == ("died", None)
    assert bench.container.heals == cell_run.MOST_HEALS


# -- the ladder ---


async def test_the_ladder_is_climbed_in_order_and_with_grace(bench: Bench) -> None:
    bench.fake.cell = begun
    result = await bench.run(timeout=0.1)
    assert bench.fake.steps == ["interrupt_request", "interrupt", "restart"]
    assert (result.status, result.variables_kept) == ("killed", False)
    assert result.message is not None
    assert result.message.startswith("The cell ran past its time limit of 0.1 s, did not react to interrupts, and was")
    assert result.duration >= 0.1 + 2 * GRACE
    assert result.outputs == (Stream("stdout", "begun"),)
    assert not bench.runs[-1].container_lost


async def test_a_cell_that_stops_when_it_is_interrupted_keeps_its_variables(bench: Bench) -> None:
    def interrupted() -> None:
        request = bench.fake.requests[-1]
        bench.fake.publish(request, "error", ename="KeyboardInterrupt", evalue="", traceback=[])
        bench.fake.reply(request, status="error", ename="KeyboardInterrupt", evalue="", traceback=[])
        bench.fake.status(request, "idle")

    bench.fake.cell, bench.fake.on_interrupt = begun, interrupted
    result = await bench.run(timeout=0.1)
    assert bench.fake.steps == ["interrupt_request"]
    assert (result.status, result.variables_kept) == ("interrupted", True)
    assert result.message == "The cell was interrupted after its time limit of 0.1 s. Variables and files are kept."
    assert result.error == Error("KeyboardInterrupt", "")


async def test_a_cell_that_stops_at_the_second_interrupt(bench: Bench) -> None:
    def signalled() -> Mapping[str, object]:
        bench.fake.call(bench.fake.end)
        return {}

    bench.fake.cell = begun
    bench.link.answers["interrupt"] = signalled
    result = await bench.run(timeout=0.1)
    assert bench.fake.steps == ["interrupt_request", "interrupt"]
    assert (result.status, result.variables_kept) == ("interrupted", True)


async def test_a_cell_that_is_stopped_on_request_climbs_at_once(bench: Bench) -> None:
    bench.fake.cell = begun
    running = await bench.running(timeout=None)
    bench.stop = True
    bench.wake.set()
    result = await running
    assert bench.fake.steps == ["interrupt_request", "interrupt", "restart"]
    assert result.status == "killed"
    assert result.message is not None
    assert result.message.startswith("The cell was asked to stop, did not react to interrupts")


async def test_a_silent_supervisor_costs_the_container(bench: Bench) -> None:
    bench.fake.cell = begun
    bench.link.answers = {"interrupt": silent, "restart": silent}
    result = await bench.run(timeout=0.1)
    assert bench.fake.steps == ["interrupt_request", "interrupt", "restart", "remove"]
    assert (result.status, result.variables_kept) == ("killed", False)
    assert bench.runs[-1].container_lost


async def test_a_kernel_that_dies_on_the_ladder_was_not_killed_by_us(bench: Bench) -> None:
    death = KernelState("dead", 1, exit_code=1)

    def dies() -> Mapping[str, object]:
        bench.change(kernel=death, last_death=death)
        return {}

    bench.fake.cell = begun
    bench.link.answers["interrupt"] = dies
    result = await bench.run(timeout=0.1)
    assert bench.fake.steps == ["interrupt_request", "interrupt"]
    assert (result.status, result.variables_kept) == ("died", False)


async def test_a_cell_that_ends_in_time_is_left_alone(bench: Bench) -> None:
    bench.fake.cell = begun
    running = await bench.running(timeout=1.0)
    bench.fake.call(bench.fake.end)
    assert (await running).status == "ok"
    assert not bench.fake.steps


# -- connecting, and other requests ---


async def test_kernel_info_is_asked_again_until_outputs_reach_us(fake: FakeKernel) -> None:
    fake.silent_welcomes = 2
    bench = Bench(fake)
    await bench.kernel.connect(PATIENCE)
    assert fake.silent_welcomes == 0
    await assert_works(bench)
    await bench.kernel.close()


async def test_a_kernel_that_does_not_answer_is_given_up(fake: FakeKernel) -> None:
    fake.answers["kernel_info_request"] = None
    kernel = Kernel(cast("Any", FakeLink(fake)), LIMITS, lambda: None)
    tasks = asyncio.all_tasks()
    with pytest.raises(KernelStartFailed, match=r"did not answer within 0\.2 s"):
        await kernel.connect(0.2)
    assert asyncio.all_tasks() == tasks
    with pytest.raises(KernelStartFailed, match="closed"):
        kernel.execute("1", None)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"data": {"text/plain": "int(x)"}}, "int(x)"),
        ({"data": {}}, ""),
        ({"data": {"text/plain": 3}}, ""),
        ({"data": [1]}, ""),
        ({}, ""),
    ],
)
async def test_inspection_believes_nothing(bench: Bench, answer: Message, text: str) -> None:
    bench.fake.answers["inspect_request"] = answer
    assert await bench.kernel.inspect("int", 3) == text


async def test_inspection_of_a_busy_kernel_is_bounded(bench: Bench) -> None:
    bench.fake.answers = {"inspect_request": None, "complete_request": None}
    with pytest.raises(TimeoutError):
        await bench.kernel.inspect("int", 3, timeout=0.1)
    with pytest.raises(TimeoutError):
        await bench.kernel.complete("int", 3, timeout=0.1)
    await assert_works(bench)
