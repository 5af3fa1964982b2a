"""The file that a session's journal is in: appended to, and bounded in size. Standard library only.

See JOURNAL.md. The kernel and the supervisor write it, and code that nobody trusts can write where it lies.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path
from typing import Any

FOLDER = Path(".docker-interpreter") / "journal"  # in the workspace
NEWER, OLDER = "cells.jsonl", "cells.older.jsonl"
FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class JournalFile:
    """Appends lines. Of ``max_bytes`` the newer file takes one half; once it is full it becomes the older one."""

    def __init__(self, workspace: Path, max_bytes: int) -> None:
        self.path = workspace / FOLDER / NEWER
        self.half = max_bytes // 2
        self.descriptor = -1
        self.size = 0
        self.heading: dict[str, Any] = {}  # the first record of a file that continues another
        self.lost = 0  # records that could not be written, for a full disk perhaps

    def append(self, **record: Any) -> None:
        """Write a record. One that can't be written is counted, and the next that can says so."""
        self.append_line(json.dumps(record).encode() + b"\n")

    def append_line(self, line: bytes) -> None:
        """Write a record that is JSON already, in one line with its end."""
        try:
            if not self.is_open():
                self.open()
            if self.size + len(line) > self.half and self.size:
                self.turn_over()
            if self.lost:
                line = json.dumps({"event": "lost", "records": self.lost}).encode() + b"\n" + line
            self.write(line)
            self.lost = 0
        except OSError:
            self.lost += 1
            self.close()  # what was written of the line is ended when the file is opened again

    def is_open(self) -> bool:
        """Whether the file is open, and still the one of this name: the code that runs may remove it."""
        if self.descriptor < 0:
            return False
        with contextlib.suppress(OSError):
            ours, there = os.fstat(self.descriptor), os.lstat(self.path)
            if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino):
                return True
        self.close()
        return False

    def open(self) -> None:
        for folder in (self.path.parent.parent, self.path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        self.descriptor = os.open(self.path, FLAGS, 0o600)
        status = os.fstat(self.descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("the journal is no ordinary file")
        self.size = status.st_size
        # whoever wrote last may have been killed in the middle of a line
        if self.size and os.pread(self.descriptor, 1, self.size - 1) != b"\n":
            self.write(b"\n")

    def write(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            written = os.write(self.descriptor, view)
            self.size += written
            view = view[written:]

    def turn_over(self) -> None:
        """Begin a new file: the one that is full replaces the older one."""
        self.path.replace(self.path.with_name(OLDER))
        self.close()
        self.open()
        if self.heading:
            self.write(json.dumps(self.heading).encode() + b"\n")

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
