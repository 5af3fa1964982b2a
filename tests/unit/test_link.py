"""The link against a relay that is played here: what it carries, and what it does not put up with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import tempfile
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from session_manager.errors import FrameError, LinkBroken, LinkError
from session_manager.frames import (
    CLOSE,
    CREDIT,
    CREDIT_PAYLOAD,
    DATA,
    EVENT,
    HEADER,
    HELLO,
    MAX_PAYLOAD,
    OPEN,
    REPLY,
    REQUEST,
    WINDOW,
    KernelState,
)
from session_manager.link import Link
from session_manager.link_thread import LinkThread, make_runtime_directory

PATIENCE = 20.0
READY = {"event": "kernel", "state": "ready", "generation": 1}
DEEP = b"[" * MAX_PAYLOAD
SHELL, IOPUB = 1, 2
"""The files' numbers of two channels' endpoints."""


def frame(kind: int, number: int = 0, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, number, len(payload)) + payload


def hello(**changes: object) -> bytes:
    connection = {"key": "k" * 64, "signature_scheme": "hmac-sha256"}
    fields = {"protocol": 1, "connection": connection, "kernel": READY, **changes}
    return frame(HELLO, 0, json.dumps(fields).encode())


class PairStream:
    """An exec stream over one end of a socket pair."""

    def __init__(self, ours: socket.socket) -> None:
        self.socket = ours
        self.socket.setblocking(False)

    def fileno(self) -> int:
        return self.socket.fileno()

    def recv(self) -> bytes:
        return self.socket.recv(262144)

    def send(self, pieces: Sequence[memoryview]) -> int:
        return self.socket.sendmsg(pieces)

    def last_words(self) -> str:
        return "relay: some last words\n"

    def close(self) -> None:
        self.socket.close()


class Relay:
    """The far end of an exec stream."""

    def __init__(self) -> None:
        ours, self.socket = socket.socketpair()
        self.socket.setblocking(False)
        self.stream = PairStream(ours)
        self.received = b""

    async def send(self, data: bytes) -> None:
        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(self.socket, data), PATIENCE)

    async def frame(self) -> tuple[int, int, bytes]:
        """The next frame from the link."""
        while True:
            if len(self.received) >= HEADER.size:
                kind, number, length = HEADER.unpack_from(self.received)
                if len(self.received) >= HEADER.size + length:
                    payload = self.received[HEADER.size : HEADER.size + length]
                    self.received = self.received[HEADER.size + length :]
                    return kind, number, payload
            more = await read(self.socket)
            assert more, "the link ended the stream"
            self.received += more

    async def credits(self, number: int, total: int) -> None:
        """Read as much credit of a stream, and nothing else."""
        credited = 0
        while credited < total:
            kind, of, payload = await self.frame()
            assert (kind, of) == (CREDIT, number)
            credited += CREDIT_PAYLOAD.unpack(payload)[0]
        assert credited == total

    async def is_left(self) -> bool:
        """Whether the link ends the stream; what it sent before is skipped."""
        while await read(self.socket):
            pass
        return True


async def read(connection: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection, 262144), PATIENCE)


async def read_exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        more = await read(connection)
        assert more, "the connection ended"
        received += more
    return received


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - it changes in the link's thread
            await asyncio.sleep(0.005)


class Links:
    """Links of one thread, the clients that connect to them, and the relays at their far ends."""

    def __init__(self, thread: LinkThread) -> None:
        self.thread = thread
        self.links: list[Link] = []
        self.sockets: list[socket.socket] = []

    def link(self, on_change: Callable[[], None] = lambda: None) -> Link:
        link = Link(self.thread, self.thread.new_directory(), on_change)
        self.links.append(link)
        return link

    def relay(self) -> Relay:
        relay = Relay()
        self.sockets += [relay.socket, relay.stream.socket]
        return relay

    async def attach(self, link: Link, first: bytes | None = None) -> Relay:
        relay = self.relay()
        await relay.send(hello() if first is None else first)
        await link.attach(relay.stream, PATIENCE)
        return relay

    async def attached(self) -> tuple[Link, Relay]:
        link = self.link()
        return link, await self.attach(link)

    async def client(self, link: Link, endpoint: int = SHELL) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        self.sockets.append(client)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, str(link.directory / f"kernel-{endpoint}"))
        return client

    async def opened(self, link: Link, relay: Relay, endpoint: int = SHELL) -> tuple[socket.socket, int]:
        """A client, and the number of its stream."""
        client = await self.client(link, endpoint)
        kind, number, _ = await relay.frame()
        assert kind == OPEN
        return client, number

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The thread does nothing meanwhile, and finds all that happened at once."""
        holds, may_go = threading.Event(), threading.Event()

        def hold() -> None:
            holds.set()
            may_go.wait(PATIENCE)

        self.thread.call(hold)
        assert holds.wait(PATIENCE)
        yield
        may_go.set()

    async def check(self, link: Link, relay: Relay) -> None:
        """That a link does all that links do."""
        client, number = await self.opened(link, relay)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"to the kernel")
        assert await relay.frame() == (DATA, number, b"to the kernel")
        await relay.send(frame(CREDIT, number, CREDIT_PAYLOAD.pack(13)) + frame(DATA, number, b"back"))
        assert await read_exactly(client, 4) == b"back"
        assert await relay.frame() == (CREDIT, number, CREDIT_PAYLOAD.pack(4))
        asking = asyncio.create_task(link.request("status", PATIENCE))
        kind, _, payload = await relay.frame()
        assert kind == REQUEST
        await relay.send(frame(REPLY, 0, json.dumps({**json.loads(payload), "fine": True}).encode()))
        assert (await asking)["fine"] is True
        client.close()
        assert await relay.frame() == (CLOSE, number, b"")


