"""Files of a chat in Open WebUI, facing a container that lies; all else about them is tested in a real Open WebUI."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from session_manager.chat.open_webui_files import Refusal, content_of


class Liar:
    """A session whose file is without end. Its ``files`` are itself."""

    def __init__(self) -> None:
        self.sent = 0
        self.files = self

    async def stream(self, path: str) -> AsyncIterator[bytes]:
        while True:
            self.sent += 1000
            yield b"x" * 1000


async def test_a_file_without_end_is_read_up_to_the_limit() -> None:
    session = Liar()
    with pytest.raises(Refusal, match="larger than 10000 bytes"):
        await content_of(cast(Any, session), "endless", 10_000)
    assert session.sent == 11_000
