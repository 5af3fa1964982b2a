"""The current line of a stream, on which carriage returns and backspaces act as on a terminal."""

from __future__ import annotations

import re
from itertools import groupby

from .escapes import ESCAPE, UNFINISHED, is_sgr

_MOVE = re.compile(r"[\r\x08]")
_TOKEN = re.compile(rf"\r+|\x08+|{ESCAPE.pattern}|[^\r\x08\x1b\x90\x98\x9b\x9d-\x9f]+|[\s\S]")
_RESET = "\x1b[0m"
_MAX_PEN = 128
_MAX_UNFINISHED = 256


def moves_back(text: str) -> bool:
    """Whether the text holds a carriage return or a backspace."""
    return "\r" in text or "\x08" in text  # a search for either takes fifty times as long


class TerminalLine:
    """Turns chunks of a stream into finished text, keeping only the line that can still change.

    Most chunks hold neither carriage return nor backspace and are passed on as they are. From the first of
    those to the end of its line, the line is kept as cells: a character each, with the colours it was written
    in. A line over ``max_chars`` is finished in parts, as a terminal wraps it: a carriage return goes back to
    the start of the last part. So an endless line, or an endless flood of carriage returns, takes bounded
    memory.
    """

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._start_line()

    def _start_line(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._in_cells = False
        self._cells: list[str] = []
        self._pens: list[str] = []
        self._cursor = 0
        self._pen = ""
        self._unfinished = ""

    def feed(self, chunk: str) -> str:
        """Takes a chunk; returns the text that is finished by it, and can't change any more."""
        if not self._in_cells and not moves_back(chunk):
            return self._feed_plain(chunk)
        # A carriage return right before a newline moves to a place where nothing is written.
        chunk = chunk.replace("\r\n", "\n")
        finished: list[str] = []
        position = 0
        while position < len(chunk):
            if self._in_cells:
                newline = chunk.find("\n", position)
                end = newline if newline >= 0 else len(chunk)
                self._overwrite(chunk[position:end])
                if newline >= 0:
                    finished.append(self.finish() + "\n")
                elif len(self._cells) > self._max_chars:
                    finished.append(self.finish())
                position = end + 1
                continue
            move = _MOVE.search(chunk, position)
            start = chunk.rfind("\n", position, move.start()) + 1 if move else len(chunk)
            if start > position:
                finished.append(self._feed_plain(chunk[position:start]))
                position = start
            if move:
                self._enter_cells()
        return "".join(finished)

    def finish(self) -> str:
        """Ends the line: returns what is on it and starts an empty one."""
        text = self.text()
        self._start_line()
        return text

    def text(self) -> str:
        """What is on the line now."""
        if not self._in_cells:
            return "".join(self._pieces)
        if not any(self._pens):
            return "".join(self._cells) + self._pen
        parts: list[str] = []
        current = ""
        cells = iter(self._cells)
        for pen, group in groupby(self._pens):
            parts.append(_change_pen(current, pen))
            parts.extend(next(cells) for _ in group)
            current = pen
        parts.append(_change_pen(current, self._pen))
        return "".join(parts)

    def _feed_plain(self, chunk: str) -> str:
        newline = chunk.rfind("\n") + 1
        finished = ""
        if newline:
            finished = "".join(self._pieces) + chunk[:newline]
            self._pieces, self._length = [], 0
            chunk = chunk[newline:]
        if chunk:
            self._pieces.append(chunk)
            self._length += len(chunk)
            if self._length > self._max_chars:
                finished += self.finish()
        return finished

    def _enter_cells(self) -> None:
        line = "".join(self._pieces)
        self._start_line()
        self._in_cells = True
        self._overwrite(line)

    def _overwrite(self, text: str) -> None:
        """Writes text without newlines at the cursor."""
        if self._unfinished:
            text, self._unfinished = self._unfinished + text, ""
        if "\x1b" not in text and "\x08" not in text and "\x9b" not in text:
            self._write_returns(text)
            return
        unfinished = UNFINISHED.search(text)
        if unfinished:
            text = text[: unfinished.start()]
            # One that goes on for ever is no sequence worth waiting for.
            self._unfinished = unfinished[0] if len(unfinished[0]) <= _MAX_UNFINISHED else ""
        for token in _TOKEN.finditer(text):
            first = token[0][0]
            if first == "\r":
                self._cursor = 0
            elif first == "\x08":
                self._cursor = max(0, self._cursor - len(token[0]))
            elif first == "\x1b" or first in "\x90\x98\x9b\x9d\x9e\x9f":
                self._obey(token[0])
            else:
                self._write(token[0])

    def _write_returns(self, text: str) -> None:
        """Writes text in which nothing but carriage returns is special, in time linear in its length."""
        first, *others = text.split("\r")
        self._write(first)
        if not others:
            return
        # The last part lies on top; of an earlier one shows only what is longer than all that came after it.
        visible = others[-1]
        for part in reversed(others[:-1]):
            if len(part) > len(visible):
                visible += part[len(visible) :]
        self._cursor = 0
        self._write(visible)
        self._cursor = len(others[-1])

    def _write(self, text: str) -> None:
        end = self._cursor + len(text)
        missing = self._cursor - len(self._cells)
        if missing > 0:
            self._cells.extend(" " * missing)
            self._pens.extend([""] * missing)
        self._cells[self._cursor : end] = text
        self._pens[self._cursor : end] = [self._pen] * len(text)
        self._cursor = end

    def _obey(self, sequence: str) -> None:
        """Acts on colours and on "erase in line"; other sequences have no place in a line of cells."""
        if is_sgr(sequence):
            if sequence in ("\x1b[m", _RESET):
                self._pen = _RESET
            elif sequence.startswith("\x1b[0;"):
                self._pen = sequence[:_MAX_PEN]
            elif len(self._pen) + len(sequence) <= _MAX_PEN:
                self._pen += sequence
        elif sequence in ("\x1b[K", "\x1b[0K"):
            del self._cells[self._cursor :], self._pens[self._cursor :]
        elif sequence == "\x1b[2K":
            self._cells.clear()
            self._pens.clear()


def _change_pen(old: str, new: str) -> str:
    if old == new:
        return ""
    return new if new.startswith((_RESET, "\x1b[0;")) or not old else _RESET + new
