"""A bound on what JSON may hold: of three bytes for an empty list Python makes seventy, and takes its time."""

from __future__ import annotations

import re
from itertools import chain, islice
from typing import Final

MOST_VALUES: Final = 2_000_000
"""About how many values may come at once: what becomes of them takes some hundred megabytes at most."""
_VALUE = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[,\[{]', re.DOTALL)


def holds_too_much(*texts: bytes) -> bool:
    """Whether they would together become more than a program should keep, however few bytes they are. What is in
    strings does not count: they take about as much as they are long."""
    if sum(map(len, texts)) <= MOST_VALUES:
        return False
    values = chain.from_iterable(map(_VALUE.finditer, texts))
    return next(islice(values, MOST_VALUES, None), None) is not None
