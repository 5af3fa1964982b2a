"""The supervisor's socket: who is connected, lines of JSON in and out. Standard library only."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers import is_from_outside

MAX_LINE = 65536
MAX_CLIENTS = 500  # far fewer than descriptors


class Client:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.buffer = b""
        self.attached = False
        self.observes = False  # it only looks: for the session's life it is not there
        self.waiting: object = None  # the id of its request for the turn, while another client has it
        self.waiting_since = 0.0


class ControlSocket:
    """Takes connections and their requests.

    ``answer`` gives the fields of the answer to a request, or None where that comes later, by :meth:`send`; ``on_drop``
    is told of each client that is gone.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        answer: Callable[[Client, dict[str, Any]], dict[str, Any] | None],
        on_drop: Callable[[Client], None],
    ) -> None:
        self.selector = selector
        self.answer = answer
        self.on_drop = on_drop
        self.clients: dict[socket.socket, Client] = {}

    def listen(self, path: Path) -> None:
        """Take connections from now on."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(64)
        listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, self.accept)

    def company(self) -> int:
        """How many clients are attached, and not to look alone."""
        return sum(client.attached and not client.observes for client in self.clients.values())

    def accept(self, listener: Any) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            # the code that runs must not have a say here: it could take the turn and never give it back
            if len(self.clients) >= MAX_CLIENTS or (os.getpid() == 1 and not is_from_outside(connection)):
                connection.close()
                return
            connection.setblocking(False)
            self.clients[connection] = Client(connection)
            self.selector.register(connection, selectors.EVENT_READ, self.on_request)

    def on_request(self, connection: Any) -> None:
        client = self.clients[connection]
        try:
            received = connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        client.buffer += received
        if not received or len(client.buffer) > MAX_LINE:
            self.drop(client)
            return
        *lines, client.buffer = client.buffer.split(b"\n")
        for line in lines:
            try:
                request = json.loads(line)
                fields = self.answer(client, request)
                if fields is None:
                    continue
                answer = {"id": request["id"], **fields}
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
                answer = {"id": None, "error": f"bad request: {error!r}"[:500]}
            self.send(client, answer)
            if client.connection not in self.clients:
                return  # it was dropped: what else it asked for must not be given to it

    def tell_attached(self, message: dict[str, Any]) -> None:
        """Send a message to every client that is attached."""
        for client in list(self.clients.values()):
            if client.attached:
                self.send(client, message)

    def send(self, client: Client, message: dict[str, Any]) -> None:
        # a relay always reads; one that does not is broken, and is dropped rather than waited for
        try:
            client.connection.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.drop(client)

    def drop(self, client: Client) -> None:
        if self.clients.pop(client.connection, None):
            self.selector.unregister(client.connection)
            client.connection.close()
            self.on_drop(client)
