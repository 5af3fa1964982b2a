"""The journal of a session: the cells that ran in it, read back from what they wrote down as they ran.

``kernel_image/JOURNAL.md`` is the format. It comes out of a container, or from anywhere as a file: every field is
checked, lines that are no records are skipped, and what is kept of it all is bounded.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from .errors import FileMissing, FileTooLarge, NotebookError
from .json_bound import holds_too_much
from .outputs import DisplayRegistry, Error, Output, OutputLog
from .outputs.typed import clean_str
from .protocol import OUTPUT_TYPES, as_count
from .settings import Limits
from .settings_section import parse_size
from .workspace import WorkspaceFiles

OLDER: Final = ".docker-interpreter/journal/cells.older.jsonl"
NEWER: Final = ".docker-interpreter/journal/cells.jsonl"
DEFAULT_BYTES: Final = parse_size("64m")
MOST_CELLS: Final = 20_000
"""The newest ones that are kept."""
RECORD_COST: Final = 400
"""Bytes that a record takes in memory beside its text."""
MOST_CODE: Final = 4 << 20
MOST_NAME: Final = 500
LATEST: Final = 253_402_300_000.0
"""Unix time, seconds: the end of the year 9999, where calendars end."""
LONGEST_LINE: Final = 64 << 20
READ_ATTEMPTS: Final = 3

CellStatus = Literal["ok", "error", "interrupted", "killed", "out_of_memory", "died", "container_removed", "unfinished"]
"""As :attr:`Execution.status`; ``unfinished``: it runs, or its container went while it did."""


@dataclass(slots=True, eq=False)
class JournalCell:
    """One cell that ran. Times are Unix times in seconds, by the container's clock."""

    id: str
    code: str
    execution_count: int | None
    started_at: float
    asked_by: str | None
    """Who had it run, where that was said (``asked_by`` of :meth:`Session.execute`)."""
    log: OutputLog
    ended_at: float | None = None
    status: CellStatus = "unfinished"
    error: Error | None = None
    """What it raised, where it did; with the traceback, where that was kept."""
    left_out: int = 0
    """Bytes of its outputs that were not written down, or not read."""

    @property
    def outputs(self) -> Sequence[Output]:
        """What it put out, with whole mime bundles, as a notebook would show it."""
        return self.log.outputs


@dataclass(frozen=True, slots=True)
class JournalStart:
    """A Python started: variables of the one before were gone, but for what was saved of them."""

    at: float
    """Unix time, seconds."""
    image: str
    python: str
    """Its version."""


@dataclass(frozen=True, slots=True)
class Journal:
    """What ran in a session, oldest first."""

    entries: Sequence[JournalCell | JournalStart]
    beginning_missing: bool = False
    """Older cells went, for the journal's limit."""
    lost: int = 0
    """Records that could not be written, for a full disk perhaps."""

    @property
    def cells(self) -> Sequence[JournalCell]:
        """The cells alone."""
        return [entry for entry in self.entries if isinstance(entry, JournalCell)]


