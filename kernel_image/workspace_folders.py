"""The folders of a workspace: walked name by name from the workspace, following no link. Standard library only.

So whatever is swapped meanwhile, nothing outside is reached; and no path is too long, since none is given whole.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import stat
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

from mounts import bound_below

PARTIAL = ".di-partial-"  # what a transfer under way is called
STALE = 86_400.0  # seconds after which a partial file has been left by a transfer that was killed
DEEPEST = 100  # folders below each other, on the way to removing them
LONGEST_PATH = 8192  # characters below the workspace; what lies deeper can't be asked for, and to walk it takes long
STATE_DIRECTORY = ".docker-interpreter"
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
AT_SYMLINK_NOFOLLOW, STATX_BTIME = 0x100, 0x800


class Refused(Exception):  # noqa: N818 - it is the answer to a request
    """Why a request is not done: a word for programs (``kind``), and a sentence."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


class Folders:
    """The folders below ``root``. A path is the list of its names; that of the workspace itself is empty."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        self.bound = bound_below(self.root)
        self.stepped: tuple[list[str], int] | None = None

    def entries(self, base: list[str], *, recursive: bool, hidden: bool) -> Iterator[dict[str, Any]]:
        """What is in a folder, down to the longest path."""
        waiting = [base]
        while waiting:
            folder = waiting.pop()
            try:
                descriptor = self.step_into(folder)
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
                        if len(entry["path"]) > LONGEST_PATH:
                            continue
                        yield entry
                        if recursive and entry["kind"] == "folder":
                            waiting.append([*folder, name])
            finally:
                os.close(descriptor)

    def changed(self, since: float) -> Iterator[dict[str, Any] | None]:
        """The user's files that were made or changed ``since`` (Unix time), each with ``new``: whether it is younger,
        where the file system can tell. None for a folder that can't be looked into. Bound folders are left out: they
        are not the session's."""
        device = os.lstat(self.root).st_dev
        waiting: list[list[str]] = [[]]
        while waiting:
            folder = waiting.pop()
            try:
                descriptor = self.step_into(folder)
            except (FileNotFoundError, Refused):
                continue  # it was removed or replaced meanwhile
            except OSError:
                yield None
                continue
            try:
                for name in os.listdir(descriptor):  # noqa: PTH208 - of a descriptor
                    if name.startswith(PARTIAL) or (not folder and name == STATE_DIRECTORY):
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                        if status.st_dev != device or "/".join([*folder, name]) in self.bound:
                            continue
                        if stat.S_ISDIR(status.st_mode):
                            if sum(map(len, folder)) + len(folder) + len(name) > LONGEST_PATH:
                                yield None
                                continue
                            waiting.append([*folder, name])
                        elif stat.S_ISREG(status.st_mode) and status.st_ctime >= since:
                            entry = entry_at(descriptor, [*folder, name])
                            yield {**entry, "new": born(descriptor, name) >= since}
            finally:
                os.close(descriptor)

    def room(self, parts: list[str], *, limit: int | None, most_files: int, size: int | None) -> int:
        """How many bytes a file that is put there may have. What it replaces makes room, and what the session keeps
        for itself counts as no file of the user's.

        :raises Refused: the workspace is full already, or would be.
        """
        held = files = 0
        device = os.lstat(self.root).st_dev
        waiting = [(self.root, False)]
        while waiting:
            path, own = waiting.pop()
            with contextlib.suppress(OSError), os.scandir(path) as found:
                for one in found:
                    with contextlib.suppress(OSError):
                        status = one.stat(follow_symlinks=False)
                        if status.st_dev != device or one.path[len(self.root) :].lstrip("/") in self.bound:
                            continue  # a folder that is bound here is not the session's
                        held += status.st_blocks * 512
                        if stat.S_ISDIR(status.st_mode):
                            waiting.append((one.path, own or (path == self.root and one.name == STATE_DIRECTORY)))
                        elif not own:
                            files += 1
        with contextlib.suppress(OSError):
            replaced = os.lstat("/".join([self.root, *parts]))
            held -= replaced.st_blocks * 512 if replaced.st_dev == device and replaced.st_nlink == 1 else 0
            files -= 1
        if files >= most_files:
            raise Refused("too many", f"The workspace holds {files} files; the limit is {most_files}.")
        if limit is None:
            return sys.maxsize
        if held + (size or 0) > limit:
            raise Refused("too large", f"The workspace holds {held} bytes, and may hold {limit} with this file.")
        return limit - held

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

    def step_into(self, folder: list[str]) -> int:
        """A descriptor of a folder, by way of the one that was stepped into before where that is just above it: else
        a walk would take ever longer, the deeper it is."""
        above, self.stepped = self.stepped, None
        try:
            if above is None or not folder or folder[:-1] != above[0]:
                descriptor = self.open_folder(folder)
            else:
                descriptor = os.open(folder[-1], FOLDER, dir_fd=above[1])
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise Refused("refused", f"{shown(folder)} is no folder, or a link.") from None
            raise
        finally:
            if above is not None:
                os.close(above[1])
        self.stepped = (folder, os.dup(descriptor))
        return descriptor

    def remove_tree(self, parts: list[str]) -> None:
        """Remove a folder with all in it: the innermost folders first.

        However deep that is: what lies too far down is moved up on the way, since each step down takes a while.
        """
        waiting = [parts]
        while waiting:
            folder = waiting[-1]
            below = []
            with self.folder(folder) as descriptor:
                for name in os.listdir(descriptor):  # noqa: PTH208 - of a descriptor
                    with contextlib.suppress(FileNotFoundError):
                        if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                            deep = len(folder) - len(parts) >= DEEPEST
                            below.append(self.moved_up(descriptor, name, parts) if deep else [*folder, name])
                        else:
                            os.unlink(name, dir_fd=descriptor)
            if below:
                waiting += below
                continue
            waiting.pop()
            with self.folder(folder[:-1]) as above, contextlib.suppress(FileNotFoundError):
                os.rmdir(folder[-1], dir_fd=above)

    def moved_up(self, folder: int, name: str, parts: list[str]) -> list[str]:
        """Where a folder is that was moved to just below another."""
        new = PARTIAL + secrets.token_hex(8)
        with self.folder(parts) as above:
            os.rename(name, new, src_dir_fd=folder, dst_dir_fd=above)
        return [*parts, new]


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


def born(folder: int, name: str) -> float:
    """Unix time at which a file was made; 0 where that can't be told. Python has no word for it: statx(2)."""
    answer = ctypes.create_string_buffer(256)
    try:
        code = ctypes.CDLL(None).statx(folder, os.fsencode(name), AT_SYMLINK_NOFOLLOW, STATX_BTIME, answer)
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
