"""``sessions follow``, ``interrupt``, ``variables``, ``save`` and ``fork``: what goes on in one session."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from .conftest import CommandLine

COUNT = "import time\nfor n in range({}):\n    print(n, flush=True)\n    time.sleep(0.2)\n"
NO_SESSION = "No session 'nobody' runs. `docker-interpreter sessions` lists those that do."


@contextmanager
def running(cli: CommandLine, key: str, code: str) -> Iterator[subprocess.Popen[str]]:
    """Another program that runs a cell, from when the cell has begun to print."""
    with cli.start("run", "--session", key, "-c", code) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield process
        process.communicate(timeout=60)


def test_follow_shows_all_of_the_cell_that_runs(cli: CommandLine) -> None:
    with running(cli, "follow", COUNT.format(40)) as other:
        follow = cli("sessions", "follow", "follow")
        assert (follow.returncode, follow.stdout.split()) == (0, [str(n) for n in range(40)])
        assert "last one" not in follow.stderr
        other.communicate(timeout=60)
        assert other.returncode == 0


def test_follow_takes_over_from_a_program_that_was_killed(cli: CommandLine) -> None:
    with running(cli, "killed", COUNT.format(15) + "1 / 0") as other:
        other.kill()
        other.wait()
        follow = cli("sessions", "follow", "killed", "--json")
    found = json.loads(follow.stdout)
    assert follow.returncode == 1
    assert (found["status"], found["session"]) == ("error", "killed")
    assert found["error"]["name"] == "ZeroDivisionError"
    assert "".join(one.get("text", "") for one in found["outputs"]).split() == [str(n) for n in range(15)]


def test_follow_shows_the_last_cell_where_none_runs(cli: CommandLine) -> None:
    cli("run", "--session", "last", "-c", "print('said'); 1 / 0")
    follow = cli("sessions", "follow", "last")
    assert (follow.returncode, follow.stdout) == (1, "said\n")
    assert "No cell runs; this is the last one." in follow.stderr
    assert "ZeroDivisionError" in follow.stderr


def test_follow_where_no_cell_has_run(cli: CommandLine) -> None:
    cli("run", "--session", "original", "-c", "1")
    assert cli("sessions", "fork", "original", "nothing-ran").returncode == 0
    follow = cli("sessions", "follow", "nothing-ran")
    assert follow.returncode == 125
    assert "error: No cell has run in the session 'nothing-ran'" in follow.stderr


def test_ctrl_c_leaves_the_cell_running(cli: CommandLine) -> None:
    with running(cli, "goes-on", COUNT.format(20) + "end = True") as other:
        follow = cli.start("sessions", "follow", "goes-on")
        assert follow.stdout is not None
        assert follow.stdout.readline() == "0\n"
        follow.send_signal(signal.SIGINT)
        _, said = follow.communicate(timeout=30)
        assert follow.returncode == 130
        assert "No longer following 'goes-on'; its cell goes on." in said
        other.communicate(timeout=60)
        assert other.returncode == 0
    assert cli("run", "--session", "goes-on", "-c", "print(end)").stdout == "True\n"


def test_interrupt_of_another_programs_cell(cli: CommandLine) -> None:
    with running(cli, "endless", "kept = 1\nprint(1, flush=True)\nwhile True: pass") as other:
        interrupt = cli("sessions", "interrupt", "endless")
        assert (interrupt.returncode, interrupt.stdout) == (0, "Interrupted the cell that runs in endless\n")
        _, said = other.communicate(timeout=30)
        assert other.returncode == 1
        assert "KeyboardInterrupt" in said
    assert cli("run", "--session", "endless", "-c", "print(kept)").stdout == "1\n"
    again = cli("sessions", "interrupt", "endless")
    assert (again.returncode, again.stdout) == (0, "No cell runs in endless\n")


def test_variables(cli: CommandLine) -> None:
    cli("run", "--session", "vars", "-c", r"table = {'a': 1}; text = 'x' * 500; bell = '\x1b]0;\x07'; class_ = int")
    heading, *rows = cli("sessions", "variables", "vars").stdout.splitlines()
    assert heading.split() == ["name", "type", "size", "shape", "value"]
    shown = {row.split()[0]: row for row in rows}
    assert shown["table"].split()[1] == "dict"
    assert "{'a': 1}" in shown["table"]
    assert len(shown["text"]) < 300
    assert "\x1b" not in shown["bell"]
    found = {one["name"]: one for one in json.loads(cli("sessions", "variables", "vars", "--json").stdout)}
    assert found["table"]["type"] == "dict"
    assert found["table"]["size"] > 0
    assert set(found["table"]) == {"name", "type", "size", "shape", "repr"}


def test_variables_while_a_cell_runs(cli: CommandLine) -> None:
    with running(cli, "busy", "x = 41\n" + COUNT.format(40)):
        assert " 41" in cli("sessions", "variables", "busy").stdout
        [row] = [line.split() for line in cli("sessions").stdout.splitlines() if line.startswith("busy ")]
        assert row[1] == "busy" and re.fullmatch(r"\d+s", row[2])


def test_no_variables(cli: CommandLine) -> None:
    cli("run", "--session", "empty", "-c", "1")
    assert cli("sessions", "variables", "empty").stdout == "No variables.\n"


def test_save_and_what_comes_back(cli: CommandLine) -> None:
    cli("run", "--session", "saved", "-c", "x = [1, 2]; file = open('/dev/null')")
    save = cli("sessions", "save", "saved")
    first, second = save.stdout.splitlines()
    assert save.returncode == 0
    assert first.startswith("Saved 1 variable (") and first.endswith(" bytes): x")
    assert second.startswith("Not saved: file (")
    found = json.loads(cli("sessions", "save", "saved", "--json").stdout)
    assert found["saved"] == ["x"]
    assert [one["name"] for one in found["failed"]] == ["file"]
    assert found["size"] > 0
    cli("sessions", "stop", "saved")
    back = cli("run", "--session", "saved", "-c", "print(x)")
    assert back.stdout == "[1, 2]\n"
    assert "Variables are back as they were saved at" in back.stderr


def test_fork(cli: CommandLine) -> None:
    cli("run", "--session", "first", "-c", "x = 1; open('file.txt', 'w').write('text'); lock = open('/dev/null')")
    fork = cli("sessions", "fork", "first", "second")
    assert (fork.returncode, fork.stdout) == (0, "The session second is a copy of first, files and variables.\n")
    run = cli("run", "--session", "second", "-c", "print(x, open('file.txt').read()); x = 2")
    assert run.stdout == "1 text\n"
    assert "This session is a copy of another." in run.stderr
    assert "Not restored: lock (" in run.stderr
    assert cli("run", "--session", "first", "-c", "print(x)").stdout == "1\n"


def test_fork_onto_a_key_that_is_taken(cli: CommandLine) -> None:
    for key in ("from", "onto"):
        cli("run", "--session", key, "-c", f"x = {key!r}")
    refused = cli("sessions", "fork", "from", "onto")
    assert refused.returncode == 1
    assert "error: There is a session 'onto', or its files." in refused.stderr
    assert cli("run", "--session", "onto", "-c", "print(x)").stdout == "onto\n"


def test_sessions_that_do_not_run(cli: CommandLine) -> None:
    for command, code in (("save", 1), ("interrupt", 1), ("variables", 1), ("follow", 125)):
        run = cli("sessions", command, "nobody")
        assert (run.returncode, run.stdout) == (code, ""), command
        assert f"error: {NO_SESSION}" in run.stderr
    fork = cli("sessions", "fork", "nobody", "copy")
    assert fork.returncode == 1
    assert NO_SESSION in fork.stderr
    assert not {"nobody", "copy"} & {one["key"] for one in json.loads(cli("sessions", "--all", "--json").stdout)}


def test_a_session_that_has_ended(cli: CommandLine) -> None:
    cli("run", "--session", "over", "-c", "1")
    cli("sessions", "stop", "over")
    refused = cli("sessions", "follow", "over")
    assert refused.returncode == 125
    assert "No session 'over' runs. It has ended; the next cell that is run in it starts it again." in refused.stderr
    assert cli("sessions", "fork", "over", "anew").returncode == 0


def test_a_key_that_is_none(cli: CommandLine) -> None:
    run = cli("sessions", "follow", "")
    assert run.returncode == 125
    assert "'' is no session key." in run.stderr
