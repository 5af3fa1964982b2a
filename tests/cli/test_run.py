"""``run``: output, exit codes, sessions, Ctrl-C."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import get_args

import pytest

from session_manager import Status
from session_manager.cli.run import EXIT_CODES

from .conftest import CommandLine

WARNING = "warning: The process engine gives no isolation"
IGNORES_INTERRUPTS = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True:\n    pass"
HASTY = {"DOCKER_INTERPRETER_LIMITS__INTERRUPT_GRACE": "0.5"}
SLEEPS = "left = 5\nprint('begun', flush=True)\nimport time\ntime.sleep(60)"


def test_prints_what_the_code_prints_and_its_last_value(cli: CommandLine) -> None:
    run = cli("run", "-c", "import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")
    assert (run.returncode, run.stdout) == (0, "out\n42\n")
    assert run.stderr.endswith("err\n")


@pytest.mark.parametrize("before", [True, False])
def test_options_go_before_the_command_or_after_it(docker_cli: CommandLine, before: bool) -> None:
    engine = ["--engine", "process"]
    run = docker_cli(*(engine if before else []), "run", *([] if before else engine), "-c", "1 + 1")
    assert (run.returncode, run.stdout) == (0, "2\n")
    assert run.stderr.startswith(WARNING)


def test_option_after_the_command_wins(cli: CommandLine) -> None:
    run = cli("--engine", "docker", "run", "--engine", "process", "-c", "1 + 1")
    assert run.stderr.startswith(WARNING)


def test_code_from_a_file_and_from_standard_input(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("print('from a file: ä')\n")
    assert cli("run", "code.py").stdout == "from a file: ä\n"
    assert cli("run", "-", stdin="print('from standard input')").stdout == "from standard input\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Give the code to run"),
        (["-c", "1", "code.py"], "Give the code to run"),
        (["missing.py"], "No such file"),
        (["some.ipynb"], "replay"),
        (["-c", "1", "--timeout", "-1"], "--timeout"),
        (["-c", "1", "--engine", "podman"], "podman"),
    ],
)
def test_wrong_usage(cli: CommandLine, arguments: list[str], sentence: str) -> None:
    run = cli("run", *arguments)
    assert run.returncode == 2
    assert sentence in " ".join(run.stderr.replace("│", " ").split())


def test_exit_code_of_an_exception(cli: CommandLine) -> None:
    run = cli("run", "-c", "print('before')\n1 / 0")
    assert (run.returncode, run.stdout) == (1, "before\n")
    assert "----> 2 1 / 0" in run.stderr
    assert "\x1b" not in run.stderr


def test_session_remembers_and_a_time_limit_keeps_its_variables(cli: CommandLine) -> None:
    assert cli("run", "--session", "remembers", "-c", "x = 1").returncode == 0
    late = cli("run", "--session", "remembers", "--timeout", "0.5", "-c", "while True: x += 1")
    assert late.returncode == 124
    assert "KeyboardInterrupt" in late.stderr
    assert "after its time limit of 0.5 s" in late.stderr
    assert cli("run", "--session", "remembers", "-c", "x > 1").stdout == "True\n"


def test_throw_away_session_is_thrown_away(cli: CommandLine) -> None:
    assert cli("run", "-c", "open('left', 'w').close()").returncode == 0
    listed = json.loads(cli("sessions", "--json").stdout)
    assert [one for one in listed if not one["kept"]] == []


def test_exit_code_of_what_has_to_be_killed(cli: CommandLine) -> None:
    run = cli("run", "--timeout", "0.5", "-c", IGNORES_INTERRUPTS, **HASTY)
    assert run.returncode == 137
    assert "was killed" in run.stderr


def test_exit_code_of_python_that_dies(cli: CommandLine) -> None:
    run = cli("run", "-c", "import os\nos._exit(3)")
    assert run.returncode == 137
    assert "exit code 3" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config", "missing.yaml"], "missing.yaml can't be read"),
        (
            ["--engine", "docker", "--docker-host", "unix:///nowhere/docker.sock"],
            "No container engine answers",
        ),
        (["--session", "two\nlines"], "no session key"),
    ],
)
def test_sandbox_that_fails_says_so_in_one_line(cli: CommandLine, arguments: list[str], sentence: str) -> None:
    run = cli("run", *arguments, "-c", "1")
    assert (run.returncode, run.stdout) == (125, "")
    *_, last = run.stderr.splitlines()
    assert last.startswith("error: ")
    assert sentence in last
    assert "Traceback" not in run.stderr


def test_debug_shows_the_traceback_of_a_failure(cli: CommandLine) -> None:
    run = cli("--debug", "run", "--config", "missing.yaml", "-c", "1")
    assert run.returncode == 125
    assert "Traceback (most recent call last)" in run.stderr


def test_output_comes_while_the_cell_runs_and_ctrl_c_stops_it(cli: CommandLine) -> None:
    with cli.start("run", "--session", "stopped", "-c", SLEEPS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "KeyboardInterrupt" in errors
    assert cli("run", "--session", "stopped", "-c", "left").stdout == "5\n"


def test_ctrl_c_leaves_no_throw_away_session(cli: CommandLine) -> None:
    with cli.start("run", "-c", SLEEPS) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert [one for one in json.loads(cli("sessions", "--json").stdout) if not one["kept"]] == []


def test_reader_that_has_had_enough_ends_it_quietly(cli: CommandLine) -> None:
    with cli.start("run", "-c", "for number in range(1_000_000): print(number)") as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(30) == 141
    assert errors.startswith(WARNING)
    assert len(errors.splitlines()) == 1


def test_json(cli: CommandLine) -> None:
    run = cli("run", "--json", "-c", "print('out')\nprint('\\x1b[31mred')\n[][1]")
    assert run.returncode == 1
    found = json.loads(run.stdout)
    assert found["status"] == "error"
    assert found["error"] == {"name": "IndexError", "value": "list index out of range"}
    assert found["text"].startswith("out\nred\n")
    assert [output["output_type"] for output in found["outputs"]] == ["stream", "error"]
    assert found["variables_kept"] is True
    assert found["session"] is None
    assert 0 < found["duration"] < 30


def test_json_of_files(cli: CommandLine) -> None:
    begin = "with open('data.csv', 'w') as file: file.write('a')"
    assert cli("run", "--session", "files-json", "-c", begin).returncode == 0
    code = "import os\nos.mkdir('out')\nopen('out/ü.png', 'wb').write(b'123')\nopen('data.csv', 'a').write('b')"
    found = json.loads(cli("run", "--json", "--session", "files-json", "-c", code).stdout)
    assert found["files"] == [
        {"path": "data.csv", "size": 2, "mime": "text/csv", "kind": "changed"},
        {"path": "out/ü.png", "size": 3, "mime": "image/png", "kind": "new"},
    ]
    assert found["files_complete"] is True
    assert found["text"].endswith("Files: changed data.csv (2 bytes), new out/ü.png (3 bytes)")
    nothing = json.loads(cli("run", "--json", "--session", "files-json", "-c", "1").stdout)
    assert (nothing["files"], nothing["files_complete"], nothing["text"]) == ([], True, "1")


def test_json_of_files_whose_names_are_no_utf_8(cli: CommandLine) -> None:
    found = json.loads(cli("run", "--json", "-c", "open(b'\\xff\\n', 'w').close()").stdout)
    assert found["files"] == [
        {"path": "\udcff\n", "size": 0, "mime": "application/octet-stream", "kind": "new"},
    ]


def test_json_of_a_time_limit(cli: CommandLine) -> None:
    run = cli("run", "--json", "--timeout", "0.5", "-c", IGNORES_INTERRUPTS, **HASTY)
    assert run.returncode == 137
    found = json.loads(run.stdout)
    assert (found["status"], found["variables_kept"]) == ("killed", False)
    assert (found["files"], found["files_complete"]) == ([], True)
    assert "was killed" in found["message"]


def test_timeout_of_zero_is_no_limit(cli: CommandLine) -> None:
    slow = "import time\ntime.sleep(1)\nprint('done')"
    limited = cli("run", "-c", slow, DOCKER_INTERPRETER_LIMITS__TIMEOUT="0.3")
    assert limited.returncode == 124
    free = cli("run", "--timeout", "0", "-c", slow, DOCKER_INTERPRETER_LIMITS__TIMEOUT="0.3")
    assert (free.returncode, free.stdout) == (0, "done\n")


def test_every_status_has_an_exit_code() -> None:
    assert set(EXIT_CODES) == set(get_args(Status))
    assert EXIT_CODES["engine_unreachable"] == 125


def test_a_container_that_is_removed_while_the_cell_runs(cli: CommandLine) -> None:
    with cli.start("run", "--session", "removed", "-c", "print(1, flush=True)\nimport time; time.sleep(60)") as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "1\n"
        assert cli("sessions", "stop", "removed").returncode == 0
        _, said = run.communicate(timeout=60)
    assert run.returncode == 137
    assert "The session's container was stopped or removed while the cell ran." in said


def test_a_workspace_that_holds_too_much(cli: CommandLine) -> None:
    code = "open('large', 'wb').write(b'x' * 3_000_000); 'done'"
    small = {"DOCKER_INTERPRETER_LIMITS__WORKSPACE_BYTES": "1m"}
    run = cli("run", "-c", code, **small)
    assert (run.returncode, run.stdout) == (0, "'done'\n")
    assert "The workspace holds 2.86 MiB, more than its limit of 1 MiB" in run.stderr
    assert "more than its limit" in json.loads(cli("run", "--json", "-c", code, **small).stdout)["warning"]
    assert json.loads(cli("run", "--json", "-c", code).stdout)["warning"] is None
