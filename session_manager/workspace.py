"""Files into a session's workspace and out of it, through the file door: an exec of its own in the container.

``kernel_image/FRAMES.md`` ("The file door") is the format. Everything that comes through it is hostile: types, names,
sizes and counts are checked, and nothing in here grows with what a container sends. A file is never held whole, but
where a caller asks for its bytes.
"""

from __future__ import annotations

import asyncio
import math
import mimetypes
import secrets
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from .container_options import ContainerOptions
from .engine.base import ExecStream
from .errors import FileError, FileMissing, FileRefused, FileTooLarge
from .file_stream import FileStream
from .frames import words_of
from .settings import Limits

CHUNK = 131072
"""Bytes of one frame on the way in."""
LONGEST_PATH = 8192
MOST_CHANGED = 100
MOST_TARGET = 4096
UNKNOWN_TYPE = "application/octet-stream"

OnProgress = Callable[[int], None]
"""Called in the event loop with how many bytes have gone so far."""


class OpenDoor(Protocol):
    """Opens a file door. ``write``: what is asked of it changes files."""

    def __call__(self, *, write: bool) -> Awaitable[ExecStream]: ...


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Something in a workspace."""

    path: str
    """Relative to the workspace, with slashes; bytes that are no UTF-8 are lone surrogates (:func:`os.fsdecode`)."""
    kind: Literal["file", "folder", "link", "other"]
    """``link``: a symbolic one, wherever it leads; ``other``: a pipe, socket or device."""
    size: int
    """Bytes; 0 of what is no file."""
    modified: float
    """Unix time, seconds, as the container's file system says."""
    target: str | None = None
    """Where a link leads, as it is written."""

    @property
    def mime(self) -> str:
        """The type that the name speaks for."""
        return mime_of(self.path)


