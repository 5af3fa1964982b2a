"""The four kinds of output, and the way from a message's untrusted content to one of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal, cast

_MAX_MIME_TYPES = 64
_MAX_JSON_DEPTH = 64
_MAX_DISPLAY_ID = 256
_MAX_ERROR_NAME = 128
_MAX_METADATA_BYTES = 65_536
_MIME = re.compile(r"[A-Za-z0-9][\w!#$&^.+-]{0,127}/[A-Za-z0-9][\w!#$&^.+-]{0,127}(; ?[\w=.\"-]{1,64})?", re.ASCII)
_JSON_MIME = re.compile(r"application/(.*\+)?json")


@dataclass(frozen=True, slots=True)
class Stream:
    """Text written to standard output or standard error."""

    name: Literal["stdout", "stderr"]
    text: str


@dataclass(frozen=True, slots=True)
class Display:
    """Something shown with ``display()``: a mime bundle, and the id by which it can be updated."""

    data: Mapping[str, object]
    metadata: Mapping[str, object]
    display_id: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The value of a cell's last expression, as a mime bundle."""

    data: Mapping[str, object]
    metadata: Mapping[str, object]
    execution_count: int | None = None


@dataclass(frozen=True, slots=True)
class Error:
    """An exception that ended a cell; ``traceback`` is the kernel's rendering of it, colours and all."""

    name: str
    value: str
    traceback: tuple[str, ...] = ()


Output = Stream | Display | Result | Error


def to_nbformat(output: Output) -> dict[str, object]:
    """The output as a notebook (nbformat 4.5) stores it."""
    match output:
        case Stream(name, text):
            return {"output_type": "stream", "name": name, "text": text}
        case Display(data, metadata):
            return {"output_type": "display_data", "data": dict(data), "metadata": dict(metadata)}
        case Result(data, metadata, execution_count):
            return {
                "output_type": "execute_result",
                "data": dict(data),
                "metadata": dict(metadata),
                "execution_count": execution_count,
            }
        case Error(name, value, traceback):
            return {"output_type": "error", "ename": name, "evalue": value, "traceback": list(traceback)}


class Malformed(ValueError):
    """A message's content is not what the Jupyter messaging protocol says it is."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checked mime bundle. ``size`` is in bytes; ``size_is_minimum`` says that measuring stopped early."""

    data: dict[str, object]
    metadata: dict[str, object]
    size: int
    size_is_minimum: bool
    rejected: int


def byte_length(text: str) -> int:
    """Bytes of the text in UTF-8. The text must not hold lone surrogates (see :func:`clean_str`)."""
    return len(text) if text.isascii() else len(text.encode())


def clean_str(value: object) -> str:
    """The string, with lone surrogates (which JSON can carry and UTF-8 can't) replaced. Raises Malformed."""
    if not isinstance(value, str):
        raise Malformed("not a string")
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace").decode()
    return value


def bundle_from_content(content: Mapping[str, object], max_bytes: int) -> Bundle:
    """The checked ``data`` and ``metadata`` of a display or result.

    Single entries that are malformed are left out and counted in ``rejected``. Raises :class:`Malformed`
    where nothing is left. JSON is not looked at further once it passes ``max_bytes``.
    """
    data = content.get("data")
    if not isinstance(data, dict):
        raise Malformed("data is not a mime bundle")
    kept: dict[str, object] = {}
    size, minimum, rejected = 0, False, max(0, len(data) - _MAX_MIME_TYPES)
    for mime, value in islice(data.items(), _MAX_MIME_TYPES):
        try:
            if not isinstance(mime, str) or not _MIME.fullmatch(mime):
                raise Malformed("not a mime type")
            if _JSON_MIME.fullmatch(mime):
                copy, cost, complete = _copy_json(value, max_bytes)
                minimum = minimum or not complete
            else:
                copy = clean_str(value)
                cost = byte_length(copy)
        except Malformed:
            rejected += 1
            continue
        kept[mime] = copy
        size += cost + len(mime)
    if not kept:
        raise Malformed("no usable mime type in the bundle")
    metadata, cost = _metadata_from_content(content)
    return Bundle(kept, metadata, size + cost, minimum, rejected)


def _metadata_from_content(content: Mapping[str, object]) -> tuple[dict[str, object], int]:
    try:
        metadata, cost, complete = _copy_json(content.get("metadata"), _MAX_METADATA_BYTES)
    except Malformed:
        return {}, 0
    return (metadata, cost) if isinstance(metadata, dict) and metadata and complete else ({}, 0)


def display_id_from_content(content: Mapping[str, object]) -> str | None:
    """The id in ``transient``, or None where there is none that can be used."""
    transient = content.get("transient")
    display_id = transient.get("display_id") if isinstance(transient, dict) else None
    if not isinstance(display_id, str) or not 0 < len(display_id) <= _MAX_DISPLAY_ID:
        return None
    return clean_str(display_id)


