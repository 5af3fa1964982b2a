"""The supervisor as a process of its own, asked over its socket. Most tests give it a kernel of a few lines."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

import session_manager

KERNEL_IMAGE = Path(session_manager.__file__).parents[1] / "kernel_image"
PATIENCE = 30.0
SHORT = 0.3
"""The turn's time limit here, in seconds."""

STAND_IN = """
import os, signal, sys, time
from pathlib import Path

connection_file, ready_descriptor, activity = sys.argv[1:]

def ready():
    os.write(int(ready_descriptor), b"1")
    os.close(int(ready_descriptor))

def wait_for(name):
    while not Path(name).exists():
        time.sleep(0.005)

Path("pid").write_text(str(os.getpid()))
exec(Path("code.py").read_text())
"""
"""A kernel's beginning; what it does next is in the workspace."""

WAITING = "ready()\nwhile True: time.sleep(60)"

BUSY = "Path(activity).write_bytes(b'B')\n" + WAITING
"""No turn is taken away."""

DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        Path("daemon.new").write_text(str(os.getpid()))
        os.rename("daemon.new", "daemon")
        while True: time.sleep(60)
    os._exit(0)
os.wait()
wait_for("daemon")
"""
"""A process that leaves the kernel's session and outlives its parent."""

START = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import supervisor
supervisor.TURN_SECONDS = {turn}
sys.exit(supervisor.main())
"""

Fields = Mapping[str, Any]


class Control:
    """One connection to the supervisor."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(PATIENCE)
        self.lines = self.socket.makefile("rb")
        self.events: list[Fields] = []
        self.ids = iter(range(1, 1000))

    def close(self) -> None:
        self.lines.close()
        self.socket.close()

    def send(self, line: bytes) -> None:
        self.socket.sendall(line + b"\n")

    def ask(self, op: str) -> int:
        """Send a request; its id."""
        number = next(self.ids)
        self.send(json.dumps({"id": number, "op": op}).encode())
        return number

    def line(self) -> Fields:
        line = self.lines.readline()
        assert line, "the supervisor closed the connection"
        fields: Fields = json.loads(line)
        return fields

    def answer(self, number: int | None) -> Fields:
        """The answer to a request; events that come before it are kept."""
        while True:
            fields = self.line()
            if "event" not in fields:
                assert fields["id"] == number
                return fields
            self.events.append(fields)

    def request(self, op: str) -> Fields:
        return self.answer(self.ask(op))

    def event(self, **expected: object) -> Fields:
        """The next event, or the next that was kept, in which all this is so."""
        while True:
            fields = self.events.pop(0) if self.events else self.line()
            if expected.items() <= fields.items():
                return fields

    def is_quiet(self, seconds: float) -> bool:
        """Whether nothing comes for a while."""
        self.socket.settimeout(seconds)
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE)


class Supervised:
    """A supervisor, its directories, and who is connected."""

    def __init__(self, directory: Path, program: Path, idle: float) -> None:
        self.runtime, self.workspace = directory / "run", directory / "files"
        self.workspace.mkdir(exist_ok=True)
        self.log = (directory / "log").open("wb")
        code = START.format(turn=SHORT)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(program), str(self.runtime), str(self.workspace), str(idle)],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        self.clients: list[Control] = []

    def client(self) -> Control:
        path = self.runtime / "supervisor.sock"
        deadline = time.monotonic() + PATIENCE
        connection = socket.socket(socket.AF_UNIX)
        self.clients.append(Control(connection))
        while connection.connect_ex(str(path)) != 0:
            assert time.monotonic() < deadline, "nothing listens"
            time.sleep(0.01)
        return self.clients[-1]

    def attached(self) -> Control:
        """A connection that hears of the kernel, which is ready."""
        client = self.client()
        if client.request("attach")["kernel"]["state"] != "ready":
            client.event(state="ready")
        return client

    def pid(self) -> int:
        return int((self.workspace / "pid").read_text())

    def stop(self) -> None:
        for client in self.clients:
            client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.close()


