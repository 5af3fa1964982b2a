"""Whose cells may run: one client's at a time, in the order of asking. Standard library only."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

TURN_SECONDS = 2.0  # how long a client that runs nothing may sit on the turn while another waits
LOOK_SECONDS = 0.05  # between looks at whether a cell that nobody holds the turn for has ended


class Waiter(Protocol):
    """What the queue keeps of a client."""

    waiting: object
    waiting_since: float


class Turns:
    """Who has the turn, and who waits for it.

    ``is_busy`` says whether something runs in the kernel: a cell whose client is gone, or was never asked for here,
    keeps the turn from everybody until it has ended. ``send`` gives a client a message, and may drop the client.
    """

    def __init__(self, is_busy: Callable[[], bool], send: Callable[[Any, dict[str, Any]], None]) -> None:
        self.holder: Any = None  # a client keeps the turn until another asks
        self.queue: list[Any] = []
        self.wanted = 0.0  # since when another has asked for the holder's turn
        self.is_busy = is_busy
        self.send = send

    def acquire(self, client: Waiter, request: object) -> dict[str, Any] | None:
        """Give the turn, now ({}) or when it is free (None); tell who has it that it is wanted."""
        if self.holder is client or (self.holder is None and not self.queue and not self.is_busy()):
            self.holder = client
            return {}
        if client not in self.queue:
            client.waiting_since = time.monotonic()
            self.queue.append(client)
        client.waiting = request
        if self.holder is not None:
            self.wanted = self.wanted or time.monotonic()
            self.send(self.holder, {"event": "turn wanted"})
        return None

    def release(self, client: Waiter) -> None:
        """The turn, or the wait for it, is given up; whoever has waited longest gets it."""
        if client in self.queue:
            self.queue.remove(client)
            client.waiting = None
        if self.holder is client:
            self.holder, self.wanted = None, 0.0
            self.grant()

    def grant(self) -> None:
        """Give a turn that nobody has, once nothing runs."""
        if self.holder is not None or not self.queue or self.is_busy():
            return
        client = self.queue.pop(0)
        request, client.waiting = client.waiting, None
        self.holder = client
        self.send(client, {"id": request})
        if self.queue and self.holder is not None:
            self.wanted = time.monotonic()
            self.send(self.holder, {"event": "turn wanted"})

    def tick(self) -> None:
        """Take the turn from a client that keeps it though it runs nothing: its program is stopped, or stuck."""
        self.grant()
        holder = self.holder
        if holder and self.wanted and not self.is_busy() and time.monotonic() - self.wanted > TURN_SECONDS:
            self.send(holder, {"event": "turn lost"})
            if self.holder is holder:  # who could not be told was dropped, and the next has the turn already
                self.release(holder)

    def pause(self) -> float:
        """How long until :meth:`tick` may have something to do, in seconds."""
        if self.queue and self.holder is None:
            return LOOK_SECONDS
        return TURN_SECONDS if self.wanted else float("inf")