def execution_count_from_content(content: Mapping[str, object]) -> int | None:
    """The execution count, or None where it is no sensible number."""
    count = content.get("execution_count")
    return count if type(count) is int and 0 <= count < 2**53 else None


def error_from_content(content: Mapping[str, object], max_bytes: int = 1 << 20) -> Error | None:
    """The error in the content of an ``error`` message or of an ``execute_reply`` with status ``error``.

    Of a value or traceback over ``max_bytes`` the beginning and the end are kept. None if the content is
    malformed.
    """
    name, value, traceback = content.get("ename"), content.get("evalue"), content.get("traceback", [])
    if not isinstance(name, str) or not isinstance(value, str) or not isinstance(traceback, list):
        return None
    if not all(isinstance(item, str) for item in traceback):
        return None
    name = clean_str(name[:_MAX_ERROR_NAME])
    value = clip_bytes(clean_str(value), max_bytes // 4)
    return Error(name, value, _clip_traceback(cast("list[str]", traceback), max_bytes // 2))


def _clip_traceback(items: list[str], max_bytes: int) -> tuple[str, ...]:
    head = _take(items, max_bytes // 4)
    tail = _take(items[: len(head) - 1 : -1] if head else items[::-1], max_bytes - max_bytes // 4)[::-1]
    left_out = len(items) - len(head) - len(tail)
    return (*head, f"\n… {left_out} parts of the traceback left out …\n", *tail) if left_out else (*head, *tail)


def _take(items: list[str], max_bytes: int) -> list[str]:
    taken: list[str] = []
    longest = max_bytes // 2
    for item in items:
        text = clip_bytes(clean_str(item), longest)
        # 64 bytes an item, so that a million empty strings are not free.
        max_bytes -= byte_length(text) + 64
        if max_bytes < 0:
            break
        taken.append(text)
    return taken


def split_bytes(text: str, max_bytes: int) -> tuple[str, str]:
    """The text in two, the first part as long as fits ``max_bytes`` of UTF-8."""
    if text.isascii():
        return text[:max_bytes], text[max_bytes:]
    first = text[:max_bytes].encode()[:max_bytes].decode("utf-8", "ignore")
    return first, text[len(first) :]


def clip_bytes(text: str, max_bytes: int) -> str:
    """The text, or its beginning and end with a marker between if it is over ``max_bytes`` of UTF-8."""
    size = byte_length(text)
    if size <= max_bytes:
        return text
    marker = f"… {size - max_bytes} bytes left out …"
    room = max(0, max_bytes - byte_length(marker))
    head, _ = split_bytes(text, room // 2)
    tail = text[-(room - room // 2) :].encode()[-(room - room // 2) :].decode("utf-8", "ignore") if room else ""
    return head + marker + tail


class _JsonCopier:
    """Copies a JSON value, checking it on the way: depth, types, strings, and a budget of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.budget = max_bytes

    def copy(self, value: object, depth: int) -> object:
        if self.budget < 0 or value is None or isinstance(value, bool):
            self.budget -= 8
            return value if self.budget >= 0 else None
        if isinstance(value, str):
            text = clean_str(value)
            self.budget -= byte_length(text) + 8
            return text
        if isinstance(value, int):
            # Counted as its decimal digits, since a number may have thousands.
            self.budget -= 16 + value.bit_length() // 3
            return value
        if isinstance(value, float):
            self.budget -= 16
            # NaN and the infinities are no JSON, and readers of notebooks stumble over them.
            return value if math.isfinite(value) else None
        if depth >= _MAX_JSON_DEPTH:
            raise Malformed("JSON is nested too deeply")
        self.budget -= 32
        if isinstance(value, list):
            return self._copy_list(value, depth)
        if isinstance(value, dict):
            return self._copy_object(value, depth)
        raise Malformed("not JSON")

    def _copy_list(self, value: list[object], depth: int) -> list[object]:
        copied: list[object] = []
        for item in value:
            if self.budget < 0:
                break
            copied.append(self.copy(item, depth + 1))
        return copied

    def _copy_object(self, value: dict[object, object], depth: int) -> dict[str, object]:
        copied: dict[str, object] = {}
        for key, item in value.items():
            if self.budget < 0:
                break
            name = clean_str(key)
            self.budget -= byte_length(name) + 8
            copied[name] = self.copy(item, depth + 1)
        return copied


def _copy_json(value: object, max_bytes: int) -> tuple[object, int, bool]:
    """A copy, its size in bytes (an estimate), and whether all of it was copied. Raises Malformed."""
    copier = _JsonCopier(max_bytes)
    copied = copier.copy(value, 0)
    return copied, max_bytes - copier.budget, copier.budget >= 0
