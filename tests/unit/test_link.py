"""The link against a relay that is played here: what it carries."""

from __future__ import annotations

import asyncio
import json
import os
import threading

import pytest

from session_manager.errors import LinkBroken, LinkError
from session_manager.frames import (
    CLOSE,
    CREDIT,
    CREDIT_PAYLOAD,
    DATA,
    EVENT,
    MAX_PAYLOAD,
    OPEN,
    REPLY,
    REQUEST,
    WINDOW,
    KernelState,
)
from session_manager.link import Link

from .links import IOPUB, PATIENCE, READY, Links, Relay, frame, read, read_exactly, until

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


async def test_a_request_carries_its_fields(links: Links) -> None:
    link, relay = await links.attached()
    asking = asyncio.create_task(
        link.request("save", PATIENCE, seconds=1.5, reason="größe\n", max_bytes=None, cell=["x"])
    )
    request = await next_op(relay)
    number = request.pop("id")
    assert request == {"op": "save", "seconds": 1.5, "reason": "größe\n", "max_bytes": None, "cell": ["x"]}
    report = {"saved": ["x"], "failed": []}
    await relay.send(frame(REPLY, 0, json.dumps({"id": number, "report": report}).encode()))
    assert (await asking)["report"] == report
    asking = asyncio.create_task(link.request("interrupt", PATIENCE, **{"id": 77, "cell": "m"}))
    assert (await next_op(relay))["id"] not in (77, number)  # the number is the link's own
    asking.cancel()


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
