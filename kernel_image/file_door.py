"""Files into the workspace and out of it: run by an exec of its own, as the user that the kernel runs as.

``file_door.py WORKSPACE [read-only]`` speaks frames on its standard input and output, as FRAMES.md says ("The file
door"): one request at a time, any number one after another. Standard library only. Every path is walked folder by
folder from the workspace, following no link; so whatever is swapped meanwhile, nothing outside is reached.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import secrets
import shutil
import signal
import stat
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

HEADER = struct.Struct("!BII")
DATA, CLOSE, REQUEST, REPLY = 3, 4, 6, 7
MAX_PAYLOAD = 262144
CHUNK = 131072
PARTIAL = ".di-partial-"
STALE = 86_400.0  # seconds after which a partial file has been left by a transfer that was killed
STATE_DIRECTORY = ".docker-interpreter"
BATCH = 60_000  # characters of entries in one reply, before JSON's escapes
MOST_LINKS = 40
AT_FDCWD, AT_SYMLINK_NOFOLLOW, STATX_BTIME = -100, 0x100, 0x800
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Refused(Exception):  # noqa: N818 - it is the answer to a request
    """Why a request is not done: a word for programs (``kind``), and a sentence."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


class GivenUp(Exception):  # noqa: N818 - not an error
    """The other side ended the transfer, or has gone."""


class Door:
    """Answers requests for the files below ``root``."""

    def __init__(self, root: str, *, read_only: bool = False) -> None:
        self.root = os.path.realpath(root)
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
                except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                    reply(error=word_for(error), sentence=sentence_for(error))

    # -- operations -------------------------------------------------------------------------------------------

    def list(self, request: dict[str, Any]) -> None:
        """Entries of a folder, in batches; those below it too, where that is wanted."""
        most, recursive = int(request["most"]), request.get("recursive") is True
        base = parts_of(request.get("path", ""))
        entries: list[dict[str, Any]] = []
        size = count = 0
        for entry in self.entries(base, recursive=recursive, hidden=request.get("hidden") is True):
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
        """Files that were made or changed in the last ``seconds``. New is what is younger than that, where the file
        system can tell."""
        since = time.time() - float(request["seconds"])
        most = int(request["most"])
        found: list[dict[str, Any]] = []
        for entry in self.entries([], recursive=True, hidden=False):
            if entry["kind"] != "file":
                continue
            path = "/".join([self.root, entry["path"]])
            with contextlib.suppress(OSError):
                if os.lstat(path).st_ctime < since:
                    continue
                if len(found) == most:
                    reply(entries=found, truncated=True)
                    return
                found.append({**entry, "new": born(path) >= since})
        reply(entries=found, truncated=False)

    def entries(self, base: list[str], *, recursive: bool, hidden: bool) -> Iterator[dict[str, Any]]:
        """What is in a folder."""
        waiting = [base]
        while waiting:
            folder = waiting.pop()
            try:
                descriptor = self.open_folder(folder)
            except (OSError, Refused):
                if folder == base:
                    raise
                continue  # it was removed or replaced meanwhile, or is locked
            try:
                for name in os.listdir(descriptor):  # noqa: PTH208 - of a descriptor
                    if name.startswith(PARTIAL) or (not hidden and not folder and name == STATE_DIRECTORY):
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        entry = entry_at(descriptor, [*folder, name])
                        yield entry
                        if recursive and entry["kind"] == "folder":
                            waiting.append([*folder, name])
            finally:
                os.close(descriptor)

    def stat(self, request: dict[str, Any]) -> None:
        """One entry."""
        parts = parts_of(request["path"])
        if not parts:
            raise Refused("refused", "The workspace itself is no entry of it.")
        with self.folder(parts[:-1]) as descriptor:
            reply(entry=entry_at(descriptor, parts))

    def get(self, request: dict[str, Any]) -> None:
        """A file's content."""
        parts = self.through_links(parts_of(request["path"]))
        most = int(request["max_bytes"])
        with self.folder(parts[:-1]) as folder:
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
        most = min(most, self.room(request, size))
        with self.folder(parts[:-1], make=True) as folder:
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

    def room(self, request: dict[str, Any], size: int | None) -> int:
        """How many bytes the workspace still takes.

        :raises Refused: it is full already, or would be.
        """
        limit, most_files = request.get("workspace_bytes"), int(request["most_files"])
        held = files = 0
        device = os.lstat(self.root).st_dev
        waiting = [self.root]
        while waiting:
            with contextlib.suppress(OSError), os.scandir(waiting.pop()) as found:
                for one in found:
                    with contextlib.suppress(OSError):
                        status = one.stat(follow_symlinks=False)
                        if status.st_dev != device:
                            continue  # a folder that is bound here is not the session's
                        held += status.st_blocks * 512
                        if stat.S_ISDIR(status.st_mode):
                            waiting.append(one.path)
                        else:
                            files += 1
        if files >= most_files:
            raise Refused("too many", f"The workspace holds {files} files; the limit is {most_files}.")
        if limit is None:
            return sys.maxsize
        if held + (size or 0) > limit:
            raise Refused("too large", f"The workspace holds {held} bytes, and may hold {limit} with this file.")
        return int(limit) - held

    def remove(self, request: dict[str, Any]) -> None:
        """A file or link; a folder with all in it, where that is wanted."""
        parts = parts_of(request["path"])
        self.refuse_to_write(parts)
        with self.folder(parts[:-1]) as folder:
            status = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                os.unlink(parts[-1], dir_fd=folder)
            elif request.get("recursive") is True:
                shutil.rmtree(parts[-1], dir_fd=folder)
            else:
                raise Refused("refused", f"{shown(parts)} is a folder: it is removed with all in it, or not at all.")
        reply()

    # -- paths ------------------------------------------------------------------------------------------------

    def refuse_to_write(self, parts: list[str]) -> None:
        if self.read_only:
            raise Refused("refused", "These files can only be read.")
        if not parts:
            raise Refused("refused", "That is the workspace itself.")
        if parts[0] == STATE_DIRECTORY:
            raise Refused("refused", f"{STATE_DIRECTORY} is what the session keeps for itself.")

    def through_links(self, parts: list[str]) -> list[str]:
        """Where a path leads, through links that stay in the workspace. It is walked from there without any."""
        if not parts:
            raise Refused("refused", "That is the workspace itself, which is no file.")
        real = os.path.realpath("/".join([self.root, *parts]))
        if real != self.root and not real.startswith(self.root.rstrip("/") + "/"):
            raise Refused("refused", f"{shown(parts)} leads out of the workspace.")
        return parts_of(real[len(self.root) :].lstrip("/")) or parts

    @contextlib.contextmanager
    def folder(self, parts: list[str], *, make: bool = False) -> Iterator[int]:
        """A descriptor of a folder below the root."""
        descriptor = self.open_folder(parts, make=make)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def open_folder(self, parts: list[str], *, make: bool = False) -> int:
        descriptor = os.open(self.root, FOLDER)
        for number, name in enumerate(parts, 1):
            try:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o755, dir_fd=descriptor)
                below = os.open(name, FOLDER, dir_fd=descriptor)
            except OSError as error:
                if error.errno in (errno.ENOTDIR, errno.ELOOP):
                    raise Refused("refused", f"{shown(parts[:number])} is no folder, or a link.") from None
                raise
            finally:
                os.close(descriptor)
            descriptor = below
        return descriptor


