"""What the link does not put up with."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tracemalloc
from collections.abc import Iterator

import pytest

from session_manager import link as link_module
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
)

from .links import DEEP, PATIENCE, READY, Links, frame, hello, read, read_exactly, until

BAD_HELLOS = {
    "another version": hello(protocol=1),
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
    "nothing in it": frame(HELLO),
}

HOSTILE = {
    "oversized length": HEADER.pack(DATA, 1, MAX_PAYLOAD + 1),
    "enormous length": HEADER.pack(EVENT, 0, 2**32 - 1),
    "unknown kind": frame(9),
    "kind zero": frame(0, 0, b"x"),
    "a kind of ours": frame(REQUEST, 0, b"{}"),
    "a stream of its own": frame(OPEN, 1, b"shell"),
    "second hello": hello(),
    "malformed JSON": frame(EVENT, 0, b'{"event": '),
    "no UTF-8": frame(EVENT, 0, b'{"event": "\xff"}'),
    "empty event": frame(EVENT),
    "JSON but no object": frame(REPLY, 0, b"[1]"),
    "deep JSON": frame(REPLY, 0, DEEP),
    "deep JSON in an object": frame(EVENT, 0, b'{"a":' + DEEP[5:]),
    "number of many digits": frame(REPLY, 0, b'{"id": ' + b"9" * 200_000 + b"}"),
    "strange exit code": frame(EVENT, 0, b'{"event": "kernel", "state": "dead", "generation": 1, "exit_code": "0"}'),
    "strange signal": frame(EVENT, 0, b'{"event": "kernel", "state": "dead", "generation": 1, "signal": [9]}'),
    "strange last words": frame(EVENT, 0, b'{"event": "kernel", "state": "dead", "generation": 1, "last_words": {}}'),
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


async def test_what_an_engine_says_where_it_cannot_start_the_relay_is_passed_on(links: Links) -> None:
    link, relay = links.link(), links.relay()
    await relay.send(b"OCI runtime exec failed: exec failed: cannot exec in a stopped state")
    with pytest.raises(LinkBroken, match="No relay answers.*stopped state"):
        await link.attach(relay.stream, PATIENCE)
    assert await relay.is_left()


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
    sending = asyncio.create_task(relay.send(hostile))
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


async def test_a_relay_that_takes_nothing_is_left_though_clients_come_again_and_again(
    links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "MOST_WAITING", 20)
    bystander, other = await links.attached()
    link, relay = await links.attached()
    client = await links.client(link)
    sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(client, b"x" * (2 * WINDOW)))
    await until(lambda: bool(link._outgoing))
    for number in range(2, 200):
        await links.client(link)
        await until(lambda number=number: link.broken is not None or number in link._streams)  # type: ignore[misc]
        if link.broken is not None:
            break
        await relay.send(frame(CLOSE, number))
        await until(lambda number=number: number not in link._streams)  # type: ignore[misc]
    assert "takes nothing" in str(link.broken)
    with contextlib.suppress(OSError):
        await sending
    await links.check(bystander, other)


async def test_replies_with_other_ids_answer_nothing(links: Links) -> None:
    link, relay = await links.attached()
    asking = asyncio.create_task(link.request("status", PATIENCE))
    _, _, payload = await relay.frame()
    number = json.loads(payload)["id"]
    for forged in (number + 1, number - 1, -number, 0, str(number), [number], None, 10**400, number + 0.5):
        await relay.send(frame(REPLY, 0, json.dumps({"id": forged, "busy": "forged"}).encode()))
    await relay.send(frame(REPLY, 0, json.dumps({"id": number, "busy": True}).encode()) * 2)
    assert (await asking)["busy"] is True
    await links.check(link, relay)


async def test_a_refusal_of_lists_in_lists_is_one_like_any_other(links: Links) -> None:
    link, relay = await links.attached()
    for depth in (5, 500, 900, 950, 970, 980):
        asking = asyncio.create_task(link.request("status", PATIENCE))
        _, _, payload = await relay.frame()
        error = b"[" * depth + b"]" * depth
        await relay.send(frame(REPLY, 0, b'{"error": ' + error + b', "id": %d}' % json.loads(payload)["id"]))
        with pytest.raises(LinkError, match="refused 'status': a list"):
            await asking
    await links.check(link, relay)
