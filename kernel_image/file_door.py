"""Files into the workspace and out of it: run by an exec of its own, as the user that the kernel runs as.

``file_door.py WORKSPACE [read-only]`` speaks frames on its standard input and output, as FRAMES.md says ("The file
door"): one request at a time, any number one after another. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import signal
import stat
import struct
import sys
from collections.abc import Callable
from typing import Any

# run by itself, and apart from whatever lies where it is started: Python then looks for nothing beside a program
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib takes a while to load

from workspace_folders import (  # noqa: E402
    PARTIAL,
    STATE_DIRECTORY,
    Folders,
    Refused,
    entry_at,
    mode_at,
    parts_of,
    refuse_unless_file,
    remove_stale,
    shown,
)

HEADER = struct.Struct("!BII")
DATA, CLOSE, REQUEST, REPLY = 3, 4, 6, 7
MAX_PAYLOAD = 262144
CHUNK = 131072
BATCH = 60_000  # characters of entries in one reply, before JSON's escapes
MOST_CHANGED = 200_000  # bytes of changed files in their one reply, as JSON


class GivenUp(Exception):  # noqa: N818 - not an error
    """The other side ended the transfer, or has gone."""


class Door:
    """Answers requests for the files below ``root``."""

    def __init__(self, root: str, *, read_only: bool = False) -> None:
        self.folders = Folders(root)
        self.read_only = read_only
        self.operations: dict[str, Callable[[dict[str, Any]], None]] = {
            "changed": self.changed,
            "list": self.list,
            "stat": self.stat,
            "get": self.get,
            "put": self.put,
            "remove": self.remove,
        }

    def serve(self) -> None:
        """Answer until the input ends."""
        with contextlib.suppress(GivenUp):
            while True:
                kind, payload = receive()
                if kind != REQUEST:
                    continue  # what was under way of a transfer that was refused
                try:
                    request = json.loads(payload)
                    operation = self.operations.get(request["op"])
                    if operation is None:
                        raise Refused("refused", f"There is no operation {request['op']!r:.100}.")
                    operation(request)
                except Refused as refusal:
                    reply(error=refusal.kind, sentence=str(refusal))
                except (
                    OSError,
                    ValueError,
                    KeyError,
                    TypeError,
                    AttributeError,
                    ArithmeticError,
                    RecursionError,
                ) as error:
                    reply(error=word_for(error), sentence=sentence_for(error))

    # -- operations -------------------------------------------------------------------------------------------

    def list(self, request: dict[str, Any]) -> None:
        """Entries of a folder, in batches; those below it too, where that is wanted."""
        most, recursive = int(request["most"]), request.get("recursive") is True
        base = parts_of(request.get("path", ""))
        entries: list[dict[str, Any]] = []
        size = count = 0
        for entry in self.folders.entries(base, recursive=recursive, hidden=request.get("hidden") is True):
            count += 1
            if count > most:
                break
            entries.append(entry)
            size += len(entry["path"]) + len(entry["target"] or "") + 100
            if size > BATCH // 6:  # an escaped character is six
                reply(entries=entries)
                entries, size = [], 0
        reply(entries=entries, end=True, truncated=count > most)

    def changed(self, request: dict[str, Any]) -> None:
        """Files that were made or changed ``since``: as many as one reply holds."""
        since, most = float(request["since"]), int(request["most"])
        found: list[dict[str, Any]] = []
        size, truncated = 0, False
        for entry in self.folders.changed(since):
            if entry is None:
                truncated = True
                continue
            size += len(json.dumps(entry)) + 2
            if len(found) == most or size > MOST_CHANGED:
                truncated = True
                break
            found.append(entry)
        reply(entries=found, truncated=truncated)

    def stat(self, request: dict[str, Any]) -> None:
        """One entry."""
        parts = parts_of(request["path"])
        if not parts:
            raise Refused("refused", "The workspace itself is no entry of it.")
        with self.folders.folder(parts[:-1]) as descriptor:
            reply(entry=entry_at(descriptor, parts))

    def get(self, request: dict[str, Any]) -> None:
        """A file's content."""
        parts = self.folders.through_links(parts_of(request["path"]))
        most = int(request["max_bytes"])
        with self.folders.folder(parts[:-1]) as folder:
            descriptor = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            status = os.fstat(descriptor)
            refuse_unless_file(status, parts)
            if status.st_size > most:
                raise Refused("too large", f"{shown(parts)} holds {status.st_size} bytes; the limit is {most}.")
            reply(size=status.st_size, modified=status.st_mtime)
            sent = 0
            # one that grows meanwhile ends where it was to end: a log that is written to is never at its end
            while sent < status.st_size:
                chunk = os.read(descriptor, min(CHUNK, status.st_size - sent))
                if not chunk:
                    break
                send(DATA, chunk)
                sent += len(chunk)
            send(DATA, b"")
            reply(sent=sent)
        finally:
            os.close(descriptor)

    def put(self, request: dict[str, Any]) -> None:
        """A file, wholly or not at all: what was there stays until all of the new one is."""
        parts = parts_of(request["path"])
        most, size = int(request["max_bytes"]), request.get("size")
        self.refuse_to_write(parts)
        if size is not None and size > most:
            raise Refused("too large", f"{shown(parts)} has {size} bytes; the limit is {most}.")
        limit, most_files = request.get("workspace_bytes"), int(request["most_files"])
        most = min(most, self.folders.room(parts, limit=limit, most_files=most_files, size=size))
        with self.folders.folder(parts[:-1], make=True) as folder:
            mode = mode_at(folder, parts)
            remove_stale(folder)
            name = PARTIAL + secrets.token_hex(8)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, 0o600, dir_fd=folder)
            try:
                try:
                    reply()
                    receive_file(descriptor, most, parts)
                    os.fchmod(descriptor, mode)
                finally:
                    os.close(descriptor)
                os.rename(name, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
                raise
            reply(entry=entry_at(folder, parts))

    def remove(self, request: dict[str, Any]) -> None:
        """A file or link; a folder with all in it, where that is wanted."""
        parts = parts_of(request["path"])
        self.refuse_to_write(parts)
        with self.folders.folder(parts[:-1]) as folder:
            is_folder = stat.S_ISDIR(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode)
            if not is_folder:
                os.unlink(parts[-1], dir_fd=folder)
        if is_folder and request.get("recursive") is not True:
            raise Refused("refused", f"{shown(parts)} is a folder: it is removed with all in it, or not at all.")
        if is_folder:
            self.folders.remove_tree(parts)
        reply()

    def refuse_to_write(self, parts: list[str]) -> None:
        if self.read_only:
            raise Refused("refused", "These files can only be read.")
        if not parts:
            raise Refused("refused", "That is the workspace itself.")
        if parts[0] == STATE_DIRECTORY:
            raise Refused("refused", f"{STATE_DIRECTORY} is what the session keeps for itself.")


# -- frames ---------------------------------------------------------------------------------------------------


def receive_file(descriptor: int, most: int, parts: list[str]) -> None:
    """Write what comes, up to the empty frame that ends it."""
    received = 0
    while True:
        kind, payload = receive()
        if kind == CLOSE:
            raise Refused("given up", "The transfer was given up.")
        if kind != DATA:
            raise Refused("refused", "A transfer is under way.")
        if not payload:
            return
        received += len(payload)
        if received > most:
            raise Refused("too large", f"{shown(parts)} has more than {most} bytes, the most that there is room for.")
        view = memoryview(payload)
        while view:
            view = view[os.write(descriptor, view) :]


def receive() -> tuple[int, bytes]:
    """The next frame: its kind and payload.

    :raises GivenUp: the input has ended.
    """
    kind, _, length = HEADER.unpack(read(HEADER.size))
    if length > MAX_PAYLOAD:
        raise GivenUp
    return kind, read(length)


def read(size: int) -> bytes:
    pieces = bytearray()
    while len(pieces) < size:
        piece = os.read(0, size - len(pieces))
        if not piece:
            raise GivenUp
        pieces += piece
    return bytes(pieces)


def send(kind: int, payload: bytes) -> None:
    try:
        view = memoryview(HEADER.pack(kind, 0, len(payload)) + payload)
        while view:
            view = view[os.write(1, view) :]
    except OSError:
        raise GivenUp from None


def reply(**fields: Any) -> None:
    send(REPLY, json.dumps(fields).encode())


def word_for(error: Exception) -> str:
    """One word for what the system, or a malformed request, says."""
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "full"
    return "refused"


def sentence_for(error: Exception) -> str:
    if not isinstance(error, OSError):
        return f"The request is malformed ({type(error).__name__})."
    name = f"{os.fsdecode(error.filename)[:200]!r}: " if isinstance(error.filename, str | bytes) else ""
    return f"{name}{error.strerror}."


def main() -> None:
    """``file_door.py WORKSPACE [read-only]``."""
    # a put that is cut off by a signal still removes what it has written
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    Door(sys.argv[1], read_only=sys.argv[2:] == ["read-only"]).serve()


if __name__ == "__main__":
    main()