def parts_of(path: object) -> list[str]:
    """The names in a path below the workspace; [] for the workspace itself."""
    if not isinstance(path, str):
        raise Refused("refused", "A path is a text.")
    if path in ("", "."):
        return []
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise Refused("refused", f"{path[:200]!r} is no path below the workspace.")
    return parts


def shown(parts: list[str]) -> str:
    return repr("/".join(parts)[:200])


def entry_at(folder: int, parts: list[str]) -> dict[str, Any]:
    """What there is of one name in a folder."""
    status = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
    target = None
    if stat.S_ISLNK(status.st_mode):
        kind, target = "link", os.readlink(parts[-1], dir_fd=folder)
    elif stat.S_ISDIR(status.st_mode):
        kind = "folder"
    else:
        kind = "file" if stat.S_ISREG(status.st_mode) else "other"
    size = status.st_size if kind == "file" else 0
    return {"path": "/".join(parts), "kind": kind, "size": size, "modified": status.st_mtime, "target": target}


def born(path: str) -> float:
    """Unix time at which a file was made; 0 where that can't be told. Python has no word for it: statx(2)."""
    answer = ctypes.create_string_buffer(256)
    try:
        code = ctypes.CDLL(None).statx(AT_FDCWD, os.fsencode(path), AT_SYMLINK_NOFOLLOW, STATX_BTIME, answer)
    except AttributeError:  # an old C library
        return 0.0
    (mask,) = struct.unpack_from("=I", answer, 0)
    seconds, nanoseconds = struct.unpack_from("=qI", answer, 80)
    return seconds + nanoseconds / 1e9 if code == 0 and mask & STATX_BTIME else 0.0


def refuse_unless_file(status: os.stat_result, parts: list[str]) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise Refused("refused", f"{shown(parts)} is a folder.")
    if not stat.S_ISREG(status.st_mode):
        raise Refused("refused", f"{shown(parts)} is no ordinary file.")


def mode_at(folder: int, parts: list[str]) -> int:
    """The permissions that a file put there gets: those of the one that it replaces."""
    try:
        status = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return 0o644
    if stat.S_ISLNK(status.st_mode):
        return 0o644  # the link is replaced, and nothing at its end
    refuse_unless_file(status, parts)
    return stat.S_IMODE(status.st_mode) & 0o777


def remove_stale(folder: int) -> None:
    """Remove what transfers left that were killed."""
    for name in os.listdir(folder):  # noqa: PTH208 - of a descriptor
        if name.startswith(PARTIAL):
            with contextlib.suppress(OSError):
                if time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime > STALE:
                    os.unlink(name, dir_fd=folder)


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