@pytest.fixture
async def links(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Links]:
    thread = LinkThread()
    made = Links(thread)
    try:
        yield made
    finally:
        for link in made.links:
            await link.close()
        await asyncio.to_thread(thread.close)
        for opened in made.sockets:
            opened.close()
    caught = [record for record in caplog.get_records("call") if record.exc_info]
    assert not caught, "the thread caught an exception"


# -- what it carries ---


async def test_hello_opens_the_endpoints_and_gives_the_connection_info(links: Links) -> None:
    link, _ = await links.attached()
    assert link.broken is None
    assert link.kernel == KernelState("ready", 1)
    info = link.connection_info()
    assert (info["transport"], info["key"], info["signature_scheme"]) == ("ipc", "k" * 64, "hmac-sha256")
    assert info["ip"] == str(link.directory / "kernel")
    for port in range(1, 6):
        assert (link.directory / f"kernel-{port}").is_socket()
    assert link.directory.stat().st_mode & 0o777 == 0o700
    assert link.directory.parent.stat().st_mode & 0o777 == 0o700


async def test_bytes_credits_requests_and_closing(links: Links) -> None:
    link, relay = await links.attached()
    await links.check(link, relay)


async def test_each_endpoint_opens_its_own_channel(links: Links) -> None:
    link, relay = await links.attached()
    numbers = set()
    for endpoint, channel in enumerate(("shell", "iopub", "stdin", "control", "hb"), 1):
        await links.client(link, endpoint)
        kind, number, payload = await relay.frame()
        assert (kind, payload.decode()) == (OPEN, channel)
        numbers.add(number)
    assert len(numbers) == 5


async def test_frames_may_come_byte_by_byte(links: Links) -> None:
    link, relay = await links.attached()
    client, number = await links.opened(link, relay)
    event = json.dumps({**READY, "generation": 2}).encode()
    for byte in frame(DATA, number, b"slow") + frame(EVENT, 0, event) + frame(DATA, number, b"ly"):
        await relay.send(bytes([byte]))
        await asyncio.sleep(0)
    assert await read_exactly(client, 6) == b"slowly"
    assert link.kernel.generation == 2


