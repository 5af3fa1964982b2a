"""A cell's outputs on this process's standard output and standard error, as they come."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

from ..outputs import Display, Error, Output, Result, Stream, strip_escapes, terminal_safe
from ..outputs.escapes import UNFINISHED
from ..outputs.mime import readable_text
from .pictures import PictureFiles, images_in, inline_protocol, inline_sequence

MOST_CHARACTERS = 1_000_000
"""Of one result's text."""
LONGEST_HELD = 256
COLOURS = re.compile(r"\x1b\[[0-9;:]*m")


@dataclass(slots=True)
class Cursor:
    """Where the next character goes."""

    mid_line: bool = False


class SafeStream:
    """Writes text that came out of a container to a stream of this process, without what terminals obey.

    On a terminal colours, carriage returns and backspaces stay; with NO_COLOR set, or on a terminal that has
    none, the colours go. In a file or pipe there are no escape sequences at all.
    """

    def __init__(
        self, stream: TextIO, environment: Mapping[str, str] = os.environ, cursor: Cursor | None = None
    ) -> None:
        """``cursor`` is another stream's where both are the same terminal."""
        self.stream = stream
        self.is_terminal = stream.isatty()
        self.colours = self.is_terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
        self.cursor = cursor or Cursor()
        self._held = ""

    def write(self, text: str) -> None:
        """Write it now. A sequence that it ends in the middle of waits for the rest."""
        text = self._held + text
        self._held = ""
        if (unfinished := UNFINISHED.search(text)) is not None:
            held, text = text[unfinished.start() :], text[: unfinished.start()]
            self._held = held if len(held) <= LONGEST_HELD else ""
        self._put(self.safe(text))

    def write_line(self, text: str) -> None:
        """Write text on lines of its own."""
        self._held = ""
        text = self.safe(text)
        before, after = "\n" if self.cursor.mid_line else "", "" if text.endswith("\n") else "\n"
        self._put(f"{before}{text}{after}")

    def write_raw(self, sequence: str) -> None:
        """Write an escape sequence of our own."""
        self._put(sequence)

    def safe(self, text: str) -> str:
        """The text as this stream may get it."""
        if not self.is_terminal:
            return strip_escapes(text)
        text = terminal_safe(text)
        return text if self.colours else COLOURS.sub("", text)

    def _put(self, text: str) -> None:
        if text:
            self.stream.write(text)
            self.stream.flush()
            self.cursor.mid_line = not text.endswith("\n")


class LiveOutput:
    """Shows each output of a cell when it comes; give it to :meth:`Session.execute` as ``on_output``.

    Streams go where they went in the cell, text of results and displays to standard output, tracebacks to
    standard error. Images become files, each named where it appeared, and are drawn where the terminal can.
    """

    def __init__(
        self,
        stdout: TextIO,
        stderr: TextIO,
        pictures: PictureFiles,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._stdout = SafeStream(stdout, environment)
        one_terminal = self._stdout.is_terminal and stderr.isatty()
        self._stderr = SafeStream(stderr, environment, self._stdout.cursor if one_terminal else None)
        self._pictures = pictures
        self._protocol = inline_protocol(environment) if self._stdout.is_terminal else None
        self.showed_error = False

    def __call__(self, output: Output) -> None:
        """Show one output.

        :raises OSError: standard output is closed, or an image can't be written.
        """
        match output:
            case Stream("stdout", text):
                self._stdout.write(text)
            case Stream(_, text):
                self._stderr.write(text)
            case Display(data, _, display_id):
                self._show(data, display_id)
            case Result(data):
                self._show(data, None)
            case Error(name, value, traceback):
                self.showed_error = True
                self.say("\n".join(traceback) if traceback else f"{name}: {value}")

    @property
    def stdout(self) -> SafeStream:
        """Where its standard output goes, for what belongs between outputs."""
        return self._stdout

    def say(self, text: str) -> None:
        """Something on standard error, on a line of its own."""
        self._stderr.write_line(text)

    def _show(self, data: Mapping[str, object], display_id: str | None) -> None:
        line, drawn = readable_text(data, MOST_CHARACTERS), []
        for mime, content in images_in(data):
            path = self._pictures.save(mime, content, display_id)
            line += f" {path}" if path else " (not written to a file: too many images)"
            if self._protocol and (sequence := inline_sequence(self._protocol, mime, content)):
                drawn.append(sequence)
        if line:
            self._stdout.write_line(line)
        for sequence in drawn:
            self._stdout.write_raw(sequence)