Start = Callable[..., Supervised]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a supervisor with a stand-in for the kernel, that does what ``code`` says."""
    started: list[Supervised] = []
    with tempfile.TemporaryDirectory(prefix="sup-") as name:
        directory = Path(name)
        for source in ("supervisor.py", "processes.py"):
            shutil.copy(KERNEL_IMAGE / source, directory)
        (directory / "launch_kernel.py").write_text(STAND_IN)

        def make(code: str = WAITING, idle: float = 600) -> Supervised:
            (directory / "files").mkdir()
            (directory / "files" / "code.py").write_text(code)
            started.append(Supervised(directory, directory, idle))
            return started[-1]

        yield make
        for supervised in started:
            supervised.stop()
            words = (directory / "log").read_text()
            assert supervised.process.returncode == 0, words
            assert "Traceback" not in words


def is_running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.005)


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
    key = client.request("attach")["connection"]["key"]
    file = supervised.runtime / "kernel.json"
    file.write_text('{"key": "another"}')
    assert client.request("attach")["connection"]["key"] == key
    for content in ("[]", "", "3"):
        file.write_text(content)
        client.ask("attach")
        client.answer(None)
    file.unlink()
    assert client.request("attach")["connection"] == {"key": key}
    client.request("restart")
    client.event(state="ready", generation=2)
    assert client.request("attach")["connection"]["ip"] == str(supervised.runtime / "kernel")


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


INTERRUPTIBLE = """
def note(number, frame):
    with open("interrupted", "a") as file: file.write(f"{os.getpid()} ")
