"""``doctor``, ``image``, ``engine``, ``kernelspec``, and the help."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from .conftest import COMMAND, CommandLine

CHECKS = [
    "engine",
    "image",
    "start",
    "execute",
    "interrupt",
    "restart",
    "reattach",
    "reaping",
    "write a file",
    "clean up",
]
NOWHERE = ["--engine", "docker", "--docker-host", "unix:///nowhere/docker.sock"]


def test_doctor_where_all_is_well(cli: CommandLine) -> None:
    run = cli("doctor")
    assert run.returncode == 0, run.stdout
    lines = run.stdout.splitlines()
    assert [(line[:8].strip(), line[9:22].strip()) for line in lines] == [("ok", check) for check in CHECKS]


def test_doctor_leaves_nothing(cli: CommandLine) -> None:
    alone = {"DOCKER_INTERPRETER_NAMESPACE": "doctor-alone"}
    assert cli("doctor", "--json", **alone).returncode == 0
    assert cli("sessions", "--all", **alone).stdout == "No sessions.\n"


def test_doctor_where_no_engine_answers(cli: CommandLine) -> None:
    run = cli("doctor", *NOWHERE)
    assert run.returncode == 1
    assert run.stdout.startswith("FAILED")
    assert "docker-interpreter engine start" in run.stdout
    assert [line.split("  ")[0] for line in run.stdout.splitlines()[2:]] == ["not run"] * 9
    found = json.loads(cli("doctor", "--json", *NOWHERE).stdout)
    assert found["ok"] is False
    assert [check["name"] for check in found["checks"]] == CHECKS
    assert found["checks"][0]["remedy"]


def test_an_image_is_built_of_what_makes_sense(cli: CommandLine, tmp_path: Path) -> None:
    run = cli("image", "build", "--engine", "docker", "--requirements", str(tmp_path / "missing.txt"))
    assert run.returncode == 1
    assert (
        run.stderr == f"error: The requirements file {tmp_path}/missing.txt can't be read: No such file or directory.\n"
    )
    run = cli("image", "build", "--proxy", "--example")
    assert run.returncode == 2 and "--proxy goes with neither" in run.stderr


def test_images_of_the_process_engine(cli: CommandLine) -> None:
    for command in ("build", "show"):
        run = cli("image", command)
        assert run.returncode == 1
        assert "error: The process engine has no images" in run.stderr


def test_image_and_engine_commands_where_no_engine_answers(docker_cli: CommandLine) -> None:
    for command in (["image", "show"], ["engine", "start"]):
        run = docker_cli(*command, "--docker-host", "unix:///nowhere/docker.sock")
        assert run.returncode == 1
        assert "error: No container engine answers at unix:///nowhere/docker.sock" in run.stderr


def test_engine_that_we_did_not_start_is_left_alone(docker_cli: CommandLine, tmp_path: Path) -> None:
    stop = docker_cli("engine", "stop", XDG_STATE_HOME=str(tmp_path))
    assert stop.returncode == 0
    assert stop.stdout.startswith("Nothing to stop")
    start = docker_cli("engine", "start", XDG_STATE_HOME=str(tmp_path))
    assert start.returncode == 0
    assert start.stdout.endswith("answers.\n")


def test_kernelspec(cli: CommandLine, tmp_path: Path) -> None:
    jupyter = {"JUPYTER_DATA_DIR": str(tmp_path / "jupyter")}
    install = cli("kernelspec", "install", "--session", "user-1", "--image", "example", **jupyter)
    assert install.returncode == 0, install.stderr
    spec = json.loads((tmp_path / "jupyter/kernels/docker-interpreter/kernel.json").read_text())
    assert spec["metadata"]["kernel_provisioner"] == {
        "provisioner_name": "docker-interpreter",
        "config": {"session_key": "user-1", "image": "example"},
    }
    assert spec["language"] == "python"
    assert spec["interrupt_mode"] == "message"
    assert "{connection_file}" in spec["argv"]
    assert cli("kernelspec", "remove", **jupyter).returncode == 0
    assert not (tmp_path / "jupyter/kernels/docker-interpreter").exists()
    again = cli("kernelspec", "remove", **jupyter)
    assert again.returncode == 1
    assert "no kernel 'docker-interpreter'" in again.stderr


def test_kernelspec_below_a_prefix_under_another_name(cli: CommandLine, tmp_path: Path) -> None:
    install = cli("kernelspec", "install", "--prefix", "below", "--name", "chat")
    assert install.returncode == 0, install.stderr
    spec = json.loads((tmp_path / "below/share/jupyter/kernels/chat/kernel.json").read_text())
    assert spec["metadata"]["kernel_provisioner"]["config"] == {"session_key": "", "image": ""}


def test_kernelspec_of_somebody_else_is_left_alone(cli: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "jupyter/kernels/other"
    folder.mkdir(parents=True)
    (folder / "kernel.json").write_text(json.dumps({"argv": ["x"], "display_name": "x", "language": "x"}))
    run = cli("kernelspec", "remove", "--name", "other", JUPYTER_DATA_DIR=str(tmp_path / "jupyter"))
    assert run.returncode == 1
    assert (folder / "kernel.json").exists()


def test_kernelspec_goes_to_one_place(cli: CommandLine) -> None:
    assert cli("kernelspec", "install", "--user", "--sys-prefix").returncode == 2
    assert cli("kernelspec", "install", "--name", "no/name", "--prefix", "p").returncode == 1


@pytest.mark.parametrize(
    "command",
    [
        "",
        "run",
        "replay",
        "sessions",
        "sessions stop",
        "sessions follow",
        "image build",
        "engine start",
        "kernelspec",
        "doctor",
    ],
)
def test_help(cli: CommandLine, command: str) -> None:
    run = cli(*command.split(), "--help")
    assert run.returncode == 0
    assert f"Usage: docker-interpreter {command}".strip() in " ".join(run.stdout.split())
    assert "\x1b" not in run.stdout


def test_help_of_run_explains_its_exit_codes(cli: CommandLine) -> None:
    text = cli("run", "--help").stdout
    for code in ("0", "1", "2", "124", "125", "130", "137"):
        assert f" {code}: " in text


def test_help_loads_no_engine(cli: CommandLine) -> None:
    command = [COMMAND[0], "-X", "importtime", *COMMAND[1:], "--help"]
    run = subprocess.run(command, capture_output=True, text=True, env=cli.environment, cwd=cli.folder, check=True)
    loaded = set(re.findall(r"\| +([\w.]+)$", run.stderr, re.MULTILINE))
    assert "session_manager.cli.app" in loaded
    assert not loaded & {"docker", "nbformat", "session_manager.cli.run", "session_manager.cli.doctor"}


def test_version(cli: CommandLine) -> None:
    assert re.match(r"docker-interpreter\b", cli("--version").stdout)
