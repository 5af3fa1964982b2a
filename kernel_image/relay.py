"""What each exec into a container runs: carries bytes between its stdin and stdout and the kernel's sockets.

The frames are in FRAMES.md. ``relay.py RUNTIME_DIR [observe]`` serves until its stdin ends. Standard library only,
one thread; all that one wake-up reads is written in one call. Each session has one for as long as it is open, so it
imports little, pathlib and typing least of all.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import struct
import sys
import time
from collections import deque

# run by itself: Python then looks for nothing beside a program
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from peers import is_first, keep_to_itself  # noqa: E402

PROTOCOL = 2
HEADER = struct.Struct("!BII")
CREDIT_PAYLOAD = struct.Struct("!I")
HELLO, OPEN, DATA, CLOSE, CREDIT, REQUEST, REPLY, EVENT = range(1, 9)
MAX_PAYLOAD = 262144
WINDOW = 1048576
CHANNELS = {channel: number for number, channel in enumerate(("shell", "iopub", "stdin", "control", "hb"), 1)}
CONNECT_SECONDS = 20.0
REFUSED_SECONDS = 1.0  # a supervisor that starts listens at once; one that is gone leaves its socket behind
WRITE_AT_ONCE = 64  # pieces per writev; the system's limit is 1024


class Stream:
    """One connection to a kernel socket."""

    def __init__(self, number: int, connection: socket.socket) -> None:
        self.number = number
        self.connection = connection
        self.may_send = WINDOW  # bytes of it that the link will still take
        self.pending: deque[memoryview] = deque()  # bytes from the link that the kernel has not taken yet
        self.pending_bytes = 0


class Relay:
    """Both ends of every stream, and the supervisor's control socket."""

    def __init__(self, runtime: str, *, observe: bool = False) -> None:
        self.runtime = runtime
        self.observe = observe
        self.selector = selectors.DefaultSelector()
        self.streams: dict[int, Stream] = {}
        self.incoming = bytearray()
        self.outgoing: deque[memoryview] = deque()
        self.writing = False
        self.supervisor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.from_supervisor = b""
        self.running = True

    def run(self) -> None:
        """Say hello, then carry bytes until the link or the supervisor is gone."""
        in_container = os.getppid() == 0
        if in_container:
            keep_to_itself()
        try:
            self.connect()
            found = not in_container or is_first(self.supervisor)
        except OSError:
            found = False
        if not found:
            # not written as the rest is: stdout still waits for its reader
            os.write(1, HEADER.pack(CLOSE, 0, 0))
            raise SystemExit(f"no supervisor answers at {self.runtime}")
        attach = {"id": 0, "op": "attach", "observe": self.observe}
        self.supervisor.sendall(json.dumps(attach).encode() + b"\n")
        os.set_blocking(0, False)
        os.set_blocking(1, False)
        self.selector.register(0, selectors.EVENT_READ, self.on_link)
        self.selector.register(self.supervisor, selectors.EVENT_READ, self.on_supervisor)
        # stdin and stdout may be one socket, so the writing side has a descriptor of its own to wait on
        self.stdout = os.dup(1)
        while self.running:
            for key, events in self.selector.select():
                key.data(events)
            self.flush()

    def connect(self) -> None:
        """Reach the supervisor, which may have been started a moment ago."""
        begin = time.monotonic()
        while True:
            try:
                self.supervisor.connect(f"{self.runtime}/supervisor.sock")
                return
            except FileNotFoundError:
                # it is not there yet; or its directory is gone, and it with that
                if time.monotonic() - begin > CONNECT_SECONDS or not os.path.exists(self.runtime):
                    raise
            except ConnectionRefusedError:
                if time.monotonic() - begin > REFUSED_SECONDS:
                    raise
            time.sleep(0.003)

    # -- to the link ------------------------------------------------------------------------------------------

    def send(self, kind: int, number: int, payload: bytes | memoryview) -> None:
        self.outgoing.append(memoryview(HEADER.pack(kind, number, len(payload))))
        if payload:
            self.outgoing.append(memoryview(payload))

    def flush(self) -> None:
        """Write what waits; where the pipe is full, wait for it, and read no kernel socket meanwhile."""
        while self.outgoing:
            pieces = [self.outgoing[i] for i in range(min(len(self.outgoing), WRITE_AT_ONCE))]
            try:
                written = os.writev(1, pieces)
            except BlockingIOError:
                break
            except OSError:
                self.running = False
                return
            while written:
                piece = self.outgoing.popleft()
                if len(piece) > written:
                    self.outgoing.appendleft(piece[written:])
                    break
                written -= len(piece)
        if bool(self.outgoing) != self.writing:
            self.writing = bool(self.outgoing)
            if self.writing:
                self.selector.register(self.stdout, selectors.EVENT_WRITE, lambda _events: None)
            else:
                self.selector.unregister(self.stdout)
            for stream in self.streams.values():
                self.watch(stream)

    # -- from the link ----------------------------------------------------------------------------------------

    def on_link(self, _events: int) -> None:
        try:
            received = os.read(0, MAX_PAYLOAD)
        except BlockingIOError:
            return
        if not received:
            self.running = False
            return
        self.incoming += received
        position = 0
        while len(self.incoming) - position >= HEADER.size:
            kind, number, length = HEADER.unpack_from(self.incoming, position)
            if length > MAX_PAYLOAD:
                raise ValueError(f"a frame of {length} bytes")
            end = position + HEADER.size + length
            if len(self.incoming) < end:
                break
            self.on_frame(kind, number, bytes(self.incoming[position + HEADER.size : end]))
            position = end
        del self.incoming[:position]

    def on_frame(self, kind: int, number: int, payload: bytes) -> None:
        if kind == OPEN:
            self.open(number, payload.decode())
        elif kind == REQUEST:
            self.supervisor.sendall(payload.replace(b"\n", b" ") + b"\n")
        elif kind in (DATA, CLOSE, CREDIT):
            stream = self.streams.get(number)
            if stream is None:
                return  # closed on this side while the frame was under way
            if kind == CLOSE:
                self.close(stream, tell=False)
            elif kind == CREDIT:
                stream.may_send += CREDIT_PAYLOAD.unpack(payload)[0]
                self.watch(stream)
            else:
                if stream.pending_bytes + len(payload) > WINDOW:
                    raise ValueError("the link sent more than the window")
                stream.pending.append(memoryview(payload))
                stream.pending_bytes += len(payload)
                self.deliver(stream)
        else:
            raise ValueError(f"a frame of kind {kind}")

    def open(self, number: int, channel: str) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        stream = Stream(number, connection)
        try:
            connection.connect(f"{self.runtime}/kernel-{CHANNELS[channel]}")
        except OSError:
            connection.close()
            self.send(CLOSE, number, b"")
            return
        self.streams[number] = stream
        self.selector.register(connection, selectors.EVENT_READ, lambda events: self.on_kernel(stream, events))

    # -- the kernel's sockets ---------------------------------------------------------------------------------

    def on_kernel(self, stream: Stream, events: int) -> None:
        if stream.number not in self.streams:
            return  # closed by an earlier event of the same wake-up
        if events & selectors.EVENT_WRITE:
            self.deliver(stream)
        if events & selectors.EVENT_READ and stream.number in self.streams:
            try:
                received = stream.connection.recv(min(MAX_PAYLOAD, stream.may_send))
            except BlockingIOError:
                return
            except OSError:
                received = b""
            if received:
                stream.may_send -= len(received)
                self.send(DATA, stream.number, received)
                if stream.may_send == 0:
                    self.watch(stream)
            else:
                self.close(stream, tell=True)

    def deliver(self, stream: Stream) -> None:
        """Give the kernel what it will take, and credit the link with it."""
        taken = 0
        try:
            while stream.pending:
                piece = stream.pending[0]
                sent = stream.connection.send(piece)
                taken += sent
                if sent == len(piece):
                    stream.pending.popleft()
                else:
                    stream.pending[0] = piece[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self.close(stream, tell=True)
            return
        stream.pending_bytes -= taken
        if taken:
            self.send(CREDIT, stream.number, CREDIT_PAYLOAD.pack(taken))
        self.watch(stream)

    def watch(self, stream: Stream) -> None:
        """Wait for just those events that can be acted on now."""
        wanted = selectors.EVENT_WRITE if stream.pending else 0
        if stream.may_send and not self.writing:
            wanted |= selectors.EVENT_READ
        registered = self.selector.get_map().get(stream.connection)
        if registered is None:
            if wanted:
                self.selector.register(stream.connection, wanted, lambda events: self.on_kernel(stream, events))
        elif not wanted:
            self.selector.unregister(stream.connection)
        elif registered.events != wanted:
            self.selector.modify(stream.connection, wanted, registered.data)

    def close(self, stream: Stream, *, tell: bool) -> None:
        del self.streams[stream.number]
        with contextlib.suppress(KeyError):
            self.selector.unregister(stream.connection)
        stream.connection.close()
        if tell:
            self.send(CLOSE, stream.number, b"")

    # -- the supervisor ---------------------------------------------------------------------------------------

    def on_supervisor(self, _events: int) -> None:
        received = self.supervisor.recv(65536)
        if not received:
            self.running = False
            return
        *lines, self.from_supervisor = (self.from_supervisor + received).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "event" in message:
                self.send(EVENT, 0, line)
            elif message.get("id") == 0:
                hello = {
                    "protocol": PROTOCOL,
                    "connection": message["connection"],
                    "kernel": message["kernel"],
                    "unclaimed": message.get("unclaimed", False),
                }
                self.send(HELLO, 0, json.dumps(hello).encode())
            else:
                self.send(REPLY, 0, line)


def main() -> None:
    """``relay.py RUNTIME_DIR [observe]``: who only looks does not count as company for the session."""
    Relay(sys.argv[1], observe=sys.argv[2:] == ["observe"]).run()


if __name__ == "__main__":
    main()
