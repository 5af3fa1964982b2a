"""Finding the engine, and starting and stopping one of our own: with a daemon that only says who it is."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from session_manager import host
from session_manager.debian import find_program, install_packages, run
from session_manager.engine.docker_host import (
    DEFAULT_DOCKER_HOST,
    connect,
    find_docker_host,
    is_denied,
    resolve_docker_host,
    unavailable,
)
from session_manager.errors import EngineError, EngineUnavailable, HostError
from session_manager.state_directory import exclusive, state_directory

DAEMON = """#!{python}
import http.server, json, os, socketserver, sys
print("a daemon's log", flush=True)
if os.path.exists({trouble!r}):
    print("no space left on device", flush=True)
    sys.exit(1)
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({{"ApiVersion": "1.41"}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return "test"
with socketserver.UnixStreamServer({socket!r}, Answers) as server:
    server.serve_forever()
"""


@pytest.fixture(autouse=True)
def nobodys_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine, context or state but what a test makes."""
    for variable in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(host, "SYSTEMD", tmp_path / "no-systemd")
    monkeypatch.setattr(host, "PID_FILE", tmp_path / "docker.pid")
    monkeypatch.setattr(host, "can_install", lambda: True)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A dockerd that can be started, and answers at what counts as the default address."""
    programs = tmp_path / "bin"
    programs.mkdir()
    place, trouble = str(tmp_path / "docker.sock"), str(tmp_path / "trouble")
    (programs / "dockerd").write_text(DAEMON.format(python=sys.executable, socket=place, trouble=trouble))
    (programs / "iptables").write_text("#!/bin/sh\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(host, "DEFAULT_DOCKER_HOST", f"unix://{place}")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{place}")
    yield tmp_path
    host.stop_engine(lambda _: None)


def write_context(folder: Path, name: str, address: str, current: bool = True) -> None:
    meta = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    endpoints = {"docker": {"Host": address, "SkipTLSVerify": False}}
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": endpoints}))
    (folder / "config.json").write_text(json.dumps({"currentContext": name} if current else {}))


def test_the_address_comes_from_the_first_who_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_docker_host() == DEFAULT_DOCKER_HOST
    write_context(tmp_path / "docker", "desktop", "unix:///home/someone/.docker/run/docker.sock")
    assert resolve_docker_host() == "unix:///home/someone/.docker/run/docker.sock"
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert resolve_docker_host() == DEFAULT_DOCKER_HOST
    monkeypatch.setenv("DOCKER_HOST", "tcp://builder:2375")
    assert find_docker_host().source == "DOCKER_HOST"
    assert resolve_docker_host() == "tcp://builder:2375"
    assert resolve_docker_host("ssh://someone@far") == "ssh://someone@far"


def test_an_empty_docker_host_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "")
    assert resolve_docker_host("") == DEFAULT_DOCKER_HOST


def test_a_context_is_named_by_its_variable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_context(tmp_path / "docker", "rootless", "unix:///run/user/1000/docker.sock", current=False)
    assert resolve_docker_host() == DEFAULT_DOCKER_HOST
    monkeypatch.setenv("DOCKER_CONTEXT", "rootless")
    assert resolve_docker_host() == "unix:///run/user/1000/docker.sock"
    assert find_docker_host().source == "the docker context 'rootless'"


@pytest.mark.parametrize(
    "url", ["unix:///run/some.sock", "unix://run/some.sock", "/run/some.sock", " unix:///run/some.sock"]
)
def test_ways_to_write_a_socket(url: str) -> None:
    assert resolve_docker_host(url) == "unix:///run/some.sock"


@pytest.mark.parametrize("url", ["ftp://host:21", "tcp://host", "tcp://host:port"])
def test_an_address_that_can_not_be_used_is_refused_by_name(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", url)
    with pytest.raises(EngineUnavailable, match="DOCKER_HOST"):
        resolve_docker_host()


def test_a_context_that_does_not_exist_or_can_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_context(tmp_path / "docker", "broken", "unix:///run/x.sock")
    next((tmp_path / "docker").rglob("meta.json")).write_text("{")
    with pytest.raises(EngineUnavailable, match="can't be read"):
        resolve_docker_host()
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    with pytest.raises(EngineUnavailable, match="nowhere"):
        resolve_docker_host()


def test_nothing_there_and_not_allowed_are_different_sentences(tmp_path: Path) -> None:
    absent = tmp_path / "absent.sock"
    with pytest.raises(EngineUnavailable, match="No container engine answers") as caught:
        connect(f"unix://{absent}")
    assert caught.value.remedy is not None
    assert "DOCKER_HOST" in caught.value.remedy
    deaf = tmp_path / "deaf.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(deaf))  # and nobody listens
        with pytest.raises(EngineUnavailable, match="No container engine answers"):
            connect(f"unix://{deaf}")
    outer = RuntimeError("Connection aborted.", PermissionError(13, "Permission denied"))
    assert is_denied(outer)
    denied = unavailable("unix:///x", outer)
    assert "may not use it" in denied.message
    assert denied.remedy is not None
    assert "docker" in denied.remedy


def test_an_engine_is_started_in_a_session_of_its_own_and_stopped_again(daemon: Path) -> None:
    lines: list[str] = []
    kept_open, other_end = os.pipe()
    os.set_inheritable(other_end, True)
    address = host.ensure_engine(lines.append)
    started = host.read_record()
    assert started is not None
    assert address == f"unix://{daemon}/docker.sock"
    assert os.getsid(started.pid) == started.pid
    descriptors = [str(entry.readlink()) for entry in Path(f"/proc/{started.pid}/fd").iterdir()]
    assert str(Path(f"/proc/self/fd/{other_end}").readlink()) not in descriptors
    assert "a daemon's log" in Path(started.log).read_text()
    os.close(kept_open)
    os.close(other_end)

    before = len(lines)
    assert host.ensure_engine(lines.append) == address
    assert len(lines) == before
    assert host.read_record() == started

    assert host.stop_engine(lines.append) is True
    with pytest.raises(EngineUnavailable):
        connect(address)
    assert host.stop_engine(lines.append) is False


def test_an_engine_that_ends_at_once_is_reported_with_its_log(daemon: Path) -> None:
    (daemon / "trouble").touch()
    with pytest.raises(EngineUnavailable, match="no space left on device"):
        host.ensure_engine(lambda _: None)
    assert host.read_record() is None


def test_an_engine_that_somebody_else_starts_at_the_same_time_is_not_ours(
    daemon: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = daemon / "other"
    other.mkdir()
    (daemon / "bin" / "dockerd").rename(other / "dockerd")
    (daemon / "bin" / "dockerd").write_text(
        f'#!/bin/sh\n{other}/dockerd & echo $! > "{host.PID_FILE}"; echo "pid file found"; exit 1\n'
    )
    (daemon / "bin" / "dockerd").chmod(0o755)
    try:
        host.ensure_engine(lambda _: None)
        assert host.read_record() is None
        assert host.stop_engine(lambda _: None) is False
        connect().close()
    finally:
        os.kill(int(host.PID_FILE.read_text()), signal.SIGTERM)


def test_two_who_start_an_engine_get_one(daemon: Path) -> None:
    lines: list[str] = []
    threads = [threading.Thread(target=host.ensure_engine, args=(lines.append,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(line.startswith("Starting the engine") for line in lines) == 1


def test_a_daemon_that_runs_and_does_not_answer_is_left_alone(daemon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "START_SECONDS", 0.2)
    (daemon / "bin" / "dockerd").write_text("#!/bin/sh\nread line\n")
    with subprocess.Popen([daemon / "bin" / "dockerd"], stdin=subprocess.PIPE) as other:
        host.PID_FILE.write_text(f"{other.pid}\n")
        with pytest.raises(EngineUnavailable, match=rf"process {other.pid}\), but does not answer"):
            host.ensure_engine(lambda _: None)
        assert other.poll() is None


def test_another_process_with_the_recorded_id_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        record = host.StartedEngine(stranger.pid, host.start_time(stranger.pid) - 1, host.boot_id(), "log")
        host.record_path().write_text(json.dumps(host.asdict(record)))
        assert host.stop_engine(lambda _: None) is False
        assert stranger.poll() is None
        stranger.send_signal(signal.SIGKILL)
    assert host.read_record() is None


def test_a_record_that_makes_no_sense_is_named() -> None:
    host.record_path().write_text('{"pid": 1}')
    with pytest.raises(EngineError, match=r"engine\.json"):
        host.stop_engine(lambda _: None)


def test_an_engine_elsewhere_that_is_silent_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/elsewhere.sock")
    monkeypatch.setattr(host, "start_engine", lambda _: pytest.fail("started an engine that nobody asked for"))
    with pytest.raises(EngineUnavailable, match="named by DOCKER_HOST"):
        host.ensure_engine(lambda _: None)


def test_nothing_is_installed_where_that_is_not_ours_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "DEFAULT_DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("DOCKER_HOST", host.DEFAULT_DOCKER_HOST)
    monkeypatch.setattr(host, "can_install", lambda: False)
    monkeypatch.setattr(host, "start_engine", lambda _: pytest.fail("started an engine without being allowed to"))
    with pytest.raises(EngineUnavailable) as caught:
        host.ensure_engine(lambda _: None)
    assert caught.value.remedy is not None
    assert "--engine process" in caught.value.remedy


def test_missing_programs_are_installed_before_the_start(daemon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[str] = []
    monkeypatch.setattr(host, "find_program", lambda _: None)
    monkeypatch.setattr(host, "install_packages", lambda packages, _: installed.extend(packages))
    host.ensure_engine(lambda _: None)
    assert installed == ["docker.io", "iptables"]


def test_a_service_that_does_not_run_is_left_to_its_administrator(
    daemon: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "SYSTEMD", daemon)
    with pytest.raises(EngineUnavailable) as caught:
        host.ensure_engine(lambda _: None)
    assert caught.value.remedy is not None
    assert "systemctl start docker" in caught.value.remedy


def test_a_command_that_fails_says_what_it_said() -> None:
    lines: list[str] = []
    run(["sh", "-c", "echo one; echo two >&2"], lines.append)
    assert lines == ["one", "two"]
    with pytest.raises(HostError, match="exit code 4:\n  last words"):
        run(["sh", "-c", "echo last words; exit 4"], lines.append)
    with pytest.raises(HostError, match="no-such-program"):
        run(["no-such-program"], lines.append)


def test_packages_are_installed_without_recommended_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apt-get").write_text(
        '#!/bin/sh\necho "$DEBIAN_FRONTEND $*"\ncase "$*" in *update) exit "${UPDATE:-0}"; esac\n'
    )
    (tmp_path / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    lines: list[str] = []
    install_packages(["docker.io"], lines.append)
    update, install = lines
    assert update.startswith("noninteractive") and update.endswith("update")
    assert install.endswith("install --no-install-recommends docker.io")
    lines.clear()
    monkeypatch.setenv("UPDATE", "100")  # as where one of many sources is broken
    install_packages(["docker.io"], lines.append)
    assert "exit code 100" in lines[1]
    assert lines[2] == install


def test_programs_for_administrators_are_found_without_their_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_program("no-such-program") is None
    assert find_program("ldconfig") == "/sbin/ldconfig" or find_program("ldconfig") == "/usr/sbin/ldconfig"


def test_a_lock_is_held_by_one_and_let_go_by_the_dead() -> None:
    code = "import sys; from session_manager.state_directory import exclusive\n"
    code += "with exclusive('x', print): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        waited: list[str] = []

        def give_way() -> None:
            waited.append("waited")
            holder.kill()

        with exclusive("x", give_way):
            assert waited == ["waited"]
    assert state_directory().stat().st_mode & 0o777 == 0o700
