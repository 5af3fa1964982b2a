"""The stream of a Docker exec as a non-blocking byte stream."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Sequence
from typing import Any

from ..errors import FrameError

RECEIVE = 262144
STDOUT, STDERR = 1, 2
HEADER = struct.Struct("!BxxxI")
MAX_CHUNK = 1 << 24
"""The engine cuts its chunks at 32 kB; a header that says much more is no header."""
LAST_WORDS = 4096


class DockerExecStream:
    """What ``exec_start(socket=True)`` gave, with the engine's multiplexing taken off.

    Without a TTY the engine puts 8 bytes before each chunk: which output it is, and its length
    (Docker Engine API, "Attach to a container", Stream format).
    """

    def __init__(self, raw: Any) -> None:
        response = getattr(raw, "_response", None)
        self._raw = raw
        self._response = response
        self._socket = plain_socket(getattr(raw, "_sock", raw))
        self._socket.setblocking(False)
        self._buffer = bytearray(early_bytes(response) if self._socket is getattr(raw, "_sock", raw) else b"")
        self._left = 0
        self._source = 0
        self._stderr = b""

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def recv(self) -> bytes:
        """Bytes of the process's standard output. See :meth:`ExecStream.recv`."""
        while True:
            received = self._socket.recv(RECEIVE)
            self._buffer += received
            output = self._demultiplex()
            if output or not received:
                return output

    def _demultiplex(self) -> bytes:
        output: list[bytes] = []
        position = 0
        with memoryview(self._buffer) as view:
            while position < len(view):
                if self._left == 0:
                    if len(view) - position < HEADER.size:
                        break
                    self._source, self._left = HEADER.unpack_from(view, position)
                    if self._source not in (STDOUT, STDERR) or self._left > MAX_CHUNK:
                        raise FrameError("The engine's exec stream is not in its own format.")
                    position += HEADER.size
                chunk = bytes(view[position : position + self._left])
                position += len(chunk)
                self._left -= len(chunk)
                if self._source == STDOUT:
                    output.append(chunk)
                else:
                    self._stderr = (self._stderr + chunk)[-LAST_WORDS:]
        del self._buffer[:position]
        return b"".join(output) if len(output) != 1 else output[0]

    def send(self, pieces: Sequence[memoryview]) -> int:
        """See :meth:`ExecStream.send`."""
        return self._socket.sendmsg(pieces)

    def last_words(self) -> str:
        """The end of the relay's standard error."""
        return self._stderr.decode(errors="replace")

    def close(self) -> None:
        """See :meth:`ExecStream.close`."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._response is not None:
            self._response.close()  # which closes what it made: reader, raw stream, socket
        self._socket.close()
        self._raw.close()


def early_bytes(response: Any) -> bytes:
    """What the HTTP client read ahead of the stream's own bytes, together with the headers."""
    reader = getattr(getattr(getattr(response, "raw", None), "_fp", None), "fp", None)
    if reader is None or not hasattr(reader, "read1"):
        return b""
    # the socket does not block by now: this takes what was buffered, or nothing
    return bytes(reader.read1(RECEIVE) or b"")


def plain_socket(connection: Any) -> socket.socket:
    """A socket that a selector can wait on: the connection itself, or a local pair that two threads pump.

    TLS keeps decrypted bytes where no selector sees them, and an ssh channel is no socket at all.
    """
    if type(connection) is socket.socket:
        return connection
    ours, theirs = socket.socketpair()

    def pump(receive: Any, send: Any) -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: what a command's closed pipe says
            while chunk := receive(65536):
                send(chunk)
        for end in (theirs, connection):
            # a close alone does not wake the other thread, whose receive keeps the connection open
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError, ValueError):
                end.close()

    # docker-py's ssh command looks like a socket whose recv waits until it has all it was asked for
    command = getattr(connection, "proc", None)
    if command is None:
        connection.setblocking(True)
    receive_from = connection.recv if command is None else command.stdout.read1
    for receive, send in ((receive_from, theirs.sendall), (theirs.recv, connection.sendall)):
        threading.Thread(target=pump, args=(receive, send), name="docker-exec", daemon=True).start()
    return ours
