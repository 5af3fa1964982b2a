"""``doctor --security``, and what ``doctor`` warns of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from session_manager.cli.doctor_warnings import (
    address_warnings,
    engine_warnings,
    isolation_warnings,
    program_warnings,
    version_of,
)

from .conftest import CommandLine


def test_each_promise_is_shown(docker_cli: CommandLine) -> None:
    done = docker_cli("doctor", "--security")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith("kept ") for line in lines[1:]) and len(lines) > 19
    found = json.loads(docker_cli("doctor", "--security", "--json").stdout)
    assert found["ok"] is True and len(found["promises"]) == len(lines) - 1
    assert docker_cli("sessions").stdout == "No sessions.\n"


def test_the_process_engine_promises_nothing(cli: CommandLine) -> None:
    done = cli("doctor", "--security", "--engine", "process")
    assert done.returncode == 1 and "promises nothing" in done.stderr


def test_warnings_change_nothing(docker_cli: CommandLine) -> None:
    done = docker_cli("doctor", "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 0 and said["ok"] is True and isinstance(said["warnings"], list)


@pytest.mark.parametrize(
    ("text", "version"),
    [("1.1.5+ds1", (1, 1, 5)), ("v1.6.20", (1, 6, 20)), ("1.4", (1, 4, 0)), ("unknown", ()), ("", ())],
)
def test_versions(text: str, version: tuple[int, ...]) -> None:
    assert version_of(text) == version


@pytest.mark.parametrize(
    ("component", "version", "holes"),
    [
        ("runc", "1.1.5+ds1", ["CVE-2024-21626", "CVE-2025-31133"]),
        ("runc", "1.1.12", ["CVE-2025-31133"]),
        ("runc", "1.2.7", ["CVE-2025-31133"]),
        ("runc", "1.2.8", []),
        ("runc", "1.3.2", ["CVE-2025-31133"]),
        ("runc", "1.3.3", []),
        ("runc", "1.4.0", []),
        ("containerd", "1.5.9", ["CVE-2022-23648"]),
        ("containerd", "1.6.20~ds1", []),
        ("containerd", "v2.1.0", []),
        ("containerd", "unknown", []),
        ("something", "0.0.1", []),
    ],
)
def test_known_holes(component: str, version: str, holes: list[str]) -> None:
    warnings = list(engine_warnings({"Components": [{"Name": component, "Version": version}]}, {}))
    assert [hole for hole in holes if any(hole in warning for warning in warnings)] == holes
    assert len(warnings) == len(holes)


def test_an_engine_that_says_nothing_of_itself_is_not_warned_of() -> None:
    assert list(engine_warnings({"Components": None}, {})) == list(engine_warnings({}, {})) == []
    assert list(isolation_warnings({})) == []


@pytest.mark.parametrize(
    ("version", "plugins", "warned"),
    [
        ("20.10.24+dfsg1", ["authz"], True),
        ("20.10.24+dfsg1", [], False),
        ("20.10.24+dfsg1", None, False),
        ("24.0.9", ["authz"], True),
        ("25.0.6", ["authz"], False),
        ("26.1.4", ["authz"], True),
        ("27.1.0", ["authz"], True),
        ("27.1.1", ["authz"], False),
        ("29.0.0", ["authz"], False),
    ],
)
def test_holes_in_what_asks_plugins_concern_engines_that_have_some(
    version: str, plugins: list[str] | None, warned: bool
) -> None:
    components = {"Components": [{"Name": "Engine", "Version": version}]}
    warnings = list(engine_warnings(components, {"Plugins": {"Authorization": plugins}}))
    assert ["CVE-2024-41110" in warning for warning in warnings] == [True] * warned


def test_an_engine_that_can_not_hold_containers_to_limits() -> None:
    able = {"MemoryLimit": True, "SwapLimit": True, "PidsLimit": True, "CpuCfsQuota": True}
    assert list(isolation_warnings({**able, "SecurityOptions": ["name=seccomp,profile=builtin"]})) == []
    for name, word in (("MemoryLimit", "memory"), ("SwapLimit", "swap"), ("PidsLimit", "processes")):
        (warning,) = isolation_warnings({**able, name: False})
        assert word in warning


@pytest.mark.parametrize("options", [[], ["name=apparmor"], ["name=seccomp,profile=unconfined", "name=cgroupns"]])
def test_an_engine_without_a_seccomp_profile(options: list[str]) -> None:
    (warning,) = isolation_warnings({"SecurityOptions": options})
    assert "without its seccomp profile" in warning


def test_a_socket_that_everybody_may_write_to(tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    socket.touch()
    socket.chmod(0o660)
    assert list(address_warnings(f"unix://{socket}")) == []
    socket.chmod(0o666)
    assert "chmod o-w" in next(address_warnings(f"unix://{socket}"))
    assert list(address_warnings(f"unix://{tmp_path}/nowhere")) == []


def test_an_address_without_protection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_TLS_VERIFY", raising=False)
    assert "Nothing protects tcp://somewhere:2375" in next(address_warnings("tcp://somewhere:2375"))
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    assert list(address_warnings("tcp://somewhere:2376")) == []


def test_root_is_warned() -> None:
    assert "runs as root" in next(program_warnings(0))
    assert list(program_warnings(1000)) == []
