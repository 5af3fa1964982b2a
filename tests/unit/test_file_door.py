"""The file door as a program: what it does with requests, paths and files that want to get out."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from session_manager import frames, workspace

from .test_frames import KERNEL_IMAGE, load

door_module = load("file_door")
folders_module = load("workspace_folders")
FRAMES = (KERNEL_IMAGE / "FRAMES.md").read_text()
LIMITS = {"max_bytes": 1 << 20, "most_files": 100, "workspace_bytes": None, "size": None}


class Door:
    """The program, and a workspace for it."""

    def __init__(self, root: Path, *arguments: str) -> None:
        self.root = root
        self.process = subprocess.Popen(
            [sys.executable, "-IS", str(KERNEL_IMAGE / "file_door.py"), str(root), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def send(self, kind: int, payload: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(frames.HEADER.pack(kind, 0, len(payload)) + payload)
        self.process.stdin.flush()

    def receive(self) -> tuple[int, bytes]:
        assert self.process.stdout is not None
        kind, _, length = frames.HEADER.unpack(self.process.stdout.read(frames.HEADER.size))
        return kind, self.process.stdout.read(length)

    def reply(self) -> dict[str, Any]:
        kind, payload = self.receive()
        assert kind == frames.REPLY
        return dict(json.loads(payload))

    def ask(self, op: str, **fields: object) -> dict[str, Any]:
        self.send(frames.REQUEST, json.dumps({"op": op, **fields}).encode())
        return self.reply()

    def get(self, path: str, max_bytes: int = 1 << 20) -> bytes | str:
        """The content, or the word of a refusal."""
        head = self.ask("get", path=path, max_bytes=max_bytes)
        if "error" in head:
            return str(head["error"])
        pieces = []
        while piece := self.receive()[1]:
            pieces.append(piece)
        assert self.reply() == {"sent": head["size"]}
        return b"".join(pieces)

    def put(self, path: str, *pieces: bytes, **changes: object) -> dict[str, Any]:
        """The entry, or the refusal."""
        head = self.ask("put", path=path, **{**LIMITS, **changes})
        if "error" in head:
            return head
        for piece in (*pieces, b""):
            self.send(frames.DATA, piece)
        return self.reply()

    def end(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    (tmp_path / "outside").write_text("secret")
    root = tmp_path / "workspace"
    root.mkdir()
    found = Door(root)
    yield found
    found.end()
    assert found.process.returncode == 0, "whatever it was asked, it ends in order"


def test_both_sides_speak_the_same_format() -> None:
    for name in ("HEADER", "DATA", "CLOSE", "REQUEST", "REPLY", "MAX_PAYLOAD"):
        ours, theirs = getattr(frames, name), getattr(door_module, name)
        assert getattr(ours, "format", ours) == getattr(theirs, "format", theirs)
    assert max(door_module.CHUNK, workspace.CHUNK) <= frames.MAX_PAYLOAD


def test_the_format_names_each_operation(tmp_path: Path) -> None:
    table = FRAMES.partition("# The file door")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(door_module.Door(str(tmp_path)).operations)


@pytest.mark.parametrize("path", ["a", "-rf", "ä b/c", " ", "\u2028", "a\nb", "\udcff\udc80.bin", "x/" * 50 + "y"])
def test_any_name_goes_in_and_out(door: Door, path: str) -> None:
    assert door.put(path, b"12", b"3")["entry"]["path"] == path
    assert door.get(path) == b"123"
    assert path in {entry["path"] for entry in door.ask("list", path="", most=100, recursive=True)["entries"]}
    assert door.ask("remove", path=path) == {}
    assert door.get(path) == "missing"


@given(content=st.binary(max_size=400_000), name=st.binary(min_size=1, max_size=80))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trips(door: Door, content: bytes, name: bytes) -> None:
    name = name.replace(b"/", b"_").replace(b"\0", b"_").replace(b".", b"_")
    path = os.fsdecode(name)
    pieces = [content[start : start + 100_000] for start in range(0, len(content), 100_000)]
    assert door.put(path, *pieces)["entry"]["size"] == len(content)
    assert door.get(path) == content
    assert (os.fsencode(door.root) + b"/" + name) in {os.fsencode(one) for one in door.root.iterdir()}


@pytest.mark.parametrize("path", ["..", "../outside", "/etc/passwd", "a/../../outside", "a//b", "./a", "a\0b", 7, None])
def test_paths_that_are_none_are_refused(door: Door, path: object) -> None:
    for op in ("get", "stat", "remove", "put"):
        assert door.ask(op, path=path, **LIMITS)["error"] == "refused"
    assert door.put("fine", b"x")["entry"]["size"] == 1


def test_links_are_listed_and_lead_nowhere_outside(door: Door) -> None:
    (door.root / "out").symlink_to(door.root.parent / "outside")
    (door.root / "up").symlink_to("..")
    (door.root / "loop").symlink_to("loop")
    (door.root / "in").symlink_to("file")
    (door.root / "file").write_text("inside")
    entries = door.ask("list", path="", most=100, recursive=True)["entries"]
    assert {entry["path"]: entry["kind"] for entry in entries} == {
        "out": "link", "up": "link", "loop": "link", "in": "link", "file": "file",
    }  # fmt: skip
    assert door.get("in") == b"inside"
    assert {door.get(path) for path in ("out", "up/outside", "loop")} == {"refused"}
    for op in ("list", "put", "remove"):
        assert door.ask(op, path="up/outside", most=9, recursive=True, **LIMITS)["error"] in ("refused", "missing")
    # what is put in a link's place replaces the link; what is removed is the link
    assert door.put("out", b"new")["entry"]["kind"] == "file"
    assert door.ask("remove", path="up", recursive=True) == {}
    assert (door.root.parent / "outside").read_text() == "secret"


def test_removing_a_folder_follows_no_link(door: Door) -> None:
    (door.root / "folder/below").mkdir(parents=True)
    (door.root / "folder/below/up").symlink_to(door.root.parent)
    assert door.ask("remove", path="folder")["error"] == "refused"
    assert door.ask("remove", path="folder", recursive=True) == {}
    assert not (door.root / "folder").exists() and (door.root.parent / "outside").exists()
    assert door.ask("remove", path="", recursive=True)["error"] == "refused"


def test_special_files_are_refused_and_not_waited_for(door: Door) -> None:
    os.mkfifo(door.root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(door.root / "socket"))
        for name in ("pipe", "socket"):
            assert door.get(name) == "refused"
            assert door.put(name, b"x")["error"] == "refused"
            assert door.ask("stat", path=name)["entry"]["kind"] == "other"


def test_a_transfer_that_breaks_leaves_the_old_file(door: Door) -> None:
    (door.root / "file").write_text("old")
    assert door.ask("put", path="file", **LIMITS) == {}
    door.send(frames.DATA, b"new")
    door.send(frames.CLOSE, b"")
    assert door.reply()["error"] == "given up"
    assert door.ask("put", path="file", **LIMITS) == {}
    door.send(frames.DATA, b"new")
    door.end()
    assert [one.name for one in door.root.iterdir()] == ["file"] and (door.root / "file").read_text() == "old"


def test_a_signal_in_a_transfer_leaves_the_old_file(tmp_path: Path) -> None:
    door = Door(tmp_path)
    assert door.ask("put", path="file", **LIMITS) == {}
    door.send(frames.DATA, b"new")
    door.process.terminate()
    door.end()
    assert list(tmp_path.iterdir()) == []


def test_limits_are_kept_while_it_comes(door: Door) -> None:
    assert door.put("file", b"12345", max_bytes=4)["error"] == "too large"
    assert door.put("file", size=5, max_bytes=4)["error"] == "too large"
    assert door.put("file", b"x" * 9000, workspace_bytes=8192)["error"] == "too large"
    assert list(door.root.iterdir()) == []
    assert door.put("file", b"1234", max_bytes=4)["entry"]["size"] == 4
    assert door.get("file", max_bytes=3) == "too large"
    assert door.put("other", b"", most_files=1)["error"] == "too many"


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    code = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "program = sys.argv.pop(1); sys.argv[0] = program; runpy.run_path(program, run_name='__main__')"
    )
    door = Door(tmp_path)
    door.end()
    door.process = subprocess.Popen(
        [sys.executable, "-c", code, str(KERNEL_IMAGE / "file_door.py"), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    answer = door.put("file", b"x" * 5000)
    assert "File too large" in answer["sentence"]
    door.end()
    assert (tmp_path / "file").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_the_mode_of_what_is_replaced_stays(door: Door) -> None:
    (door.root / "script").touch(0o750)
    door.put("script", b"#!/bin/sh")
    assert (door.root / "script").stat().st_mode & 0o777 == 0o750
    door.put("fresh", b"")
    assert (door.root / "fresh").stat().st_mode & 0o777 == 0o644


def test_the_sessions_own_state_is_read_and_not_written(door: Door) -> None:
    (door.root / ".docker-interpreter").mkdir()
    (door.root / ".docker-interpreter/x").write_text("state")
    assert door.ask("list", path="", most=10, recursive=True)["entries"] == []
    assert len(door.ask("list", path="", most=10, recursive=True, hidden=True)["entries"]) == 2
    assert door.get(".docker-interpreter/x") == b"state"
    assert door.put(".docker-interpreter/x", b"y")["error"] == "refused"
    assert door.ask("remove", path=".docker-interpreter", recursive=True)["error"] == "refused"


def test_a_listing_is_bounded_and_comes_in_batches(door: Door) -> None:
    for number in range(300):
        (door.root / f"{number:03}{'ä' * 100}").touch()
    found, answer = [], door.ask("list", path="", most=1000, recursive=True)
    while not answer.get("end"):
        found += answer["entries"]
        answer = door.reply()
    assert len(found + answer["entries"]) == 300 and answer["truncated"] is False and found
    answer = door.ask("list", path="", most=7, recursive=True)
    assert len(answer["entries"]) == 7 and answer["truncated"] is True


def test_a_reader_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    door = Door(tmp_path, "read-only")
    assert door.get("file") == b"kept"
    assert door.put("file", b"x")["error"] == door.ask("remove", path="file")["error"] == "refused"
    door.end()
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("payload", [b"", b"[]", b"7", b'{"op": "none"}', b'{"op": []}', b'{"op": "get"}', b"{" * 9999])
def test_malformed_requests_are_answered(door: Door, payload: bytes) -> None:
    door.send(frames.REQUEST, payload)
    assert door.reply()["error"] == "refused"
    door.send(frames.DATA, b"of no transfer")
    assert door.put("fine", b"x")["entry"]["size"] == 1


def test_what_is_replaced_makes_room(door: Door) -> None:
    full = {"workspace_bytes": 12_288, "most_files": 1}
    assert door.put("file", b"x" * 8192, **full)["entry"]["size"] == 8192
    assert door.put("file", b"y" * 8000, size=8000, **full)["entry"]["size"] == 8000
    assert door.put("other", b"", **full)["error"] == "too many"


def test_what_the_session_keeps_for_itself_is_no_file_of_the_user_s(door: Door) -> None:
    (door.root / ".docker-interpreter" / "journal").mkdir(parents=True)
    for number in range(5):
        (door.root / ".docker-interpreter" / "journal" / str(number)).touch()
    assert door.put("file", b"", most_files=1)["entry"]["size"] == 0


def make_deep(root: Path) -> None:
    """A file in folders deeper than any path is long."""
    descriptor = os.open(root, os.O_RDONLY)
    for _ in range(900):
        os.mkdir("deep", dir_fd=descriptor)
        below = os.open("deep", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)


def test_folders_without_end_below_each_other_are_listed_to_some_depth_and_removed(door: Door) -> None:
    descriptor = os.open(door.root, os.O_RDONLY)
    for number in range(6_000):
        name = "first" if number == 0 else "d"
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("file", os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
    (door.root / "own").touch()
    answer = door.ask("list", path="", most=20_000, recursive=True)
    paths = []
    while True:
        paths += [entry["path"] for entry in answer["entries"]]
        if answer.get("end"):
            break
        answer = door.reply()
    assert not answer["truncated"] and "own" in paths
    assert 4000 < len(paths) < 4200 and max(map(len, paths)) <= workspace.LONGEST_PATH
    changed = door.ask("changed", since=0, most=10)
    assert [entry["path"] for entry in changed["entries"]] == ["own"] and changed["truncated"]
    assert door.ask("remove", path="first", recursive=True) == {}
    assert [path.name for path in door.root.iterdir()] == ["own"]


def test_a_folder_deeper_than_any_path_is_listed_and_removed(door: Door) -> None:
    make_deep(door.root)
    found, answer = [], door.ask("list", path="", most=5000, recursive=True)
    while not answer.get("end"):
        found += answer["entries"]
        answer = door.reply()
    assert len(found + answer["entries"]) == 901
    assert door.ask("remove", path="deep", recursive=True) == {}
    assert list(door.root.iterdir()) == []


def test_files_since_a_time(door: Door) -> None:
    (door.root / "old").write_text("1")
    (door.root / "changed").write_text("1")
    time.sleep(0.1)  # more than a tick of the clock that files' times are of
    since = time.time() - 0.03
    (door.root / "changed").write_text("12")
    (door.root / "sub").mkdir()
    (door.root / "sub" / "new").write_text("123")
    answer = door.ask("changed", since=since, most=10)
    assert {(one["path"], one["size"], one["new"]) for one in answer["entries"]} == {
        ("changed", 2, False),
        ("sub/new", 3, True),
    }
    assert answer["truncated"] is False
    answer = door.ask("changed", since=since, most=1)
    assert len(answer["entries"]) == 1 and answer["truncated"] is True


def test_changed_files_of_any_depth(door: Door) -> None:
    make_deep(door.root)
    (answer,) = door.ask("changed", since=0, most=10)["entries"]
    assert answer["path"] == "deep/" * 900 + "file"


def test_changed_files_are_the_user_s(door: Door) -> None:
    (door.root / "sub" / ".docker-interpreter").mkdir(parents=True)
    (door.root / ".docker-interpreter").mkdir()
    for name in (".docker-interpreter/cells", ".di-partial-1", "sub/.di-partial-2", "sub/.docker-interpreter/own"):
        (door.root / name).touch()
    (door.root / "link").symlink_to("sub")
    (door.root / "out").symlink_to("/etc")
    os.mkfifo(door.root / "pipe")
    assert [one["path"] for one in door.ask("changed", since=0, most=10)["entries"]] == ["sub/.docker-interpreter/own"]


@pytest.mark.parametrize("letter", ["x", "\x01", "ü", "🙂", "\udcff"])
def test_changed_files_fit_into_a_frame(door: Door, letter: str) -> None:
    folder = door.root
    for _ in range(12):
        folder /= letter * (250 // len(os.fsencode(letter)))
    folder.mkdir(parents=True)
    for number in range(100):
        (folder / str(number)).touch()
    door.send(frames.REQUEST, json.dumps({"op": "changed", "since": 0, "most": 100}).encode())
    kind, payload = door.receive()
    answer = json.loads(payload)
    assert kind == frames.REPLY and len(payload) <= frames.MAX_PAYLOAD
    assert 10 <= len(answer["entries"]) < 100 and answer["truncated"] is True


def test_a_locked_folder_leaves_it_open_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("locked", "gone", "fine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    folders = folders_module.Folders(str(tmp_path))
    open_folder = folders.open_folder

    def refuse(parts: list[str]) -> int:
        if parts in (["locked"], ["gone"]):
            raise (PermissionError if parts == ["locked"] else FileNotFoundError)(parts)
        return int(open_folder(parts))

    monkeypatch.setattr(folders, "open_folder", refuse)
    found = list(folders.changed(0))
    assert found.count(None) == 1
    assert [one["path"] for one in found if one is not None] == ["fine/file"]


def test_what_is_bound_from_the_same_device_is_not_the_session_s(tmp_path: Path) -> None:
    for name in ("sub/data", "data"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "table.csv").write_bytes(b"x" * 100_000)
    folders = folders_module.Folders(str(tmp_path))
    limits = {"limit": 1 << 20, "size": None}
    room = folders.room(["new"], most_files=10, **limits)
    folders.bound = frozenset(["sub/data"])
    assert [one["path"] for one in folders.changed(0) if one is not None] == ["data/table.csv"]
    assert folders.room(["new"], most_files=10, **limits) >= room + 100_000
    assert folders.room(["new"], most_files=2, **limits), "its files are not counted either"


def test_bound_folders_are_not_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").touch()
    folders = folders_module.Folders(str(tmp_path))
    lstat = os.lstat
    monkeypatch.setattr(folders_module.os, "lstat", lambda _root: lstat("/proc"))  # another device than the files'
    assert list(folders.changed(0)) == []


@pytest.mark.parametrize("since", ["1" + "0" * 400, "null", '"x"', "[]"])
def test_a_time_that_is_none_is_refused(door: Door, since: str) -> None:
    door.send(frames.REQUEST, b'{"op": "changed", "most": 5, "since": %s}' % since.encode())
    assert door.reply()["error"] == "refused"
    assert door.ask("changed", since=0, most=5)["entries"] == []
