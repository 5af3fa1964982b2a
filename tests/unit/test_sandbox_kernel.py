"""What a session's kernel does beyond an ordinary one, without a kernel: commands between cells."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kernel_image import sandbox_kernel
from kernel_image.sandbox_kernel import Commands, describe, shortened

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
