"""A cell's recorded outputs against its replayed ones, as nbformat describes outputs."""

from __future__ import annotations

import base64
import binascii
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..outputs import strip_escapes
from . import images
from .sameness import Tolerance, same_text, same_value

IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
MOST_LINES = 40
"""Of one difference that are shown."""
LONGEST_LINE = 300

Output = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it was recorded."""

    where: str
    """Such as ``stdout``, or ``output 2, text/html``."""
    what: str
    """In a sentence, or as the lines of a diff: ``-`` was recorded, ``+`` came now."""
    picture: bytes | None = None
    """A PNG of both images side by side, where it is about images."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def compare_outputs(
    recorded: Sequence[Output], replayed: Sequence[Output], tolerance: Tolerance | None = None
) -> list[Difference]:
    """What differs. How streams were cut into pieces does not matter, nor how they lie between the other outputs.

    :raises NotebookError: there are images, and Pillow is missing.
    """
    tolerance = tolerance or Tolerance()
    return [*compare_streams(recorded, replayed, tolerance), *compare_others(recorded, replayed, tolerance)]


def compare_streams(
    recorded: Sequence[Output], replayed: Sequence[Output], tolerance: Tolerance
) -> Iterator[Difference]:
    """stdout and stderr."""
    for name in ("stdout", "stderr"):
        one, other = stream(recorded, name), stream(replayed, name)
        if not same_text(one, other, tolerance):
            yield Difference(name, diff(one, other))


def stream(outputs: Sequence[Output], name: str) -> str:
    """All that was printed to a stream."""
    return "".join(
        text_of(output.get("text"))
        for output in outputs
        if output.get("output_type") == "stream" and output.get("name") == name
    )


def compare_others(
    recorded: Sequence[Output], replayed: Sequence[Output], tolerance: Tolerance
) -> Iterator[Difference]:
    """Results, displays and errors. One that is missing or added makes none of the others differ."""
    one, other = ([each for each in outputs if each.get("output_type") != "stream"] for outputs in (recorded, replayed))
    matcher = difflib.SequenceMatcher(
        None, [kind(each) for each in one], [kind(each) for each in other], autojunk=False
    )
    for tag, start, end, begin, stop in matcher.get_opcodes():
        pairs = min(end - start, stop - begin) if tag in ("equal", "replace") else 0
        for offset in range(pairs):
            yield from compare_pair(one[start + offset], other[begin + offset], start + offset + 1, tolerance)
        for number in range(start + pairs, end):
            yield Difference(f"output {number + 1}", f"is missing: {summary(one[number])}")
        for number in range(begin + pairs, stop):
            yield Difference(f"output {number + 1} of the replay", f"was not recorded: {summary(other[number])}")


def compare_pair(one: Output, other: Output, number: int, tolerance: Tolerance) -> Iterator[Difference]:
    """Two outputs in the same place."""
    where = f"output {number}"
    if (one.get("output_type") == "error") != (other.get("output_type") == "error"):
        yield Difference(where, diff(summary(one), summary(other)))
        return
    if one.get("output_type") == "error":
        for name in ("ename", "evalue"):  # the traceback has lines of files that are not the notebook's
            texts = text_of(one.get(name)), text_of(other.get(name))
            if not same_text(*texts, tolerance):
                yield Difference(f"the error's {'type' if name == 'ename' else 'message'}", diff(*texts))
        return
    bundles = bundle_of(one), bundle_of(other)
    for mime in sorted(bundles[0].keys() | bundles[1].keys()):
        if mime not in bundles[1]:
            yield Difference(where, f"has no {mime} any more")
        elif mime not in bundles[0]:
            yield Difference(where, f"has {mime}, which was not recorded")
        else:
            yield from compare_mime(mime, bundles[0][mime], bundles[1][mime], f"{where}, {mime}", tolerance)


def compare_mime(mime: str, one: object, other: object, where: str, tolerance: Tolerance) -> Iterator[Difference]:
    """One representation of an output."""
    if mime in IMAGES:
        yield from compare_images(text_of(one), text_of(other), where, tolerance)
    elif mime == "application/json" or mime.endswith("+json"):
        if not same_value(one, other, tolerance):
            yield Difference(where, diff(*(json.dumps(each, indent=1, sort_keys=True) for each in (one, other))))
    elif mime.startswith("text/") or mime in ("image/svg+xml", "application/javascript"):
        texts = text_of(one), text_of(other)
        if not same_text(*texts, tolerance, markup=mime in ("text/html", "image/svg+xml")):
            yield Difference(where, diff(*texts))
    elif one != other:
        yield Difference(where, "is not the same")


def compare_images(one: str, other: str, where: str, tolerance: Tolerance) -> Iterator[Difference]:
    """Two images, in base64."""
    if one.strip() == other.strip():
        return
    try:
        contents = base64.b64decode(one), base64.b64decode(other)
        apart = images.difference(*contents)
        if apart > tolerance.images:
            yield Difference(
                where, f"looks different ({apart:.2f}, more than {tolerance.images:g})", images.side_by_side(*contents)
            )
    except (ValueError, binascii.Error) as error:
        yield Difference(where, f"can't be compared: {error}")


def kind(output: Output) -> str:
    """What outputs are paired by: a result and a display of the same forms are alike."""
    return "error" if output.get("output_type") == "error" else " ".join(sorted(bundle_of(output)))


def bundle_of(output: Output) -> Mapping[str, object]:
    """An output's representations by mime type."""
    data = output.get("data")
    return data if isinstance(data, Mapping) else {}


def text_of(value: object) -> str:
    """A text, which files may hold as lines."""
    if isinstance(value, str):
        return value
    return "".join(map(str, value)) if isinstance(value, list | tuple) else ""


def summary(output: Output) -> str:
    """An output in a line."""
    if output.get("output_type") == "error":
        return f"{text_of(output.get('ename'))}: {text_of(output.get('evalue'))}"[:LONGEST_LINE]
    bundle = bundle_of(output)
    first = text_of(bundle.get("text/plain")).strip().split("\n")[0]
    return f"{', '.join(sorted(bundle))} {first}"[:LONGEST_LINE]


def diff(recorded: str, replayed: str) -> str:
    """The lines that differ, for people: without escape sequences, and not too many."""
    one, other = (strip_escapes(text).splitlines() for text in (recorded, replayed))
    lines = list(difflib.unified_diff(one, other, "recorded", "replayed", n=1, lineterm=""))
    shown = [line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…" for line in lines[:MOST_LINES]]
    if len(lines) > MOST_LINES:
        shown.append(f"… and {len(lines) - MOST_LINES} lines more")
    return "\n" + "\n".join(shown)
