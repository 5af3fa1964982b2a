"""Terminal escape sequences: taking them out of text, in time linear in its length.

The grammar is ECMA-48's (control functions) with xterm's string terminators. Each alternative below either
ends at the next character that could begin a sequence or consumes what it looked at, so no input makes the
search look twice.
"""

from __future__ import annotations

import re

# An operating system command that nobody ended hides at most the rest of its line, not all that comes after.
# Other strings (sixel, kitty images) run over lines, but only where their end is really there.
ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*+[ -/]*+[@-~]?"
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c\x9d\r\n]*+(?:\x07|\x1b\\|\x9c)?"
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])"
    r"(?:[^\x1b\x90\x98\x9c-\x9f]*+(?:\x1b\\|\x9c)|[^\x07\x1b\x90\x98\x9c-\x9f\r\n]*+)"
    r"|\x1b[ -/]*+[0-~]?"
)

# A sequence that the next chunk of the stream may complete.
UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*+[ -/]*+|\][^\x07\x1b\r\n]*+|[ -/]*+)\Z")

_SGR = re.compile(r"\x1b\[[0-9;:]*+m")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]+")
_CONTROL_BUT_MOVES = re.compile(r"[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]+")


def is_sgr(sequence: str) -> bool:
    """Whether the escape sequence is one that sets colours and weights (SGR)."""
    return _SGR.fullmatch(sequence) is not None


def strip_escapes(text: str) -> str:
    """The text without terminal escape sequences and without control characters other than newline and tab.

    A carriage return becomes a newline, unless one follows it anyway.
    """
    if not _CONTROL.search(text):
        return text
    text = ESCAPE.sub("", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("", text)


def terminal_safe(text: str) -> str:
    """The text for a person's terminal: colours, carriage returns and backspaces stay, other controls go.

    Output of a cell could otherwise set the window's title, write to the clipboard, or make the terminal
    answer as if typed. A sequence cut by a chunk's end can't slip through: its beginning is taken out of the
    first chunk.
    """
    if not _CONTROL_BUT_MOVES.search(text) and "\x1b" not in text:
        return text
    text = ESCAPE.sub(lambda match: match[0] if is_sgr(match[0]) else "", text)
    return _CONTROL_BUT_MOVES.sub("", text)