signal.signal(signal.SIGINT, note)
"""


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
    assert client.request("interrupt") == {"id": 2}
    child = (supervised.workspace / "child").read_text()
    noted = supervised.workspace / "interrupted"
    wait_until(lambda: noted.exists() and set(noted.read_text().split()) == {str(supervised.pid()), child})


def test_a_kernel_that_left_its_group_is_interrupted_all_the_same(start: Start) -> None:
    supervised = start(f"{INTERRUPTIBLE}os.setpgid(0, os.getpgid(os.getppid()))\n{WAITING}")
    client = supervised.attached()
    assert client.request("interrupt") == {"id": 2}
    noted = supervised.workspace / "interrupted"
    wait_until(lambda: noted.exists() and noted.read_text().split() == [str(supervised.pid())])


def test_an_interrupt_without_a_kernel_is_nothing(start: Start) -> None:
    supervised = start("ready()\nwait_for('go')")
    client = supervised.attached()
    (supervised.workspace / "go").touch()
    client.event(state="dead", exit_code=0)
    assert client.request("interrupt") == {"id": 2}


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


# -- requests ---

MALFORMED = {
    "no JSON": b"{",
    "nothing": b"",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "a string": b'"status"',
    "no op": b'{"id": 1}',
    "an op that is none": b'{"id": 1, "op": ["status"]}',
    "no id": b'{"op": "status"}',
    "no id to wait for": b'{"op": "acquire"}',
    "no UTF-8": b'{"id": 1, "op": "\xff"}',
    "deep": b"[" * 60_000,
    "a number of many digits": b'{"id": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("line", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_is_answered_and_survived(start: Start, line: bytes) -> None:
    client = start().client()
    client.send(line)
    assert "error" in client.line()
    assert client.request("status")["busy"] is False


def test_an_unknown_op_is_refused(start: Start) -> None:
    client = start().client()
    assert "unknown op 'fly'" in client.request("fly")["error"]


def test_a_line_without_an_end_closes_its_connection_alone(start: Start) -> None:
    supervised = start()
    client, other = supervised.client(), supervised.client()
    client.socket.sendall(b"x" * 65537)
    assert client.lines.readline() == b""
    assert "kernel" in other.request("status")


def test_requests_may_come_in_pieces_and_together(start: Start) -> None:
    client = start().client()
    for byte in b'{"id": 1, "op": "status"}\n':
        client.socket.sendall(bytes([byte]))
    assert client.line()["id"] == 1
    client.send(b'{"id": "a", "op": "status"}\n{"id": null, "op": "status"}')
    assert [client.line()["id"] for _ in range(2)] == ["a", None]


def test_a_client_that_never_reads_is_dropped_and_holds_up_nobody(start: Start) -> None:
    supervised = start()
    deaf, other = supervised.client(), supervised.client()
    deaf.socket.settimeout(0.2)
    with pytest.raises(OSError, match=r"timed out|Broken pipe|reset"):
        while True:
            deaf.socket.sendall(b'{"id": 1, "op": "status"}\n' * 100)
    assert other.request("status")["id"] == 1


def test_status_says_what_runs(start: Start) -> None:
    supervised = start(BUSY)
    client = supervised.attached()
    status = client.request("status")
    assert (status["busy"], status["attached"]) == (True, 1)
    assert 0 <= status["idle"] <= status["age"] + 1 < PATIENCE
    assert status["memory"] > 1 << 20
    (supervised.runtime / "activity").write_text('I{"msg_id": "m", "ok": true}')
    status = client.request("status")
    assert (status["busy"], status["last_cell"]) == (False, {"msg_id": "m", "ok": True})
    for damage in ("I", "I{", "I" + "[" * 10_000, ""):
        (supervised.runtime / "activity").write_text(damage)
        assert client.request("status")["last_cell"] == {}
    (supervised.runtime / "activity").unlink()
    assert client.request("status")["busy"] is False


# -- the turn ---


def test_the_turn_goes_in_the_order_of_asking(start: Start) -> None:
    supervised = start(BUSY)
    first, second, third, leaving = (supervised.client() for _ in range(4))
    first.request("acquire")
    first.request("acquire")
    asked_third = third.ask("acquire")
    first.event(event="turn wanted")
    leaving.ask("acquire")
    first.event(event="turn wanted")
    asked_second = second.ask("acquire")
    first.event(event="turn wanted")
    assert leaving.request("release") == {"id": 2}
    assert second.is_quiet(0.05)
    assert first.request("release") == {"id": 3}
    assert third.answer(asked_third) == {"id": 1}
    third.event(event="turn wanted")
    assert second.is_quiet(0.05)
    third.close()
    assert second.answer(asked_second) == {"id": 1}
    assert leaving.is_quiet(0.05)
    second.request("release")
    assert leaving.request("acquire") == {"id": 3}


def test_a_turn_that_nothing_runs_in_is_taken_away_when_another_waits(start: Start) -> None:
    supervised = start(BUSY)
    client, other = supervised.attached(), supervised.client()
    client.request("acquire")
    asked = other.ask("acquire")
    client.event(event="turn wanted")
    assert client.is_quiet(3 * SHORT)
    (supervised.runtime / "activity").write_text("I{}")
    client.event(event="turn lost")
    assert other.answer(asked) == {"id": asked}
    client.ask("acquire")
    other.event(event="turn wanted")


# -- the end ---


def rest_since(supervised: Supervised, seconds: float) -> None:
    """As if the last cell had ended so long ago."""
    activity = supervised.runtime / "activity"
    activity.write_text("I{}")
    os.utime(activity, (time.time() - seconds,) * 2)


def test_nobody_attached_and_nothing_run_for_the_idle_time_is_the_end(start: Start) -> None:
    supervised = start(idle=1.5)
    supervised.client()  # who only asks is not attached
    assert supervised.process.wait(PATIENCE) == 0


def test_whoever_is_attached_keeps_it_alive_and_may_come_back(start: Start) -> None:
    supervised = start(idle=10)
    client = supervised.attached()
    rest_since(supervised, 1000)
    assert client.request("status")["idle"] > 900
    client.close()
    client = supervised.client()
    assert client.request("attach")["kernel"]["state"] == "ready"
    assert client.request("status")["idle"] > 900


def test_a_cell_that_runs_keeps_it_alive(start: Start) -> None:
    supervised = start(BUSY, idle=1.5)
    supervised.attached().close()
    time.sleep(2.5)
    assert supervised.process.poll() is None
    rest_since(supervised, 1000)
    assert supervised.process.wait(PATIENCE) == 0


# -- several things at once ---


class Stopped:
    """The supervisor finds all that happens meanwhile in one wake-up."""

    def __init__(self, supervised: Supervised) -> None:
        self.process = supervised.process

    def __enter__(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        stat = Path(f"/proc/{self.process.pid}/stat")
        wait_until(lambda: stat.read_bytes().rpartition(b")")[2].split()[0] == b"T")

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("goes_first", [False, True])
def test_a_client_that_goes_as_another_asks_for_its_turn(start: Start, goes_first: bool) -> None:
    supervised = start(BUSY)
    holder, other = supervised.client(), supervised.client()
    holder.request("acquire")
    other.request("status")
    with Stopped(supervised):
        if goes_first:
            holder.close()
        asked = other.ask("acquire")
        holder.close()
    assert other.answer(asked) == {"id": asked}
    assert "kernel" in other.request("status")


def test_a_client_that_goes_without_waiting_for_its_answers_has_no_turn(start: Start) -> None:
    supervised = start(BUSY)
    hasty, other = supervised.client(), supervised.client()
    hasty.request("status")
    with Stopped(supervised):
        hasty.send(b'{"id": 2, "op": "status"}\n{"id": 3, "op": "acquire"}')
        hasty.close()
    other.request("status")
    assert other.request("acquire") == {"id": 2}


def test_a_kernel_that_writes_as_it_is_restarted(start: Start) -> None:
    code = "ready()\nwait_for('go')\nos.unlink('go')\nos.write(1, b'words')\nPath('written').touch()\n"
    supervised = start(code + "while True: time.sleep(60)")
    client = supervised.attached()
    for generation in (2, 3):
        with Stopped(supervised):
            asked = client.ask("restart")
            (supervised.workspace / "go").touch()
            wait_until((supervised.workspace / "written").exists)
            (supervised.workspace / "written").unlink()
        client.answer(asked)
        client.event(state="ready", generation=generation)


# -- with the kernel that containers run ---


@pytest.fixture(scope="module")
def real() -> Iterator[Supervised]:
    with tempfile.TemporaryDirectory(prefix="sup-") as name:
        supervised = Supervised(Path(name), KERNEL_IMAGE, 600)
        yield supervised
        supervised.stop()
        assert supervised.process.returncode == 0, (Path(name) / "log").read_text()


@pytest.fixture
def jupyter(real: Supervised) -> Iterator[tuple[Control, BlockingKernelClient]]:
    """A connection to the supervisor, and one to its kernel."""
    control = real.attached()
    connection = control.request("attach")["connection"]
    client = BlockingKernelClient()
    client.load_connection_info(connection)
    client.start_channels()
    client.wait_for_ready(timeout=PATIENCE)
    yield control, client
    client.stop_channels()
    control.close()


def execute(client: BlockingKernelClient, code: str) -> dict[str, Any]:
    """What the reply says."""
    content: dict[str, Any] = client.execute_interactive(
        code, timeout=PATIENCE, output_hook=lambda _: None, user_expressions={"x": "x"}
    )["content"]
    return content


def test_a_real_kernel_is_watched_and_interrupted(jupyter: tuple[Control, BlockingKernelClient]) -> None:
    control, client = jupyter
    assert execute(client, "x = 41 + 1")["status"] == "ok"
    msg_id = client.execute("import time; time.sleep(60)", reply=False)
    wait_until(lambda: control.request("status")["busy"])
    control.request("interrupt")
    reply = client.get_shell_msg(timeout=PATIENCE)
    assert (reply["parent_header"]["msg_id"], reply["content"]["ename"]) == (msg_id, "KeyboardInterrupt")
    status = control.request("status")
    assert status["busy"] is False
    assert status["last_cell"] == {"msg_id": msg_id, "ok": False, "ename": "KeyboardInterrupt", "evalue": ""}
    content = execute(client, "pass")
    assert content["user_expressions"]["x"]["data"] == {"text/plain": "42"}
    assert control.request("status")["last_cell"]["ok"] is True


def test_a_real_kernel_that_is_killed_is_followed_by_a_fresh_one(
    real: Supervised, jupyter: tuple[Control, BlockingKernelClient]
) -> None:
    control, client = jupyter
    generation = control.request("status")["kernel"]["generation"]
    client.execute("import os, signal; x = 1; os.kill(os.getpid(), signal.SIGKILL)", reply=False)
    assert control.event(state="dead", generation=generation)["signal"] == signal.SIGKILL
    control.request("restart")
    control.event(state="ready", generation=generation + 1)
    fresh = BlockingKernelClient()
    fresh.load_connection_info(control.request("attach")["connection"])
    fresh.start_channels()
    fresh.wait_for_ready(timeout=PATIENCE)
    assert execute(fresh, "y = 1")["user_expressions"]["x"]["ename"] == "NameError"
    fresh.stop_channels()
