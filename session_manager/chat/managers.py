"""The session managers of a process that serves chats: one for each settings, found again by whoever has those.

They belong to this package and not to a tool: a page that is given the tool's text anew, or changed valves, makes a new
tool, and the sessions of its chats go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from ..errors import SandboxError
from ..manager import SessionManager
from ..settings import Settings

logger = logging.getLogger(__name__)

MOST = 4
"""Managers that are kept. One that is let go of leaves its sessions to the next."""


@dataclass(slots=True, eq=False)
class ChatManager:
    """A session manager, and what it says of an image that it builds."""

    manager: SessionManager
    loop: asyncio.AbstractEventLoop
    users: int = 0
    last_words: list[str] = field(default_factory=list)

    @property
    def step(self) -> str:
        """What it is doing about the image, in a line; "" where nothing was to be done."""
        return self.last_words[-1] if self.last_words else ""


_managers: dict[str, ChatManager] = {}


@asynccontextmanager
async def chat_manager(settings: Settings) -> AsyncIterator[ChatManager]:
    """The manager of these settings, for one call. Others that no call uses are let go of, the oldest first."""
    loop = asyncio.get_running_loop()
    key = settings.model_dump_json()
    found = _managers.get(key)
    if found is None or found.loop is not loop:
        words: list[str] = []
        found = ChatManager(SessionManager(settings, progress=words.append), loop, last_words=words)
    _managers.pop(key, None)
    _managers[key] = found  # the newest is last
    found.users += 1
    try:
        yield found
    finally:
        found.users -= 1
        await _let_go(loop)


async def _let_go(loop: asyncio.AbstractEventLoop) -> None:
    for key, one in list(_managers.items()):
        if len(_managers) <= MOST:
            return
        if one.users == 0 and one.loop is loop:
            del _managers[key]
            try:
                await one.manager.detach()
            except SandboxError as error:
                logger.warning("a session manager could not be let go of: %s", error)


async def close_all() -> None:
    """Let go of every manager of this event loop; their sessions live on."""
    loop = asyncio.get_running_loop()
    for key, one in list(_managers.items()):
        if one.loop is loop:
            del _managers[key]
            await one.manager.detach()
