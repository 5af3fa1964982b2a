"""Messages of a kernel without an end: libzmq would keep them, part by part, for ever."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from session_manager.errors import FrameError, KernelStartFailed
from session_manager.frames import CREDIT, DATA, MAX_PAYLOAD, OPEN
from session_manager.kernel import Kernel
from session_manager.settings import Limits
from session_manager.zmtp import MOST_PARTS, MessageBound

from .links import IOPUB, Links, Relay, frame, until

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03PUB"


def part(body: bytes, *, more: bool) -> bytes:
    long = len(body) > 255
    return bytes([more | long << 1]) + len(body).to_bytes(8 if long else 1, "big") + body


def message(*bodies: bytes) -> bytes:
    return b"".join(part(body, more=number < len(bodies)) for number, body in enumerate(bodies, 1))


def spoken(bodies: Sequence[Sequence[bytes]], folder: Path) -> bytes:
    """What a real socket says to another, to the last of these messages: taken down in between."""
    received = bytearray()

    def carry(source: socket.socket, target: socket.socket) -> None:
        while piece := source.recv(65536):
            if target is theirs:
                received.extend(piece)
            target.sendall(piece)

    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher, context.socket(zmq.SUB) as subscriber:
        publisher.linger = subscriber.linger = 0
        publisher.rcvtimeo = subscriber.rcvtimeo = 20_000
        publisher.bind(f"ipc://{folder}/publisher")
        with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as ours:
            listening.bind(f"{folder}/between")
            listening.listen()
            subscriber.subscribe(b"")
            subscriber.connect(f"ipc://{folder}/between")
            theirs, _ = listening.accept()
            with theirs:
                ours.connect(f"{folder}/publisher")
                threads = [threading.Thread(target=carry, args=pair) for pair in ((ours, theirs), (theirs, ours))]
                for thread in threads:
                    thread.start()
                publisher.recv()  # the subscription is in
                for one in bodies:
                    publisher.send_multipart(one)
                    assert subscriber.recv_multipart() == list(one)
                for end in (ours, theirs):
                    end.shutdown(socket.SHUT_RDWR)
                for thread in threads:
                    thread.join()
    return bytes(received)


def test_what_a_real_socket_says_passes(tmp_path: Path) -> None:
    sizes = (0, 1, 254, 255, 256, 70_000)
    received = spoken([[b"a", b"x" * size, b"", b"y" * size] for size in sizes], tmp_path)
    assert len(received) > 2 * sum(sizes)
    bound = MessageBound(2 * 70_000 + 1)
    for at in range(0, len(received), 1000):
        bound.feed(received[at : at + 1000])
    with pytest.raises(FrameError, match="more than 140000 bytes"):
        MessageBound(140_000).feed(received)


@given(
    messages=st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=5), max_size=6),
    cuts=st.lists(st.integers(1, 400), min_size=1, max_size=20),
)
def test_where_it_is_cut_does_not_matter(messages: list[Sequence[bytes]], cuts: list[int]) -> None:
    received = GREETING + READY + b"".join(message(*bodies) for bodies in messages)
    largest = max((sum(map(len, bodies)) for bodies in messages), default=0)
    for most, passes in ((largest, True), *([(largest - 1, False)] if largest else [])):
        bound, at = MessageBound(most), 0
        with contextlib.ExitStack() as stack:
            if not passes:
                stack.enter_context(pytest.raises(FrameError))
            while at < len(received):
                for cut in cuts:
                    bound.feed(received[at : at + cut])
                    at += cut


HOSTILE = {
    "an older protocol": b"\x01\x00" + bytes(70),
    "version 2": b"\xff" + bytes(8) + b"\x7f\x01" + bytes(60),
    "parts without end": GREETING + message(b"") + part(b"", more=True) * (MOST_PARTS + 1),
    "large parts without end": GREETING + part(b"x" * 200, more=True) * 6,
    "a part that is too large": GREETING + b"\x02" + (1 << 62).to_bytes(8, "big"),
    "more of a command": GREETING + b"\x05\x01x",
    "a command of megabytes": GREETING + b"\x06" + (1 << 20).to_bytes(8, "big"),
    "flags that there are not": GREETING + b"\x08\x00",
}


@pytest.mark.parametrize("received", HOSTILE.values(), ids=HOSTILE)
def test_what_is_not_put_up_with(received: bytes) -> None:
    with pytest.raises(FrameError):
        MessageBound(1000).feed(received)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_a_message_without_end_breaks_the_link_and_is_not_kept(links: Links) -> None:
    link = links.link()
    link.most_message = 8 << 20
    relay = await links.attach(link)
    flood = part(b"x" * 255, more=True) * (MAX_PAYLOAD // 300)
    with zmq.Context() as context, context.socket(zmq.SUB) as client:
        client.rcvhwm, client.maxmsgsize, client.linger = 8, 4 << 20, 0
        client.subscribe(b"")
        before = resident()
        client.connect(f"ipc://{link.directory}/kernel-{IOPUB}")
        _, number, _ = await relay.frame()
        sent = frame(DATA, number, GREETING + READY)
        with contextlib.suppress(OSError, EOFError):  # the link is gone before all of it was sent
            for _ in range(200):
                await relay.send(sent)
                sent = frame(DATA, number, flood)
                while (await relay.frame())[0] != CREDIT:  # what the socket has taken
                    pass
        await until(lambda: link.broken is not None)
        assert isinstance(link.broken, FrameError) and "10000 parts" in str(link.broken)
        assert resident() - before < 100 << 20


ENDLESS = {
    "nothing": b"",
    "half a greeting, byte by byte": GREETING[:40],
    "a greeting and no word more": GREETING,
    "half a handshake": GREETING + READY[:10],
    "a handshake and no word more": GREETING + READY,
}


@pytest.mark.parametrize("said", ENDLESS.values(), ids=ENDLESS)
async def test_a_greeting_that_never_ends_is_given_up(links: Links, said: bytes) -> None:
    bystander, other = await links.attached()
    link, relay = await links.attached()

    async def drip(relay: Relay) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                kind, number, _ = await relay.frame()
                if kind == OPEN:
                    for byte in said:
                        await relay.send(frame(DATA, number, bytes([byte])))

    dripping = asyncio.create_task(drip(relay))
    kernel = Kernel(link, Limits(), lambda: None)
    with pytest.raises(KernelStartFailed, match="did not answer"):
        await asyncio.wait_for(kernel.connect(0.5), 20)
    dripping.cancel()
    await links.check(bystander, other)


async def test_a_greeting_that_goes_on_for_ever_breaks_the_link(links: Links) -> None:
    bystander, other = await links.attached()
    link, relay = await links.attached()
    connecting = asyncio.create_task(Kernel(link, Limits(), lambda: None).connect(1.0))
    kind, number, _ = await relay.frame()
    assert kind == OPEN
    with contextlib.suppress(OSError):
        await relay.send(frame(DATA, number, GREETING * 1000))
    await until(lambda: link.broken is not None)
    assert isinstance(link.broken, FrameError)
    with pytest.raises(KernelStartFailed):
        await connecting
    await links.check(bystander, other)
