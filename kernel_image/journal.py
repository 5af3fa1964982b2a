"""Writes down each cell as it runs: its code, its outputs, its end. See JOURNAL.md.

What the operating system has taken is not lost when every process here is killed.
"""

from __future__ import annotations

import json
import platform
import threading
import time
from pathlib import Path
from typing import Any

from kernel_image.journal_file import JournalFile

DELIMITER = b"<IDS|MSG>"
OUTPUTS = frozenset(("stream", "display_data", "execute_result", "error", "update_display_data", "clear_output"))
MOST_CELLS = 1000  # that may still put something out: later output of older ones, by their threads, is left out
MOST_TEXT = 10_000  # characters of an error's text beside its traceback


class Share:
    """How much of the journal one cell has taken."""

    def __init__(self) -> None:
        self.taken = 0
        self.left_out = 0


class Journal:
    """The cells of one kernel, in a file of the workspace. Safe from any thread.

    One cell gets a quarter of ``max_bytes``, and one record an eighth: a cell that prints without end must not push
    out all that was before it. What is left out is counted. An error has room beyond that.
    """

    def __init__(self, workspace: Path, max_bytes: int, image: str) -> None:
        self.file = JournalFile(workspace, max_bytes)
        self.longest = max_bytes // 8
        self.share = max_bytes // 4
        self.lock = threading.Lock()
        self.cells: dict[str, Share] = {}
        made_of = {"image": image[:500], "python": platform.python_version()}
        self.file.heading = {"event": "continued", **made_of}
        self.file.append(event="kernel", at=time.time(), **made_of)

    def begin(self, parent: dict[str, Any], code: str, count: int) -> None:
        """A cell begins. ``parent`` is its request, whose metadata may say who asked (``asked_by``)."""
        cell = str(parent["header"]["msg_id"])
        asked_by = parent.get("metadata", {}).get("asked_by")
        by = asked_by[:200] if isinstance(asked_by, str) else None
        if len(code) > self.longest // 8:  # a character may be six in JSON
            code = f"{code[: self.longest // 8]}\n# … {len(code) - self.longest // 8} characters left out"
        with self.lock:
            self.cells[cell] = Share()
            while len(self.cells) > MOST_CELLS:
                del self.cells[next(iter(self.cells))]
            self.file.append(event="cell", cell=cell, at=time.time(), count=count, by=by, code=code)

    def add(self, frames: list[Any]) -> None:
        """A message is published: keep it, if it is an output of a cell that is known here."""
        try:
            position = [bytes(frame) for frame in frames].index(DELIMITER) + 2
            header, parent = (json.loads(bytes(frames[at])) for at in (position, position + 1))
            kind, cell = header["msg_type"], parent.get("msg_id")
            content = bytes(frames[position + 3])
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return  # the code that runs can publish anything
        if not isinstance(kind, str) or not isinstance(cell, str) or kind not in OUTPUTS or b"\n" in content:
            return
        with self.lock:
            share = self.cells.get(cell)
            if share is None:
                return
            line = b'{"event": "output", "cell": %s, "type": "%s", "content": %s}\n' % (
                json.dumps(cell).encode(),
                kind.encode(),
                content,
            )
            room = self.share + (self.longest if kind == "error" else 0)
            if len(line) > self.longest or share.taken + len(line) > room:
                share.left_out += len(content)
                return
            share.taken += len(line)
            self.file.append_line(line)

    def end(self, parent: dict[str, Any], reply: dict[str, Any]) -> None:
        """A cell has ended, with this reply."""
        cell = str(parent["header"]["msg_id"])
        fields: dict[str, Any] = {"status": str(reply.get("status"))}
        if "ename" in reply:
            fields |= {"ename": str(reply["ename"])[:200], "evalue": str(reply.get("evalue"))[:MOST_TEXT]}
        with self.lock:
            share = self.cells.get(cell)
            if share is None:
                return  # it was silent
            if share.left_out:
                fields["left_out"] = share.left_out
            self.file.append(event="end", cell=cell, at=time.time(), **fields)
