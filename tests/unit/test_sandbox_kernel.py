"""What a session's kernel does beyond an ordinary one, without a kernel: sizes, and commands between cells."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kernel_image import sandbox_kernel
from kernel_image.sandbox_kernel import WALK_SHARE, Commands, WorkspaceSize, describe, shortened

# -- how much the workspace holds ---


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(sandbox_kernel, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def on_disk(path: Path) -> int:
    return path.lstat().st_blocks * 512


def test_what_a_workspace_holds_is_counted(tmp_path: Path, clock: Clock) -> None:
    size = WorkspaceSize(tmp_path)
    assert size.look() == 0
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    (tmp_path / "a" / "b" / ".hidden").write_bytes(b"x" * 50_000)
    made = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "file", tmp_path / "a" / "b" / ".hidden"]
    assert size.look() == sum(map(on_disk, made))
    assert sum(map(on_disk, made)) >= 150_000


def test_holes_in_files_take_no_room(tmp_path: Path, clock: Clock) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert (WorkspaceSize(tmp_path).look() or 0) < 1 << 20


def test_links_are_not_followed(tmp_path: Path, clock: Clock) -> None:
    outside, workspace = tmp_path / "outside", tmp_path / "workspace"
    outside.mkdir()
    workspace.mkdir()
    (outside / "large").write_bytes(b"x" * 1_000_000)
    (workspace / "to a directory").symlink_to(outside)
    (workspace / "to a file").symlink_to(outside / "large")
    (workspace / "round and round").symlink_to(workspace)
    (workspace / "to nothing").symlink_to("nowhere")
    assert (WorkspaceSize(workspace).look() or 0) < 100_000


def test_a_pipe_and_a_socket_hold_nobody_up(tmp_path: Path, clock: Clock) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert WorkspaceSize(tmp_path).look() == 0


def test_a_workspace_that_is_gone_holds_nothing(tmp_path: Path, clock: Clock) -> None:
    assert WorkspaceSize(tmp_path / "gone").look() == 0


def test_what_goes_while_it_is_counted_is_passed_over(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_bytes(b"x" * 5000)
    scan = os.scandir

    def scan_and_remove(path: str) -> Any:
        if path.endswith("a"):
            raise PermissionError(path)
        return scan(path)

    monkeypatch.setattr(sandbox_kernel.os, "scandir", scan_and_remove)
    assert (WorkspaceSize(tmp_path).look() or 0) >= 5000


def slow(clock: Clock, seconds: float, *sizes: int) -> Any:
    """A walk that takes so long; and how much it finds each time."""
    found = iter(sizes)

    def walk() -> int:
        clock.now += seconds
        return next(found)

    return walk


def test_a_slow_walk_is_not_repeated_at_once(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    size = WorkspaceSize(tmp_path)
    monkeypatch.setattr(size, "walk", slow(clock, 2.0, 10, 20))
    assert size.look() == 10
    clock.now += 2.0 * (WALK_SHARE - 1) - 1
    assert size.look() == 10
    clock.now += 1.1
    assert size.look() == 20
    assert size.look() == 20


def test_a_quick_walk_is_repeated(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    size = WorkspaceSize(tmp_path)
    monkeypatch.setattr(size, "walk", slow(clock, 0.0005, 10, 20, 30))
    assert [size.look() for _ in range(3)] == [10, 20, 30]


def test_a_walk_that_fails_leaves_what_was_known(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    size = WorkspaceSize(tmp_path)

    def fails() -> int:
        raise OSError("no")

    monkeypatch.setattr(size, "walk", fails)
    assert size.look() is None
    monkeypatch.setattr(size, "walk", lambda: 5)
    assert size.look() == 5
    monkeypatch.setattr(size, "walk", fails)
    assert size.look() == 5


# -- commands ---


class Rude(BaseException):
    """An exception that takes even its text for a reason to fail."""

    def __str__(self) -> str:
        raise ValueError("no text")


def raising(error: BaseException) -> Any:
    def function(*_args: object, **_fields: object) -> None:
        raise error

    return function


def returning(report: object) -> Any:
    return lambda *_args, **_fields: report


@pytest.fixture
def commands(tmp_path: Path) -> Any:
    ours, theirs = socket.socketpair()
    kernel: Any = SimpleNamespace(shell=SimpleNamespace(user_ns={"x": 1}, user_ns_hidden={"In": None}))
    made = Commands(theirs, kernel, tmp_path)
    yield SimpleNamespace(commands=made, channel=ours, kernel=kernel, workspace=tmp_path)
    ours.close()
    theirs.close()


SAVE = {"op": "save", "timeout": 3.0, "max_bytes": 99, "reason": "idle"}


def test_saving_is_given_its_limits_and_a_place(commands: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def save(*arguments: object, **fields: object) -> dict[str, object]:
        given.append((arguments, fields))
        return {"saved": ["x"], "failed": [], "bytes": 7}

    monkeypatch.setattr(sandbox_kernel.variables, "save", save)
    report = commands.commands.obey(SAVE)
    directory = commands.workspace / ".docker-interpreter"
    shell = commands.kernel.shell
    assert given == [
        (
            (shell.user_ns, directory / "variables"),
            {"skip": shell.user_ns_hidden, "seconds": 3.0, "max_bytes": 99, "reason": "idle"},
        )
    ]
    assert directory.is_dir()
    assert report == {"saved": ["x"], "saved_count": 1, "failed": [], "failed_count": 0, "bytes": 7}


def test_restoring_nothing_is_a_report_too(commands: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_kernel.variables, "restore", returning(None))
    assert commands.commands.obey({"op": "restore", "timeout": 1.0}) == {}


ERRORS = [
    ValueError("no"),
    KeyboardInterrupt(),
    SystemExit(3),
    MemoryError(),
    RecursionError(),
    Rude(),
    OSError(28, "x"),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("op", ["save", "restore"])
def test_whatever_is_raised_becomes_a_report(
    commands: Any, monkeypatch: pytest.MonkeyPatch, op: str, error: BaseException
) -> None:
    monkeypatch.setattr(sandbox_kernel.variables, op, raising(error))
    report = commands.commands.obey({**SAVE, "op": op})
    assert list(report) == ["error"]
    assert report["error"].startswith(type(error).__name__)


STRANGE = [3, [], {"saved": None}, {"saved": 3}, {"failed": [None]}, {"failed": [{"name": "x"}]}, {"restored": {}}]


@pytest.mark.parametrize("report", STRANGE, ids=repr)
def test_a_report_that_is_none_becomes_one(commands: Any, monkeypatch: pytest.MonkeyPatch, report: object) -> None:
    monkeypatch.setattr(sandbox_kernel.variables, "save", returning(report))
    assert isinstance(commands.commands.obey(SAVE), dict)


@pytest.mark.parametrize("command", [{}, {"op": "save"}, {"op": "restore"}, {"op": "save", "timeout": 1}])
def test_a_command_that_lacks_something_becomes_a_report(commands: Any, command: dict[str, object]) -> None:
    assert "error" in commands.commands.obey(command)


def test_a_place_that_can_t_be_made_becomes_a_report(commands: Any) -> None:
    (commands.workspace / ".docker-interpreter").write_text("a file")
    assert commands.commands.obey(SAVE)["error"].startswith("FileExistsError")


@pytest.mark.parametrize("letter", ["x", "ü", "変", "🙂", "\ud800", "\0"])
def test_a_report_fits_whatever_the_names_are(letter: str) -> None:
    failed = [{"name": letter * 500, "reason": letter * 500}] * 5000
    report = shortened({"saved": [letter * 500] * 5000, "restored": [letter] * 5000, "failed": failed, "bytes": 3})
    assert len(json.dumps(report)) < 131_000
    assert [report[f"{name}_count"] for name in ("saved", "restored", "failed")] == [5000] * 3
    assert report["bytes"] == 3
    assert report["saved"][0] == letter * 100


async def test_commands_are_answered_one_after_another(commands: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_kernel.variables, "save", returning({"saved": ["x"]}))
    monkeypatch.setattr(sandbox_kernel.variables, "restore", raising(ValueError("no")))
    commands.commands.listen()
    commands.channel.setblocking(False)
    loop = asyncio.get_running_loop()
    sent = json.dumps({"id": 1, **SAVE}) + "\n" + json.dumps({"id": 2, "op": "restore", "timeout": 1}) + "\n"
    received = b""
    for part in (sent[:10], sent[10:]):
        await loop.sock_sendall(commands.channel, part.encode())
    while received.count(b"\n") < 2:
        received += await asyncio.wait_for(loop.sock_recv(commands.channel, 65536), 20)
    assert [json.loads(line) for line in received.splitlines()] == [
        {"id": 1, "saved": ["x"], "saved_count": 1},
        {"id": 2, "error": "ValueError: no"},
    ]
    commands.channel.shutdown(socket.SHUT_WR)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not loop.remove_reader(commands.commands.channel.fileno()), "it listens on to nobody"


@pytest.mark.parametrize(
    ("error", "text"), [(ValueError("x" * 5000), "x" * 1000), (Rude(), "(its text could not be had)")]
)
def test_the_text_of_an_exception(error: BaseException, text: str) -> None:
    assert describe(error) == text
