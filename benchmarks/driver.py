"""A contender's process, and the questions that it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path

from benchmarks.environments import ROOT, Entrant

IMPORT_SECONDS = 120.0
KEPT = 1 << 20
LEAVE_SECONDS = 60.0


class Failed(Exception):
    """A contender did not start, or failed at what it was asked."""


class Driver:
    """One contender, running from :meth:`open` to :meth:`close`; what it writes beside is kept in ``log``."""

    def __init__(self, entrant: Entrant, python: Path, image: str, log: Path) -> None:
        self._entrant = entrant
        self._python = python
        self._image = image
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def open(self) -> None:
        """Start it, and wait until it has imported all.

        :raises Failed: it ended instead.
        """
        module = f"benchmarks.contenders.{self._entrant.module}"
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(str(self._python), "-m", module, *self._entrant.arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "BENCH_IMAGE": self._image, "PYTHONPATH": str(ROOT)},
                limit=KEPT,
            )
        await self._answer(IMPORT_SECONDS)

    async def ask(self, do: str, timeout: float = 300, **more: int) -> object:
        """Its answer to one question.

        :raises Failed: it says that it failed, says nothing for ``timeout`` seconds, or has ended.
        """
        if self._process is None or self._process.stdin is None:
            raise Failed("it does not run")
        self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await self._process.stdin.drain()
        return await self._answer(timeout)

    async def _answer(self, timeout: float) -> object:
        if self._process is None or self._process.stdout is None:
            raise Failed("it does not run")
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), timeout)
        except TimeoutError:
            await self.close(hurry=True)  # an answer that comes later would be taken for the next one's
            raise Failed(f"no answer within {timeout:g} s") from None
        if not line:
            said = self._log.read_text(errors="replace").strip().splitlines()
            raise Failed(f"it ended: {said[-1] if said else 'without a word'}"[:500])
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["value"]

    async def close(self, *, hurry: bool = False) -> None:
        """End it: it stops what it has started, unless it hangs."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5 if hurry else LEAVE_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
