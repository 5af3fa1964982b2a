"""``sessions``: what runs, and ending it."""

from __future__ import annotations

import json

from .conftest import CommandLine


def keys(cli: CommandLine) -> list[str]:
    return [one["key"] for one in json.loads(cli("sessions", "list", "--json").stdout)]


def test_list(cli: CommandLine) -> None:
    cli("run", "--session", "user-1/chat [bold]7", "-c", "1")
    table = cli("sessions").stdout
    heading, *rows = table.splitlines()
    assert heading.split() == ["key", "status", "age", "idle", "memory", "image"]
    [row] = [row for row in rows if row.startswith("user-1/chat [bold]7 ")]
    assert "idle" in row
    assert "MiB" in row
    assert cli("sessions", "list").stdout.splitlines()[0] == heading
    [found] = [one for one in json.loads(cli("sessions", "--json").stdout) if one["key"] == "user-1/chat [bold]7"]
    assert found["kept"] is True
    assert found["state"] == "idle"


def test_nothing_runs(cli: CommandLine) -> None:
    assert cli("sessions", DOCKER_INTERPRETER_NAMESPACE="nobody-s").stdout == "No sessions.\n"
    assert cli("sessions", "stop", "--all", DOCKER_INTERPRETER_NAMESPACE="nobody-s").returncode == 0


def test_stop_keeps_files_and_purge_removes_them(cli: CommandLine) -> None:
    cli("run", "--session", "files", "-c", "open('kept.txt', 'w').close()")
    stop = cli("sessions", "stop", "files")
    assert (stop.returncode, stop.stdout) == (0, "Stopped files\n")
    assert "files" not in keys(cli)
    look = ("run", "--session", "files", "-c", "import os\nprint(os.listdir())")
    assert cli(*look).stdout == "['kept.txt']\n"
    refused = cli("sessions", "stop", "files", "--purge")
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    assert cli("sessions", "stop", "files", "--purge", "--yes").returncode == 0
    assert cli(*look).stdout == "[]\n"


def test_purge_asks_on_a_terminal(cli: CommandLine) -> None:
    cli("run", "--session", "asks", "-c", "1")
    code, written = cli.on_a_terminal("sessions", "stop", "asks", "--purge", typed=b"n\n")
    assert code == 1
    assert b"for good?" in written
    assert "asks" in keys(cli)
    code, _ = cli.on_a_terminal("sessions", "stop", "asks", "--purge", typed=b"y\n")
    assert code == 0
    assert "asks" not in keys(cli)


def test_purge_of_files_that_an_ended_session_left(cli: CommandLine) -> None:
    cli("run", "--session", "ended", "-c", "1")
    cli("sessions", "stop", "ended")
    stop = cli("sessions", "stop", "ended")
    assert stop.returncode == 1
    assert "--purge removes" in stop.stderr
    purge = cli("sessions", "stop", "ended", "--purge", "--yes")
    assert (purge.returncode, purge.stdout) == (0, "Removed the files of ended\n")


def test_stop_of_a_key_that_nobody_knows(cli: CommandLine) -> None:
    cli("run", "--session", "known", "-c", "1")
    stop = cli("sessions", "stop", "unknown", "known")
    assert (stop.returncode, stop.stdout) == (1, "Stopped known\n")
    assert "error: No session 'unknown' runs." in stop.stderr


def test_stop_all(cli: CommandLine) -> None:
    alone = {"DOCKER_INTERPRETER_NAMESPACE": cli.environment["DOCKER_INTERPRETER_NAMESPACE"][:30] + "-all"}
    for key in ("one", "two"):
        cli("run", "--session", key, "-c", "1", **alone)
    stop = cli("sessions", "stop", "--all", "--purge", "--yes", **alone)
    assert (stop.returncode, stop.stdout) == (0, "Stopped one\nStopped two\n")
    assert cli("sessions", **alone).stdout == "No sessions.\n"


def test_stop_needs_a_key_or_all(cli: CommandLine) -> None:
    assert cli("sessions", "stop").returncode == 2
    assert cli("sessions", "stop", "one", "--all").returncode == 2
