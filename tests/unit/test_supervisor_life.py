"""The kernel's life, as its supervisor sees to it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from .supervised import (
    BUSY,
    DAEMON,
    INTERRUPTIBLE,
    PATIENCE,
    WAITING,
    Control,
    Start,
    Supervised,
    is_running,
    wait_until,
)

# -- the kernel's life ---


def test_whoever_attaches_gets_the_key_and_the_kernels_state(start: Start) -> None:
    supervised = start()
    hello = supervised.attached().request("attach")
    assert hello["kernel"] == {"event": "kernel", "state": "ready", "generation": 1}
    key = hello["connection"]["key"]
    assert len(key) == 64
    file = supervised.runtime / "kernel.json"
    assert json.loads(file.read_text()) == hello["connection"]
    assert (file.stat().st_mode & 0o777, supervised.runtime.stat().st_mode & 0o777) == (0o600, 0o700)
    for place in ("environ", "cmdline"):
        for pid in (supervised.process.pid, supervised.pid()):
            assert key.encode() not in Path(f"/proc/{pid}/{place}").read_bytes()


def test_the_kernel_leads_a_group_of_its_own(start: Start) -> None:
    supervised = start()
    supervised.attached()
    assert os.getpgid(supervised.pid()) == supervised.pid()


def test_a_connection_file_that_was_changed_or_removed_costs_no_key(start: Start) -> None:
    supervised = start()
    client = supervised.attached()
    connection = client.request("attach")["connection"]
    file = supervised.runtime / "kernel.json"
    for content in ('{"key": "another"}', "[]", "", "3"):
        file.write_text(content)
        assert client.request("attach")["connection"] == connection
    file.unlink()
    assert client.request("attach")["connection"] == connection
    client.request("restart")
    client.event(state="ready", generation=2)
    assert json.loads(file.read_text()) == connection


PLACED = {
    "a pipe": "os.mkfifo(path)",
    "a folder": "os.makedirs(os.path.join(path, 'deep'))",
    "a device without end": "os.symlink('/dev/zero', path)",
    "a link to nowhere": "os.symlink('nowhere/at/all', path)",
    "a socket": "socket.socket(socket.AF_UNIX).bind(path)",
}


@pytest.mark.parametrize("name", ["activity", "kernel.json", "kernel-1"])
@pytest.mark.parametrize("how", PLACED.values(), ids=PLACED)
def test_whatever_the_code_puts_in_the_place_of_its_files_is_survived(start: Start, name: str, how: str) -> None:
    code = f"""
path = os.path.join(os.path.dirname(connection_file), {name!r})
ready()
if not Path("placed").exists():
    if os.path.lexists(path): os.remove(path)
    {how}
    Path("placed").touch()
while True: time.sleep(60)
"""
    supervised = start(code)
    client = supervised.attached()
    wait_until(lambda: (supervised.workspace / "placed").exists())
    status = client.request("status")
    assert (status["busy"], status["running"], status["last_cell"]) == (False, None, {})
    assert client.request("attach")["connection"]["ip"] == str(supervised.runtime / "kernel")
    client.request("restart")
    client.event(state="ready", generation=2)
    assert json.loads((supervised.runtime / "kernel.json").read_text())["key"]


def test_how_a_kernel_ended_by_itself(start: Start) -> None:
    code = "ready()\nwait_for('go')\nsys.stderr.write('x' * 10_000 + ' the end')\nsys.stderr.flush()\nsys.exit(7)"
    supervised = start(code)
    client = supervised.attached()
    (supervised.workspace / "go").touch()
    dead = client.event(state="dead")
    assert (dead["generation"], dead["exit_code"], dead["signal"]) == (1, 7, None)
    assert dead["out_of_memory"] is False
    assert dead["last_words"].endswith("x the end")
    assert len(dead["last_words"]) == 4096
    assert client.request("status")["kernel"] == dead


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_kernel_that_a_signal_ended(start: Start, number: int) -> None:
    supervised = start()
    client = supervised.attached()
    os.kill(supervised.pid(), number)
    dead = client.event(state="dead")
    assert (dead["exit_code"], dead["signal"], dead["out_of_memory"]) == (None, number, False)


def test_a_kernel_that_ends_as_it_starts_was_never_ready(start: Start) -> None:
    supervised = start("print('no such module', flush=True)\nwait_for('go')\nos._exit(1)")
    client = supervised.client()
    assert client.request("attach")["kernel"]["state"] == "starting"
    (supervised.workspace / "go").touch()
    dead = client.event()
    assert (dead["state"], dead["exit_code"], dead["last_words"]) == ("dead", 1, "no such module\n")


def test_restarting_is_done_when_it_is_answered(start: Start) -> None:
    supervised = start()
    client, other = supervised.attached(), supervised.attached()
    before = supervised.pid()
    client.request("restart")
    states = [(event["state"], event["generation"]) for event in client.events]
    assert states == [("dead", 1), ("starting", 2)]
    assert not is_running(before)
    client.event(state="ready", generation=2)
    other.event(state="ready", generation=2)
    assert supervised.pid() != before


def test_a_dead_kernel_and_a_starting_one_can_be_restarted(start: Start) -> None:
    supervised = start("Path('begun').touch()\nwait_for('go')\n" + WAITING)
    client = supervised.client()
    client.request("attach")
    wait_until((supervised.workspace / "begun").exists)
    client.request("restart")
    (supervised.workspace / "go").touch()
    client.event(state="ready", generation=2)
    os.kill(supervised.pid(), signal.SIGKILL)
    client.event(state="dead", generation=2)
    client.request("restart")
    client.event(state="ready", generation=3)


FORKED = """
child = os.fork()
if child:
    wait_for("child")
    ready()
