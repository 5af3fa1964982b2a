"""Open WebUI's tool, facing a container that lies; the rest of it is tested in a real Open WebUI."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "openwebui_tool.py").read_text()


class Liar:
    """A session whose file is without end. Its ``files`` are itself."""

    def __init__(self) -> None:
        self.sent = 0
        self.files = self

    async def stream(self, path: str) -> AsyncIterator[bytes]:
        while True:
            self.sent += 1000
            yield b"x" * 1000


@pytest.fixture
def tool() -> types.ModuleType:
    module = types.ModuleType("tool")
    exec(TEXT, module.__dict__)
    return module


async def test_a_file_without_end_is_read_up_to_the_limit(tool: types.ModuleType) -> None:
    call = tool.Call(tool.Tools.Valves(LARGEST_UPLOAD=10_000), None, None, None, None, "", "")
    session = Liar()
    with pytest.raises(tool.Refusal, match="more than"):
        await call.content_of(session, "endless")
    assert session.sent == 11_000