class WorkspaceFiles:
    """The files of one session: ``session.files``, and :meth:`SessionManager.files` where no kernel is wanted.

    ::

        await session.files.put(Path("sales.csv"), "data/sales.csv")
        plot = await session.files.get("out/plot.png")

    Paths are relative to the workspace, or absolute ones in it. Works while a cell runs. Links are listed, and followed
    where they stay in the workspace; pipes, sockets and devices are refused. What is put belongs to the kernel's user.
    A transfer is no cell: a session that is put away meanwhile for being idle breaks it off, and it is tried again.

    Every method may raise :class:`FileError`, with the subclasses that are named, and what :meth:`Session.start` does.
    """

    def __init__(self, open_door: OpenDoor, limits: Limits, options: ContainerOptions) -> None:
        self._open_door = open_door
        self._limits = limits
        self._root = options.working_dir

    async def put(
        self,
        source: bytes | Path | BinaryIO | AsyncIterable[bytes],
        path: str,
        *,
        on_progress: OnProgress | None = None,
    ) -> FileEntry:
        """Put a file there, wholly or not at all; folders on the way are made. What was there is replaced.

        ``source``: the bytes, a file of this machine, an open file that is read from where it stands, or pieces as they
        come. Cancelling the call, or an error in ``source``, leaves what was there.

        :raises FileTooLarge: it is more than ``limits.file_bytes``, or the workspace would hold too much.
        :raises FileRefused: the path is none, leads through a link or names a folder; or the disk is full.
        :raises OSError: ``source`` can't be read.
        """
        size: int | None = None
        if isinstance(source, Path):
            size = (await asyncio.to_thread(source.stat)).st_size
        elif isinstance(source, bytes):
            size = len(source)
        request = {
            "op": "put",
            "path": self._relative(path),
            "size": size,
            "max_bytes": self._limits.file_bytes,
            "most_files": self._limits.files,
            "workspace_bytes": self._limits.workspace_bytes,
        }
        async with self._door(write=True) as door:
            answer_of(await door.ask(request))
            sent = 0
            async with aclosing(pieces_of(source)) as pieces:
                async for piece in pieces:
                    if not await door.send_data(piece):
                        break
                    sent += len(piece)
                    if on_progress is not None:
                        on_progress(sent)
            await door.end_data()
            return entry_of(answer_of(await door.reply()).get("entry"))

    async def get(self, path: str) -> bytes:
        """A file's content.

        :raises FileMissing: there is none of this path.
        :raises FileTooLarge: it is more than ``limits.file_bytes``.
        :raises FileRefused: it leads out of the workspace, or is no ordinary file.
        """
        async with aclosing(self.stream(path)) as pieces:
            return b"".join([piece async for piece in pieces])

    async def download(self, path: str, target: Path | BinaryIO, *, on_progress: OnProgress | None = None) -> FileEntry:
        """Write a file's content to this machine; to a path wholly or not at all, its folder is made where needed.

        :raises FileMissing, FileTooLarge, FileRefused: as :meth:`get`.
        :raises OSError: ``target`` can't be written.
        """
        if not isinstance(target, Path):
            return await self._download(path, target, on_progress)
        await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
        try:
            with await asyncio.to_thread(partial.open, "xb") as file:
                entry = await self._download(path, file, on_progress)
            await asyncio.to_thread(partial.replace, target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return entry

    async def _download(self, path: str, file: BinaryIO, on_progress: OnProgress | None) -> FileEntry:
        received = 0
        async with self._door(write=False) as door:
            head = answer_of(await door.ask(self._get(path)))
            async with aclosing(self._content(door, head)) as pieces:
                async for piece in pieces:
                    await asyncio.to_thread(file.write, piece)
                    received += len(piece)
                    if on_progress is not None:
                        on_progress(received)
        return FileEntry(self._relative(path), "file", received, number(head.get("modified")))

    async def stream(self, path: str) -> AsyncGenerator[bytes, None]:
        """A file's content in pieces of up to 256 KiB. Close it (:func:`contextlib.aclosing`) where it is left early.

        :raises FileMissing, FileTooLarge, FileRefused: as :meth:`get`.
        """
        async with self._door(write=False) as door:
            head = answer_of(await door.ask(self._get(path)))
            async with aclosing(self._content(door, head)) as pieces:
                async for piece in pieces:
                    yield piece

    def _get(self, path: str) -> dict[str, object]:
        return {"op": "get", "path": self._relative(path), "max_bytes": self._limits.file_bytes}

    async def _content(self, door: FileStream, head: Mapping[str, object]) -> AsyncGenerator[bytes, None]:
        said = head.get("size")
        if not isinstance(said, int) or isinstance(said, bool) or not 0 <= said <= self._limits.file_bytes:
            raise FileError("The container named no size of the file.")
        received = 0
        while piece := await door.data():
            received += len(piece)
            if received > said:
                raise FileError("The container sent more than the file's size.")
            yield piece
        answer_of(await door.reply())
        if received < said:
            raise FileError("The file became shorter while it was read.", "Try again when nothing writes to it.")

    async def list(self, path: str = "", *, recursive: bool = True, hidden: bool = False) -> Sequence[FileEntry]:
        """What is in a folder, by path. ``hidden``: also what the session keeps for itself (.docker-interpreter).

        :raises FileMissing: there is no such folder.
        :raises FileTooLarge: there are more than ``limits.files`` entries.
        """
        most = self._limits.files
        request = {
            "op": "list",
            "path": self._relative(path, empty=True),
            "most": most,
            "recursive": recursive,
            "hidden": hidden,
        }
        found: list[FileEntry] = []
        async with self._door(write=False) as door:
            answer = answer_of(await door.ask(request))
            while True:
                entries = answer.get("entries")
                if not isinstance(entries, list) or len(found) + len(entries) > most:
                    raise FileError("The container sent no list of files.")
                found.extend(map(entry_of, entries))
                if answer.get("end") is True:
                    break
                if not entries:
                    raise FileError("The container's list of files has no end.")
                answer = answer_of(await door.reply())
        if answer.get("truncated") is True:
            raise FileTooLarge(f"There are more than {most} files.", "List a folder, or raise `limits.files`.")
        return sorted(found, key=lambda entry: entry.path)

    async def stat(self, path: str) -> FileEntry | None:
        """One entry; None where there is nothing of this path."""
        async with self._door(write=False) as door:
            try:
                return entry_of(answer_of(await door.ask({"op": "stat", "path": self._relative(path)})).get("entry"))
            except FileMissing:
                return None

    async def changed(self, since: float) -> Mapping[str, object]:
        """What the door says of files that were made or changed since then: Unix time by the container's clock."""
        async with self._door(write=False) as door:
            return answer_of(await door.ask({"op": "changed", "since": since, "most": MOST_CHANGED}))

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file or a link; a folder, with all in it, where ``recursive``.

        :raises FileMissing: there is nothing of this path.
        :raises FileRefused: it is a folder, and that is not wanted; or it can't be removed.
        """
        async with self._door(write=True) as door:
            answer_of(await door.ask({"op": "remove", "path": self._relative(path), "recursive": recursive}))

    @asynccontextmanager
    async def _door(self, *, write: bool) -> AsyncIterator[FileStream]:
        door = FileStream(await self._open_door(write=write))
        try:
            yield door
        finally:
            await door.close()

    def _relative(self, path: str, *, empty: bool = False) -> str:
        """A caller's path as the door takes it.

        :raises FileRefused: it is no path in the workspace.
        """
        relative = path
        if path.startswith("/"):
            if path != self._root and not path.startswith(f"{self._root}/"):
                raise FileRefused(f"{path!r} is not in the workspace, which is {self._root}.")
            relative = path[len(self._root) :]
        parts = [part for part in relative.split("/") if part not in ("", ".")]
        if ".." in parts or "\0" in relative or len(relative) > LONGEST_PATH or (not parts and not empty):
            raise FileRefused(f"{path[:200]!r} is no path in the workspace.")
        return "/".join(parts)


def mime_of(path: str) -> str:
    """The mime type that a file's name speaks for."""
    return mimetypes.guess_type(path)[0] or UNKNOWN_TYPE


async def pieces_of(source: bytes | Path | BinaryIO | AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """What is to be sent, in pieces of at most :data:`CHUNK` bytes."""
    if isinstance(source, bytes):
        for start in range(0, len(source), CHUNK):
            yield source[start : start + CHUNK]
    elif isinstance(source, Path):
        with await asyncio.to_thread(source.open, "rb") as file:
            while piece := await asyncio.to_thread(file.read, CHUNK):
                yield piece
    elif isinstance(source, AsyncIterable):
        async for whole in source:
            for start in range(0, len(whole), CHUNK):
                yield bytes(whole[start : start + CHUNK])
    else:
        while piece := await asyncio.to_thread(source.read, CHUNK):
            yield piece


def answer_of(answer: Mapping[str, object]) -> Mapping[str, object]:
    """A reply that is no refusal.

    :raises FileError: it is one.
    """
    kind = answer.get("error")
    if kind is None:
        return answer
    sentence = words_of(answer.get("sentence"), 500)
    if kind == "missing":
        raise FileMissing(f"There is no such file. {sentence}")
    if kind in ("too large", "too many"):
        raise FileTooLarge(sentence, "`limits.file_bytes`, `limits.files` and `limits.workspace_bytes` are the limits.")
    if kind == "full":
        raise FileRefused(f"The disk is full. {sentence}", "Remove files that are not needed any more.")
    raise FileRefused(sentence)


def entry_of(fields: object) -> FileEntry:
    """Check an entry that came out of a container.

    :raises FileError: it is none, or its path is none below a workspace.
    """
    if not isinstance(fields, dict):
        raise FileError("The container sent a malformed list of files.")
    path, kind, size, target = (fields.get(name) for name in ("path", "kind", "size", "target"))
    if (
        not isinstance(path, str)
        or not 0 < len(path) <= 2 * LONGEST_PATH
        or "\0" in path
        or any(part in ("", ".", "..") for part in path.split("/"))
        or kind not in ("file", "folder", "link", "other")
        or not isinstance(size, int)
        or isinstance(size, bool)
        or not 0 <= size < 1 << 63
        or not isinstance(target, str | None)
    ):
        raise FileError("The container sent a malformed list of files.")
    return FileEntry(path, kind, size, number(fields.get("modified")), None if target is None else target[:MOST_TARGET])


def number(value: object) -> float:
    """A time as it came out of a container; 0.0 where that is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    try:
        found = float(value)
    except OverflowError:
        return 0.0
    return found if math.isfinite(found) else 0.0
