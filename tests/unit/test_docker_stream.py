"""Taking the engine's multiplexing off an exec stream, however the bytes are cut."""

from __future__ import annotations

import io
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_manager.engine.docker_stream import LAST_WORDS, DockerExecStream, plain_socket
from session_manager.errors import FrameError

OUT, ERR = 1, 2
PATIENCE = 20.0


def chunk(source: int, payload: bytes) -> bytes:
    """As in the Docker Engine API, "Attach to a container", Stream format."""
    return struct.pack("!BxxxI", source, len(payload)) + payload


class Raw:
    """What docker-py gives: an object that holds the socket, and perhaps the response that it came with."""

    def __init__(self, connection: socket.socket, read_ahead: bytes = b"") -> None:
        self._sock = connection
        self.closed = False
        if read_ahead:
            reader = io.BufferedReader(io.BytesIO(read_ahead))
            raw = SimpleNamespace(_fp=SimpleNamespace(fp=reader))
            self._response = SimpleNamespace(raw=raw, close=self.close)

    def close(self) -> None:
        self.closed = True


def connected(read_ahead: bytes = b"") -> tuple[DockerExecStream, socket.socket, Raw]:
    """A stream, the engine's end of it, and what docker-py gave."""
    ours, engines = socket.socketpair()
    engines.settimeout(PATIENCE)
    raw = Raw(ours, read_ahead)
    return DockerExecStream(raw), engines, raw


def read_all(stream: DockerExecStream) -> bytes:
    """What is there now."""
    received = b""
    while True:
        try:
            more = stream.recv()
        except BlockingIOError:
            return received
        if not more:
            return received
        received += more


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


# -- the format ---


@given(
    chunks=st.lists(st.tuples(st.sampled_from([OUT, ERR]), st.binary(max_size=40)), max_size=8),
    cuts=st.lists(st.integers(1, 60), max_size=12),
)
def test_any_cutting_gives_the_same_bytes(chunks: list[tuple[int, bytes]], cuts: list[int]) -> None:
    wire = b"".join(chunk(source, payload) for source, payload in chunks)
    stream, engine, _ = connected()
    with closing(stream), engine:
        received, position = b"", 0
        for cut in [*cuts, len(wire)]:
            engine.sendall(wire[position : position + cut])
            position += cut
            received += read_all(stream)
        assert received == b"".join(payload for source, payload in chunks if source == OUT)
        shown = b"".join(payload for source, payload in chunks if source == ERR)
        assert stream.last_words() == shown.decode(errors="replace")


def test_a_chunk_on_standard_error_alone_is_no_end_of_the_stream() -> None:
    stream, engine, _ = connected()
    with closing(stream), engine:
        engine.sendall(chunk(ERR, b"a warning"))
        with pytest.raises(BlockingIOError):
            stream.recv()
        engine.sendall(chunk(OUT, b"data"))
        assert stream.recv() == b"data"
        assert stream.last_words() == "a warning"


def test_only_the_end_of_standard_error_is_kept() -> None:
    stream, engine, _ = connected()
    with closing(stream), engine:
        for _ in range(100):
            engine.sendall(chunk(ERR, b"x" * 999 + b"\n"))
            assert read_all(stream) == b""
        engine.sendall(chunk(ERR, "the last words: \N{SKULL}".encode()))
        assert read_all(stream) == b""
        words = stream.last_words()
        assert words.endswith("the last words: \N{SKULL}")
        assert len(words.encode()) == LAST_WORDS


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"HTTP/1.1 500 Internal Server Error\r\n", id="not the format"),
        pytest.param(struct.pack("!BxxxI", 0, 3), id="standard input"),
        pytest.param(struct.pack("!BxxxI", 3, 3), id="no such output"),
        pytest.param(struct.pack("!BxxxI", OUT, (1 << 24) + 1), id="too long"),
        pytest.param(struct.pack("!BxxxI", ERR, 2**32 - 1), id="far too long"),
    ],
)
def test_a_bad_header_is_an_error(header: bytes) -> None:
    stream, engine, _ = connected()
    with closing(stream), engine:
        engine.sendall(chunk(OUT, b"good"))
        assert stream.recv() == b"good"
        engine.sendall(header)
        with pytest.raises(FrameError, match="not in its own format"):
            stream.recv()


def test_the_end_of_the_stream_is_empty_and_stays_so() -> None:
    stream, engine, _ = connected()
    with closing(stream):
        engine.sendall(chunk(OUT, b"last") + chunk(OUT, b"cut short")[:10])
        engine.close()
        assert stream.recv() + stream.recv() == b"lastcu"
        assert stream.recv() == b""
        assert stream.recv() == b""


