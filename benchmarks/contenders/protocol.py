"""What every contender can be asked, as lines of JSON; needs nothing beyond the standard library.

======================================  ====================================================================
``{"do": "prepare"}``                   whatever a program does ahead of need; not timed
``{"do": "start"}``                     seconds from nothing to the first result
``{"do": "cells", "count": N}``         a list of seconds, one for each trivial cell
``{"do": "text", "megabytes": M}``      seconds until that much text has come out
``{"do": "plot"}``                      seconds for a scatter plot of 10,000 points, as PNG
``{"do": "stop"}``                      ends the session, and its containers; not timed
======================================  ====================================================================

An answer is ``{"value": ...}`` or ``{"error": ...}``. The first line, ``{"value": "ready"}``, comes by itself once
all is imported: what Python takes to import a contender is in none of its figures.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any, Protocol, TextIO

TRIVIAL = "x = 1"
FIRST = "print(6 * 7)"
FLOOD = "for _ in range({megabytes}): print('y' * 999_999)"
PLOT = """
import base64, io
import numpy
import matplotlib.pyplot
figure, axes = matplotlib.pyplot.subplots()
axes.scatter(*numpy.random.default_rng(7).random((2, 10_000)), s=2)
picture = io.BytesIO()
figure.savefig(picture, format="png")
matplotlib.pyplot.close(figure)
print("picture:" + base64.b64encode(picture.getvalue()).decode())
"""
PNG_BEGINS = "picture:iVBORw0KGgo"


class Contender(Protocol):
    """One way to run code."""

    async def prepare(self) -> None:
        """What is done ahead of need."""

    async def start(self) -> None:
        """Bring up a session."""

    async def run(self, code: str) -> str:
        """Run a cell to its end; the text that it printed.

        :raises Exception: it failed, or can't be run.
        """

    async def stop(self) -> None:
        """End the session and its container; also where it never started, or did so in part."""

    async def leave(self) -> None:
        """Leave nothing behind: the last that is called."""


class Asked:
    """One contender, and what it is asked."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender

    async def answer(self, question: dict[str, Any]) -> object:
        """What is measured.

        :raises Exception: the contender failed, or its answer is not what the code prints.
        """
        match question["do"]:
            case "prepare":
                await self._contender.prepare()
                return None
            case "start":
                return await self._start()
            case "cells":
                return [await self._seconds(TRIVIAL) for _ in range(question["count"])]
            case "text":
                return await self._text(question["megabytes"])
            case "plot":
                return await self._seconds(PLOT, PNG_BEGINS)
            case "stop":
                await self._contender.stop()
                return None
        raise ValueError(f"unknown: {question}")

    async def _start(self) -> float:
        begin = time.perf_counter()
        await self._contender.start()
        printed = await self._contender.run(FIRST)
        seconds = time.perf_counter() - begin
        if "42" not in printed:
            raise RuntimeError(f"the first cell printed {printed[:200]!r}")
        return seconds

    async def _seconds(self, code: str, expected: str = "") -> float:
        begin = time.perf_counter()
        printed = await self._contender.run(code)
        seconds = time.perf_counter() - begin
        if expected not in printed:
            raise RuntimeError(f"the cell printed {printed[:200]!r}")
        return seconds

    async def _text(self, megabytes: int) -> float:
        begin = time.perf_counter()
        printed = await self._contender.run(FLOOD.format(megabytes=megabytes))
        seconds = time.perf_counter() - begin
        if printed.count("y") < megabytes * 999_999:
            raise RuntimeError(f"of {megabytes} MB only {printed.count('y') / 1e6:.1f} MB came out")
        return seconds


def own_output() -> TextIO:
    """The stream for answers; whatever libraries print goes to the standard error from now on."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


async def _serve(contender: Contender, answers: TextIO) -> None:
    def say(answer: dict[str, object]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    asked = Asked(contender)
    say({"value": "ready"})
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                say({"value": await asked.answer(json.loads(line))})
            except Exception as error:
                say({"error": f"{type(error).__name__}: {error}"[:2000]})
    finally:
        await contender.stop()
        await contender.leave()


def serve(contender: Contender) -> None:
    """Answer until the standard input ends, and leave nothing behind."""
    asyncio.run(_serve(contender, own_output()))
