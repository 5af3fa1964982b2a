"""An IPython traceback cut down to what leads to the user's line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from .escapes import strip_escapes
from .typed import Error

_MAX_LINE_CHARS = 300
_MAX_OWN_FRAMES = 12
_MAX_LIBRARY_FRAMES = 4
_CONTEXT_LINES = 2

_RULE = re.compile(r"-{20,}")
_HEADING = re.compile(r"(\S+ +)?Traceback \(most recent call last\):?")
_FRAME = re.compile(r"(?:(?P<cell>(?:Cell|Input) In ?\[\d+\])|File (?P<path>.+):(?P<line>\d+))(?P<rest>(?:,| in ).*)?")
_LIBRARY_PATH = re.compile(r".*/(?:site-packages|dist-packages|lib(?:64)?/python3(?:\.\d+)?)/")
_NO_MESSAGE = re.compile(r"[\w.]{0,200}(?:Error|Exception|Interrupt|Exit|Iteration|Warning):")
_NO_SOURCE = "Could not get source, probably due dynamically evaluated source code."


@dataclass(slots=True)
class _Frame:
    header: str
    is_library: bool
    body: list[str] = field(default_factory=list)


def readable_traceback(error: Error, code: str | None = None) -> str:
    """The error as text: frames of the user's code with their lines, one line for each frame of a library.

    Repeated frames and long runs of library frames are counted instead of shown. The last line is the
    exception's. ``code`` is the cell's source; with it, lines below a ``%%time`` can be shown, which the
    kernel can't.
    """
    parts: list[str] = []
    for is_library, group in groupby(_parse(error.traceback, code), key=_library_frame):
        shorten = _library_lines if is_library else _own_lines
        parts.extend(shorten(group))
    text = "\n".join(parts).strip("\n")
    name = strip_escapes(error.name)
    if any(line.startswith(name) for line in text.split("\n")):
        return text
    last = f"{name}: {strip_escapes(error.value)}" if error.value.strip() else name
    return f"{text}\n{last}" if text else last


def _library_frame(part: _Frame | str) -> bool:
    return isinstance(part, _Frame) and part.is_library


def _parse(items: Iterable[str], code: str | None) -> Iterator[_Frame | str]:
    """The parts of a traceback in their order: frames, and lines that belong to none."""
    for item in items:
        frame: _Frame | None = None
        after_frame = False
        for line in strip_escapes(item).strip("\n").split("\n"):
            line = line.rstrip()
            if (found := _FRAME.fullmatch(line.strip()[:_MAX_LINE_CHARS])) is not None:
                if frame is not None:
                    yield frame
                frame = _start_frame(found, code)
            elif frame is not None and line and (not line[0].isalpha() or line.lstrip() == _NO_SOURCE):
                if _NO_SOURCE not in line:
                    frame.body.append(line)
            else:
                after_frame = frame is not None or (after_frame and not line)
                if frame is not None:
                    yield frame
                    frame = None
                if after_frame and not line:
                    continue
                if _HEADING.fullmatch(line):
                    yield "Traceback (most recent call last):"
                elif not _RULE.fullmatch(line):
                    yield line.removesuffix(":") if _NO_MESSAGE.fullmatch(line) else line
        if frame is not None:
            yield frame


def _start_frame(found: re.Match[str], code: str | None) -> _Frame:
    rest = found["rest"] or ""
    if found["cell"]:
        return _Frame(f"{found['cell']}{rest}", is_library=False)
    path, number = found["path"], int(found["line"][:9])
    short = _LIBRARY_PATH.sub("…/", path)
    # Paths of compiled modules are relative; those of the user's own modules are absolute or begin with ~.
    is_library = short != path or not path.startswith(("/", "~", "<"))
    if is_library:
        rest = rest.split("(", 1)[0]
    frame = _Frame(f"File {short}:{number}{rest}", is_library)
    if path == "<timed exec>":
        frame.body.extend(_lines_below_magic(code, number))
    return frame


def _lines_below_magic(code: str | None, number: int) -> list[str]:
    """A line of code that a cell magic ran, counted from below the magic, with what surrounds it."""
    lines = (code or "").lstrip("\n").split("\n")
    if not lines[0].startswith("%%") or not 0 < number < len(lines):
        return []
    first, last = max(1, number - _CONTEXT_LINES), min(len(lines) - 1, number + _CONTEXT_LINES)
    return [f"{'----> ' if at == number else '      '}{at} {lines[at]}" for at in range(first, last + 1)]


def _library_lines(frames: Iterable[_Frame | str]) -> Iterator[str]:
    headers = [frame.header for frame in frames if isinstance(frame, _Frame)]
    half = _MAX_LIBRARY_FRAMES // 2
    yield from _with_middle_counted(headers, half, "more frames of libraries")


def _own_lines(parts: Iterable[_Frame | str]) -> Iterator[str]:
    for is_frame, group in groupby(parts, key=lambda part: isinstance(part, _Frame)):
        if not is_frame:
            yield from (str(line) for line in group)
            continue
        blocks: list[str] = []
        for text, same in groupby(_frame_text(part) for part in group if isinstance(part, _Frame)):
            blocks.append(text)
            repeats = sum(1 for _ in same) - 1
            if repeats:
                blocks.append(f"… the frame above {repeats} more times …")
        yield from _with_middle_counted(blocks, _MAX_OWN_FRAMES // 2, "more frames")


def _frame_text(frame: _Frame) -> str:
    body = (line if len(line) <= _MAX_LINE_CHARS else f"{line[:_MAX_LINE_CHARS]}…" for line in frame.body)
    return "\n".join((frame.header, *body))


def _with_middle_counted(blocks: list[str], half: int, what: str) -> Iterator[str]:
    if len(blocks) <= 2 * half + 1:
        yield from blocks
        return
    yield from blocks[:half]
    yield f"… {len(blocks) - 2 * half} {what} …"
    yield from blocks[-half:]
