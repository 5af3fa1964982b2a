"""The command line on real containers."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat

from .conftest import CommandLine

EATS_MEMORY = "hoard = []\nwhile True:\n    hoard.append(bytearray(10_000_000))"


def test_another_process_finds_the_session_with_its_variables(docker_cli: CommandLine) -> None:
    first = docker_cli("run", "--session", "a", "-c", "x = 1")
    assert (first.returncode, first.stdout) == (0, "")
    second = docker_cli("run", "--session", "a", "-c", "print(x)")
    assert (second.returncode, second.stdout, second.stderr) == (0, "1\n", "")
    listed = docker_cli("sessions")
    assert [line.split()[:2] for line in listed.stdout.splitlines()] == [["key", "status"], ["a", "idle"]]
    [found] = json.loads(docker_cli("sessions", "list", "--json").stdout)
    assert found["key"] == "a"
    assert found["image"].startswith("docker-interpreter/kernel:")
    assert 10e6 < found["memory"] < 500e6
    assert docker_cli("sessions", "stop", "a", "--purge", "--yes").stdout == "Stopped a\n"
    assert docker_cli("sessions").stdout == "No sessions.\n"
    assert docker_cli("sessions", "stop", "a", "--purge", "--yes").returncode == 1


def test_exit_codes(docker_cli: CommandLine) -> None:
    assert docker_cli("run", "-c", "1").returncode == 0
    assert docker_cli("run", "-c", "1 / 0").returncode == 1
    assert docker_cli("run", "--timeout", "0.5", "-c", "while True: pass").returncode == 124
    missing = docker_cli("run", "--image", "nobody/has:this", "-c", "1")
    assert missing.returncode == 125
    assert "error: nobody/has:this is not on the engine and can't be pulled" in missing.stderr


def test_memory_that_runs_out(docker_cli: CommandLine) -> None:
    run = docker_cli("run", "-c", EATS_MEMORY, DOCKER_INTERPRETER_CONTAINER__MEM_LIMIT="128m")
    assert run.returncode == 137
    assert "more memory than its limit of 128 MiB" in run.stderr


def test_replay(docker_cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a\n1\n2\n")
    notebook = nbformat.v4.new_notebook(metadata={"docker_interpreter": {"files": ["table.csv"]}})
    sources = ["rows = open('table.csv').read().split()", "sum(map(int, rows[1:]))"]
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(notebook, tmp_path / "n.ipynb")
    run = docker_cli("replay", "n.ipynb")
    assert run.returncode == 0, run.stderr
    written = nbformat.read(tmp_path / "n.out.ipynb", as_version=4)
    nbformat.validate(written)
    assert written.cells[1].outputs[0].data["text/plain"] == "3"
    assert [cell.execution_count for cell in written.cells] == [1, 2]
    assert docker_cli("sessions").stdout == "No sessions.\n"


def test_doctor(docker_cli: CommandLine) -> None:
    run = docker_cli("doctor", "--json")
    assert run.returncode == 0, run.stdout
    checks = json.loads(run.stdout)["checks"]
    assert [check["status"] for check in checks] == ["ok"] * 10
    assert docker_cli("sessions").stdout == "No sessions.\n"


def test_doctor_names_an_image_that_is_not_there(docker_cli: CommandLine) -> None:
    run = docker_cli("doctor", "--image", "nobody/has:this", "--json")
    assert run.returncode == 1
    checks = {check["name"]: check for check in json.loads(run.stdout)["checks"]}
    assert checks["engine"]["status"] == "ok"
    assert checks["image"]["status"] == "failed"
    assert checks["start"]["status"] == "not run"


def test_images(docker_cli: CommandLine) -> None:
    built = docker_cli("image", "build")
    assert built.returncode == 0, built.stderr
    reference = built.stdout.split()[-1]
    shown = {image["name"]: image for image in json.loads(docker_cli("image", "show", "--json").stdout)}
    assert shown["default"]["reference"] == reference
    assert shown["default"]["bytes"] > 50e6
    assert f"default  {reference}" in docker_cli("image", "show").stdout