async def test_many_frames_may_come_at_once(links: Links) -> None:
    link, relay = await links.attached()
    client, number = await links.opened(link, relay)
    await relay.send(b"".join(frame(DATA, number, b"%05d" % index) for index in range(1000)))
    assert await read_exactly(client, 5000) == b"".join(b"%05d" % index for index in range(1000))
    await relay.credits(number, 5000)


async def test_the_largest_frame_is_carried(links: Links) -> None:
    link, relay = await links.attached()
    client, number = await links.opened(link, relay)
    payload = os.urandom(MAX_PAYLOAD)
    sending = asyncio.create_task(relay.send(frame(DATA, number, payload)))
    assert await read_exactly(client, MAX_PAYLOAD) == payload
    await sending


async def test_the_kernels_deaths_are_told_and_kept(links: Links) -> None:
    changed = threading.Event()
    link = links.link(changed.set)
    relay = await links.attach(link)
    assert changed.is_set()
    dead = {
        "state": "dead",
        "generation": 1,
        "exit_code": None,
        "signal": 9,
        "out_of_memory": True,
        "last_words": "w",
    }
    alive = {"state": "starting", "generation": 2}
    await relay.send(frame(EVENT, 0, json.dumps(dead).encode()) + frame(EVENT, 0, json.dumps(alive).encode()))
    await until(lambda: link.kernel.generation == 2)
    assert link.last_death == KernelState("dead", 1, None, 9, True, "w")


async def test_a_refused_request_and_one_without_an_answer_are_errors(links: Links) -> None:
    link, relay = await links.attached()
    asking = asyncio.create_task(link.request("fly", PATIENCE))
    _, _, payload = await relay.frame()
    assert json.loads(payload)["op"] == "fly"
    refusal = {"id": json.loads(payload)["id"], "error": "unknown op 'fly'"}
    await relay.send(frame(REPLY, 0, json.dumps(refusal).encode()))
    with pytest.raises(LinkError, match="refused 'fly': unknown op"):
        await asking
    with pytest.raises(LinkError, match=r"did not answer 'status' in 0\.05 s"):
        await link.request("status", 0.05)
    await relay.frame()
    await links.check(link, relay)


async def test_what_is_addressed_to_nobody_is_ignored(links: Links) -> None:
    link, relay = await links.attached()
    for kind in (DATA, CLOSE, CREDIT):
        await relay.send(frame(kind, 77, CREDIT_PAYLOAD.pack(WINDOW)))
    for request in ("77", "null", '"1"', "[1]", "{}", "1.5"):
        await relay.send(frame(REPLY, 0, f'{{"id": {request}}}'.encode()))
    await relay.send(frame(REPLY, 0, b"{}"))
    await links.check(link, relay)


async def test_a_stream_that_the_relay_closes_ends_for_its_client_alone(links: Links) -> None:
    link, relay = await links.attached()
    first, number = await links.opened(link, relay)
    second, other = await links.opened(link, relay)
    await relay.send(frame(DATA, number, b"last") + frame(CLOSE, number) + frame(DATA, other, b"on"))
    assert await read_exactly(first, 4) == b"last"
    assert await read(first) == b""
    assert await read_exactly(second, 2) == b"on"


# -- what it does not put up with ---

BAD_HELLOS = {
    "another version": hello(protocol=2),
    "no version": hello(protocol=None),
    "no connection": hello(connection=None),
    "no key": hello(connection={"signature_scheme": "hmac-sha256"}),
    "an empty key": hello(connection={"key": "", "signature_scheme": "hmac-sha256"}),
    "a key of megabytes": hello(connection={"key": "k" * 100_000, "signature_scheme": "hmac-sha256"}),
    "no signatures": hello(connection={"key": "k", "signature_scheme": "none"}),
    "no kernel": hello(kernel=None),
    "a strange state": hello(kernel={"state": "asleep", "generation": 1}),
    "a strange generation": hello(kernel={"state": "ready", "generation": "1"}),
    "no hello": frame(EVENT, 0, json.dumps(READY).encode()),
    "data first": frame(DATA, 1, b"x"),
    "not the protocol": b"OCI runtime exec failed: exec failed: unable to start container process",
    "nothing in it": frame(HELLO),
}

