"""A bound on what JSON may hold: of three bytes for an empty list Python makes seventy, and takes its time."""

from __future__ import annotations

import re
from typing import Final

MOST_VALUES: Final = 2_000_000
"""About how many values one text may hold: what becomes of them takes some hundred megabytes at most."""
_VALUE = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[,\[{]', re.DOTALL)


def holds_too_much(text: bytes) -> bool:
    """Whether it would become more than a program should keep, however few bytes it is. What is in strings does not
    count: they take about as much as they are long."""
    if len(text) <= MOST_VALUES:
        return False
    return any(number >= MOST_VALUES for number, _ in enumerate(_VALUE.finditer(text)))
