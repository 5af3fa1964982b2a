"""What the workspace holds after each cell, and which files the cell made or changed. Standard library only."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path
from typing import NamedTuple

from kernel_image.mounts import bound_below

STATE_DIRECTORY = ".docker-interpreter"
PARTIAL = ".di-partial-"  # what a transfer that is under way is called (file_door.py)
WALK_SHARE = 50  # looking may take one part in so many of the time
QUICK = 0.002  # seconds of a walk that is made before a cell too: then what came between cells is known
TICK = 20_000_000  # nanoseconds by which the clock of files' times may be behind: it moves in steps
MOST_SEEN = 20_000  # files that are remembered from one look to the next
MOST_LISTED = 100  # files in one answer, and
MOST_CHARACTERS = 20_000  # of their paths: it travels with the reply to the cell

Signature = tuple[int, int, int, int]


class Look(NamedTuple):
    """What one look found."""

    size: int | None  # bytes on disk, as of a moment ago; None where that can't be known
    files: list[tuple[str, int, str]]  # path, size in bytes, "new" or "changed"
    complete: bool  # whether these are all


class WorkspaceLook:
    """Looks at a workspace. A large tree is not walked after each cell: looking takes a small share of time.

    A file has changed where its inode, size, or times differ from the last look. Where that was not made just before
    the cell, the time of the change (which no code can set) has to lie in the cell as well.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = os.fspath(directory)
        self.bound = bound_below(self.directory)
        self.size: int | None = None
        self.seen: dict[str, Signature] | None = {}  # None: there were too many
        self.whole = True  # nothing was out of reach
        self.not_before = 0.0
        self.quick = True
        self.began: int | None = None  # Unix time in nanoseconds
        self.fresh = False

    def begin(self) -> None:
        """A cell begins."""
        self.fresh = self.quick and self.walk_in_time() is not None and self.whole
        self.began = time.time_ns() - TICK

    def look(self) -> Look:
        """The cell has ended."""
        began, self.began = self.began, None
        before = self.seen
        if self.walk_in_time() is None or began is None or before is None or self.seen is None:
            return Look(self.size, [], False)
        found = []
        for path, signature in self.seen.items():
            if before.get(path) != signature and (self.fresh or signature[3] >= began):
                found.append((path, signature[1], "changed" if path in before else "new"))
        listed: list[tuple[str, int, str]] = []
        characters = 0
        for one in sorted(found):
            characters += len(one[0])
            if len(listed) == MOST_LISTED or characters > MOST_CHARACTERS:
                return Look(self.size, listed, False)
            listed.append(one)
        return Look(self.size, listed, self.whole)

    def walk_in_time(self) -> float | None:
        """Walk, if that is due; the seconds it took of this thread, or None where it was not, or failed."""
        begin = time.monotonic()
        if begin < self.not_before:
            return None
        own = time.thread_time()  # what others do on this machine makes no tree larger
        with contextlib.suppress(OSError, RecursionError):
            self.size = self.walk()
            taken = time.thread_time() - own
            self.quick = taken < QUICK
            self.not_before = begin + taken * WALK_SHARE if taken > QUICK else 0.0
            return taken
        return None

    def walk(self) -> int:
        """Note each file; the bytes on disk of all there is."""
        total, whole = 0, True
        seen: dict[str, Signature] | None = {}
        device = os.lstat(self.directory).st_dev if os.path.lexists(self.directory) else -1
        folders = [("", self.directory)]
        while folders:
            prefix, folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        try:
                            status = entry.stat(follow_symlinks=False)
                        except OSError as error:
                            whole = whole and is_gone(error)
                            continue
                        path = prefix + entry.name
                        if status.st_dev != device or path in self.bound:
                            continue  # a folder that is bound here is not the session's
                        total += status.st_blocks * 512
                        if stat.S_ISDIR(status.st_mode):
                            folders.append((path + "/", entry.path))
                        elif seen is not None and stat.S_ISREG(status.st_mode) and is_shown(path, entry.name):
                            seen[path] = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                            if len(seen) > MOST_SEEN:
                                seen = None
            except OSError as error:
                whole = whole and is_gone(error)
        self.whole = whole
        self.seen = seen
        return total


def is_shown(path: str, name: str) -> bool:
    """Whether a file is the user's: not what the session keeps for itself, nor a transfer under way."""
    return not name.startswith(PARTIAL) and path.partition("/")[0] != STATE_DIRECTORY


def is_gone(error: OSError) -> bool:
    """Whether something was removed or replaced meanwhile; else it is there, but locked, or too deep to be named."""
    return isinstance(error, FileNotFoundError | NotADirectoryError)
