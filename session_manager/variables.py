"""A session's variables as the kernel describes them. What it says is checked, and shown; nothing is ever unpickled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .errors import SandboxError
from .notices import clean

MOST_VARIABLES = 1000


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable, as a person would want to see it in a list."""

    name: str
    type: str
    size: int | None
    """Bytes, where that can be known without running code of the user's."""
    shape: tuple[int, ...] | None
    repr: str
    """A short text of its value, on one line."""


@dataclass(frozen=True, slots=True)
class SavedVariables:
    """What became of a session's variables when they were saved."""

    saved: tuple[str, ...]
    failed: tuple[tuple[str, str], ...]
    """Names that could not be saved, each with the reason."""
    size: int
    """Bytes of all that was saved."""


def variables_from(content: Mapping[str, object]) -> Sequence[Variable]:
    """The variables in a reply of the kernel; what is malformed is left out."""
    listed = content.get("variables")
    found = []
    for fields in listed[:MOST_VARIABLES] if isinstance(listed, list) else ():
        if not isinstance(fields, dict) or not isinstance(fields.get("name"), str):
            continue
        shape = fields.get("shape")
        whole = isinstance(shape, list) and len(shape) < 100 and all(as_size(one) is not None for one in shape)
        found.append(
            Variable(
                name=clean(fields["name"]),
                type=clean(fields.get("type")),
                size=as_size(fields.get("size")),
                shape=tuple(shape) if whole and isinstance(shape, list) else None,
                repr=clean(fields.get("repr")),
            )
        )
    return found


def saved_from(report: object) -> SavedVariables:
    """What the kernel says that it saved.

    :raises SandboxError: it says that it saved nothing, and why.
    """
    if not isinstance(report, dict) or "error" in report:
        why = clean(report.get("error")) if isinstance(report, dict) else "no answer"
        raise SandboxError(f"The variables were not saved: {why}.", "What was saved before is still there.")
    names, failed = report.get("saved"), report.get("failed")
    return SavedVariables(
        tuple(clean(name) for name in names) if isinstance(names, list) else (),
        tuple((clean(one.get("name")), clean(one.get("reason"))) for one in failed if isinstance(one, dict))
        if isinstance(failed, list)
        else (),
        as_size(report.get("bytes")) or 0,
    )


def as_size(value: object) -> int | None:
    """A number of bytes or elements, if it is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None