HOSTILE = {
    "oversized length": HEADER.pack(DATA, 1, MAX_PAYLOAD + 1),
    "enormous length": HEADER.pack(EVENT, 0, 2**32 - 1),
    "unknown kind": frame(9),
    "kind zero": frame(0, 0, b"x"),
    "a kind of ours": frame(REQUEST, 0, b"{}"),
    "second hello": hello(),
    "malformed JSON": frame(EVENT, 0, b'{"event": '),
    "no UTF-8": frame(EVENT, 0, b'{"event": "\xff"}'),
    "empty event": frame(EVENT),
    "JSON but no object": frame(REPLY, 0, b"[1]"),
    "deep JSON": frame(REPLY, 0, DEEP),
    "deep JSON in an object": frame(EVENT, 0, b'{"a":' + DEEP[5:]),
    "number of many digits": frame(REPLY, 0, b'{"id": ' + b"9" * 200_000 + b"}"),
    "strange exit code": frame(EVENT, 0, b'{"state": "dead", "generation": 1, "exit_code": "0"}'),
    "strange signal": frame(EVENT, 0, b'{"state": "dead", "generation": 1, "signal": [9]}'),
    "strange last words": frame(EVENT, 0, b'{"state": "dead", "generation": 1, "last_words": {}}'),
    "event of no kind": frame(EVENT, 0, b'{"event": "party"}'),
    "credit never earned": frame(CREDIT, 1, CREDIT_PAYLOAD.pack(1)),
    "enormous credit": frame(CREDIT, 1, CREDIT_PAYLOAD.pack(2**32 - 1)),
    "short credit": frame(CREDIT, 1, b"\0\0"),
    "long credit": frame(CREDIT, 1, b"\0" * 5),
}


@pytest.mark.parametrize("first", BAD_HELLOS.values(), ids=BAD_HELLOS)
async def test_a_stream_that_does_not_begin_with_a_good_hello_is_refused(links: Links, first: bytes) -> None:
    bystander, other = await links.attached()
    link = links.link()
    relay = links.relay()
    await relay.send(first)
    with pytest.raises(FrameError):
        await link.attach(relay.stream, PATIENCE)
    assert isinstance(link.broken, FrameError)
    assert await relay.is_left()
    assert not list(link.directory.iterdir())
    await links.check(bystander, other)


async def test_another_version_says_what_to_do(links: Links) -> None:
    with pytest.raises(FrameError, match="another version") as caught:
        await links.attach(links.link(), hello(protocol="9" * 1000))
    assert len(caught.value.message) < 200
    assert caught.value.remedy is not None


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_frame_ends_its_link_and_no_other(links: Links, hostile: bytes) -> None:
    bystander, other = await links.attached()
    link, relay = await links.attached()
    client, number = await links.opened(link, relay)
    assert number == 1
    asking = asyncio.create_task(link.request("status", PATIENCE))
    await relay.frame()
    sending = asyncio.create_task(relay.send(hostile + b"x" * 1000))
    with pytest.raises(FrameError):
        await asking
    with contextlib.suppress(OSError):  # the link may be gone before all of it was sent
        await sending
    assert isinstance(link.broken, FrameError)
    assert await read(client) == b""
    with pytest.raises(LinkBroken):
        await link.request("status", PATIENCE)
    await links.check(bystander, other)
    await links.check(link, await links.attach(link))