else:
    Path("child.new").write_text(str(os.getpid()))
    os.rename("child.new", "child")
while True: time.sleep(60)
"""


def test_an_interrupt_reaches_the_kernel_and_what_it_runs(start: Start) -> None:
    supervised = start(INTERRUPTIBLE + FORKED)
    client = supervised.attached()
    supervised.record("B", msg_id="m")
    assert client.request("interrupt") == {"id": 2, "interrupted": True}
    child = (supervised.workspace / "child").read_text()
    noted = supervised.workspace / "interrupted"
    wait_until(lambda: noted.exists() and set(noted.read_text().split()) == {str(supervised.pid()), child})


def test_a_kernel_that_left_its_group_is_interrupted_all_the_same(start: Start) -> None:
    supervised = start(f"{INTERRUPTIBLE}os.setpgid(0, os.getpgid(os.getppid()))\n{WAITING}")
    client = supervised.attached()
    assert client.request("interrupt") == {"id": 2, "interrupted": False}
    noted = supervised.workspace / "interrupted"
    wait_until(lambda: noted.exists() and noted.read_text().split() == [str(supervised.pid())])


def test_an_interrupt_without_a_kernel_is_nothing(start: Start) -> None:
    supervised = start("ready()\nwait_for('go')")
    client = supervised.attached()
    (supervised.workspace / "go").touch()
    client.event(state="dead", exit_code=0)
    assert client.request("interrupt") == {"id": 2, "interrupted": False}


def restarted(supervised: Supervised, client: Control) -> None:
    client.request("restart")


def killed(supervised: Supervised, client: Control) -> None:
    os.kill(supervised.pid(), signal.SIGKILL)
    client.event(state="dead")


def shut_down(supervised: Supervised, client: Control) -> None:
    client.request("shutdown")
    assert supervised.process.wait(PATIENCE) == 0


def terminated(supervised: Supervised, client: Control) -> None:
    supervised.process.terminate()
    assert supervised.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("end", [shut_down, terminated])
def test_the_end_of_a_session_is_not_told_as_the_death_of_its_python(
    start: Start, end: Callable[[Supervised, Control], None]
) -> None:
    # what is killed has ended before the supervisor looks: else it may be gone itself before it sees that
    slow = "lambda pid, number, kill=supervisor.os.kill: (kill(pid, number), supervisor.time.sleep(0.2))"
    supervised = start(BUSY, changes={"supervisor.os.kill": slow})
    client = supervised.attached()
    end(supervised, client)
    assert client.lines.read() == b""
    assert not [event for event in client.events if event["state"] == "dead"]


@pytest.mark.parametrize("end", [restarted, killed, shut_down, terminated])
def test_what_a_kernel_started_does_not_outlive_it(start: Start, end: Callable[[Supervised, Control], None]) -> None:
    supervised = start(DAEMON + WAITING)
    client = supervised.attached()
    kernel, daemon = supervised.pid(), int((supervised.workspace / "daemon").read_text())
    assert is_running(daemon)
    assert os.getsid(daemon) != os.getsid(kernel)
    (supervised.workspace / "daemon").unlink()
    end(supervised, client)
    assert not is_running(kernel)
    assert not is_running(daemon)