@dataclass(slots=True)
class JournalReader:
    """Makes a journal of its lines. ``output_bytes`` is kept of each cell at most, ``total_bytes`` of all."""

    output_bytes: int
    total_bytes: int
    lost: int = 0
    beginning_missing: bool = False
    _entries: deque[JournalCell | JournalStart] = field(default_factory=lambda: deque(maxlen=MOST_CELLS))
    _cells: dict[str, JournalCell] = field(default_factory=dict)
    _running: JournalCell | None = None
    _displays: DisplayRegistry = field(default_factory=DisplayRegistry)
    _line: list[bytes] = field(default_factory=list)
    """The pieces of a line whose end has not come."""
    _line_bytes: int = 0
    _seen: bool = False

    def feed(self, content: bytes) -> None:
        """Take what follows. A line that is longer than any record is skipped."""
        first, *others = content.split(b"\n")
        self._hold(first)
        for line in others:
            if self._line_bytes <= LONGEST_LINE:
                self._take(b"".join(self._line))
            self._line, self._line_bytes = [], 0
            self._hold(line)

    def _hold(self, piece: bytes) -> None:
        self._line_bytes += len(piece)
        if self._line_bytes > LONGEST_LINE:
            self._line.clear()
        else:
            self._line.append(piece)

    def journal(self) -> Journal:
        """All that was fed. A last line without its end was being written, and does not count."""
        return Journal(tuple(self._entries), self.beginning_missing, self.lost)

    def _take(self, line: bytes) -> None:
        record = record_in(line)
        if record is None:
            return
        self.total_bytes -= len(line) + RECORD_COST
        match record["event"]:
            case "kernel":
                self._end_running("container_removed", None)
                self._add(JournalStart(_time(record.get("at")), _text(record, "image"), _text(record, "python")))
            case "continued" if not self._seen:
                self.beginning_missing = True
                self._add(JournalStart(0.0, _text(record, "image"), _text(record, "python")))
            case "cell":
                self._begin(record)
            case "output":
                self._output(record, len(line))
            case "end":
                self._end(record)
            case "death":
                killed: CellStatus = "killed" if record.get("asked") is True else "died"
                self._end_running("out_of_memory" if record.get("out_of_memory") is True else killed, record.get("at"))
            case "lost":
                self.lost += as_count(record.get("records")) or 0
        self._seen = True

    def _add(self, entry: JournalCell | JournalStart) -> None:
        if len(self._entries) == MOST_CELLS:
            self.beginning_missing = True
            if isinstance(oldest := self._entries[0], JournalCell):
                self._cells.pop(oldest.id, None)
        self._entries.append(entry)

    def _begin(self, record: Mapping[str, object]) -> None:
        # of one that was cut off nobody wrote the end
        self._end_running("container_removed", None)
        asked_by = record.get("by")
        cell = JournalCell(
            id=_text(record, "cell"),
            code=_text(record, "code", MOST_CODE),
            execution_count=as_count(record.get("count")),
            started_at=_time(record.get("at")),
            asked_by=clean_str(asked_by[:MOST_NAME]) if isinstance(asked_by, str) else None,
            log=OutputLog(self.output_bytes, registry=self._displays),
        )
        self._add(cell)
        self._cells[cell.id] = self._running = cell

    def _output(self, record: Mapping[str, object], size: int) -> None:
        cell, kind, content = self._cells.get(_text(record, "cell")), record.get("type"), record.get("content")
        if cell is None or not isinstance(kind, str) or kind not in OUTPUT_TYPES or not isinstance(content, dict):
            return
        if self.total_bytes < 0:
            cell.left_out += size
        else:
            cell.log.apply(kind, content)

    def _end(self, record: Mapping[str, object]) -> None:
        cell = self._cells.get(_text(record, "cell"))
        if cell is None or cell.ended_at is not None:
            return
        cell.ended_at = _time(record.get("at"))
        cell.left_out += as_count(record.get("left_out")) or 0
        if record.get("status") == "ok":
            cell.status = "ok"
        else:
            name = _text(record, "ename") or "Error"
            cell.error = cell.log.error or Error(name, _text(record, "evalue", 100_000), ())
            cell.status = "interrupted" if name == "KeyboardInterrupt" else "error"
        if self._running is cell:
            self._running = None

    def _end_running(self, status: CellStatus, at: object) -> None:
        if self._running is not None:
            self._running.status = status
            self._running.ended_at = None if at is None else _time(at)
            self._running = None


def record_in(line: bytes) -> Mapping[str, object] | None:
    """The record in a line; None where it is none, or would take far more room than its line."""
    if holds_too_much(line):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("event"), str) else None


def _text(record: Mapping[str, object], name: str, most: int = MOST_NAME) -> str:
    value = record.get(name)
    return clean_str(value[:most]) if isinstance(value, str) else ""


def _time(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LATEST:
        return 0.0
    return float(value) if math.isfinite(value) else 0.0


def journal_of(pieces: Iterable[bytes], limits: Limits | None = None) -> Journal:
    """The journal in these bytes."""
    reader = reader_for(limits or Limits())
    for piece in pieces:
        reader.feed(piece)
    return reader.journal()


def reader_for(limits: Limits) -> JournalReader:
    return JournalReader(limits.output_bytes, 4 * (limits.journal_bytes or DEFAULT_BYTES))


def read_journal(path: Path, limits: Limits | None = None) -> Journal:
    """The journal in a file of this machine, as ``sessions export KEY -o FILE.jsonl`` writes it.

    :raises NotebookError: it can't be read, or holds no record.
    """

    def pieces() -> Iterator[bytes]:
        with path.open("rb") as file:
            while piece := file.read(1 << 18):
                yield piece

    try:
        journal = journal_of(pieces(), limits)
    except OSError as error:
        raise NotebookError(f"{path} can't be read: {error.strerror}.") from error
    if not journal.entries:
        raise NotebookError(f"{path} is no journal of a session: it has no record of a cell.")
    return journal


async def journal_content(files: WorkspaceFiles, limits: Limits) -> AsyncIterator[bytes]:
    """The journal of the session whose files these are, in pieces, as it is written; nothing where there is none.

    :raises FileTooLarge: it is larger than journals may be.
    :raises FileError: it can't be read.
    """
    most = 2 * (limits.journal_bytes or DEFAULT_BYTES)
    for path in (OLDER, NEWER):
        try:
            async with aclosing(files.stream(path)) as pieces:
                async for piece in pieces:
                    most -= len(piece)
                    if most < 0:
                        raise FileTooLarge(
                            "The session's journal is larger than it may be.", "Raise `limits.journal_bytes`."
                        )
                    yield piece
        except FileMissing:
            continue
        yield b"\n"  # the last line may have been cut off


async def read_session_journal(files: WorkspaceFiles, limits: Limits) -> Journal:
    """The journal of the session whose files these are; without entries where there is none.

    :raises FileError: as :func:`journal_content`.
    """
    for _ in range(READ_ATTEMPTS):
        before = await files.stat(OLDER)
        reader = reader_for(limits)
        async for piece in journal_content(files, limits):
            reader.feed(piece)
        if before == await files.stat(OLDER):
            break  # else one file took the other's place while they were read
    return reader.journal()
