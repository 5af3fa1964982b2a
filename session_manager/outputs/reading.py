"""What a language model reads of a cell's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .escapes import strip_escapes
from .mime import count_chars, readable_text
from .tracebacks import readable_traceback
from .typed import Display, Error, Output, Result, Stream

MIN_CHARS = 200
# Room for the marker of what was left out of the output, beside an error that takes all it may.
_MARKER_ROOM = 90


@dataclass(frozen=True, slots=True)
class _Excerpt:
    """A text, or the beginning and the end of one with the number of characters missing between."""

    head: str
    missing: int = 0
    tail: str = ""

    @property
    def length(self) -> int:
        return len(self.head) + self.missing + len(self.tail)


def text_for_model(outputs: Sequence[Output], *, max_chars: int = 20_000, code: str | None = None) -> str:
    """The outputs as one text of at most ``max_chars`` characters.

    Without escape sequences and control characters; of a mime bundle the text that reads best, pictures as
    one line with type and size; an error last, as a traceback that points at the user's line. From a text
    that is too long the middle is left out, and a marker says how much; the error is kept whole as long as it
    fits in three quarters of the limit. ``code`` is the cell's source, which some tracebacks need. Raises
    ValueError for ``max_chars`` under 200.
    """
    if max_chars < MIN_CHARS:
        raise ValueError(f"max_chars is at least {MIN_CHARS}")
    last_error = next((at for at in range(len(outputs) - 1, -1, -1) if isinstance(outputs[at], Error)), None)
    # Whatever came after the error came from a thread, and must not push the error away from the end.
    others = [output for at, output in enumerate(outputs) if at != last_error]
    body = _excerpt_of_all(others, max_chars)
    if last_error is None:
        return _clip(body, max_chars, max_chars)
    room = max_chars if not body.length else min(max_chars * 3 // 4, max_chars - _MARKER_ROOM)
    error = _clip(_excerpt(outputs[last_error], max_chars, code), room, max_chars)
    if not body.length:
        return error
    return f"{_clip(body, max_chars - len(error) - 1, max_chars)}\n{error}"


def _excerpt_of_all(outputs: Sequence[Output], max_chars: int) -> _Excerpt:
    """The outputs one below the other, reading no more of them from either end than can be shown."""
    front = _read_enough(outputs, max_chars)
    rest = outputs[len(front) :]
    back = _read_enough(rest[::-1], max_chars)
    unread = sum(_length_unread(output) for output in rest[: len(rest) - len(back)])
    excerpts = [excerpt for excerpt in (*front, _Excerpt("", unread), *reversed(back)) if excerpt.length]
    head: list[str] = []
    tail: list[str] = []
    missing = 0
    for excerpt in excerpts:
        if not missing:
            head.append(excerpt.head)
            missing, tail = excerpt.missing, [excerpt.tail] if excerpt.tail else []
        elif excerpt.missing:
            missing += sum(len(text) for text in tail) + len(excerpt.head) + excerpt.missing
            tail = [excerpt.tail]
        else:
            tail.append(excerpt.head)
    return _Excerpt(_join(head), missing, _join(tail))


def _read_enough(outputs: Sequence[Output], max_chars: int) -> list[_Excerpt]:
    excerpts: list[_Excerpt] = []
    length = 0
    for output in outputs:
        excerpts.append(_excerpt(output, max_chars))
        length += excerpts[-1].length
        if length > max_chars:
            break
    return excerpts


def _join(texts: list[str]) -> str:
    lines = [text if text.endswith("\n") else f"{text}\n" for text in texts if text]
    return "".join(lines).rstrip("\n")


def _length_unread(output: Output) -> int:
    match output:
        case Stream(_, text):
            return len(text)
        case Display(data) | Result(data):
            return count_chars(data)
        case Error(name, value):
            return len(name) + len(value)


def _excerpt(output: Output, max_chars: int, code: str | None = None) -> _Excerpt:
    match output:
        case Stream(_, text):
            pass
        case Display(data) | Result(data):
            text = readable_text(data, max_chars)
        case Error():
            text = readable_traceback(output, code)
    # Escape sequences have no width, so more is read than can be shown; but not all of a text of megabytes.
    reach = 8 * max_chars
    if len(text) <= 2 * reach:
        return _Excerpt(_plain(text))
    return _Excerpt(_plain(text[:reach]), len(text) - 2 * reach, _plain(text[-reach:]))


def _plain(text: str) -> str:
    text = strip_escapes(text)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _clip(excerpt: _Excerpt, room: int, limit: int) -> str:
    if excerpt.length <= room and not excerpt.missing:
        return excerpt.head
    head, tail = excerpt.head, excerpt.tail if excerpt.missing else excerpt.head
    marker = f"… {excerpt.length} characters left out (limit {limit}) …"
    space = max(0, room - len(marker) - 2)
    head = _whole_lines(head[: space // 2])
    tail = tail[len(tail) - (space - space // 2) :] if len(tail) > space - space // 2 else tail
    marker = f"… {excerpt.length - len(head) - len(tail)} characters left out (limit {limit}) …"
    return "\n".join(filter(None, (head, marker, tail)))


def _whole_lines(text: str) -> str:
    """The text up to its last newline, if that is near its end."""
    newline = text.rfind("\n")
    return text[:newline] if newline >= len(text) * 3 // 4 and newline > 0 else text
