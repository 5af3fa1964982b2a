"""jupyter_client's client of a kernel, with sockets that lose nothing and accept no message of unbounded size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import zmq
import zmq.asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.connect import KernelConnectionInfo

RECEIVE_QUEUE = 8
"""Messages that wait in this process, each at most the largest accepted: that bounds a session's memory here."""


class KernelClient(AsyncKernelClient):
    """One program's channels to one kernel."""

    max_message_bytes = 0

    def _create_connected_socket(self, channel: str, identity: bytes | None = None) -> Any:
        kind = zmq.SUB if channel == "iopub" else zmq.DEALER
        socket = self.context.socket(kind)
        socket.linger = 0
        # bounded here, and the kernel's publisher waits: nothing is dropped and nothing grows without end
        socket.rcvhwm = RECEIVE_QUEUE
        socket.maxmsgsize = self.max_message_bytes
        socket.sndtimeo = 0  # where there is no connection to send on, a send would block the event loop
        socket.reconnect_ivl = 20
        socket.reconnect_ivl_max = 500
        if identity:
            socket.identity = identity
        socket.connect(self._make_url(channel))
        return socket

    def send(self, channel: str, message: dict[str, Any]) -> bool:
        """Send a message, if that can be done at once; whether it could.

        jupyter_client sends on a plain socket made of the asynchronous one. Whatever came in just then would not wake
        who reads the asynchronous one, not even when more comes.
        """
        frames = self.session.serialize(message)
        sent = getattr(self, f"{channel}_channel").socket.send_multipart(frames, zmq.DONTWAIT)
        error = sent.exception()  # with that flag it is done already
        if error is None:
            return True
        if isinstance(error, zmq.Again):
            return False
        raise error

    def reconnect(self, channel: str) -> None:
        """Connect anew: zmq gives a connection up for good, and says nothing, where a message over the limit came."""
        socket, url = getattr(self, f"{channel}_channel").socket, self._make_url(channel)
        socket.disconnect(url)
        socket.connect(url)


def open_client(connection: Mapping[str, object], most_bytes: int) -> KernelClient:
    """A client with the channels that are used here, each of which accepts messages of at most so many bytes."""
    client = KernelClient(context=zmq.asyncio.Context.instance())
    client.max_message_bytes = most_bytes
    client.load_connection_info(cast(KernelConnectionInfo, connection))
    client.start_channels(stdin=False, hb=False)
    return client
