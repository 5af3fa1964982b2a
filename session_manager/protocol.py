"""Jupyter messages in, outputs and completion out. No I/O.

The rules (Jupyter messaging protocol 5.x, and what kernels do in practice):

- A cell has ended when BOTH its reply (shell) and the idle status that names it as parent (iopub) are in. The two
  channels have no common order, and code in the cell can forge an idle.
- A message belongs to the cell whose request it names as parent, also when that cell ended long ago: a thread that an
  earlier cell started may print now.
- Every field may be missing, of the wrong type, or a lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from weakref import WeakValueDictionary

from .outputs import Error, Output, OutputLog

Message = Mapping[str, object]

OUTPUT_TYPES = frozenset(("stream", "display_data", "execute_result", "error", "update_display_data", "clear_output"))


@dataclass(slots=True, eq=False, weakref_slot=True)
class Cell:
    """One execute request, as its messages arrive."""

    msg_id: str
    log: OutputLog
    started: bool = False
    """The kernel has begun: its turn came, its time runs."""
    idle: bool = False
    reply: Literal["ok", "error", "aborted"] | None = None
    execution_count: int | None = None
    code: str | None = None
    """What runs, as the kernel says it; None until it has begun."""
    workspace_bytes: int | None = None
    """What the workspace holds at its end, as the kernel says it."""
    reply_metadata: Mapping[str, object] = field(default_factory=dict)
    """What the kernel says beside its reply."""
    reply_error: Error | None = None
    """The error as the reply gives it, for when the output that shows it was lost."""

    @property
    def ended(self) -> bool:
        """Both signs of the end are in."""
        return self.idle and self.reply is not None

    @property
    def error(self) -> Error | None:
        """What the cell raised, if it did."""
        return (self.log.error or self.reply_error) if self.reply == "error" else None

    def on_reply(self, content: Mapping[str, object]) -> None:
        """Take the ``execute_reply``. A second one changes nothing."""
        if self.reply is not None:
            return
        status = content.get("status")
        self.started = True
        self.execution_count = as_count(content.get("execution_count")) or self.execution_count
        if status == "ok" or status == "aborted":
            self.reply = "ok" if status == "ok" else "aborted"
            return
        self.reply = "error"
        traceback = content.get("traceback")
        shown = traceback[:200] if isinstance(traceback, list) else []
        lines = [line[:10_000] for line in shown if isinstance(line, str)]
        self.reply_error = Error(
            as_text(content.get("ename"), "Error"), as_text(content.get("evalue"), ""), tuple(lines)
        )

    def on_iopub(self, msg_type: str, content: Mapping[str, object]) -> Output | None:
        """Take a message that names this cell as its parent; the output to show now, if it is one."""
        if msg_type == "status":
            state = content.get("execution_state")
            if state == "busy":
                self.started = True
            elif state == "idle":
                self.idle = True
        elif msg_type == "execute_input":
            self.started = True
            self.execution_count = self.execution_count or as_count(content.get("execution_count"))
            self.code = as_text(content.get("code"), "")
        elif msg_type in OUTPUT_TYPES:
            return self.log.apply(msg_type, content)
        return None


@dataclass(slots=True)
class Router:
    """Gives each message to the cell that it belongs to.

    It keeps no cell alive: what a thread of an earlier cell prints is kept for as long as somebody holds that cell.
    """

    cells: WeakValueDictionary[str, Cell] = field(default_factory=WeakValueDictionary)
    stray: int = 0
    """Messages that belong to no cell of ours: other clients', or cells that nobody holds any more."""

    def add(self, cell: Cell) -> None:
        """Expect messages for this cell from now on."""
        self.cells[cell.msg_id] = cell

    def on_iopub(self, message: Message) -> tuple[Cell, Output | None] | None:
        """The cell that a message of the iopub channel belongs to, and the output in it; None where it is nobody's."""
        cell = self._cell_of(message)
        msg_type, content = message.get("msg_type"), message.get("content")
        if cell is None or not isinstance(msg_type, str) or not isinstance(content, dict):
            return None
        return cell, cell.on_iopub(msg_type, content)

    def on_shell(self, message: Message) -> Cell | None:
        """The cell whose reply this message is; None where it is not the reply to a cell."""
        content = message.get("content")
        if message.get("msg_type") != "execute_reply" or not isinstance(content, dict):
            return None
        cell = self._cell_of(message)
        if cell is not None:
            metadata = message.get("metadata")
            cell.reply_metadata = metadata if isinstance(metadata, dict) else {}
            size = cell.reply_metadata.get("workspace_bytes")
            cell.workspace_bytes = size if isinstance(size, int) and size >= 0 else None
            cell.on_reply(content)
        return cell

    def _cell_of(self, message: Message) -> Cell | None:
        parent = parent_id(message)
        cell = self.cells.get(parent) if parent is not None else None
        if cell is None:
            self.stray += 1
        return cell


def parent_id(message: Message) -> str | None:
    """The id of the request that a message answers, if it says one."""
    header = message.get("parent_header")
    found = header.get("msg_id") if isinstance(header, dict) else None
    return found if isinstance(found, str) else None


def as_count(value: object) -> int | None:
    """An execution count, if it is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9 else None


def as_text(value: object, otherwise: str) -> str:
    """A bounded text, if it is one."""
    return value[:100_000] if isinstance(value, str) else otherwise


def as_seconds(value: object) -> float:
    """A time that has passed, if it is one; else 0."""
    return float(value) if isinstance(value, int | float) and 0 <= value < 10**9 else 0.0
