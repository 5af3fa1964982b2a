"""What a report shows of a replay: plain values, as they came; :mod:`.report` makes a page of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from .compare import Difference, Output

Look = Literal["good", "bad", "neutral"]


@dataclass(frozen=True, slots=True)
class ReportedText:
    """A cell that is not code."""

    source: str
    is_markdown: bool
    attachments: Mapping[str, dict[str, str]] = field(default_factory=dict)
    """As nbformat has them: pictures by name, that Markdown refers to."""


@dataclass(frozen=True, slots=True)
class ReportedCell:
    """A cell of code, whether or not it was run."""

    number: int
    """Among those that have code, from 1."""
    code: str
    outcome: str
    """In a word, such as ``ok``, ``FAILED`` or ``not run``."""
    look: Look
    seconds: float | None = None
    memory: int | None = None
    """Bytes; None where that is not known."""
    outputs: Sequence[Output] = ()
    """As nbformat has them."""
    recorded: Sequence[Output] | None = None
    """What the notebook had recorded, where that is something else; None where it is not, or was not compared."""
    differences: Sequence[Difference] = ()
    notice: str | None = None
    """What happened to the session before it."""


@dataclass(frozen=True, slots=True)
class Report:
    """One replay of one notebook."""

    name: str
    when: datetime
    image: str
    engine: str
    outcome: str
    look: Look
    summary: str
    """In a sentence."""
    seconds: float
    peak: int | None
    """Bytes; None where that is not known."""
    parameters: Sequence[str]
    """As they were given: ``name=value``."""
    cells: Sequence[ReportedCell | ReportedText]