def test_what_came_with_the_headers_is_not_lost() -> None:
    wire = chunk(OUT, b"early and late")
    stream, engine, _ = connected(read_ahead=wire[:13])
    with closing(stream), engine:
        engine.sendall(wire[13:])
        assert stream.recv() == b"early and late"


def test_pieces_are_written_as_they_are_and_as_far_as_they_fit() -> None:
    stream, engine, _ = connected()
    with closing(stream), engine:
        assert stream.send([memoryview(b"ab"), memoryview(b"cd")]) == 4
        assert engine.recv(100) == b"abcd"
        big = memoryview(b"x" * (1 << 22))
        assert 0 < stream.send([big]) < len(big)
        with pytest.raises(BlockingIOError):
            while True:
                stream.send([big])


def test_closing_ends_the_input_of_the_process_and_gives_everything_back() -> None:
    stream, engine, raw = connected()
    with engine:
        descriptor = stream.fileno()
        stream.close()
        assert engine.recv(1) == b""
        assert raw.closed
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


# -- connections that no selector can wait on ---


class Wrapped(socket.socket):
    """Stands for a TLS socket: a kind of socket whose bytes are not those on the wire."""


class SshLike:
    """Stands for docker-py's ssh socket: a command's pipes; its ``recv`` waits until it has it all."""

    def __init__(self, code: str) -> None:
        self.proc = subprocess.Popen([sys.executable, "-uc", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.proc.stdin is not None
        assert self.proc.stdout is not None
        self.stdin, self.stdout = self.proc.stdin, self.proc.stdout

    def recv(self, size: int) -> bytes:
        return self.stdout.read(size)

    def sendall(self, data: bytes) -> None:
        self.stdin.write(data)
        self.stdin.flush()

    def shutdown(self, how: int) -> None:
        raise OSError("not connected")

    def close(self) -> None:
        self.proc.terminate()


def pump_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "docker-exec"]


@pytest.fixture
def wrapped() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The socket that a selector may wait on, and the far end of what is behind it."""
    behind, far = socket.socketpair()
    connection = Wrapped(fileno=behind.detach())
    near = plain_socket(connection)
    near.settimeout(PATIENCE)
    far.settimeout(PATIENCE)
    with near, far:
        yield near, far
    assert wait_until(lambda: not pump_threads()), "a pump outlived its connection"
    assert connection.fileno() == -1


def test_a_plain_socket_is_taken_as_it_is() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert plain_socket(ours) is ours
        assert not pump_threads()


def test_a_pump_carries_bytes_both_ways(wrapped: tuple[socket.socket, socket.socket]) -> None:
    near, far = wrapped
    near.sendall(b"in")
    assert far.recv(100) == b"in"
    far.sendall(b"out")
    assert near.recv(100) == b"out"


def test_a_pump_passes_the_far_end_of_the_stream_on(wrapped: tuple[socket.socket, socket.socket]) -> None:
    near, far = wrapped
    far.sendall(b"last")
    far.close()
    assert near.recv(100) == b"last"
    assert near.recv(100) == b""


def test_a_pump_passes_the_near_end_of_the_stream_on(wrapped: tuple[socket.socket, socket.socket]) -> None:
    near, far = wrapped
    near.sendall(b"last")
    near.close()
    assert far.recv(100) == b"last"
    assert far.recv(100) == b""


def test_an_exec_stream_works_through_a_pump() -> None:
    behind, engine = socket.socketpair()
    engine.settimeout(PATIENCE)
    stream = DockerExecStream(Raw(Wrapped(fileno=behind.detach())))
    with engine:
        engine.sendall(chunk(OUT, b"through"))
        assert select.select([stream], [], [], PATIENCE)[0]
        assert stream.recv() == b"through"
        stream.close()
        assert engine.recv(1) == b""
    assert wait_until(lambda: not pump_threads())


def test_a_command_in_place_of_a_socket_gives_bytes_as_they_come() -> None:
    echo = "import sys\nwhile line := sys.stdin.buffer.readline(): sys.stdout.buffer.write(line.upper())"
    command = SshLike(echo)
    with command.proc:
        with closing(plain_socket(command)) as near:
            near.settimeout(PATIENCE)
            near.sendall(b"ab\n")
            assert near.recv(100) == b"AB\n"
        command.proc.wait(PATIENCE)
        assert wait_until(lambda: not pump_threads())