async def test_more_than_the_window_ends_the_link_and_is_not_kept(links: Links) -> None:
    link, relay = await links.attached()
    _, number = await links.opened(link, relay)
    most = 0
    with contextlib.suppress(OSError):
        for _ in range(64):
            await relay.send(frame(DATA, number, b"x" * MAX_PAYLOAD))
            for stream in list(link._streams.values()):
                most = max(most, len(stream.pending))
    await until(lambda: link.broken is not None)
    assert isinstance(link.broken, FrameError)
    assert "more than the window" in str(link.broken)
    assert 0 < most <= WINDOW
    assert not link._streams


@contextlib.contextmanager
def bounded_memory(most: int) -> Iterator[None]:
    """That no more than so many bytes are kept in the end that were not there before."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < most


@pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "one byte"])
async def test_small_frames_for_a_stalled_client_take_little_room(links: Links, payload: bytes) -> None:
    link, relay = await links.attached()
    client, number = await links.opened(link, relay)
    await relay.send(frame(DATA, number, b"x" * MAX_PAYLOAD) * 2)
    with bounded_memory(4 << 20):
        for _ in range(100):
            await relay.send(frame(DATA, number, payload) * 1000)
    total = 2 * MAX_PAYLOAD + 100_000 * len(payload)
    await read_exactly(client, total)
    await relay.credits(number, total)
    await links.check(link, relay)


async def test_a_relay_that_sends_and_never_reads_takes_little_room(links: Links) -> None:
    link, relay = await links.attached()
    client, number = await links.opened(link, relay)
    with bounded_memory(2 << 20):
        for _ in range(50):
            await relay.send(frame(DATA, number, b"x") * 1000)
            await read_exactly(client, 1000)
    await relay.credits(number, 50_000)


# -- stalls ---


async def test_a_stalled_client_holds_up_no_other_stream_and_no_request(links: Links) -> None:
    link, relay = await links.attached()
    stalled, number = await links.opened(link, relay, IOPUB)
    sent = os.urandom(WINDOW)
    for start in range(0, WINDOW, MAX_PAYLOAD):
        await relay.send(frame(DATA, number, sent[start : start + MAX_PAYLOAD]))
    kind, of, payload = await relay.frame()
    credited = CREDIT_PAYLOAD.unpack(payload)[0]
    assert (kind, of) == (CREDIT, number)
    assert credited < WINDOW
    await links.check(link, relay)
    assert await read_exactly(stalled, WINDOW) == sent
    await relay.credits(number, WINDOW - credited)


async def test_a_stalled_kernel_socket_holds_up_no_other_stream(links: Links) -> None:
    link, relay = await links.attached()
    client, number = await links.opened(link, relay)
    sent = os.urandom(WINDOW + 1000)
    writing = asyncio.create_task(asyncio.get_running_loop().sock_sendall(client, sent))
    received = b""
    while len(received) < WINDOW:
        kind, of, payload = await relay.frame()
        assert (kind, of) == (DATA, number)
        received += payload
    assert len(received) == WINDOW
    await links.check(link, relay)
    await relay.send(frame(CREDIT, number, CREDIT_PAYLOAD.pack(1000)))
    while len(received) < len(sent):
        _, _, payload = await relay.frame()
        received += payload
    await writing
    assert received == sent


async def test_a_stalled_exec_stream_loses_nothing(links: Links) -> None:
    link, relay = await links.attached()
    clients = dict([await links.opened(link, relay) for _ in range(3)])
    sent = {number: os.urandom(WINDOW) for number in clients.values()}
    loop = asyncio.get_running_loop()
    writing = [asyncio.create_task(loop.sock_sendall(client, sent[number])) for client, number in clients.items()]
    asking = asyncio.create_task(link.request("status", PATIENCE))
    await asyncio.sleep(0.2)
    assert not all(task.done() for task in writing), "the link reads on while nobody takes what it has read"
    received = dict.fromkeys(sent, b"")
    request = b""
    while received != sent or not request:
        kind, number, payload = await relay.frame()
        if kind == REQUEST:
            request = payload
        else:
            assert kind == DATA
            received[number] += payload
    await asyncio.gather(*writing)
    await relay.send(frame(REPLY, 0, request))
    assert (await asking)["op"] == "status"


# -- the turn to run cells ---


async def next_op(relay: Relay) -> dict[str, object]:
    kind, _, payload = await relay.frame()
    assert kind == REQUEST
    fields: dict[str, object] = json.loads(payload)
    return fields


async def acquire(link: Link, relay: Relay) -> None:
    """Ask for the turn, and get it."""
    asking = asyncio.create_task(link.acquire_turn())
    request = await next_op(relay)
    assert request["op"] == "acquire"
    assert not asking.done()
    await relay.send(frame(REPLY, 0, json.dumps({"id": request["id"]}).encode()))
    await asking


async def test_the_turn_is_kept_from_cell_to_cell_until_another_asks(links: Links) -> None:
    link, relay = await links.attached()
    await acquire(link, relay)
    link.end_turn()
    assert link.resume_turn()
    await relay.send(frame(EVENT, 0, b'{"event": "turn wanted"}'))
    await links.check(link, relay)
    link.end_turn()
    assert (await next_op(relay))["op"] == "release"
    assert not link.resume_turn()
    await acquire(link, relay)


async def test_a_turn_that_is_not_in_use_is_given_up_when_another_asks(links: Links) -> None:
    link, relay = await links.attached()
    await acquire(link, relay)
    link.end_turn()
    await relay.send(frame(EVENT, 0, b'{"event": "turn wanted"}') * 3)
    assert (await next_op(relay))["op"] == "release"
    await links.check(link, relay)
    await acquire(link, relay)


async def test_a_turn_that_was_lost_is_asked_for_anew(links: Links) -> None:
    link, relay = await links.attached()
    await acquire(link, relay)
    link.end_turn()
    await relay.send(frame(EVENT, 0, b'{"event": "turn lost"}'))
    await links.check(link, relay)
    await acquire(link, relay)
    relay.socket.close()
    await until(lambda: link.broken is not None)
    with pytest.raises(LinkBroken):
        await link.acquire_turn()
    await acquire(link, await links.attach(link))


async def test_a_cancelled_wait_for_the_turn_leaves_the_queue(links: Links) -> None:
    link, relay = await links.attached()
    asking = asyncio.create_task(link.acquire_turn())
    assert (await next_op(relay))["op"] == "acquire"
    asking.cancel()
    assert (await next_op(relay))["op"] == "release"
    await acquire(link, relay)


# -- breaking, and coming back ---


async def test_the_end_of_the_stream_breaks_the_link_and_the_next_stream_heals_it(links: Links) -> None:
    changed = threading.Event()
    link = links.link(changed.set)
    relay = await links.attach(link)
    client, _ = await links.opened(link, relay)
    asking = asyncio.create_task(link.request("acquire", None))
    await relay.frame()
    changed.clear()
    relay.socket.close()
    with pytest.raises(LinkBroken, match="ended: relay: some last words$"):
        await asking
    await until(changed.is_set)
    assert await read(client) == b""
    assert link.kernel == KernelState("ready", 1)
    early = await links.client(link)
    await asyncio.get_running_loop().sock_sendall(early, b"while it was down")
    relay = await links.attach(link, hello(kernel={"state": "ready", "generation": 3}))
    assert link.broken is None
    assert link.kernel.generation == 3
    kind, number, _ = await relay.frame()
    assert kind == OPEN
    assert await relay.frame() == (DATA, number, b"while it was down")
    await links.check(link, relay)


async def test_a_client_that_connects_just_as_the_link_breaks_is_served_by_the_next_stream(
    links: Links,
) -> None:
    link, relay = await links.attached()
    with links.held():
        relay.socket.close()
        client = await links.client(link)
        await asyncio.get_running_loop().sock_sendall(client, b"hello?")
    await until(lambda: link.broken is not None)
    relay = await links.attach(link)
    kind, number, _ = await relay.frame()
    assert kind == OPEN
    assert await relay.frame() == (DATA, number, b"hello?")


async def test_a_relay_that_says_nothing_is_left(links: Links) -> None:
    link, relay = links.link(), links.relay()
    with pytest.raises(LinkBroken, match=r"said nothing for 0\.05 s"):
        await link.attach(relay.stream, 0.05)
    assert await relay.is_left()
    await links.check(link, await links.attach(link))


async def test_a_call_that_is_cancelled_before_the_thread_sees_it_leaves_no_trace(links: Links) -> None:
    link, relay = links.link(), links.relay()
    with links.held():
        calls = [asyncio.create_task(link.request("status", PATIENCE)), asyncio.create_task(link.rebind())]
        calls.append(asyncio.create_task(link.attach(relay.stream, PATIENCE)))
        await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
    assert await relay.is_left()
    await links.check(link, await links.attach(link))


async def test_a_dropped_link_and_a_second_stream(links: Links) -> None:
    link, first = await links.attached()
    link.drop()
    assert await first.is_left()
    await until(lambda: isinstance(link.broken, LinkBroken))
    second = await links.attach(link)
    third = await links.attach(link)
    assert await second.is_left()
    await links.check(link, third)


async def test_rebinding_offers_the_endpoints_anew_and_leaves_connections_alone(links: Links) -> None:
    link, relay = await links.attached()
    client, number = await links.opened(link, relay)
    for endpoint in range(1, 6):
        (link.directory / f"kernel-{endpoint}").unlink()
    await link.rebind()
    await links.check(link, relay)
    await relay.send(frame(DATA, number, b"as before"))
    assert await read_exactly(client, 9) == b"as before"


async def test_closing_takes_everything_away(links: Links) -> None:
    link, relay = await links.attached()
    client, _ = await links.opened(link, relay)
    asking = asyncio.create_task(link.request("status", PATIENCE))
    await relay.frame()
    await link.close()
    with pytest.raises(LinkBroken, match="closed by this program"):
        await asking
    assert await relay.is_left()
    assert await read(client) == b""
    assert not link.directory.exists()
    await link.close()


# -- the thread and its directory ---


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short directory in place of this user's own."""
    with tempfile.TemporaryDirectory(prefix="rt-") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield Path(directory)


