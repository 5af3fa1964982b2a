"""Files at a far end that lies: whatever a container answers, it is an error or a checked entry."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

import session_manager
from session_manager import (
    FileError,
    FileMissing,
    FileRefused,
    FileTooLarge,
    Limits,
    WorkspaceFiles,
    file_stream,
    frames,
)
from session_manager.container_options import ContainerOptions
from session_manager.engine.base import ExecStream

ENTRY = {"path": "a", "kind": "file", "size": 1, "modified": 2.5, "target": None}


class Scripted:
    """A stream whose far end says what it is told to, whatever it is asked, and then hangs up."""

    def __init__(self, *said: bytes) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)

        def speak() -> None:
            with contextlib.suppress(OSError):  # who is told nonsense hangs up
                self.theirs.recv(65536)
                for one in said:
                    self.theirs.sendall(one)
                self.theirs.shutdown(socket.SHUT_WR)
                while self.theirs.recv(65536):
                    pass

        self.thread = threading.Thread(target=speak)
        self.thread.start()

    def fileno(self) -> int:
        return self.ours.fileno()

    def recv(self) -> bytes:
        return self.ours.recv(65536)

    def send(self, pieces: Sequence[memoryview]) -> int:
        return self.ours.sendmsg(pieces)

    def last_words(self) -> str:
        return "its last words"

    def close(self) -> None:
        self.ours.close()
        self.thread.join(30)
        self.theirs.close()


def frame(kind: int, payload: bytes) -> bytes:
    return frames.HEADER.pack(kind, 0, len(payload)) + payload


def reply(**fields: object) -> bytes:
    return frame(frames.REPLY, json.dumps(fields).encode())


def data(payload: bytes) -> bytes:
    return frame(frames.DATA, payload)


def files(*said: bytes, **limits: object) -> WorkspaceFiles:
    async def open_door(*, write: bool) -> ExecStream:
        return Scripted(*said)

    return WorkspaceFiles(open_door, Limits(**limits), ContainerOptions())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../up"},
        {"path": "/etc/passwd"},
        {"path": "a//b"},
        {"path": ""},
        {"path": "a\0"},
        {"path": "x" * 20_000},
        {"path": 7},
        {"kind": "door"},
        {"size": -1},
        {"size": True},
        {"size": 1.5},
        {"size": 1 << 63},
        {"size": 10**400},
        {"target": 3},
    ],
)
async def test_entries_that_are_none(change: dict[str, object]) -> None:
    with pytest.raises(FileError, match="malformed"):
        await files(reply(entries=[{**ENTRY, **change}], end=True)).list()
    with pytest.raises(FileError, match="malformed"):
        await files(reply(entry={**ENTRY, **change})).stat("a")


@pytest.mark.parametrize("modified", [None, "x", True, 1e400, -(10**400), [1]])
async def test_times_that_are_none_are_no_time(modified: object) -> None:
    (found,) = await files(reply(entries=[{**ENTRY, "modified": modified}], end=True)).list()
    assert found.modified == 0.0


def test_no_archive_is_unpacked() -> None:
    """So no container can send one that is a bomb, or names files elsewhere: they come one by one, through the door."""
    words = {"extract", "extractall", "extractfile", "unpack_archive", "get_archive", "export", "ZipFile"}
    for path in sorted(Path(session_manager.__file__).parent.rglob("*.py")):
        called = {node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
        names = {
            one.attr if isinstance(one, ast.Attribute) else one.id
            for one in called
            if hasattr(one, "attr") or hasattr(one, "id")
        }
        assert not names & words - ({"export"} if path.parent.name == "cli" else set()), path


async def test_a_listing_without_end_and_one_that_is_too_long() -> None:
    with pytest.raises(FileError, match="no end"):
        await files(*[reply(entries=[])] * 9).list()
    with pytest.raises(FileError, match="no list"):
        await files(reply(entries=[ENTRY] * 3, end=True), files=2).list()
    with pytest.raises(FileTooLarge):
        await files(reply(entries=[ENTRY], end=True, truncated=True), files=1).list()


async def test_a_refusal_of_lists_in_lists_is_one_like_any_other() -> None:
    refusal = frame(frames.REPLY, b'{"error": "refused", "sentence": ' + b"[" * 400 + b"]" * 400 + b"}")
    with pytest.raises(FileRefused, match="a list"):
        await files(refusal).get("a")


async def test_a_container_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_stream, "SILENCE", 0.1)
    ours, theirs = socket.socketpair()
    silent = Scripted()
    silent.ours.close()
    silent.ours = ours
    ours.setblocking(False)

    async def open_door(*, write: bool) -> ExecStream:
        return silent

    with theirs, pytest.raises(FileError, match="said nothing"):
        await WorkspaceFiles(open_door, Limits(), ContainerOptions()).list()


@pytest.mark.parametrize(
    "said",
    [
        [b""],
        [b"garbage, as an engine says it"],
        [frames.HEADER.pack(frames.REPLY, 0, frames.MAX_PAYLOAD + 1)],
        [frame(frames.REPLY, b"[]")],
        [frame(frames.REPLY, b"{" * 100_000)],
        [data(b"x")],
        [reply()],
        [reply(size=-1)],
        [reply(size=True)],
        [reply(size=1 << 62)],
        [reply(size=3), data(b"four"), data(b""), reply(sent=4)],
        [reply(size=3), data(b"ab"), data(b""), reply(sent=2)],
        [reply(size=3), data(b"ab")],
        [reply(size=3), data(b"abc"), data(b"")],
        [reply(size=3), data(b"ab"), reply(error="refused", sentence="the disk broke")],
        [reply(size=3), frame(99, b"ab")],
    ],
)
async def test_files_that_are_none(said: list[bytes], tmp_path: Path) -> None:
    with pytest.raises(FileError):
        await files(*said).get("a")
    target = tmp_path / "target"
    target.write_text("old")
    with pytest.raises(FileError):
        await files(*said).download("a", target)
    assert target.read_text() == "old"
    assert len(os.listdir(tmp_path)) == 1  # noqa: PTH208 - in async code a Path would be refused


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("missing", FileMissing),
        ("too large", FileTooLarge),
        ("full", FileRefused),
        ("?", FileRefused),
        (7, FileRefused),
    ],
)
async def test_refusals(word: object, error: type[FileError]) -> None:
    with pytest.raises(error, match="why"):
        await files(reply(error=word, sentence="why")).get("a")


async def test_a_refusal_in_the_middle_of_a_put_ends_it() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100_000):
            yield b"x" * 100_000

    with pytest.raises(FileTooLarge):
        await files(reply(), reply(error="too large", sentence="enough")).put(endless(), "a")


@pytest.mark.parametrize("path", ["", ".", "/", "..", "a/../b", "/etc/passwd", "/mnt", "/mntx/a", "a\0b", "x" * 9000])
async def test_paths_of_callers_that_are_none(path: str) -> None:
    with pytest.raises(FileRefused):
        await files().put(b"", path)


async def test_absolute_paths_in_the_workspace_are_relative_ones() -> None:
    entry = await files(reply(size=1), data(b"x"), data(b""), reply(sent=1)).download("/mnt/out/./a.png", io.BytesIO())
    assert (entry.path, entry.size, entry.mime) == ("out/a.png", 1, "image/png")
