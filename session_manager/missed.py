"""What a kernel published while this program was away, put in its place before what comes now.

A publisher forgets what it sends to nobody, so the kernel's process keeps the last of it, and gives it out on the
control channel (``kernel_image/kept_output.py``). Until that is in, what arrives live is held; then it follows, without
what was among the kept already. The two come on connections of their own, so a message may be among the kept and
arrive live a while later. All of it is hostile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

Message = Mapping[str, object]
Ask = Callable[[dict[str, object]], Awaitable[Message]]

MOST_HELD = 1000
MOST_HELD_BYTES = 16 << 20
MOST_PAGES = 10_000
MOST_FETCHED = 20_000
LONGEST_ID = 200


class Missed:
    """Passes messages on to ``take``, in the order in which they were published, and each once."""

    def __init__(self, take: Callable[[Message], None]) -> None:
        self._take = take
        self._held: list[Message] | None = None
        self._held_bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._last: str | None = None
        self._fetched: dict[str, None] = {}
        """Messages that were among the kept, the latest of them: they may come again."""

    def on_message(self, message: Message, size: int) -> None:
        """A message came, of ``size`` bytes."""
        if self._held is None:
            self._pass_on_once(message)
            return
        self._held.append(message)
        self._held_bytes += size
        if len(self._held) >= MOST_HELD or self._held_bytes >= MOST_HELD_BYTES:
            self._room.clear()

    @property
    def is_full(self) -> bool:
        """Whether no more can be held: so much came."""
        return not self._room.is_set()

    async def room(self) -> None:
        """Wait until more can be held: whoever reads the channel asks before each message."""
        await self._room.wait()

    def hold(self) -> None:
        """The connection went, or is not what it should be: keep back what comes until :meth:`fetch` is done."""
        if self._held is None:
            self._held = []

    def release(self) -> None:
        """Pass on what was held: nothing can be fetched any more."""
        held, self._held, self._held_bytes = self._held or [], None, 0
        self._room.set()
        for message in held:
            self._pass_on_once(message)

    async def fetch(self, ask: Ask, *, cell: str | None = None) -> bool:
        """Get what was missed since the last message that came, or all that is kept of one ``cell``; whether that is
        all there was. ``ask`` sends a request of these fields to the kernel, and gives the content of its reply.

        What was held is passed on in the end, whatever happens.
        """
        self.hold()
        try:
            fields: dict[str, object] = {"cell": cell, "start": 0}
            if cell is None and self._last is not None:
                fields = {"after_message": self._last}
            complete = True
            for _ in range(MOST_PAGES):
                page = await ask(fields)
                messages, following = page.get("messages"), page.get("next")
                if not isinstance(messages, list) or not isinstance(following, int):
                    return False
                complete = complete and page.get("gap") is False
                for message in filter(None, map(as_message, messages)):
                    if cell is None:
                        self._pass_on_once(message)
                    else:  # they may be older than what came last
                        self._take(message)
                    self._remember(message_id(message))
                if page.get("whole") is not False:
                    return complete
                fields = {"cell": cell, "start": following}
            return False
        finally:
            self.release()

    def _pass_on_once(self, message: Message) -> None:
        if message_id(message) not in self._fetched:
            self._pass_on(message)

    def _remember(self, fetched: str) -> None:
        if fetched:
            self._fetched[fetched] = None
        if len(self._fetched) > MOST_FETCHED:
            del self._fetched[next(iter(self._fetched))]

    def _pass_on(self, message: Message) -> None:
        self._last = message_id(message) or self._last
        self._take(message)


def as_message(fields: object) -> Message | None:
    """A kept message as jupyter_client would give it; None where it is none."""
    if not isinstance(fields, dict) or not isinstance(header := fields.get("header"), dict):
        return None
    return {**fields, "msg_type": header.get("msg_type")}


def message_id(message: Message) -> str:
    """The id of a message itself; empty where it has none, or none that a kernel would give."""
    header = message.get("header")
    found = header.get("msg_id") if isinstance(header, dict) else None
    return found if isinstance(found, str) and len(found) <= LONGEST_ID else ""
