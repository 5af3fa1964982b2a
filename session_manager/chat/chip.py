"""One block of a page that shows a cell as it runs: code, output so far, files. It is sent whole, and not too often."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from ..outputs import Error, Output, OutputLog, Stream, text_for_model, to_nbformat

INTERVAL: Final = 0.5
"""Seconds between two states that are sent."""
MOST_CHARS: Final = 8_000
"""Of the output that is shown; the model and the notebook get more."""
KEPT_BYTES: Final = 1 << 20

Show = Callable[[Mapping[str, object]], Awaitable[None]]
"""Sends a state to the page: ``output``, ``error`` and ``files``, each where there is one."""


class LiveChip:
    """The states of one cell. Use it as an async context manager around the cell; its ``on_output`` is the session's.

    ::

        async with LiveChip(show, code) as chip:
            run = await session.execute(code, on_output=chip.on_output)
            await chip.end(files)
    """

    def __init__(self, show: Show, code: str, interval: float = INTERVAL) -> None:
        self._show = show
        self._code = code
        self._interval = interval
        self._log = OutputLog(KEPT_BYTES)
        self._changed = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None
        self._error: Error | None = None

    async def __aenter__(self) -> LiveChip:
        await self._show({})
        self._sending = asyncio.create_task(self._send_changes())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])

    def on_output(self, output: Output) -> None:
        """The cell put something out."""
        if isinstance(output, Error):
            self._error = output
        else:
            kind = "stream" if isinstance(output, Stream) else "display_data"
            content = {name: value for name, value in to_nbformat(output).items() if name != "output_type"}
            self._log.apply(kind, content)
        self._changed.set()

    def state(self, message: str | None = None, files: Sequence[Mapping[str, str]] = ()) -> Mapping[str, object]:
        """What there is to show: ``message`` is how it ended, where that was badly; ``files``: name and url of each."""
        shown: dict[str, object] = {}
        if output := text_for_model(self._log.outputs, max_chars=MOST_CHARS, code=self._code):
            shown["output"] = output
        if self._error is not None:
            shown["error"] = text_for_model([self._error], max_chars=MOST_CHARS, code=self._code)
        elif message:
            shown["error"] = message
        if files:
            shown["files"] = list(files)
        return shown

    async def end(self, message: str | None = None, files: Sequence[Mapping[str, str]] = ()) -> None:
        """Send the last state."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])
        await self._show(self.state(message, files))

    async def _send_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._show(self.state())
            await asyncio.sleep(self._interval)
