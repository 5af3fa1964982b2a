"""Links, and a relay that is played at their far ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

from session_manager.frames import (
    CLOSE,
    CREDIT,
    CREDIT_PAYLOAD,
    DATA,
    HEADER,
    HELLO,
    MAX_PAYLOAD,
    OPEN,
    PROTOCOL,
    REPLY,
    REQUEST,
)
from session_manager.link import Link
from session_manager.link_thread import LinkThread

PATIENCE = 20.0
READY = {"event": "kernel", "state": "ready", "generation": 1}
DEEP = b"[" * MAX_PAYLOAD
SHELL, IOPUB = 1, 2
"""The files' numbers of two channels' endpoints."""


def frame(kind: int, number: int = 0, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, number, len(payload)) + payload


def hello(**changes: object) -> bytes:
    connection = {"key": "k" * 64, "signature_scheme": "hmac-sha256"}
    fields = {"protocol": PROTOCOL, "connection": connection, "kernel": READY, **changes}
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
        """The next frame from the link; `EOFError` when it ends the stream before one is whole."""
        while True:
            if len(self.received) >= HEADER.size:
                kind, number, length = HEADER.unpack_from(self.received)
                if len(self.received) >= HEADER.size + length:
                    payload = self.received[HEADER.size : HEADER.size + length]
                    self.received = self.received[HEADER.size + length :]
                    return kind, number, payload
            more = await read(self.socket)
            if not more:
                raise EOFError("the link ended the stream")
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
        while not condition():
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