def test_a_closed_thread_gives_everything_back(runtime: Path) -> None:
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    thread = LinkThread()
    ran = threading.Event()
    thread.call(ran.set)
    assert ran.wait(PATIENCE)
    directory = thread.new_directory()
    assert directory.parent.parent == runtime
    thread.close()
    thread.close()
    assert not list(runtime.iterdir())
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert not [running for running in threading.enumerate() if running.name == "session-links"]
    with pytest.raises(RuntimeError, match="closed"):
        thread.call(ran.set)


def test_directories_of_programs_that_were_killed_are_swept_and_live_ones_are_not(runtime: Path) -> None:
    live, live_lock = make_runtime_directory()
    killed, killed_lock = make_runtime_directory()
    (killed / "abc").mkdir()
    (killed / "abc" / "kernel-1").touch()
    os.close(killed_lock)  # as the system does when a program ends
    foreign = runtime / "dockint-no-lock"
    foreign.mkdir()
    elsewhere = runtime / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    (runtime / "dockint-link").symlink_to(elsewhere)
    new, new_lock = make_runtime_directory()
    assert live.exists()
    assert not killed.exists()
    assert foreign.exists()
    assert (elsewhere / "lock").exists()
    assert new.stat().st_mode & 0o777 == 0o700
    os.close(live_lock)
    os.close(new_lock)


def test_a_runtime_directory_with_a_long_path_is_not_used(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = runtime / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    directory, lock = make_runtime_directory()
    assert len(str(directory)) < 50
    shutil.rmtree(directory)
    os.close(lock)
