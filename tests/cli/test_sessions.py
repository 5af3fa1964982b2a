"""``sessions``: what runs, and ending it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from .conftest import CommandLine


def keys(cli: CommandLine) -> list[str]:
    return [one["key"] for one in json.loads(cli("sessions", "list", "--json").stdout)]


def test_list(alone: CommandLine) -> None:
    cli = alone
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
    look = (
        "run",
        "--session",
        "files",
        "-c",
        "import os\nprint([name for name in os.listdir() if name != '.docker-interpreter'])",
    )
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


def test_stop_all(alone: CommandLine) -> None:
    for key in ("one", "two"):
        alone("run", "--session", key, "-c", "1")
    alone("run", "--session", "one", "--owner", "ann", "-c", "1")
    stop = alone("sessions", "stop", "--all", "--owner", "ann")
    assert (stop.returncode, stop.stdout) == (0, "Stopped one (owner ann)\n")
    alone("run", "--session", "one", "--owner", "ann", "-c", "1")
    stop = alone("sessions", "stop", "--all", "--purge", "--yes")
    assert (stop.returncode, stop.stdout) == (0, "Stopped one\nStopped two\nStopped one (owner ann)\n")
    assert alone("sessions", "--all").stdout == "No sessions.\n"


def test_stop_all_removes_containers_that_wait(alone: CommandLine) -> None:
    script = "import time\nfrom session_manager import *\n"
    script += "with open_session('one') as session:\n"
    script += "    while not [p for p in __import__('pathlib').Path(STATE).rglob('*-pool-*')]: time.sleep(0.05)\n"
    script = script.replace("STATE", repr(alone.environment["DOCKER_INTERPRETER_STATE_DIR"]))
    environment = {**alone.environment, "DOCKER_INTERPRETER_POOL__SIZE": "1"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60)
    stop = alone("sessions", "stop", "--all", "--purge", "--yes")
    assert (stop.returncode, stop.stdout) == (0, "Stopped one\nRemoved 1 waiting container\n")
    assert alone("sessions", "stop", "--all").stdout == "No sessions.\n"


def test_many_sessions_are_ended_at_once(alone: CommandLine) -> None:
    names = [f"many-{number}" for number in range(4)]
    for process in [alone.start("run", "--session", name, "-c", "1") for name in names]:
        process.communicate(timeout=60)
    stop = alone("sessions", "stop", *reversed(names), "unknown")
    assert stop.stdout.splitlines() == [f"Stopped {name}" for name in reversed(names)]
    assert stop.returncode == 1
    assert "No session 'unknown' runs." in stop.stderr


def test_owners_with_one_key(alone: CommandLine) -> None:
    for owner in ("ann", "bob"):
        alone("run", "--session", "chat", "--owner", owner, "-c", f"who = {owner!r}")
    assert alone("run", "--session", "chat", "--owner", "bob", "-c", "print(who)").stdout == "bob\n"
    heading, *rows = alone("sessions").stdout.splitlines()
    assert heading.split() == ["key", "owner", "status", "age", "idle", "memory", "image"]
    assert [row.split()[:2] for row in rows] == [["chat", "ann"], ["chat", "bob"]]
    [ann] = json.loads(alone("sessions", "list", "--owner", "ann", "--json").stdout)
    assert (ann["key"], ann["owner"]) == ("chat", "ann")
    for command in (["stop"], ["save"], ["follow"], ["variables"], ["interrupt"]):
        refused = alone("sessions", *command, "chat")
        assert refused.returncode != 0
        assert "No session 'chat' runs. One of this key runs, of another owner: 'ann', 'bob'." in refused.stderr
    stop = alone("sessions", "stop", "chat", "--owner", "ann")
    assert (stop.returncode, stop.stdout) == (0, "Stopped chat (owner ann)\n")
    assert [one["owner"] for one in json.loads(alone("sessions", "--json").stdout)] == ["bob"]


def test_list_of_sessions_that_have_only_files(alone: CommandLine) -> None:
    alone("run", "--session", "ended", "-c", "1")
    alone("sessions", "stop", "ended")
    assert alone("sessions", "list").stdout == "No sessions.\n"
    alone("run", "--session", "runs", "-c", "import time; time.sleep(3)")  # its sweep notices
    _, first, second = alone("sessions", "list", "--all").stdout.splitlines()
    assert re.match(r"ended +files only, unused for \d+s +- +- +- +- *$", first)
    assert second.startswith("runs ")
    ended, _ = json.loads(alone("sessions", "--all", "--json").stdout)
    assert ended["state"] == "files only"
    assert ended["age"] is None and ended["unused_since"] > 1e9


def test_options_of_the_group_before_another_command(cli: CommandLine) -> None:
    refused = cli("sessions", "--owner", "ann", "stop", "x")
    assert refused.returncode == 2
    assert "belong after" in refused.stderr


def test_stop_needs_a_key_or_all(cli: CommandLine) -> None:
    assert cli("sessions", "stop").returncode == 2
    assert cli("sessions", "stop", "one", "--all").returncode == 2
