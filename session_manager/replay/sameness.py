"""Whether two texts, or two JSON values, say the same, though they were made at another time by another process."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from .normalise import normalise

NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d{1,30}+(?:\.\d{0,30})?+|\.\d{1,30}+)(?:[eE][-+]?\d{1,4}+)?+(?![\w])")
PADDING = re.compile(r"[ \-─━═]{2,}+")
STAMP = re.compile(r"(?<!\d)(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:[.,]\d{1,9}+)?+(?:Z|[+-]00:?00)?+(?!\d)")
CTIME = re.compile(r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) {1,2}+(\d{1,2}+) (\d\d:\d\d:\d\d) (?:UTC )?+(\d{4})(?!\d)")
SLACK = 30.0
"""Seconds that this machine's clock and a container's may differ."""
LONGEST_LITERAL = 100_000
"""Characters of a text that is read as Python's own writing of a value."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much may differ."""

    floats: float = 0.0
    """Relative, of numbers in texts and in JSON; 0 for not at all."""
    images: float = 0.04
    """From 0 to 1: of the most different small part of an image."""
    replayed: tuple[float, float] | None = None
    """Unix times between which the replay ran: a moment in it that a text names is no result."""


def same_text(recorded: str, replayed: str, tolerance: Tolerance, *, markup: bool = False) -> bool:
    """Whether two texts say the same. ``markup``: they are HTML or SVG."""
    texts = normalise(recorded, markup=markup), normalise(replayed, markup=markup)
    one, other = without_now(*texts, tolerance.replayed)
    if one == other or same_literal(one, other, tolerance):
        return True
    lines, others = one.rstrip("\n").split("\n"), other.rstrip("\n").split("\n")
    return len(lines) == len(others) and all(
        line == another or same_line(line, another, tolerance) for line, another in zip(lines, others, strict=True)
    )


def same_line(one: str, other: str, tolerance: Tolerance) -> bool:
    """Whether two lines say the same, by values written in them and by numbers."""
    if same_numbers(one, other, tolerance):
        return True
    cut = [(line.find("{"), line.rfind("}") + 1) for line in (one, other)]
    (start, end), (begin, stop) = cut
    if start < 0 or begin < 0 or end <= start or stop <= begin:
        return False
    return (
        one[:start] == other[:begin]
        and one[end:] == other[stop:]
        and same_literal(one[start:end], other[begin:stop], tolerance)
    )


def same_numbers(one: str, other: str, tolerance: Tolerance) -> bool:
    """Whether two lines differ in numbers alone, and in those by less than the tolerance; padding may follow them."""
    if not tolerance.floats:
        return False
    texts = [PADDING.sub(" ", NUMBER.sub(" # ", line)).split() for line in (one, other)]
    if texts[0] != texts[1]:
        return False
    numbers = [NUMBER.findall(line) for line in (one, other)]
    return all(
        math.isclose(float(a), float(b), rel_tol=tolerance.floats, abs_tol=tolerance.floats * 1e-6)
        for a, b in zip(*numbers, strict=True)
    )


def same_literal(one: str, other: str, tolerance: Tolerance) -> bool:
    """Whether both are Python's writing of equal values: dictionaries and sets in whatever order."""
    if max(len(one), len(other)) > LONGEST_LITERAL or not ("{" in one and "{" in other):
        return False
    try:
        values = ast.literal_eval(one.strip()), ast.literal_eval(other.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    return same_value(*values, tolerance)


def same_value(one: object, other: object, tolerance: Tolerance) -> bool:
    """Whether two values are equal: numbers within the tolerance, dictionaries in whatever order."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_value(one[key], other[key], tolerance) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return (
            type(one) is type(other)
            and len(one) == len(other)
            and all(same_value(a, b, tolerance) for a, b in zip(one, other, strict=True))
        )
    if isinstance(one, bool) or isinstance(other, bool) or not (is_number(one) and is_number(other)):
        return type(one) is type(other) and one == other
    if one != one and other != other:  # not a number, both of them
        return True
    if one == other:
        return True
    return bool(tolerance.floats) and math.isclose(
        float(one),  # type: ignore[arg-type]
        float(other),  # type: ignore[arg-type]
        rel_tol=tolerance.floats,
        abs_tol=tolerance.floats * 1e-6,
    )


def is_number(value: object) -> bool:
    """Whether it can be compared as a number without overflowing one."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 512)


def without_now(recorded: str, replayed: str, span: tuple[float, float] | None) -> tuple[str, str]:
    """Both texts, without the moments of the replay that the second names, and what the first has in their places.

    A date that does not lie in the time of the replay is data, and stays in both.
    """
    if span is None:
        return recorded, replayed
    for form, moment in ((STAMP, iso_moment), (CTIME, ctime_moment)):
        there, here = list(form.finditer(recorded)), list(form.finditer(replayed))
        if len(there) != len(here):
            continue
        now = [(at := moment(found)) is not None and span[0] - SLACK <= at <= span[1] + SLACK for found in here]
        recorded, replayed = (blanked(text, found, now) for text, found in ((recorded, there), (replayed, here)))
    return recorded, replayed


def blanked(text: str, found: list[re.Match[str]], which: list[bool]) -> str:
    """The text with some of what was found in it made one word."""
    for match, blank in reversed(list(zip(found, which, strict=True))):
        if blank:
            text = f"{text[: match.start()]}<now>{text[match.end() :]}"
    return text


def iso_moment(found: re.Match[str]) -> float | None:
    """The Unix time that it says in UTC, which is the time of containers; None where it is none."""
    try:
        return datetime.fromisoformat(f"{found[1]}T{found[2]}+00:00").timestamp()
    except ValueError:
        return None


def ctime_moment(found: re.Match[str]) -> float | None:
    """As :func:`iso_moment`, of what ``time.ctime`` and ``date`` write."""
    try:
        text = f"{found[1]} {found[2]} {found[3]} {found[4]} +0000"
        return datetime.strptime(text, "%b %d %H:%M:%S %Y %z").timestamp()
    except ValueError:
        return None
