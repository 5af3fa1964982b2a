"""What is fuzzed: for any bytes each target ends, with nothing but its module's own error, and holds its promises.

Bytes are either what a container sends, as it is, or choices by which something of the right shape is built.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import nbformat

from session_manager.container_options import ContainerOptions
from session_manager.errors import FileError, FrameError, SettingsError
from session_manager.frames import MAX_PAYLOAD, FrameReader, KernelState, parse_object
from session_manager.journal import JournalReader
from session_manager.journal_notebook import notebook_of
from session_manager.outputs import OutputLog, text_for_model, to_nbformat
from session_manager.protocol import Cell, Router, as_seconds
from session_manager.workspace import answer_of, entry_of
from session_manager.zmtp import MessageBound

T = TypeVar("T")

KEPT = 1 << 14
"""Bytes of output that a cell may keep here."""
TEXTS = (
    "",
    "a",
    "\x1b]0;t\x07",
    "\r",
    "\b\b",
    "<script>",
    "é\ud800",
    "0" * 300,
    "text/html",
    "../x",
    "\x00",
    "1e999",
    "c1",
)
NUMBERS = (0, 1, -1, 2**31, 2**63, 2**200, 0.5, -0.0, float("inf"), float("nan"))
FIELDS = (
    "at",
    "image",
    "cell",
    "count",
    "by",
    "code",
    "type",
    "content",
    "status",
    "ename",
    "evalue",
    "traceback",
    "data",
)
FIELDS += (
    "metadata",
    "transient",
    "display_id",
    "name",
    "text",
    "wait",
    "execution_count",
    "execution_state",
    "payload",
)
FIELDS += ("path", "kind", "size", "modified", "target", "error", "sentence", "text/html", "text/plain", "image/png")
MESSAGES = (
    "stream",
    "display_data",
    "update_display_data",
    "execute_result",
    "error",
    "clear_output",
    "status",
    "other",
)
EVENTS = ("kernel", "continued", "cell", "output", "end", "death", "lost", "other")


class Choices:
    """Bytes read as decisions; when they are used up, each is the first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def number(self, most: int) -> int:
        """From 0 to ``most``."""
        value = self._data[self._at] if self else 0
        self._at += 1
        return value % (most + 1)

    def of(self, some: Sequence[T]) -> T:
        """One of them."""
        return some[self.number(len(some) - 1)]

    def value(self, depth: int = 4) -> Any:
        """Something that JSON can say, and a bit more."""
        match self.number(8 if depth else 5):
            case 0:
                return self.of(TEXTS)
            case 1:
                return self.of(NUMBERS)
            case 2:
                return self.of((None, True, False))
            case 3:
                return self.of(MESSAGES)
            case 4:
                return "x" * (self.number(255) * 97)
            case 5:
                return bytes(self.number(255) for _ in range(self.number(20))).decode(errors="surrogateescape")
            case 6:
                return [self.value(depth - 1) for _ in range(self.number(5))]
            case _:
                return self.fields(depth - 1)

    def fields(self, depth: int = 3) -> dict[str, Any]:
        """An object."""
        return {self.of((*FIELDS, *TEXTS)): self.value(depth) for _ in range(self.number(6))}


def frames(data: bytes) -> None:
    """Frames of a relay or a file door: what is read does not depend on where the stream is cut."""
    step = data[0] + 1 if data else 1

    def read(pieces: Sequence[bytes]) -> tuple[list[tuple[int, int, bytes]], bool]:
        reader = FrameReader()
        found: list[tuple[int, int, bytes]] = []
        try:
            for piece in pieces:
                for kind, stream, payload in reader.feed(piece):
                    found.append((kind, stream, bytes(payload)))
        except FrameError:
            return found, True
        return found, False

    whole = read([data])
    assert whole == read([data[at : at + step] for at in range(0, len(data), step)])
    for _, _, payload in whole[0]:
        assert len(payload) <= MAX_PAYLOAD
        try:
            KernelState.parse(parse_object(payload).get("kernel"))
        except FrameError:
            continue
    try:
        KernelState.parse(parse_object(data))
    except FrameError:
        return


def zmtp(data: bytes) -> None:
    """A kernel's frames below those of Jupyter: what is bounded does not depend on where the stream is cut."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL".ljust(55, b"\0")
    step = data[0] % 17 + 1 if data else 1

    def passes(start: bytes, step: int) -> bool:
        bound, received = MessageBound(4000), start + data
        try:
            for at in range(0, len(received), step):
                bound.feed(received[at : at + step])
        except FrameError:
            return False
        return True

    for start in (greeting, b""):
        assert passes(start, 1 << 20) == passes(start, step)


def messages(data: bytes) -> None:
    """A kernel's messages: a cell ends once, keeps no more than it may, and what it keeps can be shown."""
    choices, router = Choices(data), Router()
    cell = Cell("c1", OutputLog(KEPT))
    router.add(cell)
    ended = False
    while choices:
        message = {
            "msg_type": choices.of(MESSAGES),
            "parent_header": choices.of(({"msg_id": "c1"}, {"msg_id": "c2"}, {}, choices.value(1))),
            "content": choices.of((choices.fields(), choices.value())),
        }
        if choices.number(5):
            router.on_iopub(message)
        else:
            router.on_shell({**message, "msg_type": "execute_reply"})
        assert cell.ended or not ended
        ended = cell.ended
    for output in cell.log.outputs:
        json.dumps(to_nbformat(output))
    assert len(text_for_model(cell.log.outputs, max_chars=2000)) < 4000
    assert cell.error is None or isinstance(cell.error.name, str)
    assert as_seconds(choices.value()) >= 0


def journal(data: bytes) -> None:
    """A journal, which the code in a session can write as it likes: it can be read, and makes a valid notebook."""
    choices = Choices(data)
    lines = [data]
    while choices:
        record = {**choices.fields(), "event": choices.of(EVENTS)}
        lines.append(json.dumps(record, default=str).encode(errors="replace") if choices.number(9) else data[:50])
    written = b"\n".join(lines)
    reader, step = JournalReader(KEPT, 1 << 20), len(data) % 61 + 1
    for at in range(0, len(written), step):
        reader.feed(written[at : at + step])
    found = reader.journal()
    if found.cells:
        nbformat.validate(notebook_of(found, key="fuzzed"))


def door(data: bytes) -> None:
    """A file door's answers: an entry has a path below the workspace, or is refused."""
    choices = Choices(data)
    entry = {"path": "a", "kind": "file", "size": 1, "modified": 2.5, "target": None, **choices.fields()}
    for fields in (entry, choices.value()):
        try:
            found = entry_of(fields)
        except FileError:
            continue
        assert found.size >= 0 and found.path and not found.path.startswith("/") and ".." not in found.path.split("/")
    answer: Mapping[str, object] = choices.fields()
    for one in (
        answer,
        {**answer, "error": choices.of(("missing", "refused", "full", "other")), "sentence": choices.value()},
    ):
        try:
            answer_of(one)
        except FileError:
            continue


def options(data: bytes) -> None:
    """An administrator's YAML: options, or one error that says what is wrong."""
    try:
        found = ContainerOptions.from_yaml(data.decode(errors="replace"))
    except SettingsError as error:
        assert str(error)
        return
    assert not found.unsafe or found.allow_unsafe_options
    assert ContainerOptions(**found.model_dump()) == found


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (frames, zmtp, messages, journal, door, options)
}
