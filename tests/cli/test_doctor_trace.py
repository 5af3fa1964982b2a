"""``doctor --trace``: the hops of a cell, and how they are read from what goes over a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest

from session_manager.cli.cell_trace import DELIMITER, HOPS, Chunk, hops, messages
from session_manager.frames import CREDIT, CREDIT_PAYLOAD, DATA, HEADER

from .conftest import CommandLine

GREETING = bytes(64)
READY_COMMAND = b"\x04\x05ready"
SENT = [
    # channel, outward, kind, state, made, complete
    (1, True, "execute_request", "", 101.0, 103.0),
    (2, False, "status", "busy", 106.0, 107.0),
    (2, False, "execute_input", "", 110.0, 111.0),
    (2, False, "stream", "", 110.5, 111.5),
    (1, False, "execute_reply", "", 115.0, 129.0),
    (2, False, "status", "idle", 121.0, 128.0),
]


def zmtp(parts: Sequence[bytes]) -> bytes:
    pieces = []
    for number, part in enumerate(parts):
        more = number < len(parts) - 1
        size = bytes([len(part)]) if len(part) < 256 else len(part).to_bytes(8, "big")
        pieces.append(bytes([more + 2 * (len(part) > 255)]) + size + part)
    return b"".join(pieces)


def message(outward: bool, kind: str, state: str, made: float, request: str = "one") -> bytes:
    own = {"msg_id": request if outward else f"{kind} {made}", "msg_type": kind}
    header = {**own, "date": datetime.fromtimestamp(made, UTC).isoformat().replace("+00:00", "Z")}
    parent = {} if outward else {"msg_id": request}
    content = {"execution_state": state, "filler": "x" * 300}
    parts = [b"topic", DELIMITER, b"signature", *(json.dumps(one).encode() for one in (header, parent, {}, content))]
    return zmtp(parts)


def frame(number: int, payload: bytes) -> bytes:
    return HEADER.pack(DATA, number, len(payload)) + payload


def recorded(sent: Sequence[tuple[int, bool, str, str, float, float]], piece: int) -> Iterator[Chunk]:
    """The messages in pieces of so many bytes, each complete at its time."""
    for number in (1, 2):
        for outward in (True, False):
            yield Chunk(90.0, outward, frame(number, GREETING + READY_COMMAND))
    for number, outward, kind, state, made, at in sent:
        content = HEADER.pack(CREDIT, number, 4) + CREDIT_PAYLOAD.pack(7)
        content += frame(number, message(outward, kind, state, made))
        *early, last = range(0, len(content), piece)
        for start in early:
            yield Chunk(at - 0.25, outward, content[start : start + piece])
        yield Chunk(at, outward, content[last:])


@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_the_hops_are_read_from_the_stream(piece: int) -> None:
    found = list(messages(list(recorded(SENT, piece))))
    assert [(one.kind, one.state, one.made, one.at) for one in found] == [one[2:] for one in SENT]
    assert list(hops(100.0, 140.0, found).items()) == list(zip(HOPS, (1, 2, 3, 4, 5, 6, 8, 11), strict=True))


def test_what_is_incomplete_or_another_s_is_no_cell() -> None:
    with pytest.raises(ValueError, match="the cell has no execute_reply, idle"):
        hops(100.0, 140.0, list(messages(list(recorded(SENT[:4], 100)))))
    found = list(messages(list(recorded(SENT, 100))))
    with pytest.raises(ValueError, match="no cell was asked for"):
        hops(104.0, 140.0, found)
    others = [one for one in found if one.kind != "execute_request"]
    asked = list(messages([Chunk(90.0, True, frame(1, GREETING + message(True, "execute_request", "", 101.0, "two")))]))
    with pytest.raises(ValueError, match="the cell has no busy"):
        hops(80.0, 140.0, [*asked, *others])


def test_a_cell_is_followed_through_its_hops(docker_cli: CommandLine) -> None:
    done = docker_cli("doctor", "--trace")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [hop for hop in HOPS if hop not in done.stdout] == [] and "the call" in done.stdout
    said = json.loads(docker_cli("doctor", "--trace", "--json").stdout)
    assert [one["hop"] for one in said["hops"]] == list(HOPS)
    for one in said["hops"]:  # the engine is on this machine: its clock is ours
        assert len(one["seconds"]) == said["cells"] and min(one["seconds"]) >= 0, one
    assert docker_cli("sessions").stdout == "No sessions.\n"


def test_what_has_no_hops_is_refused(cli: CommandLine) -> None:
    done = cli("doctor", "--trace", "--engine", "process")
    assert done.returncode == 1 and "has no hops" in done.stderr
    done = cli("doctor", "--trace", "--security")
    assert done.returncode == 2 and "ask one at a time" in done.stderr
