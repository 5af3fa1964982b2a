"""One cell's way through every hop, read from what goes over the stream into its container.

Nothing is asked of the hops themselves: the stream is recorded on its way, and each Jupyter message in it says when it
was made (https://jupyter-client.readthedocs.io/en/stable/messaging.html, "date" in the header).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ..engine import ExecStream
from ..frames import DATA, FrameReader
from ..zmtp import GREETING

_MORE, _LONG, _COMMAND = 1, 2, 4
DELIMITER = b"<IDS|MSG>"

CALL = "this program: from the call to the request"
ASK = "this program: through its sockets, to the stream"
IN = "engine and relay: until the kernel is busy"
BEGIN = "kernel: until the code begins"
RUN = "kernel: the code, until its reply"
IDLE = "kernel: from the reply to idle"
OUT = "relay and engine: until the last of it is here"
RETURN = "this program: read, checked, returned"
HOPS = (CALL, ASK, IN, BEGIN, RUN, IDLE, OUT, RETURN)


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one call wrote or read."""

    at: float
    """Unix time, seconds: before a write, after a read."""
    outward: bool
    content: bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """A message on the stream."""

    at: float
    """When the last of it was here, Unix time, seconds."""
    kind: str
    state: str
    """Of a status."""
    made: float
    """When it was made, by its maker's clock; Unix time, seconds."""
    request: str
    """The id of the request that it is, or answers."""


@dataclass(slots=True)
class Recording:
    """All that goes over one stream, with its times. A stream itself."""

    stream: ExecStream
    chunks: list[Chunk] = field(default_factory=list)

    def fileno(self) -> int:
        """See :class:`ExecStream`."""
        return self.stream.fileno()

    def recv(self) -> bytes:
        """See :class:`ExecStream`."""
        received = self.stream.recv()
        self.chunks.append(Chunk(time.time(), False, received))
        return received

    def send(self, pieces: Sequence[memoryview]) -> int:
        """See :class:`ExecStream`."""
        at = time.time()
        sent = self.stream.send(pieces)
        self.chunks.append(Chunk(at, True, b"".join(pieces)[:sent]))
        return sent

    def last_words(self) -> str:
        """See :class:`ExecStream`."""
        return self.stream.last_words()

    def close(self) -> None:
        """See :class:`ExecStream`."""
        self.stream.close()


class Parts:
    """Cuts what one peer of a ZMQ connection sends into messages. ZMTP 3: https://rfc.zeromq.org/spec/37/."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._greeted = False
        self._message: list[bytes] = []

    def feed(self, received: bytes) -> Iterator[list[bytes]]:
        """The messages that are complete now, as their parts."""
        self._buffer += received
        if not self._greeted:
            if len(self._buffer) < GREETING:
                return
            del self._buffer[:GREETING]
            self._greeted = True
        while len(self._buffer) >= 2:
            flags = self._buffer[0]
            start = 9 if flags & _LONG else 2
            end = start + int.from_bytes(self._buffer[1:start], "big")
            if len(self._buffer) < max(start, end):
                return
            body = bytes(self._buffer[start:end])
            del self._buffer[:end]
            if flags & _COMMAND:
                continue
            self._message.append(body)
            if not flags & _MORE:
                yield self._message
                self._message = []


def messages(chunks: Sequence[Chunk]) -> Iterator[Seen]:
    """The Jupyter messages that a recording holds, in the order in which they were complete. It has to begin where its
    stream does.

    :raises ValueError, KeyError, FrameError: something in it is no such message.
    """
    readers = {True: FrameReader(), False: FrameReader()}
    connections: dict[tuple[bool, int], Parts] = {}
    for chunk in chunks:
        for kind, number, payload in readers[chunk.outward].feed(chunk.content):
            if kind == DATA:
                for parts in connections.setdefault((chunk.outward, number), Parts()).feed(payload):
                    if DELIMITER in parts[:-4]:
                        yield seen(chunk.at, parts[parts.index(DELIMITER) + 2 :])


def seen(at: float, parts: Sequence[bytes]) -> Seen:
    """A message from its header, parent header, metadata and content."""
    header, parent, _, content = map(json.loads, parts[:4])
    made = datetime.fromisoformat(header["date"]).timestamp()
    state = str(content.get("execution_state", ""))
    return Seen(at, header["msg_type"], state, made, parent.get("msg_id") or header["msg_id"])


def hops(begin: float, end: float, recorded: Sequence[Seen]) -> Mapping[str, float]:
    """Seconds in each hop of the one cell that was asked for and answered between the two times.

    :raises ValueError: there is no such cell, or it is not complete.
    """
    found = [one for one in recorded if begin <= one.at <= end]
    asked = next((one for one in found if one.kind == "execute_request"), None)
    if asked is None:
        raise ValueError("no cell was asked for in this time")
    answers = {one.state or one.kind: one for one in found if one.request == asked.request}
    if missing := {"busy", "execute_input", "execute_reply", "idle"} - answers.keys():
        raise ValueError(f"the cell has no {', '.join(sorted(missing))}")
    times = (
        *(begin, asked.made, asked.at, answers["busy"].made, answers["execute_input"].made),
        *(answers["execute_reply"].made, answers["idle"].made),
        *(max(answers["execute_reply"].at, answers["idle"].at), end),
    )
    return {hop: after - before for hop, before, after in zip(HOPS, times, times[1:], strict=False)}
